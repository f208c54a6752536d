"""The leaves behind the offloads as Python objects: cutting, joining, markings, transport headers.

Owns the ctypes mirrors of their structs, which a test compares with what the compiler says, and the
buffers that the C side writes to. Knows no expected result; flows.py and the tests do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_bool,
    c_char,
    c_int,
    c_size_t,
    c_uint,
    c_uint8,
    c_uint16,
    c_uint32,
    c_void_p,
)
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.plane.leaves.flows import CHECKSUM_AT, UDP, Headers
from vpnd.plane import wire

TUN, TAP = 1, 2
HEADROOM = 16
NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4, GSO_UFO, GSO_TCPV6, GSO_UDP_L4, GSO_ECN = 0, 1, 3, 4, 5, 0x80
PIECES_MAX = 256

_guard = b"\xa5" * HEADROOM
_drop_names = tuple(name for name, _ in wire.DROP_REASONS)


class VirtioHeader(Structure):
    """struct virtio_net_hdr."""

    _fields_: ClassVar = [
        ("flags", c_uint8),
        ("gso_type", c_uint8),
        ("hdr_len", c_uint16),
        ("gso_size", c_uint16),
        ("csum_start", c_uint16),
        ("csum_offset", c_uint16),
    ]


class Link(Structure):
    _fields_: ClassVar = [
        ("type", c_uint8),
        ("works", c_bool),
        ("queues", c_uint),
        ("mtu", c_uint32),
        ("padding_mtu", c_uint32),
        ("name", c_char * 16),
        ("fds", c_int * 32),
    ]


class Frame(Structure):
    _fields_: ClassVar = [("header", VirtioHeader), ("bytes", c_void_p), ("size", c_size_t)]


class Transport(Structure):
    _fields_: ClassVar = [
        ("protocol", c_uint8),
        ("at", c_uint16),
        ("payload_at", c_uint16),
        ("checksum_at", c_uint16),
    ]


class Cut(Structure):
    _fields_: ClassVar = [
        ("bytes", c_void_p),
        ("size", c_size_t),
        ("kind", c_int),
        ("is_partial", c_bool),
        ("taken", c_size_t),
        ("piece_size", c_size_t),
        ("header_size", c_size_t),
        ("network_at", c_size_t),
        ("transport", Transport),
        ("pseudo_sum", c_uint16),
        ("header", c_uint8 * 256),
    ]


class Message(Structure):
    _fields_: ClassVar = [
        ("bytes", c_void_p),
        ("size", c_size_t),
        ("kind", c_int),
        ("is_partial", c_bool),
        ("cut", POINTER(Cut)),
        ("cut_at", c_size_t),
    ]


class Arrival(Structure):
    _fields_: ClassVar = [
        ("bytes", c_void_p),
        ("size", c_size_t),
        ("network_at", c_size_t),
        ("is_partial", c_bool),
        ("owner", c_void_p),
    ]


class JoinedPiece(Structure):
    _fields_: ClassVar = [("bytes", c_void_p), ("size", c_size_t), ("next", c_uint)]


class JoinedFrame(Structure):
    _fields_: ClassVar = [
        ("header", VirtioHeader),
        ("first", Arrival),
        ("transport", Transport),
        ("flow", c_uint32),
        ("is_open", c_bool),
        ("is_trusted", c_bool),
        ("last_flags", c_uint8),
        ("packets", c_uint),
        ("unit", c_size_t),
        ("size", c_size_t),
        ("first_piece", c_uint),
        ("last_piece", c_uint),
    ]


class CoalescerState(Structure):
    _fields_: ClassVar = [
        ("joins_tcp", c_bool),
        ("joins_udp", c_bool),
        ("count", c_uint),
        ("pieces_count", c_uint),
        ("frames", JoinedFrame * 128),
        ("pieces", JoinedPiece * PIECES_MAX),
    ]


class Vector(Structure):
    """struct iovec."""

    _fields_: ClassVar = [("base", c_void_p), ("size", c_size_t)]


LAYOUTS: dict[str, type[Structure]] = {
    "virtio_net_hdr": VirtioHeader,
    "link": Link,
    "frame": Frame,
    "transport": Transport,
    "cut": Cut,
    "message": Message,
    "arrival": Arrival,
    "joined_piece": JoinedPiece,
    "joined_frame": JoinedFrame,
    "coalescer": CoalescerState,
}

SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "segment_begin": (c_bool, [c_void_p, c_void_p, c_void_p, c_void_p]),
    "segment_next": (c_bool, [c_void_p, c_void_p]),
    "message_finish": (None, [c_void_p]),
    "message_complete": (None, [c_void_p]),
    "message_mark_partial": (None, [c_void_p]),
    "message_inner_size": (c_size_t, [c_void_p]),
    "message_tos": (c_uint8, [c_void_p]),
    "coalesce_add": (c_bool, [c_void_p, c_void_p]),
    "coalesce_finish": (POINTER(JoinedFrame), [c_void_p, c_uint, c_void_p, c_void_p]),
    "coalesce_clear": (None, [c_void_p]),
    "transport_at": (c_bool, [c_void_p, c_size_t, c_uint8, c_size_t, c_void_p]),
    "transport_find": (c_bool, [c_void_p, c_size_t, c_void_p]),
    "transport_pseudo_sum": (c_uint16, [c_void_p, c_uint8, c_size_t]),
    "transport_is_intact": (c_bool, [c_void_p, c_size_t, c_void_p]),
    "ipv4_write_checksum": (None, [c_void_p, c_size_t]),
    "frame_network": (c_size_t, [c_void_p, c_size_t]),
    "checksum_replace": (None, [c_void_p, c_uint16, c_uint16]),
    "marking_of": (c_uint8, [c_void_p, c_size_t]),
    "marking_arrive": (c_bool, [c_void_p, c_size_t, c_uint8]),
}


@dataclass(frozen=True, slots=True)
class LargeFrame:
    """A frame as the kernel and the plane hand it to each other: virtio_net_hdr and bytes."""

    content: bytes
    flags: int = 0
    gso_type: int = GSO_NONE
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0
    hdr_len: int = 0


def gso_type(headers: Headers) -> int:
    if headers.protocol == UDP:
        return GSO_UDP_L4
    return GSO_TCPV4 if headers.family == 4 else GSO_TCPV6


def large(headers: Headers, payload: bytes, size: int = 0, **changes: int) -> LargeFrame:
    """A frame as the kernel hands it over: its checksum is partial, and a size makes it several segments."""
    start = len(headers.ether) + headers.transport_at
    fields = {
        "flags": NEEDS_CSUM,
        "gso_type": gso_type(headers) if size else GSO_NONE,
        "gso_size": size,
        "csum_start": start,
        "csum_offset": CHECKSUM_AT[headers.protocol],
        "hdr_len": len(headers.ether) + headers.size,
    }
    return LargeFrame(headers.frame(payload, partial=True), **(fields | changes))


@dataclass(frozen=True, slots=True)
class Piece:
    """A message as it would be sealed, and what the plane knows of it."""

    content: bytes
    is_partial: bool
    inner_size: int
    tos: int


@dataclass(frozen=True, slots=True)
class Arriving:
    """A packet or frame that came out of a message."""

    content: bytes
    network_at: int = 0
    is_partial: bool = False
    owner: int = 1


@dataclass(frozen=True, slots=True)
class Joined:
    """A frame for the link, and which of the arrivals are in it."""

    frame: LargeFrame
    arrivals: tuple[int, ...]


class Offloads:
    """The functions of segment.c, coalesce.c, marking.c and transport.c; buffers are of exact size."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments

    # -- cutting --

    def cut(
        self,
        frame: LargeFrame,
        kind: int = TUN,
        *,
        mtu: int = 65535,
        complete: bool = False,
        mark: bool = False,
    ) -> list[Piece] | str:
        """The messages that become of a frame, or the reason of its drop. Each is taken before the next
        is made, as the plane does it. `complete` and `mark` do to a partial checksum what they say.
        """
        buffer = ctypes.create_string_buffer(_guard + frame.content, HEADROOM + len(frame.content))
        start = ctypes.addressof(buffer) + HEADROOM
        header = VirtioHeader(
            frame.flags, frame.gso_type, frame.hdr_len, frame.gso_size, frame.csum_start, frame.csum_offset
        )
        link = Link(type=kind, mtu=mtu)
        given = Frame(header, start, len(frame.content))
        cut, reason = Cut(), c_int(-1)
        if not self._library.segment_begin(byref(link), byref(given), byref(cut), byref(reason)):
            return _drop_names[reason.value]
        pieces = []
        message = Message()
        while self._library.segment_next(byref(cut), byref(message)):
            self._library.message_finish(byref(message))
            if complete:
                self._library.message_complete(byref(message))
            tos = self._library.message_tos(byref(message))
            is_partial = message.is_partial
            if mark and is_partial:
                self._library.message_mark_partial(byref(message))
            inner = self._library.message_inner_size(byref(message))
            pieces.append(Piece(ctypes.string_at(message.bytes, message.size), is_partial, inner, tos))
        # Of the room before the frame only the byte in front of it may have been used.
        assert buffer.raw[: HEADROOM - 1] == _guard[1:]
        assert not self._library.segment_next(byref(cut), byref(message))
        return pieces

    # -- joining --

    def coalescer(self, *, tcp: bool = True, udp: bool = True) -> Coalescer:
        return Coalescer(self._library, tcp=tcp, udp=udp)

    # -- transport --

    def find(self, packet: bytes) -> tuple[int, int, int, int] | None:
        out = Transport()
        exact = _exact(packet)
        if not self._library.transport_find(exact, len(packet), byref(out)):
            return None
        return (out.protocol, out.at, out.payload_at, out.checksum_at)

    def at(self, packet: bytes, protocol: int, at: int) -> tuple[int, int, int, int] | None:
        out = Transport()
        if not self._library.transport_at(_exact(packet), len(packet), protocol, at, byref(out)):
            return None
        return (out.protocol, out.at, out.payload_at, out.checksum_at)

    def pseudo_sum(self, packet: bytes, protocol: int, size: int) -> int:
        return int(self._library.transport_pseudo_sum(_exact(packet), protocol, size))

    def is_intact(self, packet: bytes) -> bool:
        """Of a packet in which there is TCP or UDP."""
        out = Transport()
        exact = _exact(packet)
        assert self._library.transport_find(exact, len(packet), byref(out))
        return bool(self._library.transport_is_intact(exact, len(packet), byref(out)))

    def with_header_checksum(self, header: bytes) -> bytes:
        exact = _exact(header)
        self._library.ipv4_write_checksum(exact, len(header))
        return bytes(exact)

    def replaced(self, field: int, old: int, new: int) -> int:
        place = _exact(field.to_bytes(2, "big"))
        self._library.checksum_replace(place, old, new)
        return int.from_bytes(bytes(place), "big")

    def network_in(self, frame: bytes) -> int:
        return int(self._library.frame_network(_exact(frame), len(frame)))

    # -- marking --

    def marking_of(self, packet: bytes) -> int:
        return int(self._library.marking_of(_exact(packet), len(packet)))

    def arrive(self, packet: bytes, outer: int) -> bytes | None:
        """The packet as it goes on, or None if it must be dropped."""
        exact = _exact(packet)
        passes = self._library.marking_arrive(exact, len(packet), outer)
        left = bytes(exact)[: len(packet)]
        assert passes or left == packet
        return left if passes else None


