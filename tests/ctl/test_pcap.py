"""vpnctl pcap: where packets may go, what comes instead of them, how it ends. The rest is in the lab."""

from __future__ import annotations

import io
import os
import signal
import struct
from collections.abc import Iterator
from mmap import mmap

import pytest

from tests.ctl.console import Console
from tests.fakes.control_server import FakeDaemon
from vpnd.control import Pcap
from vpnd.control.capture import CAPTURE_HEAD, CAPTURE_LAYOUT, CAPTURE_SLOT, CaptureReport
from vpnd.errors import ControlError
from vpnd.plane import wire

SLOTS, SLOT_SIZE = 4, 128
REPORT = CaptureReport(CAPTURE_LAYOUT, SLOTS, SLOT_SIZE, "vpn-site", "tun", {}, ())
PACKET_BLOCK = 6  # draft-ietf-opsawg-pcapng: an enhanced packet


class SharedRing:
    """The memory of a capture, which the test fills in the plane's place."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("capture")
        os.ftruncate(self.descriptor, CAPTURE_HEAD.size + SLOTS * SLOT_SIZE)
        self.memory = mmap(self.descriptor, 0)

    def begin(self, count: int) -> None:
        """So many packets were begun in all."""
        CAPTURE_HEAD.pack_into(self.memory, 0, wire.CAPTURE_MAGIC, 1, SLOTS, SLOT_SIZE, count)

    def put(self, number: int) -> None:
        place = CAPTURE_HEAD.size + number % SLOTS * SLOT_SIZE
        fields = (number + 1, 1000, 7, 20, 20, 0, 1, 0, 0, bytes(24), bytes(24))
        CAPTURE_SLOT.pack_into(self.memory, place, *fields)
        self.memory[place + CAPTURE_SLOT.size] = 0x45


@pytest.fixture
def ring() -> Iterator[SharedRing]:
    made = SharedRing()
    yield made
    made.memory.close()
    os.close(made.descriptor)


class InterruptedFile(io.BytesIO):
    """Is written to when the signal comes, for the `at`-th time."""

    def __init__(self, at: int, number: int) -> None:
        super().__init__()
        self._left = at
        self._number = number

    def write(self, data: object) -> int:
        self._left -= 1
        if self._left == 0:
            signal.raise_signal(self._number)
        return super().write(data)  # type: ignore[arg-type]


def packets_in(file: bytes) -> int:
    """Counts the packets of a whole pcapng section; fails where it is none."""
    at = count = 0
    while at < len(file):
        kind, size = struct.unpack_from("<II", file, at)
        assert file[at + size - 4 : at + size] == struct.pack("<I", size)
        count += kind == PACKET_BLOCK
        at += size
    return count


def test_packets_do_not_go_to_a_terminal(console: Console) -> None:
    console.is_terminal = True
    with FakeDaemon(console.runtime_dir, "site", {Pcap: [REPORT]}) as daemon:
        result = console.run("pcap")
    assert (result.code, result.out) == (2, "")
    assert "-w FILE" in result.err
    assert daemon.requests == []


def test_a_file_that_cannot_be_made_is_told_before_anything_is_captured(console: Console) -> None:
    with FakeDaemon(console.runtime_dir, "site", {Pcap: [REPORT]}) as daemon:
        result = console.run("pcap", "-w", f"{console.folder}/missing/file")
    assert (result.code, daemon.requests) == (1, [])
    assert "No such file or directory" in result.err


def test_what_is_asked_for_is_what_was_said(console: Console) -> None:
    refusal = ControlError("refused", "a capture runs already")
    with FakeDaemon(console.runtime_dir, "site", {Pcap: [refusal]}) as daemon:
        result = console.run("pcap", "berlin", "-w", f"{console.folder}/file")
        console.run("pcap", "--outer", "--drops", "-w", f"{console.folder}/file")
    assert (result.code, result.err) == (1, "vpnctl: a capture runs already\n")
    assert daemon.requests == [Pcap("berlin"), Pcap(None, inner=False, outer=True, drops=True)]


def test_an_answer_without_the_memory_is_refused(console: Console) -> None:
    with FakeDaemon(console.runtime_dir, "site", {Pcap: [REPORT]}):
        result = console.run("pcap", "-w", f"{console.folder}/file")
    assert (result.code, result.err) == (1, "vpnctl: site answers without the descriptor\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [1, 3, 4, 5, 6])
def test_it_ends_between_two_packets_whenever_the_signal_comes(
    console: Console, ring: SharedRing, number: int, at: int
) -> None:
    """[I8] A whole file, and every packet in it or counted: here two are overwritten, four are left."""
    for packet in range(2, 6):
        ring.put(packet)
    ring.begin(6)
    file = InterruptedFile(at, number)
    console.out = io.TextIOWrapper(file)
    with FakeDaemon(console.runtime_dir, "site", {Pcap: [REPORT]}, descriptor=ring.descriptor):
        result = console.run("pcap")
    assert (result.code, result.err) == (0, "4 packets, 2 lost\n")
    assert packets_in(file.getvalue()) == 4


def test_a_packet_that_is_being_written_at_the_end_has_a_moment_to_be_complete(
    console: Console, ring: SharedRing
) -> None:
    """[I8] Neither there nor counted it would be missing in silence."""
    ring.put(0)
    ring.begin(3)
    file = io.BytesIO()
    console.out = io.TextIOWrapper(file)

    def go_on(sleeps: int) -> None:
        if sleeps == 1:
            signal.raise_signal(signal.SIGINT)
        elif sleeps == 2:
            ring.put(2)

    console.on_sleep = go_on
    with FakeDaemon(console.runtime_dir, "site", {Pcap: [REPORT]}, descriptor=ring.descriptor):
        result = console.run("pcap")
    assert (result.code, result.err) == (0, "2 packets, 1 lost\n")
    assert packets_in(file.getvalue()) == 2


def test_who_asks_twice_does_not_wait_for_whoever_reads(console: Console, ring: SharedRing) -> None:
    ring.put(0)
    ring.begin(2)

    def interrupt(_: int) -> None:
        signal.raise_signal(signal.SIGINT)

    console.on_sleep = interrupt
    console.out = io.TextIOWrapper(io.BytesIO())
    with FakeDaemon(console.runtime_dir, "site", {Pcap: [REPORT]}, descriptor=ring.descriptor):
        result = console.run("pcap")
    assert result.code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored(console: Console, ring: SharedRing) -> None:
    """As that of the keyboard for what a shell runs in the background."""
    ring.put(0)
    ring.begin(1)
    console.out = io.TextIOWrapper(io.BytesIO())

    def go_on(sleeps: int) -> None:
        signal.raise_signal(signal.SIGINT)
        if sleeps == 3:
            signal.raise_signal(signal.SIGTERM)

    console.on_sleep = go_on
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with FakeDaemon(console.runtime_dir, "site", {Pcap: [REPORT]}, descriptor=ring.descriptor):
            result = console.run("pcap")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert (result.code, result.err) == (0, "1 packets, 0 lost\n")
