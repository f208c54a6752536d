"""Tunnels in tunnels, in themselves, and in each other.

Two machines as in classical.py. The nested tunnel is a second instance on both, called through the first:

     u ════ tunnel "site" 192.168.53.0/24 ════ gateway
       └──── tunnel "nested" 192.168.54.0/24 ────┘
"""

from __future__ import annotations

import time

import pytest

from tests.lab.classical import (
    GATEWAY_OUTER,
    GATEWAY_TUNNEL,
    GATEWAY_TUNNEL6,
    Classical,
    build,
    configure,
)
from tests.lab.namespaces import Lab, eventually
from tests.lab.tools import Capture, UdpStream, fetch_file, iperf3, serve_file, tcp_mbit
from tests.lab.vpnd import Vpnd

LOOP_BYTES = 70_000  # E2: what ten pings may cost
U_NETWORKS = (f"{GATEWAY_TUNNEL}/32", f"{GATEWAY_TUNNEL6}/128", "192.168.60.0/24", "fd60::/64")


def sent_bytes(vpnd: Vpnd, link: str) -> tuple[int, int]:
    """Inner bytes sent to all peers, and bytes the kernel gave to the link."""
    inner = sum(peer["tx_bytes"] for peer in vpnd.status()["peers"])
    return inner, int(vpnd.host.output(f"cat /sys/class/net/{link}/statistics/tx_bytes"))


def nest(topology: Classical, *, endpoint: str, mtu: int = 1340) -> tuple[Vpnd, Vpnd]:
    """Starts a second instance on U and the gateway, called by U at `endpoint`."""
    u, gateway = Vpnd(topology.u, "nested"), Vpnd(topology.gateway, "nested")
    configure_nested(u, gateway, 99, mtu=mtu, endpoint=endpoint)
    configure_nested(gateway, u, 11, mtu=mtu)
    gateway.start()
    u.start()
    u.wait_up()
    gateway.wait_up()
    return u, gateway


def configure_nested(
    vpnd: Vpnd, other: Vpnd, number: int, *, mtu: int, endpoint: str = "", more_networks: str = ""
) -> None:
    far = 110 - number
    vpnd.configure(f"""\
[interface]
name = "vpn-nested"
mtu = {mtu}
addresses = ["192.168.54.{number}/24", "fd54::{number}/64"]
[local]
{"" if endpoint else 'listen = ["0.0.0.0:5181", "[::]:5181"]'}
[peer.far]
public_key = "{other.key.public}"
networks = ["192.168.54.{far}/32", "fd54::{far}/128"{more_networks}]
{f'endpoint = "{endpoint}"' if endpoint else ""}
""")


@pytest.mark.parametrize(
    "endpoint", [f"{GATEWAY_TUNNEL}:5181", f"[{GATEWAY_TUNNEL6}]:5181"], ids=["ipv4", "ipv6"]
)
def test_a_tunnel_inside_a_tunnel_carries_everything(classical: Classical, endpoint: str) -> None:
    """[E1] Pings of every size, TCP, UDP and a file through two tunnels; outside there is one."""
    capture = Capture(classical.gateway, "outer", "udp port 5181")
    u, gateway = nest(classical, endpoint=endpoint)
    for address in ("192.168.54.11", "fd54::11"):
        for size in (64, 1440, 3000):
            assert classical.u.pings(address, count=20, options=f"-s {size}"), (address, size)
        assert tcp_mbit(iperf3(classical.u, classical.gateway, address, seconds=2)) > 5
    stream = UdpStream(classical.u, classical.gateway, "192.168.54.11", rate=625, size=1000)  # 5 Mbit/s
    time.sleep(3)
    sent, received = stream.stop()
    assert sent > 625
    assert received > 0.99 * sent
    wanted = serve_file(classical.gateway, size=10_000_000, address="192.168.54.11")
    assert fetch_file(classical.u, address="192.168.54.11", timeout_s=30) == wanted
    capture.stop()
    assert not capture.lines()
    for vpnd in (u, gateway, classical.u_vpnd, classical.gateway_vpnd):
        assert "link_loop" not in vpnd.drops()
        vpnd.assert_no_error()