class Coalescer:
    """One coalescer and the buffers of what was added to it."""

    def __init__(self, library: ctypes.CDLL, *, tcp: bool, udp: bool) -> None:
        self._library = library
        self._state = CoalescerState(joins_tcp=tcp, joins_udp=udp)
        self._buffers: list[Any] = []
        self._places: dict[int, int] = {}  # of payloads and whole arrivals: address to arrival
        self._count = 0

    def add(self, arriving: Arriving) -> bool:
        """False if there is no room; the arrival was not taken then."""
        buffer = _exact(arriving.content)
        start = ctypes.addressof(buffer)
        place = Arrival(
            start, len(arriving.content), arriving.network_at, arriving.is_partial, arriving.owner
        )
        if not self._library.coalesce_add(byref(self._state), byref(place)):
            return False
        self._buffers.append((start, buffer, self._count))
        self._count += 1
        return True

    def take(self) -> list[Joined]:
        """All frames in order; there is room again afterwards. Arrivals count on."""
        frames = [self._finish(place) for place in range(self._state.count)]
        self._library.coalesce_clear(byref(self._state))
        self._buffers = []
        return frames

    def _finish(self, place: int) -> Joined:
        vectors = (Vector * 130)()
        count = c_uint(0)
        frame = self._library.coalesce_finish(byref(self._state), place, vectors, byref(count)).contents
        header = VirtioHeader.from_buffer_copy(ctypes.string_at(vectors[0].base, vectors[0].size))
        assert count.value == frame.packets + 1 <= 130
        parts = [ctypes.string_at(part.base, part.size) for part in vectors[1 : count.value]]
        content = b"".join(parts)
        assert len(content) == frame.size
        names = ("flags", "gso_type", "gso_size", "csum_start", "csum_offset", "hdr_len")
        fields: dict[str, int] = {name: getattr(header, name) for name in names}
        arrivals = tuple(self._arrival_at(part.base) for part in vectors[1 : count.value])
        return Joined(LargeFrame(content, **fields), arrivals)

    def _arrival_at(self, address: int) -> int:
        for start, buffer, number in self._buffers:
            if start <= address < start + len(buffer):
                return int(number)
        raise AssertionError("a vector points outside of what was added")


def join_all(
    offloads: Offloads, arrivals: Sequence[Arriving], *, tcp: bool = True, udp: bool = True
) -> list[Joined]:
    """Adds all of them, making room as the plane does it when there is none."""
    coalescer = offloads.coalescer(tcp=tcp, udp=udp)
    joined: list[Joined] = []
    for arriving in arrivals:
        if not coalescer.add(arriving):
            joined += coalescer.take()
            assert coalescer.add(arriving)
    return joined + coalescer.take()


def _exact(content: bytes) -> Any:
    return (c_uint8 * max(len(content), 1)).from_buffer_copy(content or b"\0")
