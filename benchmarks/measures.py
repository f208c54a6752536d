"""What is measured: each measure takes a pair of joined hosts and gives one figure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.systems import Pair
from tests.lab.tools import iperf3, tcp_mbit


@dataclass(frozen=True)
class Measure:
    """`take(pair, seconds)` gives the figure in `unit`."""

    name: str
    unit: str
    take: Callable[[Pair, int], float]


def _one_stream(pair: Pair, seconds: int) -> float:
    return tcp_mbit(iperf3(pair.left, pair.right, pair.address, seconds=seconds))


def _four_streams(pair: Pair, seconds: int) -> float:
    return tcp_mbit(iperf3(pair.left, pair.right, pair.address, seconds=seconds, options="-P 4"))


def _cpu_per_gb(pair: Pair, seconds: int) -> float:
    """CPU seconds of the whole machine per gigabyte moved by one stream, iperf3 included."""
    began = _busy_s()
    end = iperf3(pair.left, pair.right, pair.address, seconds=seconds)
    return (_busy_s() - began) / (float(end["sum_received"]["bytes"]) / 1e9)  # type: ignore[index]


def _small_datagrams(pair: Pair, seconds: int) -> float:
    options = "-u -b 0 -l 100"
    end = iperf3(pair.left, pair.right, pair.address, seconds=seconds, options=options)
    total = end["sum"]
    assert isinstance(total, dict)
    return float(total["packets"] - total["lost_packets"]) / float(total["seconds"]) / 1e3


def _round_trip(pair: Pair, seconds: int) -> float:
    answer = pair.left.output(f"ping -n -q -i 0.002 -c {seconds * 200} {pair.address}", timeout_s=60)
    match = re.search(r"= [\d.]+/([\d.]+)/", answer)
    assert match is not None, answer
    return float(match.group(1))


def _busy_s() -> float:
    """Seconds that the machine's CPUs worked since boot: user, nice, system, irq, softirq."""
    with open("/proc/stat") as file:  # noqa: PTH123 - a kernel file
        fields = file.readline().split()[1:]
    ticks = [int(field) for field in fields]
    return (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / 100


MEASURES = (
    Measure("1 stream", "Mbit/s", _one_stream),
    Measure("4 streams", "Mbit/s", _four_streams),
    Measure("CPU", "s/GB", _cpu_per_gb),
    Measure("100-byte UDP", "kpps", _small_datagrams),
    Measure("RTT", "ms", _round_trip),
)
