"""What is measured of one vpnd as a hub: its start, what it holds, what a crowd or a flood does to it.

right, the hub ──── eth1 10.9.0.1 ─── 10.9.0.66 callers, who own 10.96.0.0/16
      └─── eth0, cable and tunnel as in pair.py ─── left

Every trial has a lab of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks import pair
from benchmarks.crowd import peers_text
from benchmarks.measures import Taken, throughput
from benchmarks.pair import Pair
from benchmarks.systems.vpnd import PORT, MeasuredVpnd, join
from tests.lab.namespaces import Host, Lab, laboratory
from vpnd.keys import Identity, Secret

HUB_OUTER, CALLERS_OUTER = "10.9.0.1", "10.9.0.66"
SOURCES = "10.96.0.0/16"
NEEDLESS_PORT = 5999  # filtered: what a flood costs that vpnd has nothing to do with
FLOOD_RATE = 100_000
FLOOD_TURNS = 3  # of which the median counts: a stream's rate alone varies by a tenth
CROWD = 1000
HANDSHAKES = 5000
_PATIENCE_S = 60.0
_READY_WITHIN_S = 60.0
_HANDSHAKES_S = 4.0


@dataclass(frozen=True)
class HubMeasure:
    """`take(seconds)` gives the figures of `system`, the row in which they stand."""

    name: str
    about: str
    system: str
    take: Callable[[int], Taken]


# -- alone --


def _start_of(peers: int, seconds: int) -> Taken:
    """Starts a hub whose file names so many peers, by the daemon alone, as a shell would."""
    del seconds
    with laboratory() as lab:
        hub = _hub(lab, peers, own_plane=False)
        began = time.monotonic()
        with _notified(hub):
            hub.start(wait=False)
        start_s = time.monotonic() - began
        hub.wait_ready()
        status_s = sorted(_status_s(hub) for _ in range(3))[1]
        return {"start_s": start_s, "status_s": status_s, "resident_mb": hub.resident_mb()}


@contextlib.contextmanager
def _notified(hub: MeasuredVpnd) -> Iterator[None]:
    """Waits at its end for READY=1, as a service manager would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(_READY_WITHIN_S)
        path = str(hub.folder / "notify.sock")
        manager.bind(path)
        hub.environment["NOTIFY_SOCKET"] = path
        yield
        while "READY=1" not in manager.recv(4096).decode().splitlines():
            pass


def _status_s(hub: MeasuredVpnd) -> float:
    began = time.monotonic()
    done = hub.ctl("--json status", check=False)
    took_s = time.monotonic() - began
    json.loads(done.stdout)
    return took_s


def _hub(lab: Lab, peers: int, *, own_plane: bool = True) -> MeasuredVpnd:
    host = lab.host("hub")
    hub = MeasuredVpnd(host)
    hub.own_plane = own_plane
    hub.configure(
        f'[interface]\naddresses = ["10.2.0.2/24"]\n[local]\nlisten = ["0.0.0.0:{PORT}"]\n{peers_text(peers)}'
    )
    return hub


# -- with callers --


def _join_callers(lab: Lab, hub: Host) -> Host:
    """Adds the machine from which callers come, each from an address of its own."""
    callers = lab.host("callers")
    lab.cable(hub, "eth1", callers, "eth0")
    hub.run(f"ip addr add {HUB_OUTER}/24 dev eth1")
    callers.run(f"ip addr add {CALLERS_OUTER}/24 dev eth0")
    callers.run(f"ip route add local {SOURCES} dev lo")
    hub.run(f"ip route add {SOURCES} via {CALLERS_OUTER}")
    return callers


def _handshakes(seconds: int) -> Taken:
    """The daemon on a processor, its plane and the callers on another; then the plane beside the daemon."""
    del seconds
    first, *others = sorted(os.sched_getaffinity(0))
    other = (others or [first])[0]
    alone, cookies = _answers(daemon=first, plane=other, callers=other)
    shared, _ = _answers(daemon=first, plane=first, callers=other)
    return {"handshakes": alone, "cookies": cookies, "handshakes_shared": shared}


def _answers(*, daemon: int, plane: int, callers: int) -> tuple[float, float]:
    """Answers a second with each on its processor, and how many in a hundred were asked for a cookie."""
    with laboratory() as lab:
        hub = _hub(lab, HANDSHAKES)
        crowd = _join_callers(lab, hub.host)
        hub.start()
        hub.pin(daemon, plane)
        arguments = (hub.key.public, HUB_OUTER, str(PORT), str(HANDSHAKES), SOURCES, str(_HANDSHAKES_S))
        result = _ask(crowd, "benchmarks.handshakes", arguments, processor=callers)
    answered = result["answered"]
    if not answered:
        raise AssertionError("not one initiation was answered")
    return answered / result["took_s"], result["cookies"] / answered * 100


