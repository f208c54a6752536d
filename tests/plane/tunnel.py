"""A plane under the service manager, with all that makes a tunnel, and traffic for it both ways."""

from __future__ import annotations

import contextlib
import os

from tests.plane import far
from tests.plane.harness import wait_until
from tests.plane.namespace import Namespace
from tests.plane.packets import number_of, numbered
from tests.plane.service_manager import ServiceManager, install, set_up

HERE, THERE = "10.1.0.1", "10.2.0.7"
ROSTER_OFFSET = 24  # of store_head.roster_place


class Tunnel:
    """A plane under the service manager with one peer; of link and socket nobody else has a copy."""

    def __init__(self, namespace: Namespace, service: ServiceManager, closing: contextlib.ExitStack) -> None:
        self.namespace = namespace
        self.service = service
        self.session = far.new_session()
        with contextlib.closing(service.connect()) as client:
            self.link, udp, self.away = set_up(namespace, client, closing)
            install(client, self.session, self.away)
            self.before = client.inventory()
            self.born = client.hello.started_at
        self.address = udp.getsockname()
        self.link.close_queues()
        udp.close()
        service.collect()

    def send_out(self, number: int) -> None:
        self.link.send(numbered(HERE, THERE, number))

    def send_in(self, number: int) -> None:
        self.away.sendto(self.session.seal(numbered(THERE, HERE, number)), self.address)

    def arrived_out(self) -> far.Message:
        return self.session.open(far.receive(self.away))

    def arrived_in(self) -> int:
        return number_of(self.link.receive())

    def check(self, number: int = 7) -> None:
        """Packets pass both ways."""
        self.send_out(number)
        assert number_of(self.arrived_out().plaintext) == number
        self.send_in(number)
        assert self.arrived_in() == number

    def memory(self, name: str) -> int:
        """The one descriptor of that name in the store."""
        (stored,) = self.service.store[name]
        return stored

    def roster_place(self) -> bytes:
        """Which of two places the list of peers stands in; the other one after the next writing."""
        return os.pread(self.memory("store"), 4, ROSTER_OFFSET)

    def is_written_down(self) -> bool:
        """Has the plane written its peers down? That takes it a moment after each change."""
        return self.roster_place() != bytes(4)

    def kill(self) -> None:
        """Ends the plane once it has written its peers down."""
        wait_until(self.is_written_down, "the peers' list")
        self.service.kill()

    def revive(self) -> None:
        self.kill()
        self.service.start()
