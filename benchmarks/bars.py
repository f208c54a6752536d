"""What vpnd is wanted to reach, and whether it did: judged by the median of the rounds of one run.

A bar compares within one run, round by round, where it compares at all; a bar without a figure is not met.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.figures import Figures, Spread, ratios, spread, values_of

Reading = Callable[[Figures], list[float]]  # one number per round


@dataclass(frozen=True)
class Bar:
    """`wanted` is the least that will do where `is_least`, else the most."""

    title: str
    wanted: float
    unit: str
    read: Reading
    is_least: bool = True


@dataclass(frozen=True)
class Judged:
    bar: Bar
    measured: Spread | None

    @property
    def is_met(self) -> bool:
        if self.measured is None:
            return False
        if self.bar.is_least:
            return self.measured.median >= self.bar.wanted
        return self.measured.median <= self.bar.wanted


def judge(figures: Figures) -> list[Judged]:
    return [Judged(bar, spread(bar.read(figures))) for bar in BARS]


def _beside(figure: str, other: str, *, system: str = "vpnd") -> Reading:
    """A system's figure over that of another system."""
    return lambda figures: ratios(values_of(figures, system, figure), values_of(figures, other, figure))


def _within(system: str, figure: str, other: str) -> Reading:
    """A system's figure over another figure of its own."""
    return lambda figures: ratios(values_of(figures, system, figure), values_of(figures, system, other))


def _plain(system: str, figure: str) -> Reading:
    return lambda figures: [value for value in values_of(figures, system, figure) if value is not None]


def _both_ways(
    title: str, wanted: float, other: str, *, system: str = "vpnd", stem: str = "tcp1"
) -> list[Bar]:
    return [
        Bar(f"{title} {arrow}", wanted, "x", _beside(f"{stem}_{way}", other, system=system))
        for arrow, way in (("→", "out"), ("←", "back"))
    ]


BARS = (
    *_both_ways("one TCP stream: times OpenVPN's", 7.0, "openvpn"),
    *_both_ways("one TCP stream: times fastd's", 5.0, "fastd"),
    Bar("four streams: times one stream →", 1.0, "x", _within("vpnd", "tcp4_out", "tcp1_out")),
    Bar("four streams: times one stream ←", 1.0, "x", _within("vpnd", "tcp4_back", "tcp1_back")),
    Bar("CPU per GB: times OpenVPN's →", 1 / 6, "x", _beside("cpu_out", "openvpn"), is_least=False),
    Bar("CPU per GB: times OpenVPN's ←", 1 / 6, "x", _beside("cpu_back", "openvpn"), is_least=False),
    *_both_ways("one TCP stream: of the copy limit", 0.8, "vpnd-copy"),
    Bar("100-byte UDP: times fastd's", 2.0, "x", _beside("udp100", "fastd")),
    Bar("RTT, median: times fastd's", 1.0, "x", _beside("rtt_median", "fastd"), is_least=False),
    Bar("loaded RTT, p99: times OpenVPN's", 1.0, "x", _beside("loaded_p99", "openvpn"), is_least=False),
    *_both_ways("TAP: of TUN", 0.9, "vpnd", system="vpnd-tap"),
    *_both_ways("ChaCha20-Poly1305: of AES-256-GCM", 0.6, "vpnd", system="vpnd-chacha20"),
    *_both_ways("OpenSSL: of libipsec-mb", 0.55, "vpnd", system="vpnd-openssl"),
    *_both_ways("10,000 peers: throughput of one peer's", 0.95, "vpnd", system="vpnd-10000"),
    Bar("10,000 peers: both processes", 100.0, "MB", _plain("hub-10000", "resident_mb"), is_least=False),
    Bar("10,000 peers: vpnctl status", 0.5, "s", _plain("hub-10000", "status_s"), is_least=False),
    Bar("10,000 peers: start to READY", 3.0, "s", _plain("hub-10000", "start_s"), is_least=False),
    Bar("handshakes answered on one core", 3000.0, "1/s", _plain("hub", "handshakes")),
    Bar("1,000 peers come back at once", 3.0, "s", _plain("hub", "crowd_s"), is_least=False),
    Bar("bogus initiations: of unflooded", 0.8, "x", _within("hub", "flood_bogus", "flood_none")),
    Bar("… with a right mac1: of unflooded", 0.8, "x", _within("hub", "flood_mac1", "flood_none")),
    Bar("bogus initiations: of a filtered flood", 0.8, "x", _within("hub", "flood_bogus", "flood_beside")),
    Bar("… with a right mac1: of a filtered flood", 0.8, "x", _within("hub", "flood_mac1", "flood_beside")),
    Bar("memory grown in the floods", 8.0, "MB", _plain("hub", "flood_grown_mb"), is_least=False),
    Bar("the floods' own rate", 95_000.0, "1/s", _plain("hub", "flood_rate")),
)