def _crowd(seconds: int) -> Taken:
    """All peers of a hub call at the same moment, as after its reboot."""
    del seconds
    with laboratory() as lab:
        hub = _hub(lab, CROWD)
        callers = _join_callers(lab, hub.host)
        hub.start()
        arguments = (hub.key.public, HUB_OUTER, str(PORT), str(CROWD), SOURCES)
        result = _ask(callers, "tests.lab.crowd", arguments)
    if result["up"] != CROWD:
        raise AssertionError(f"{result['up']:.0f} of {CROWD} peers came up in {result['took_s']:.1f} s")
    return {"crowd_s": result["took_s"]}


def _ask(
    host: Host, module: str, arguments: tuple[str, ...], processor: int | None = None
) -> dict[str, float]:
    """Runs a module that says "ready", begins at a line, and answers with a line of JSON."""
    pinned = ("taskset", "-c", str(processor)) if processor is not None else ()
    process = host.start(
        *(*pinned, sys.executable, "-m", module, *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        raise AssertionError(f"{module} did not start")
    output, _ = process.communicate(b"go\n\n", timeout=_PATIENCE_S)
    result: dict[str, float] = json.loads(output.splitlines()[0])
    return result


# -- under fire --


def _flood(seconds: int) -> Taken:
    """One TCP stream through an established tunnel: in peace, and while its hub is flooded, in turns.

    The flooder takes its own share of the machine. What that is shows the flood that meets a packet
    filter in place of vpnd.
    """
    with laboratory() as lab:
        made = pair.cable(lab)
        left, right = MeasuredVpnd(made.left), MeasuredVpnd(made.right)
        join(left, right)
        callers = _join_callers(lab, made.right)
        made.right.nft(
            "table ip needless { chain input { type filter hook input priority 0;"
            f" udp dport {NEEDLESS_PORT} drop; }}; }}"
        )
        right.start()
        left.start()
        tunnel = pair.tunnelled(made)
        stranger = Identity.from_private(Secret.copy_of(os.urandom(32))).public
        aims = {
            "flood_beside": (right.key.public, NEEDLESS_PORT),
            "flood_bogus": (str(stranger), PORT),
            "flood_mac1": (right.key.public, PORT),
        }
        throughput(tunnel, 1)  # what this makes the hub touch is not grown by a flood
        before = right.resident_mb()
        streams: dict[str, list[float]] = {"flood_none": [], **{figure: [] for figure in aims}}
        rates: list[float] = []
        for _ in range(FLOOD_TURNS):
            streams["flood_none"].append(throughput(tunnel, seconds))
            for figure, aim in aims.items():
                stream, rate = _flooded(callers, tunnel, seconds, aim)
                streams[figure].append(stream)
                rates.append(rate)
        taken = {figure: statistics.median(turns) for figure, turns in streams.items()}
        taken["flood_grown_mb"] = max(right.resident_mb() - before, 0.0)
        taken["flood_rate"] = min(rates)
        return taken


def _flooded(callers: Host, tunnel: Pair, seconds: int, aim: tuple[str, int]) -> tuple[float, float]:
    """Gives the stream's rate, and the flood's in datagrams a second."""
    key, port = aim
    process = callers.start(
        *(sys.executable, "-m", "tests.lab.flood", key, HUB_OUTER, str(port), str(FLOOD_RATE), SOURCES),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        raise AssertionError("the flood did not start")
    began = time.monotonic()
    rate = throughput(tunnel, seconds)
    took_s = time.monotonic() - began
    output, _ = process.communicate(b"stop\n", timeout=_PATIENCE_S)
    return rate, int(output) / took_s


HUBS = (("hub-1", 1), ("hub-1000", 1000), ("hub-10000", 10_000))
HUB_MEASURES = (
    *(
        HubMeasure(
            "start", "start to READY, memory, status by number of peers", name, partial(_start_of, peers)
        )
        for name, peers in HUBS
    ),
    HubMeasure("handshakes", "initiations answered a second on one core", "hub", _handshakes),
    HubMeasure("crowd", "1,000 peers that come back at once", "hub", _crowd),
    HubMeasure("flood", "a tunnel's throughput while its hub is flooded", "hub", _flood),
)
