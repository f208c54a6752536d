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


def _beside(figure: str, other: str) -> Reading:
    """The figure of vpnd over that of another system."""
    return lambda figures: ratios(values_of(figures, "vpnd", figure), values_of(figures, other, figure))


def _within(system: str, figure: str, other: str) -> Reading:
    """A system's figure over another figure of its own."""
    return lambda figures: ratios(values_of(figures, system, figure), values_of(figures, system, other))


def _sums(system: str, stem: str, other: str, other_stem: str) -> Reading:
    """What moves both ways together, over the same of another system or figure.

    One of two ends is quicker than the other for as long as both live, by where its threads and buffers
    happened to lie; between systems that are this close, that would be most of what is seen.
    """

    def both(figures: Figures, name: str, figure: str) -> list[float | None]:
        out_ones, back_ones = (values_of(figures, name, f"{figure}_{way}") for way in ("out", "back"))
        ways = zip(out_ones, back_ones, strict=False)
        return [None if out is None or back is None else out + back for out, back in ways]

    return lambda figures: ratios(both(figures, system, stem), both(figures, other, other_stem))


def _plain(system: str, figure: str) -> Reading:
    return lambda figures: [value for value in values_of(figures, system, figure) if value is not None]


def _both_ways(title: str, wanted: float, other: str) -> list[Bar]:
    return [
        Bar(f"{title} {arrow}", wanted, "x", _beside(f"tcp1_{way}", other))
        for arrow, way in (("→", "out"), ("←", "back"))
    ]


BARS = (
    *_both_ways("one TCP stream: times OpenVPN's", 7.0, "openvpn"),
    *_both_ways("one TCP stream: times fastd's", 5.0, "fastd"),
    Bar("four streams: times one stream", 1.0, "x", _sums("vpnd", "tcp4", "vpnd", "tcp1")),
    Bar("CPU per GB: times OpenVPN's →", 1 / 6, "x", _beside("cpu_out", "openvpn"), is_least=False),
    Bar("CPU per GB: times OpenVPN's ←", 1 / 6, "x", _beside("cpu_back", "openvpn"), is_least=False),
    Bar("one TCP stream: of the copy limit", 0.8, "x", _sums("vpnd", "tcp1", "vpnd-copy", "tcp1")),
    Bar("100-byte UDP: times fastd's", 2.0, "x", _beside("udp100", "fastd")),
    Bar("RTT, median: times fastd's", 1.0, "x", _beside("rtt_median", "fastd"), is_least=False),
    Bar("loaded RTT, p99: times OpenVPN's", 1.0, "x", _beside("loaded_p99", "openvpn"), is_least=False),
    Bar("TAP: of TUN", 0.9, "x", _sums("vpnd-tap", "tcp1", "vpnd", "tcp1")),
    Bar("ChaCha20-Poly1305: of AES-256-GCM", 0.6, "x", _sums("vpnd-chacha20", "tcp1", "vpnd", "tcp1")),
    Bar("OpenSSL: of libipsec-mb", 0.55, "x", _sums("vpnd-openssl", "tcp1", "vpnd", "tcp1")),
    Bar("10,000 peers: throughput of one peer's", 0.95, "x", _sums("vpnd-10000", "tcp1", "vpnd", "tcp1")),
    Bar("10,000 peers: both processes", 100.0, "MB", _plain("hub-10000", "resident_mb"), is_least=False),
    Bar("10,000 peers: vpnctl status", 0.5, "s", _plain("hub-10000", "status_s"), is_least=False),
    Bar("10,000 peers: start to READY", 3.0, "s", _plain("hub-10000", "start_s"), is_least=False),
    Bar("handshakes answered by the daemon's core", 3000.0, "1/s", _plain("hub", "handshakes")),
    Bar("1,000 peers come back at once", 3.0, "s", _plain("hub", "crowd_s"), is_least=False),
    Bar("bogus initiations: of unflooded", 0.8, "x", _within("hub", "flood_bogus", "flood_none")),
    Bar("… with a right mac1: of unflooded", 0.8, "x", _within("hub", "flood_mac1", "flood_none")),
    Bar("bogus initiations: of a filtered flood", 0.8, "x", _within("hub", "flood_bogus", "flood_beside")),
    Bar("… with a right mac1: of a filtered flood", 0.8, "x", _within("hub", "flood_mac1", "flood_beside")),
    Bar("memory grown in the floods", 8.0, "MB", _plain("hub", "flood_grown_mb"), is_least=False),
    Bar("the floods' own rate", 95_000.0, "1/s", _plain("hub", "flood_rate")),
)
