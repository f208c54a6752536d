"""The counters that the plane shares: a memory map to look at, no request needed.

Owns the read-only map and the copies made from it. Knows nothing of the socket the
descriptor came over. A copy is taken field by field while the plane goes on counting:
each number is true, two numbers of one copy may be a moment apart.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from vpnd.errors import PlaneError
from vpnd.plane import wire

_DROP_NAMES = tuple(name for name, _ in wire.DROP_REASONS)
_DROPS_OFFSET, _DROPS_SIZE = wire.PEER_COUNTERS.offsets["drops"]
_NO_DROPS = bytes(_DROPS_SIZE)
_NOTHING = bytes(wire.PEER_COUNTERS.size)
_PEER = struct.Struct("<12Q4I")  # peer_counters up to its drops
_PEER_DROPS = struct.Struct(f"<{len(_DROP_NAMES)}I")
_TOTALS = struct.Struct("<5Q")
_TOTALS_OFFSET = wire.COUNTERS_HEAD.offsets["handshakes_queued"][0]
_HEAD_DROPS = struct.Struct(f"<{len(_DROP_NAMES)}Q")
_HEAD_DROPS_OFFSET = wire.COUNTERS_HEAD.offsets["drops"][0]
_WORKERS_OFFSET = wire.COUNTERS_HEAD.offsets["workers"][0]
_HEARTBEATS_OFFSET = wire.COUNTERS_HEAD.offsets["heartbeats"][0]


@dataclass(frozen=True, slots=True)
class PeerCounters:
    """One peer's numbers at one moment. Stamps are CLOCK_BOOTTIME in ns, 0 for never.

    `gso_error` is the errno by which the path last refused UDP_SEGMENT, 0 where it takes it.
    """

    current_index: int | None
    staged: int
    gso_error: int
    drops: Mapping[str, int]
    rx_bytes: int
    rx_packets: int
    tx_bytes: int
    tx_packets: int
    last_sent_ns: int
    last_received_ns: int
    last_data_sent_ns: int
    last_data_received_ns: int
    unanswered_sent_since_ns: int
    unanswered_received_since_ns: int
    session_messages: int
    session_bytes: int


# Of many peers few have ever been spoken to; those are told by one comparison.
_UNTOUCHED = PeerCounters(None, 0, 0, {}, *[0] * 12)


@dataclass(frozen=True, slots=True)
class PlaneTotals:
    """Numbers of the whole plane."""

    handshakes_queued: int
    rx_datagrams: int
    tx_datagrams: int
    link_rx_packets: int
    link_tx_packets: int


class PlaneCounters:
    """Reads the plane's counters as they are now. Stays readable after the plane's end."""

    def __init__(self, descriptor: int) -> None:
        """Maps the memory behind `descriptor`, which stays the caller's to close. Raises PlaneError."""
        self._map = _map(descriptor)
        head = wire.COUNTERS_HEAD.unpack(self._map)
        magic, layout, self.peer_capacity, self._stride, drop_reasons, _, started_at_ns = head[:7]
        if magic != wire.COUNTERS_MAGIC or layout != wire.COUNTERS_LAYOUT:
            raise PlaneError(
                "counters_layout",
                f"the counters have layout {layout}, this vpnd reads {wire.COUNTERS_LAYOUT}",
            )
        if drop_reasons != len(_DROP_NAMES) or self._stride < wire.PEER_COUNTERS.size:
            raise PlaneError("counters_layout", f"the counters know {drop_reasons} drop reasons")
        if len(self._map) < wire.COUNTERS_HEAD.size + self.peer_capacity * self._stride:
            raise PlaneError("counters_layout", f"{len(self._map)} bytes are too few for the counters")
        self.started_at = started_at_ns / 1e9

    def peer(self, peer_id: int) -> PeerCounters:
        """Copies one peer's numbers; `drops` holds the reasons that are not zero."""
        if not 0 <= peer_id < self.peer_capacity:
            raise IndexError(peer_id)
        offset = wire.COUNTERS_HEAD.size + peer_id * self._stride
        if self._map[offset : offset + wire.PEER_COUNTERS.size] == _NOTHING:
            return _UNTOUCHED
        numbers = _PEER.unpack_from(self._map, offset)
        current_index, has_current, staged, gso_error = numbers[12:]
        drops_at = offset + _DROPS_OFFSET
        drops: dict[str, int] = {}
        if self._map[drops_at : drops_at + _DROPS_SIZE] != _NO_DROPS:
            drops = _by_name(_PEER_DROPS.unpack_from(self._map, drops_at))
        return PeerCounters(current_index if has_current else None, staged, gso_error, drops, *numbers[:12])

    def mark(self, peer_id: int) -> int:
        """A number that is another one as soon as any of the peer's numbers is."""
        offset = wire.COUNTERS_HEAD.size + peer_id * self._stride
        return hash(self._map[offset : offset + wire.PEER_COUNTERS.size])

    def drops(self) -> dict[str, int]:
        """Every reason that is not zero, over all peers and none."""
        return _by_name(_HEAD_DROPS.unpack_from(self._map, _HEAD_DROPS_OFFSET))

    def heartbeats(self) -> tuple[int, ...]:
        """Turns of each worker's loop, in the order of the workers."""
        (workers,) = struct.unpack_from("<I", self._map, _WORKERS_OFFSET)
        return struct.unpack_from(
            f"<{min(workers, wire.COUNTERS_WORKERS_MAX)}Q", self._map, _HEARTBEATS_OFFSET
        )

    def totals(self) -> PlaneTotals:
        return PlaneTotals(*_TOTALS.unpack_from(self._map, _TOTALS_OFFSET))

    def close(self) -> None:
        self._map.close()


def _map(descriptor: int) -> mmap.mmap:
    size = os.fstat(descriptor).st_size
    if size < wire.COUNTERS_HEAD.size:
        raise PlaneError("counters_layout", f"{size} bytes are too few for the counters")
    return mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)


def _by_name(numbers: tuple[int, ...]) -> dict[str, int]:
    return {name: number for name, number in zip(_DROP_NAMES, numbers, strict=True) if number}
