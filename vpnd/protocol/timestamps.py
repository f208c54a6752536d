"""Timestamps of first messages: strictly increasing for each peer, whatever the clock does.

Owns TAI64N labels and the rule of section 5.1. Storing the greatest one used between two
runs is the daemon's work.
"""

from __future__ import annotations

from collections.abc import Callable

from vpnd.protocol.constants import TIMESTAMP_GRAIN_NS, Timers

TIMESTAMP_SIZE = 12
_NS = 1_000_000_000
_TAI64_BASE = 1 << 62


class TimestampSource:
    """Gives each first message a time greater than all before it to the same peer.

    `is_behind` tells that the clock stood below the greatest time of an earlier run: times
    then go on from there, with slack for those that run had no chance to store.
    """

    def __init__(self, wall_clock_ns: Callable[[], int], last_used_ns: int, timers: Timers) -> None:
        self._wall_clock_ns = wall_clock_ns
        self._floor_ns = last_used_ns
        self.is_behind = wall_clock_ns() <= last_used_ns
        if self.is_behind:
            self._floor_ns += int(timers.clock_slack_s * _NS)
        self.last_used_ns = self._floor_ns

    def next(self, previous_ns: int) -> int:
        """A time in ns since 1970, coarse, after `previous_ns`: the last one given for this peer.

        Counting per peer keeps a hub that starts a thousand handshakes at once near the clock.
        """
        after_ns = max(previous_ns, self._floor_ns)
        time_ns = max(self._wall_clock_ns(), after_ns + TIMESTAMP_GRAIN_NS)
        time_ns -= time_ns % TIMESTAMP_GRAIN_NS
        self.last_used_ns = max(self.last_used_ns, time_ns)
        return time_ns


def encode_timestamp(ns: int) -> bytes:
    """The form of TAI64N for a UTC time in ns since 1970: 12 bytes that sort as the times do.

    UTC stands for TAI: only the order counts, and that needs no leap seconds.
    """
    seconds, rest = divmod(ns, _NS)
    return (_TAI64_BASE + seconds).to_bytes(8, "big") + rest.to_bytes(4, "big")
