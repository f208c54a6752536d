"""Real traffic through the tunnel: echo, iperf3, and a large file by HTTP, on clean and on bad roads."""

from __future__ import annotations

import time

import pytest

from tests.lab.classical import (
    GATEWAY_TUNNEL,
    GATEWAY_TUNNEL6,
    V_INNER,
    V_INNER6,
    Classical,
    build,
    route_through_tap,
)
from tests.lab.namespaces import Lab
from tests.lab.relay import Rules
from tests.lab.tools import UdpStream, fetch_file, iperf3, serve_file, tcp_mbit

BAD_ROAD = Rules(loss=0.05, reorder=0.05, duplicate=0.02)
FILE_BYTES = 100_000_000


def running(lab: Lab, kind: str, outer: str = "ipv4", road_seed: int | None = None) -> Classical:
    topology = build(lab, kind=kind, outer=outer, road_seed=road_seed)
    topology.start()
    if kind == "tap":
        route_through_tap(topology)
    return topology


def address(family: int) -> str:
    return V_INNER if family == 4 else V_INNER6


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("outer", ["ipv4", "ipv6"])
@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_echoes_tcp_and_a_large_file_arrive_whole(lab: Lab, kind: str, outer: str, family: int) -> None:
    """[A1] A cold start, then 20 pings, a TCP test and 100 MB by HTTP, in every combination."""
    topology = running(lab, kind, outer)
    assert topology.u.pings(address(family), count=20)
    assert tcp_mbit(iperf3(topology.u, topology.v, address(family), seconds=2)) > 10
    wanted = serve_file(topology.v, size=FILE_BYTES, address=address(family))
    assert fetch_file(topology.u, address=address(family), timeout_s=60) == wanted
    topology.u_vpnd.assert_no_error()
    topology.gateway_vpnd.assert_no_error()


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_a_bad_road_costs_speed_but_no_byte(lab: Lab, kind: str, family: int) -> None:
    """Five per cent loss, reordering and duplication under a file transfer, a TCP and a UDP test."""
    topology = running(lab, kind, road_seed=7)
    assert topology.road is not None
    topology.road.set(BAD_ROAD)
    wanted = serve_file(topology.v, size=FILE_BYTES, address=address(family))
    assert fetch_file(topology.u, address=address(family), timeout_s=120) == wanted
    # Some retransmissions are lost again, and TCP waits longer each time.
    assert tcp_mbit(iperf3(topology.u, topology.v, address(family), seconds=10)) > 10
    stream = UdpStream(topology.u, topology.v, address(family), rate=500, size=1000)
    time.sleep(4)
    sent, received = stream.stop()
    assert 0.9 * sent < received < sent  # one way loses five per cent
    topology.u_vpnd.assert_no_error()
    topology.gateway_vpnd.assert_no_error()


@pytest.mark.parametrize("size", [64, 1392, 3000])
@pytest.mark.parametrize("family", [4, 6])
def test_pings_of_every_size_pass(classical: Classical, family: int, size: int) -> None:
    """[D1] Small ones, such as fill a packet, and such as need fragments."""
    target = GATEWAY_TUNNEL if family == 4 else GATEWAY_TUNNEL6
    assert classical.u.pings(target, count=20, options=f"-s {size}")


def test_bytes_are_counted_as_they_are_inside(lab: Lab) -> None:
    """[K7] Ten pings of 84 bytes: what the peer's counters grow by, on both sides and both ways."""
    topology = running(lab, "tun")
    assert topology.u.pings(GATEWAY_TUNNEL)
    ends = ((topology.u_vpnd, "gateway"), (topology.gateway_vpnd, "u"))
    before = [end.peer(name) for end, name in ends]
    assert topology.u.pings_singly(GATEWAY_TUNNEL, count=10)
    for (end, name), was in zip(ends, before, strict=True):
        now = end.peer(name)
        for way in ("rx_bytes", "tx_bytes"):
            assert now[way] - was[way] == 10 * 84, (name, way)
