"""A plane that is played by the test: it says what it is told to say and keeps what it hears.

Answers are put into the socket before the client asks: its sequence numbers count from 1.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

from vpnd.endpoint import Endpoint
from vpnd.keys import PublicKey
from vpnd.plane import wire
from vpnd.plane.client import PlaneClient
from vpnd.plane.wire import WireType

ENDPOINT = Endpoint(IPv4Address("192.0.2.7"), 5180)
KEY = PublicKey(bytes(range(32)))
HELLO = wire.HELLO_REPLY.pack(wire.VERSION, wire.COUNTERS_LAYOUT, 7_500_000_000, 16, 1, b"openssl", b"1.2")


def counters_memory(peer_capacity: int = 16) -> int:
    descriptor = os.memfd_create("counters")
    head = wire.COUNTERS_HEAD.pack(
        wire.COUNTERS_MAGIC,
        wire.COUNTERS_LAYOUT,
        peer_capacity,
        wire.PEER_COUNTERS.size,
        len(wire.DROP_REASONS),
        0,
        *[0] * (6 + 64 + 64),
    )
    os.pwrite(descriptor, head, 0)
    os.ftruncate(descriptor, wire.COUNTERS_HEAD.size + peer_capacity * wire.PEER_COUNTERS.size)
    return descriptor


class ScriptedPlane:
    """The other end: says what it is told to say, keeps what it hears."""

    def __init__(self) -> None:
        self.socket, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.setblocking(False)
        self.sequence = 0

    def answer(
        self, request: WireType, body: bytes = b"", *, error: int = 0, descriptors: tuple[int, ...] = ()
    ) -> None:
        """Answers the next request."""
        self.sequence += 1
        self.say(request | wire.REPLY, body, sequence=self.sequence, error=error, descriptors=descriptors)

    def say(
        self,
        kind: int,
        body: bytes = b"",
        *,
        sequence: int = 0,
        error: int = 0,
        descriptors: tuple[int, ...] = (),
    ) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        header = wire.HEADER.pack(kind, sequence, error, len(body))
        self.socket.sendmsg([header + body], ancillary if descriptors else [])

    def hear(self) -> tuple[int, int, bytes]:
        """Type, sequence and body of the next message that came."""
        message = self.socket.recv(wire.MESSAGE_MAX)
        kind, sequence, error, length = wire.HEADER.unpack(message)
        assert error == 0
        assert length == len(message) - wire.HEADER.size
        return kind, sequence, message[wire.HEADER.size :]


@contextlib.contextmanager
def scripted_plane() -> Iterator[ScriptedPlane]:
    plane = ScriptedPlane()
    try:
        yield plane
    finally:
        plane.socket.close()
        plane.theirs.close()


@contextlib.contextmanager
def greeted_client(plane: ScriptedPlane) -> Iterator[PlaneClient]:
    """A client that has said hello and waits 50 ms for an answer."""
    descriptor = counters_memory()
    plane.answer(WireType.HELLO, HELLO, descriptors=(descriptor,))
    os.close(descriptor)
    client = PlaneClient(plane.theirs, timeout_s=0.05)
    try:
        assert plane.hear() == (WireType.HELLO, 1, wire.HELLO_REQUEST.pack(wire.VERSION))
        yield client
    finally:
        client.close()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
