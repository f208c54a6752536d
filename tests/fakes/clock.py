"""Time that stands still until told: seconds of CLOCK_BOOTTIME, and each machine's wall clock.

Owns the one `now` of a simulated network. Refuses to read a real clock.
"""

from __future__ import annotations

START_S = 1_000.0
WALL_START_NS = 1_800_000_000_000_000_000  # 2027-01-15


class Clock:
    """The simulated time of all machines; it only goes forward."""

    def __init__(self) -> None:
        self.now = START_S

    def advance_to(self, time: float) -> None:
        assert time >= self.now
        self.now = time

    def advance(self, seconds: float) -> None:
        self.advance_to(self.now + seconds)


class WallClock:
    """One machine's idea of the date, which an operator or a dead battery may move."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.offset_s = 0.0

    def now_ns(self) -> int:
        return WALL_START_NS + int((self._clock.now - START_S + self.offset_s) * 1e9)
