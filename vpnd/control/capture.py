"""The ring of a capture, as vpnctl reads it.

Owns the reader's half of the layout (a test compares it with the plane's own) and the bounds of
everything in it: the process that fills it reads packets of strangers. The memory comes beside the
CaptureReport, as a descriptor; it can be mapped for reading only.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from mmap import mmap
from typing import Literal, TypeAlias

CAPTURE_LAYOUT = 1
CAPTURE_HEAD = struct.Struct("<4IQ40x")  # magic, layout, slots, bytes of each, number of the next packet
# number + 1, time, peer, size, kept, is_outer, way, is_dropped, reason, remote, local; the bytes follow
CAPTURE_SLOT = struct.Struct("<QQIIHBBBB2x24s24s")
_ENDPOINT = struct.Struct("<BxHI16s")
_NUMBER = struct.Struct("<Q")
_WRITING = 0xFFFF_FFFF_FFFF_FFFF
_EVERY_PEER = 0xFFFF_FFFF
_PATIENCE_S = 0.2  # with a packet whose writer was interrupted, or gave it up

Memory: TypeAlias = bytes | bytearray | memoryview | mmap
OuterEndpoint: TypeAlias = tuple[IPv4Address | IPv6Address, int]


@dataclass(frozen=True, slots=True)
class CaptureReport:
    """What a reader must know of the ring. `peers` are names by the plane's number, `reasons` by theirs."""

    layout: int
    slots: int
    slot_size: int
    link: str
    link_type: Literal["tun", "tap"]
    peers: Mapping[str, str]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """One packet; `content` is its beginning. `drop` is the reason's number; outer ones have endpoints."""

    at_ns: int
    peer: int | None
    size: int
    content: bytes
    is_inbound: bool
    is_outer: bool
    drop: int | None
    remote: OuterEndpoint | None
    local: OuterEndpoint | None


class Ring:
    """Reads a ring from its beginning.

    `at` is the number of the packet to be read next, from 0; `lost` counts what was overwritten before.
    """

    def __init__(self, memory: Memory, slots: int, slot_size: int, clock: Callable[[], float]) -> None:
        """Raises ValueError for a memory that cannot be such a ring."""
        if slots < 1 or slot_size < CAPTURE_SLOT.size:
            raise ValueError("no ring has such slots")
        if len(memory) < CAPTURE_HEAD.size + slots * slot_size:
            raise ValueError("the memory is smaller than the ring")
        self._memory = memory
        self._slots = slots
        self._slot_size = slot_size
        self._clock = clock
        self.at = 0
        self._stuck_since: float | None = None
        self.lost = 0

    @property
    def end(self) -> int:
        """The number of the packet that comes next."""
        return int(CAPTURE_HEAD.unpack_from(self._memory)[4])

    def read(self) -> Iterator[Copy]:
        """Gives what came since the last call and is complete, a whole round of the ring at most."""
        end = self.end
        if end - self.at > self._slots:
            self._skip(end - self._slots - self.at)
        while self.at < end:
            place = CAPTURE_HEAD.size + self.at % self._slots * self._slot_size
            copy = self._copy(place)
            if copy is None and self._is_unfinished(place):
                if self._may_wait():
                    return
                self._skip(1)
            elif copy is None:
                self._skip(1)
            else:
                self.at += 1
                self._stuck_since = None
                yield copy

    def _skip(self, count: int) -> None:
        self.lost += count
        self.at += count
        self._stuck_since = None

    def _number(self, place: int) -> int:
        return int(_NUMBER.unpack_from(self._memory, place)[0])

    def _is_unfinished(self, place: int) -> bool:
        number = self._number(place)
        return number == _WRITING or number <= self.at

    def _may_wait(self) -> bool:
        now = self._clock()
        self._stuck_since = now if self._stuck_since is None else self._stuck_since
        return now - self._stuck_since < _PATIENCE_S

    def _copy(self, place: int) -> Copy | None:
        """Copies a slot; None if it holds another packet, or did when the copy was made."""
        fields = CAPTURE_SLOT.unpack_from(self._memory, place)
        number, at_ns, peer, size, kept, is_outer, way, is_dropped, reason, remote, local = fields
        begin = place + CAPTURE_SLOT.size
        content = bytes(self._memory[begin : begin + min(kept, size, self._slot_size - CAPTURE_SLOT.size)])
        if number != self.at + 1 or self._number(place) != number:
            return None
        return Copy(
            at_ns=at_ns,
            peer=None if peer == _EVERY_PEER else peer,
            size=size,
            content=content,
            is_inbound=way == 1,
            is_outer=bool(is_outer),
            drop=reason if is_dropped else None,
            remote=_endpoint(remote),
            local=_endpoint(local),
        )


def _endpoint(packed: bytes) -> OuterEndpoint | None:
    family, port, _, address = _ENDPOINT.unpack(packed)
    match family:
        case 4:
            return IPv4Address(address[:4]), port
        case 6:
            return IPv6Address(address), port
    return None
