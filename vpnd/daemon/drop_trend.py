"""Whether drops grow: samples of their counters over the last minute.

Owns the window and the threshold. Which reasons matter is health's to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

WINDOW_S = 60.0
RISING_PACKETS = 100  # in one window; fewer are the everyday of any network
_SAMPLE_S = 10.0


class DropTrend:
    """Remembers the counters for a minute; one that began anew counts from there."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Mapping[str, int]]] = deque()

    def note(self, drops: Mapping[str, int], now: float) -> None:
        """Takes the counters as of now; more often than every ten seconds changes nothing."""
        samples = self._samples
        if samples and now < samples[-1][0] + _SAMPLE_S:
            return
        samples.append((now, dict(drops)))
        while samples[0][0] < now - WINDOW_S:
            samples.popleft()

    def rising(self, drops: Mapping[str, int], reasons: Iterable[str]) -> dict[str, int]:
        """Tells which of these reasons have grown enough within the window, and by how much."""
        before = self._samples[0][1] if self._samples else drops
        grown = {reason: drops.get(reason, 0) - before.get(reason, 0) for reason in reasons}
        return {reason: count for reason, count in grown.items() if count >= RISING_PACKETS}
