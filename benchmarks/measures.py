"""What is measured between two joined hosts: each measure takes a pair and gives its figures.

TCP by iperf3, datagrams by the meter (c/meter.c). CPU is that of the whole machine, from
/proc/stat: every byte's way through both kernels belongs to its price. Nothing here runs unbounded.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.build import meter
from benchmarks.figures import percentile
from benchmarks.pair import ECHO_PORT, SINK_PORT, Pair
from tests.lab.namespaces import eventually
from tests.lab.tools import iperf3, tcp_mbit

Taken = dict[str, float]  # by name of the figure
_WARM_S = 0.5  # of a stream, before it counts as load; also what a blast goes on longer than its count
_SPARE_S = 20.0
# Of the inner packet 64, 576 and 1400 bytes, 7:4:1, less 28 of its headers.
IMIX = (36, 548, 36, 36, 548, 36, 1372, 36, 548, 36, 548, 36)


@dataclass(frozen=True)
class Measure:
    """`take(pair, seconds)` gives figures by name; `about` says it to who asks for --help.

    Measures of one `family` are compared with each other too. `near` names the systems that a bar tells
    apart by a few per cent: they are taken in so many `turns` a round.
    """

    name: str
    family: str
    about: str
    take: Callable[[Pair, int], Taken]
    near: frozenset[str] = frozenset()
    turns: int = 3


def _tcp(pair: Pair, seconds: int, *, figure: str, options: str, cpu: str = "") -> Taken:
    began = busy_s()
    end = iperf3(pair.left, pair.right, pair.address, seconds=seconds, options=options)
    spent = busy_s() - began
    received = end["sum_received"]
    assert isinstance(received, dict)
    taken = {figure: tcp_mbit(end) / 1e3}
    if cpu:
        taken[cpu] = spent / (float(received["bytes"]) / 1e9)
    return taken


def _idle_rtt(pair: Pair, seconds: int) -> Taken:
    return _round_trips(pair, seconds / 2, "rtt")


def _loaded_rtt(pair: Pair, seconds: int) -> Taken:
    """Round trips while one TCP stream runs from left to right, as fast as it can."""
    server = pair.right.start("iperf3", "-s", "-1", "-B", pair.address)
    eventually(lambda: ":5201" in pair.right.output("ss -ltn"), what="iperf3 listening")
    length = str(int(seconds + 2 * _WARM_S + 1))
    client = pair.left.start("iperf3", "-c", pair.address, "-t", length)
    try:
        time.sleep(_WARM_S)
        taken = _round_trips(pair, seconds / 2, "loaded")
        if client.poll() is not None:
            raise AssertionError("the stream that was the load ended too early")
        return taken
    finally:
        for process in (client, server):
            process.terminate()
            process.wait(_SPARE_S)


def _round_trips(pair: Pair, seconds: float, prefix: str) -> Taken:
    command = f"{meter()} rtt {pair.address} {ECHO_PORT} {seconds}"
    sent, *times = map(int, pair.left.output(command, timeout_s=seconds + _SPARE_S).split())
    if not times:
        raise AssertionError(f"none of {sent} echoes came back")
    return {
        f"{prefix}_median": percentile(times, 0.5) / 1e3,
        f"{prefix}_p99": percentile(times, 0.99) / 1e3,
        f"{prefix}_lost": (1 - len(times) / sent) * 100,
    }


def _datagrams(pair: Pair, seconds: int, *, figure: str, sizes: tuple[int, ...], in_mbit: bool) -> Taken:
    """Sends as fast as it can and counts what arrives in the middle of it."""
    counted_s = seconds / 2
    sink = pair.right.start(
        *(meter(), "sink", pair.address, str(SINK_PORT), str(counted_s)),
        stdout=subprocess.PIPE,
    )
    assert sink.stdout is not None
    if sink.stdout.readline() != b"ready\n":
        raise AssertionError("the sink does not listen")
    words = ",".join(map(str, sizes))
    command = f"{meter()} blast {pair.address} {SINK_PORT} {counted_s + _WARM_S} {words}"
    sent = int(pair.left.output(command, timeout_s=counted_s + _SPARE_S))
    output, _ = sink.communicate(timeout=counted_s + _SPARE_S)
    arrived, size, total = map(int, output.split())
    rate = size * 8 / 1e6 if in_mbit else arrived / 1e3
    return {figure: rate / counted_s, f"{figure}_lost": (1 - total / sent) * 100}


def busy_s() -> float:
    """Seconds that the machine's processors worked since boot: all but idle, waiting and stolen time."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def busy_share(seconds: float) -> float:
    """Watches the machine for a while; 1 means that all its processors work all the time."""
    began, began_at = busy_s(), time.monotonic()
    time.sleep(seconds)
    return (busy_s() - began) / ((time.monotonic() - began_at) * (os.cpu_count() or 1))


def throughput(pair: Pair, seconds: int) -> float:
    """One TCP stream from left to right, in Gbit/s."""
    return tcp_mbit(iperf3(pair.left, pair.right, pair.address, seconds=seconds)) / 1e3


_NEAR_VARIANTS = frozenset({"vpnd", "vpnd-tap", "vpnd-10000"})
MEASURES = (
    Measure(
        "tcp1",
        "tcp",
        "one TCP stream left to right, and its CPU",
        partial(_tcp, figure="tcp1_out", options="", cpu="cpu_out"),
        _NEAR_VARIANTS,
    ),
    Measure(
        "tcp4",
        "tcp",
        "four TCP streams left to right",
        partial(_tcp, figure="tcp4_out", options="-P 4"),
        frozenset({"vpnd"}),
    ),
    Measure(
        "tcp1-back",
        "tcp",
        "one TCP stream right to left, and its CPU",
        partial(_tcp, figure="tcp1_back", options="-R", cpu="cpu_back"),
        _NEAR_VARIANTS,
    ),
    Measure(
        "tcp4-back",
        "tcp",
        "four TCP streams right to left",
        partial(_tcp, figure="tcp4_back", options="-P 4 -R"),
        frozenset({"vpnd"}),
    ),
    # A turn of one second varies by a fifth, vpnd and fastd differ by three per cent.
    Measure("rtt", "rtt", "round trips of an idle tunnel", _idle_rtt, frozenset({"fastd", "vpnd"}), turns=9),
    Measure("rtt-loaded", "rtt", "round trips beside one TCP stream", _loaded_rtt),
    Measure(
        "udp100",
        "udp",
        "datagrams of 100 bytes that arrive",
        partial(_datagrams, figure="udp100", sizes=(100,), in_mbit=False),
    ),
    Measure(
        "udp1400",
        "udp",
        "datagrams that fill packets of 1400 bytes",
        partial(_datagrams, figure="udp1400", sizes=(1372,), in_mbit=False),
    ),
    Measure(
        "imix",
        "udp",
        "packets of 64, 576 and 1400 bytes, 7:4:1",
        partial(_datagrams, figure="imix", sizes=IMIX, in_mbit=True),
    ),
)
