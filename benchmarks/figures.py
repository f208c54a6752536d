"""What is measured, by name, and the arithmetic over rounds.

A figure has one value per round, None where its trial failed. Ratios are taken round by round and
their median is told, so that what drifts between rounds falls out. Knows neither hosts nor tables.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Values = list[float | None]
Figures = dict[str, dict[str, Values]]  # by system, by figure


@dataclass(frozen=True)
class Figure:
    """One thing measured. `is_rate`: more of it is better. Shares of loss are told, not compared."""

    name: str
    title: str
    unit: str
    is_rate: bool
    is_shown: bool = True

    @property
    def is_compared(self) -> bool:
        return self.unit != "%"


@dataclass(frozen=True)
class Spread:
    """The median of all rounds that have a value, the lowest and the highest."""

    median: float
    low: float
    high: float


FIGURES = {
    figure.name: figure
    for figure in (
        Figure("tcp1_out", "TCP, 1 stream →", "Gbit/s", is_rate=True),
        Figure("tcp1_back", "TCP, 1 stream ←", "Gbit/s", is_rate=True),
        Figure("tcp4_out", "TCP, 4 streams →", "Gbit/s", is_rate=True),
        Figure("tcp4_back", "TCP, 4 streams ←", "Gbit/s", is_rate=True),
        Figure("cpu_out", "CPU, 1 stream →", "s/GB", is_rate=False),
        Figure("cpu_back", "CPU, 1 stream ←", "s/GB", is_rate=False),
        Figure("rtt_median", "RTT idle, median", "µs", is_rate=False),
        Figure("rtt_p99", "RTT idle, p99", "µs", is_rate=False),
        Figure("rtt_lost", "RTT idle, lost", "%", is_rate=False, is_shown=False),
        Figure("loaded_median", "RTT loaded, median", "µs", is_rate=False),
        Figure("loaded_p99", "RTT loaded, p99", "µs", is_rate=False),
        Figure("loaded_lost", "RTT loaded, lost", "%", is_rate=False, is_shown=False),
        Figure("udp100", "UDP, 100 bytes each", "kpps", is_rate=True),
        Figure("udp100_lost", "  lost of what was sent", "%", is_rate=False),
        Figure("udp1400", "UDP, packets of 1400 bytes", "kpps", is_rate=True),
        Figure("udp1400_lost", "  lost of what was sent", "%", is_rate=False),
        Figure("imix", "UDP, IMIX", "Mbit/s", is_rate=True),
        Figure("imix_lost", "  lost of what was sent", "%", is_rate=False),
        Figure("start_s", "start to READY", "s", is_rate=False),
        Figure("resident_mb", "memory of both processes", "MB", is_rate=False),
        Figure("status_s", "vpnctl status", "s", is_rate=False),
        Figure("peer_kb", "memory per peer", "kB", is_rate=False),
        Figure("handshakes", "handshakes answered by the daemon's core", "1/s", is_rate=True),
        Figure("handshakes_shared", "  with the plane on that core too", "1/s", is_rate=True),
        Figure("cookies", "  answered by a cookie first", "%", is_rate=False),
        Figure("crowd_s", "1,000 peers come back", "s", is_rate=False),
        Figure("flood_none", "TCP without a flood", "Gbit/s", is_rate=True),
        Figure("flood_beside", "TCP while the flood meets a filter", "Gbit/s", is_rate=True),
        Figure("flood_bogus", "TCP, 100,000/s bogus initiations", "Gbit/s", is_rate=True),
        Figure("flood_mac1", "TCP, the same with a right mac1", "Gbit/s", is_rate=True),
        Figure("flood_rate", "flood as it was sent, lowest", "1/s", is_rate=True),
        Figure("flood_grown_mb", "memory grown in the floods", "MB", is_rate=False),
    )
}


def spread(values: Sequence[float | None]) -> Spread | None:
    """Gives median, lowest and highest of the rounds that have a value; None where none has."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(statistics.median(known), min(known), max(known))


def ratios(ours: Sequence[float | None], theirs: Sequence[float | None]) -> list[float]:
    """Divides round by round; rounds in which either is missing or theirs is zero are left out."""
    return [
        one / other
        for one, other in zip(ours, theirs, strict=False)
        if one is not None and other is not None and other != 0
    ]


def values_of(figures: Figures, system: str, figure: str) -> Values:
    """Gives the rounds of one figure; none where it was not measured."""
    return figures.get(system, {}).get(figure, [])


def percentile(values: Sequence[float], share: float) -> float:
    """Gives the smallest value that at least `share` (0 to 1) of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def add_memory_per_peer(figures: Figures, few: tuple[str, int], many: tuple[str, int]) -> None:
    """Adds what each further peer costs, from two hubs that differ in nothing but their number."""
    (few_name, few_peers), (many_name, many_peers) = few, many
    small = values_of(figures, few_name, "resident_mb")
    large = values_of(figures, many_name, "resident_mb")
    if small and large:
        figures[many_name]["peer_kb"] = [
            None if one is None or other is None else (other - one) * 1000 / (many_peers - few_peers)
            for one, other in zip(small, large, strict=False)
        ]
