"""A plane that is killed again and again while packets flow: no counter is ever used twice."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import subprocess
import threading
import time
from collections import Counter

import pytest

from tests.plane import far
from tests.plane.harness import is_sanitized, wait_until
from tests.plane.namespace import Link, Namespace
from tests.plane.packets import numbered
from tests.plane.service_manager import ServiceManager, install, set_up
from tests.plane.tunnel import ROSTER_OFFSET

HERE = "10.1.0.1"
CRASHES = 1000
CRASHES_SANITIZED = 50  # such a program takes ten times as long to start
ALIVE_S = 0.004  # how long it may forward, at most, before it is killed
_HEADER = struct.Struct("<B3xIQ")


class Traffic:
    """Packets for the peer without a pause, and the header of every datagram that left for it."""

    def __init__(self, link: Link, away: socket.socket) -> None:
        self._link = link
        self._away = away
        self._stops = threading.Event()
        self.seen: Counter[tuple[int, int]] = Counter()
        self.arrived = 0
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._send, self._receive)]
        away.settimeout(0.05)

    def __enter__(self) -> Traffic:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stops.set()
        for each in self._threads:
            each.join(5)

    def _send(self) -> None:
        packets = [numbered(HERE, f"10.2.0.{1 + number % 250}", number) for number in range(64)]
        while not self._stops.is_set():
            for packet in packets:
                with contextlib.suppress(OSError):  # the queue is full while nobody reads it
                    self._link.send(packet)
            time.sleep(0.0005)

    def _receive(self) -> None:
        while not self._stops.is_set():
            with contextlib.suppress(TimeoutError):
                datagram = self._away.recv(65536)
                _, index, counter = _HEADER.unpack_from(datagram)
                self.seen[index, counter] += 1
                self.arrived += 1

    def wait_for_more(self, service: ServiceManager) -> None:
        """Returns when this life has got to work and another datagram has arrived."""
        before, deadline = self.arrived, time.monotonic() + 10
        while self.arrived == before or "READY=1" not in service.messages:
            assert service.child.poll() is None, f"the plane ended by itself: {service.said()[-500:]}"
            assert time.monotonic() < deadline, f"nothing is forwarded: {service.said()[-500:]}"
            time.sleep(0.0005)


class Standbys:
    """Starts the next one wherever one ended, as its unit does."""

    def __init__(self, service: ServiceManager) -> None:
        self._service = service
        self._one: subprocess.Popen[bytes] | None = None
        self.lives = 0

    def tend(self) -> None:
        if self._one is None or self._one.poll() is not None:
            self._one = self._service.start_standby()
            self.lives += 1

    def close(self) -> None:
        if self._one is not None:
            self._one.kill()
            self._one.wait(5)


@pytest.mark.parametrize("stands_by", [False, True], ids=["alone", "with a standby"])
def test_no_counter_appears_twice_on_the_wire_however_often_the_plane_is_killed(
    namespace: Namespace, service: ServiceManager, stands_by: bool
) -> None:
    """[B5, G7] Every other life is killed at any moment of it, its start included."""
    dice = random.Random(5)
    session = far.new_session()
    crashes = CRASHES_SANITIZED if is_sanitized() else CRASHES
    with contextlib.ExitStack() as stack:
        with contextlib.closing(service.connect()) as client:
            link, _, away = set_up(namespace, client, stack)
            install(client, session, away)
        service.collect()
        (store,) = service.store["store"]
        wait_until(lambda: os.pread(store, 4, ROSTER_OFFSET) != bytes(4), "the peers' list")
        standbys = stack.enter_context(contextlib.closing(Standbys(service)))
        traffic = stack.enter_context(Traffic(link, away))
        for crash in range(crashes):
            if crash % 2 == 0:
                traffic.wait_for_more(service)
                if stands_by:
                    standbys.tend()
                time.sleep(dice.uniform(0, ALIVE_S))
            else:
                time.sleep(dice.uniform(0, 0.03))
            service.kill()
            service.messages.clear()
            service.start()
        traffic.wait_for_more(service)
        service.collect()
        with contextlib.closing(service.connect()) as client:
            (listed,) = client.inventory().sessions
            assert listed.local_index == session.local_index
    if stands_by:
        assert standbys.lives > crashes // 4
    assert [pair for pair, times in traffic.seen.items() if times > 1] == []
    assert {index for index, _ in traffic.seen} == {session.remote_index}
    assert len(traffic.seen) > crashes
