"""What a caller has of the world: a way to its hub and back, and the time.

Owns the UDP socket. Knows nothing of what is sent.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import Protocol

from vpnd.endpoint import Endpoint

_DATAGRAM_MAX = 2048


class Line(Protocol):
    """A conversation with one endpoint; anybody may forge what comes."""

    def send(self, datagram: bytes) -> None:
        """Sends what may get lost."""

    def receive(self, within_s: float) -> bytes | None:
        """Waits for a datagram; None where none came."""

    def now(self) -> float:
        """Tells the seconds since the machine was started."""

    def wall_ns(self) -> int:
        """Tells the nanoseconds since 1970."""

    def close(self) -> None:
        """Ends the conversation."""


class UdpLine:
    """The real one."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._to = endpoint.to_sockaddr()
        family = socket.AF_INET if endpoint.address.version == 4 else socket.AF_INET6
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def send(self, datagram: bytes) -> None:
        # The network may be away for a moment: what is unanswered is sent again.
        with contextlib.suppress(OSError):
            self._socket.sendto(datagram, self._to)

    def receive(self, within_s: float) -> bytes | None:
        if not select.select([self._socket], [], [], within_s)[0]:
            return None
        try:
            return self._socket.recv(_DATAGRAM_MAX)
        except OSError:
            return None  # nothing there after all, or a router's complaint about what was sent

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_ns(self) -> int:
        return time.time_ns()

    def close(self) -> None:
        self._socket.close()
