"""Limits against floods: a token bucket per source, the memory of replays, the sense of load.

Owns three bounded tables and nothing of what passes through them. All of them forget by
themselves; none grows with the number of strangers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from ipaddress import IPv4Address

from vpnd.endpoint import Endpoint
from vpnd.protocol.constants import (
    BUCKETS_MAX,
    LOAD_CPU_SHARE,
    LOAD_QUEUE_DEPTH,
    MAC1_CACHE_MAX,
    SOURCE_BURST,
    SOURCE_RATE_PER_S,
    Timers,
)

_NS = 1_000_000_000


class TokenBuckets:
    """Lets each key pass `rate` times a second, and `burst` times at once.

    A bucket is one number: when it will be full again (in whole ns, so that sums are exact).
    A full bucket is as good as none, so the table forgets the longest untouched one first
    and refuses new keys while even that one is not full.
    """

    def __init__(
        self, rate: int = SOURCE_RATE_PER_S, burst: int = SOURCE_BURST, capacity: int = BUCKETS_MAX
    ) -> None:
        self._cost_ns = _NS // rate
        self._depth_ns = self._cost_ns * burst
        self._capacity = capacity
        self._full_at: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: Hashable, now: float) -> bool:
        """Takes a token; False where there is none."""
        now_ns = round(now * _NS)
        full_at = max(self._full_at.pop(key, now_ns), now_ns)
        if full_at + self._cost_ns - now_ns > self._depth_ns:
            self._full_at[key] = full_at
            return False
        if len(self._full_at) >= self._capacity:
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now_ns:
                return False
            del self._full_at[oldest]
        self._full_at[key] = full_at + self._cost_ns
        return True


def source_key(source: Endpoint) -> Hashable:
    """Whom a flood is charged to: one IPv4 address, or the /64 an IPv6 host may move in."""
    if isinstance(source.address, IPv4Address):
        return source.address.packed
    return source.address.packed[:8]


class Mac1Cache:
    """The last initiations that cost a Diffie-Hellman, so that a replay costs none."""

    def __init__(self, timers: Timers, capacity: int = MAC1_CACHE_MAX) -> None:
        self._life_s = timers.mac1_cache_s
        self._capacity = capacity
        self._seen_at: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._seen_at)

    def has(self, mac1: bytes, now: float) -> bool:
        seen_at = self._seen_at.get(mac1)
        return seen_at is not None and now - seen_at < self._life_s

    def add(self, mac1: bytes, now: float) -> None:
        self._seen_at.pop(mac1, None)
        if len(self._seen_at) >= self._capacity:
            del self._seen_at[next(iter(self._seen_at))]
        self._seen_at[mac1] = now


class LoadMeter:
    """Tells whether handshakes are more than we should serve without proof of address."""

    def __init__(self, timers: Timers) -> None:
        self._hold_s = timers.load_hold_s
        self._until = 0.0
        self._spent: deque[tuple[float, float]] = deque()
        self._sum_s = 0.0

    @property
    def until(self) -> float:
        """How long the present load is held to last; in the past, there is none."""
        return self._until

    def note_cpu(self, seconds: float, now: float) -> None:
        """Adds CPU time that handshakes took, measured by whoever has a clock for it."""
        self._spent.append((now, seconds))
        self._sum_s += seconds
        self._forget(now)
        if self._sum_s > LOAD_CPU_SHARE:
            self._until = now + self._hold_s

    def is_under_load(self, queue_depth: int, now: float) -> bool:
        if queue_depth > LOAD_QUEUE_DEPTH:
            self._until = now + self._hold_s
        return now < self._until

    def _forget(self, now: float) -> None:
        while self._spent and self._spent[0][0] <= now - 1.0:
            self._sum_s -= self._spent.popleft()[1]
        if len(self._spent) == 1:
            self._sum_s = self._spent[0][1]  # no rounding error outlives a quiet second
