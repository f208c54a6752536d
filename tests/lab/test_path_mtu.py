"""Paths that carry less than the link would like, also when they begin to do so in the middle of a transfer.

host U ──── road: swallows, or a router that cuts ──── gateway ──── host V
   └──────────────── tunnel, MTU 1420 ────────────────────┘
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.classical import (
    GATEWAY_OUTER,
    GATEWAY_TUNNEL,
    GATEWAY_TUNNEL6,
    U_OUTER,
    V_INNER,
    Classical,
    build,
    configure,
    path_mtu,
)
from tests.lab.namespaces import Host, Lab, eventually
from tests.lab.relay import Road, Rules
from tests.lab.tools import Capture, fetch_file, serve_file
from tests.lab.vpnd import Vpnd

STALL_S = 4.0
POUR = Path(__file__).with_name("pour.py")


def too_large(topology: Classical) -> int:
    """How many packets U's plane refused because the path does not carry them."""
    return topology.u_vpnd.drops().get("path_too_large", 0)


def is_refused_by_plane(topology: Classical) -> bool:
    """Sends a packet that the path does not carry; has the plane ever refused one?"""
    topology.u.run(f"ping -c 1 -W 1 -M do -s 1392 {GATEWAY_TUNNEL}", check=False)
    return too_large(topology) > 0


class Pour:
    """One TCP stream from a host to an address, and the moments at which its bytes arrived."""

    def __init__(self, source: Host, sink: Host, address: str) -> None:
        self._sink = sink.start(
            sys.executable, POUR, "sink", address, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._sink.stdout is not None
        assert self._sink.stdout.readline() == b"ready\n"
        self._source = source.start(sys.executable, POUR, "pour", address)

    def progress(self) -> tuple[int, float]:
        """Tells how many bytes arrived, and the longest pause since the last call, in seconds."""
        assert self._sink.stdin is not None
        assert self._sink.stdout is not None
        self._sink.stdin.write(b"?\n")
        self._sink.stdin.flush()
        count, pause = self._sink.stdout.readline().split()
        return int(count), float(pause)

    def stop(self) -> None:
        for process in (self._source, self._sink):
            process.kill()
            process.wait(5)


def wide(lab: Lab) -> tuple[Classical, Road]:
    topology = build(lab, road_seed=4)
    assert topology.road is not None
    return topology, topology.road


def test_a_path_that_begins_to_swallow_stalls_a_stream_for_four_seconds_at_most(lab: Lab) -> None:
    """[D4] First above 1400, then above 1280; the MTU found is right, and the stream goes on."""
    topology, road = wide(lab)
    topology.start()
    topology.settle(1480)
    pour = Pour(topology.u, topology.gateway, GATEWAY_TUNNEL)
    for mtu in (1400, 1280):
        time.sleep(1.5)
        before, _ = pour.progress()
        road.set(Rules(mtu=mtu))
        time.sleep(STALL_S + 2.0)
        after, pause = pour.progress()
        assert pause <= STALL_S, f"stood still for {pause} s"
        assert after > before + 1_000_000
        eventually(lambda mtu=mtu: path_mtu(topology.u_vpnd) == mtu, what=f"{mtu} found")  # type: ignore[misc]
    pour.stop()
    why = topology.u_vpnd.why("gateway")
    assert "interface.mtu = 1220 on both machines" in why


def test_a_narrow_path_is_found_at_the_start_and_both_ways_work(lab: Lab) -> None:
    """[D4] New connections are told by their SYNs: nothing has to be sent back."""
    topology, road = wide(lab)
    road.set(Rules(mtu=1400))
    topology.start()
    topology.settle(1400)
    digest = serve_file(topology.v, size=3_000_000, address=V_INNER)
    before = too_large(topology)
    assert fetch_file(topology.u, address=V_INNER, timeout_s=8) == digest
    assert too_large(topology) == before


@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_a_packet_that_must_stay_whole_is_sent_back_and_the_sender_remembers(lab: Lab, kind: str) -> None:
    """[D6] The kernel of U keeps what it was told for this destination, in both families."""
    topology = build(lab, kind=kind, road_seed=6)
    configure(topology, kind=kind)
    assert topology.road is not None
    topology.road.set(Rules(mtu=1400))
    topology.start()
    topology.settle(1400)
    fits = 1400 - 60 - (19 if kind == "tap" else 0)
    told = Capture(topology.u, "vpn-u", "icmp[0] == 3 or icmp6[0] == 2")
    topology.u.run(f"ping -c 2 -W 1 -M do -s 1392 {GATEWAY_TUNNEL}", check=False)
    topology.u.run(f"ping -c 2 -W 1 -M do -s 1372 {GATEWAY_TUNNEL6}", check=False)
    told.stop()
    lines = "\n".join(told.lines())
    assert re.search(rf"need to frag \(mtu {fits}\)", lines), lines
    assert re.search(rf"packet too big, mtu {fits}", lines), lines
    assert f"mtu {fits}" in topology.u.output(f"ip route get {GATEWAY_TUNNEL}")
    assert f"mtu {fits}" in topology.u.output(f"ip -6 route get {GATEWAY_TUNNEL6}")
    assert topology.u.pings(GATEWAY_TUNNEL, options=f"-M do -s {fits - 28}")
    assert topology.u.pings(GATEWAY_TUNNEL6, options=f"-M do -s {fits - 48}")


def test_a_path_whose_router_cuts_is_found_to_the_piece_and_nothing_is_lost_meanwhile(lab: Lab) -> None:
    """[D4] Data go on in pieces, as without discovery, until packets that need none are made."""
    u, router, gateway = lab.host("u"), lab.host("router"), lab.host("gateway")
    lab.cable(u, "eth0", router, "left")
    lab.cable(router, "right", gateway, "outer")
    for host, link, address in (
        (u, "eth0", f"{U_OUTER}/24"),
        (router, "left", "10.9.0.1/24"),
        (router, "right", "10.10.0.1/24"),
        (gateway, "outer", "10.10.0.11/24"),
    ):
        host.run(f"ip addr add {address} dev {link}")
    router.run("sysctl -qw net.ipv4.ip_forward=1")
    router.run("ip link set right mtu 1390")
    gateway.run("ip link set outer mtu 1390")
    u.run("ip route add default via 10.9.0.1")
    gateway.run("ip route add default via 10.10.0.1")
    topology = Classical(u, gateway, gateway, Vpnd(u), Vpnd(gateway), None)
    configure(topology, endpoint="10.10.0.11:5180", routing="")
    topology.start()
    assert topology.u.pings(GATEWAY_TUNNEL, count=20, options="-i 0.05 -s 1300")
    topology.settle(1388)
    assert GATEWAY_OUTER != "10.10.0.11"


def test_restarts_keep_what_was_found(lab: Lab) -> None:
    """[D4] The daemon adopts what the plane has; a new plane is told again."""
    topology = build(lab, road_seed=8, own_plane=True)
    assert topology.road is not None
    topology.road.set(Rules(mtu=1400))
    topology.start()
    topology.settle(1400)
    topology.u_vpnd.kill()
    topology.u_vpnd.start()
    assert "packets above 1340" in topology.u_vpnd.why("gateway")
    topology.u_vpnd.kill_plane()
    topology.u_vpnd.start_plane()
    # What `status` tells may still be of the former plane; what a packet meets is not.
    eventually(lambda: is_refused_by_plane(topology), within_s=15, what="a packet above 1340 is refused")
    assert path_mtu(topology.u_vpnd) == 1400