@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_an_endpoint_inside_its_own_tunnel_makes_no_storm(lab: Lab, kind: str) -> None:
    """[E2] The gateway's outer address is routed into the tunnel to it: ten pings are lost, no more."""
    topology = build(lab, kind=kind)
    topology.start()
    u = topology.u_vpnd
    assert topology.u.pings(GATEWAY_TUNNEL)
    if kind == "tun":
        configure(topology, u_networks=(*U_NETWORKS, f"{GATEWAY_OUTER}/32"))
        u.ctl("reload")
    else:
        topology.u.run(f"ip route add {GATEWAY_OUTER}/32 via {GATEWAY_TUNNEL} dev vpn-u")
    before, cpu, began = sent_bytes(u, "vpn-u"), u.cpu_s(), time.monotonic()
    assert topology.u.is_silent(GATEWAY_TUNNEL, count=10, wait_s=0.2, options="-f")
    time.sleep(1)
    used = (u.cpu_s() - cpu) / (time.monotonic() - began)
    for sent, earlier in zip(sent_bytes(u, "vpn-u"), before, strict=True):
        assert sent - earlier < LOOP_BYTES
    assert used < 0.2
    assert u.drops()["link_loop"] > 0
    if kind == "tun":
        assert "a loop" in u.why("gateway")
        configure(topology, u_networks=U_NETWORKS)
        u.ctl("reload")
    else:
        topology.u.run(f"ip route del {GATEWAY_OUTER}/32 via {GATEWAY_TUNNEL} dev vpn-u")
    eventually(lambda: topology.u.pings(GATEWAY_TUNNEL), what="the tunnel without the loop")
    u.assert_no_error()


@pytest.mark.parametrize("size", [56, 1300])
def test_two_tunnels_that_loop_through_each_other_do_no_harm(classical: Classical, size: int) -> None:
    """[E3] Each one's packets are routed into the other: the ping fails, nobody dies, nothing grows."""
    u = classical.u
    classical.gateway.run("ip addr add 10.9.0.12/24 dev outer")
    nested, far = nest(classical, endpoint="10.9.0.12:5181", mtu=1420)
    assert u.pings("192.168.54.11")
    daemons = (classical.u_vpnd, nested)
    plane_pids = [vpnd.plane_pid() for vpnd in daemons]
    configure(classical, u_networks=(*U_NETWORKS, "10.9.0.12/32"))
    configure_nested(nested, far, 99, mtu=1420, endpoint="10.9.0.12:5181", more_networks=', "10.9.0.11/32"')
    for vpnd in daemons:
        vpnd.ctl("reload")
    links = ("vpn-u", "vpn-nested")
    before = [sent_bytes(vpnd, link) for vpnd, link in zip(daemons, links, strict=True)]
    cpu = [vpnd.cpu_s() for vpnd in daemons]
    began = time.monotonic()
    assert u.is_silent(GATEWAY_TUNNEL, count=10, options=f"-f -s {size}")
    assert u.is_silent("192.168.54.11", count=10, options=f"-f -s {size}")
    time.sleep(1)
    for number, (vpnd, link) in enumerate(zip(daemons, links, strict=True)):
        for sent, earlier in zip(sent_bytes(vpnd, link), before[number], strict=True):
            assert sent - earlier < LOOP_BYTES * (1 + size // 56)
        assert (vpnd.cpu_s() - cpu[number]) / (time.monotonic() - began) < 0.2
    assert classical.u_vpnd.drops().get("link_loop", 0) + nested.drops().get("link_loop", 0) > 0
    configure(classical, u_networks=U_NETWORKS)
    configure_nested(nested, far, 99, mtu=1420, endpoint="10.9.0.12:5181")
    for vpnd in daemons:
        vpnd.ctl("reload")
    eventually(lambda: u.pings(GATEWAY_TUNNEL) and u.pings("192.168.54.11"), what="both tunnels again")
    assert [vpnd.plane_pid() for vpnd in daemons] == plane_pids
    for vpnd in (*daemons, far, classical.gateway_vpnd):
        vpnd.assert_no_error()
