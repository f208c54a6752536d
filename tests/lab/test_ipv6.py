"""IPv6 inside and outside, and addresses that belong to one link alone (topology in classical.py)."""

from __future__ import annotations

import pytest

from tests.lab.classical import (
    GATEWAY_OUTER6,
    GATEWAY_TUNNEL6,
    PORT,
    U_OUTER6,
    U_TUNNEL6,
    V_INNER6,
    Classical,
    build,
    configure,
    route_through_tap,
)
from tests.lab.namespaces import Host, Lab
from tests.lab.tools import Capture


def link_local(host: Host, link: str) -> str:
    """The link-local address of a link; there is exactly one."""
    (line,) = host.output(f"ip -6 -o addr show dev {link} scope link").splitlines()
    return line.split()[3].split("/")[0]


def started(lab: Lab, kind: str, outer: str = "ipv4") -> Classical:
    topology = build(lab, kind=kind, outer=outer)
    topology.start()
    if kind == "tap":
        route_through_tap(topology)
    return topology


@pytest.mark.parametrize("outer", ["ipv4", "ipv6"])
@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_ipv6_passes_inside_over_either_family_outside(lab: Lab, kind: str, outer: str) -> None:
    """[D1] The far end and a host behind it answer, whole and in fragments; outside is one flow of UDP."""
    topology = started(lab, kind, outer)
    capture = Capture(topology.gateway, "outer", "udp or icmp6")
    # The gateway tells V by "packet too big" what the tunnel takes; the echo that taught it is lost.
    assert not topology.u.pings(V_INNER6, options="-s 1440")
    for address in (GATEWAY_TUNNEL6, V_INNER6):
        for size in (64, 1440, 3000):
            assert topology.u.pings(address, count=20, options=f"-s {size}"), (address, size)
    assert topology.v.pings(U_TUNNEL6, count=5)
    capture.stop()
    tunnel = capture.lines(f"{'ip6' if outer == 'ipv6' else 'ip'} and udp port {PORT}")
    assert len(tunnel) >= 2 * 2 * 60
    assert not capture.lines(f"{'ip' if outer == 'ipv6' else 'ip6'} and udp port {PORT}")
    assert not capture.lines("icmp6[icmp6type] = icmp6-echo")
    if outer == "ipv6":
        assert topology.u_vpnd.peer("gateway")["endpoint"] == f"[{GATEWAY_OUTER6}]:{PORT}"
        assert topology.gateway_vpnd.peer("u")["endpoint"].startswith(f"[{U_OUTER6}]:")
    topology.u_vpnd.assert_no_error()
    topology.gateway_vpnd.assert_no_error()


@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_link_local_addresses_are_unique_and_outlive_restarts(lab: Lab, kind: str) -> None:
    """Every link has one of its own, not its twin's at the other end, and keeps it."""
    topology = build(lab, kind=kind)
    topology.start()

    def addresses() -> tuple[str, str]:
        return link_local(topology.u, "vpn-u"), link_local(topology.gateway, "vpn-gw")

    first = addresses()
    assert first[0] != first[1]
    topology.u_vpnd.stop()
    topology.u_vpnd.start()
    topology.gateway_vpnd.kill()
    topology.gateway_vpnd.start()
    assert addresses() == first


def test_link_local_addresses_reach_the_far_end_over_tap(lab: Lab) -> None:
    """An Ethernet segment is a link: its scope spans both ends, in both directions."""
    topology = started(lab, "tap")
    assert topology.u.pings(f"{link_local(topology.gateway, 'vpn-gw')}%vpn-u", count=5)
    assert topology.gateway.pings(f"{link_local(topology.u, 'vpn-u')}%vpn-gw", count=5)


def test_configured_link_local_addresses_reach_the_far_end_over_tun(lab: Lab) -> None:
    """Over TUN an address is the peer's if its networks say so: then link-local ones are usable too."""
    topology = build(lab)
    networks = ("192.168.53.99/32", "fe80::99/128"), ("192.168.53.11/32", "fe80::11/128", "192.168.60.0/24")
    configure(topology, gateway_networks=networks[0], u_networks=networks[1])
    for vpnd, old, new in (
        (topology.u_vpnd, f"{U_TUNNEL6}/64", "fe80::99/64"),
        (topology.gateway_vpnd, f"{GATEWAY_TUNNEL6}/64", "fe80::11/64"),
    ):
        file = vpnd.config_file
        file.write_text(file.read_text().replace(old, new))
    topology.start()
    assert link_local(topology.u, "vpn-u") == "fe80::99"
    assert topology.u.pings("fe80::11%vpn-u", count=5)
    assert topology.gateway.pings("fe80::99%vpn-gw", count=5)
    assert topology.u_vpnd.drops().get("data_source", 0) == 0


def test_the_kernel_s_own_link_local_address_stays_on_its_side_of_a_tun_link(classical: Classical) -> None:
    """Nobody has it in his networks: it goes nowhere, is counted, and does no harm."""
    before = classical.u_vpnd.drops().get("no_peer", 0)
    assert not classical.u.pings(f"{link_local(classical.gateway, 'vpn-gw')}%vpn-u")
    assert classical.u_vpnd.drops()["no_peer"] > before
    assert classical.gateway_vpnd.drops().get("data_source", 0) == 0
    assert classical.u.pings(V_INNER6)


@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_a_machine_without_ipv6_still_carries_ipv4(lab: Lab, kind: str) -> None:
    """The ephemeral IPv6 socket and link-local addresses are missed by nobody."""
    topology = build(lab, kind=kind)
    for host in (topology.u, topology.gateway):
        for scope in ("all", "default"):
            host.sysctl(f"net.ipv6.conf.{scope}.disable_ipv6", 1)
    for vpnd, address in ((topology.u_vpnd, U_TUNNEL6), (topology.gateway_vpnd, GATEWAY_TUNNEL6)):
        text = vpnd.config_file.read_text().replace(f', "{address}/64"', "")
        lines = [line.replace(', "[::]:5180"', "") for line in text.splitlines()]
        vpnd.config_file.write_text("\n".join(lines))
    if kind == "tun":
        for vpnd, networks in (
            (topology.u_vpnd, ["192.168.53.11/32", "192.168.60.0/24"]),
            (topology.gateway_vpnd, ["192.168.53.99/32"]),
        ):
            lines = vpnd.config_file.read_text().splitlines()
            lines = [f"networks = {networks}" if "networks" in line else line for line in lines]
            vpnd.config_file.write_text("\n".join(lines))
    topology.start()
    if kind == "tap":
        topology.u.run("ip route add 192.168.60.0/24 via 192.168.53.11 dev vpn-u")
    assert topology.u.pings("192.168.60.5", count=5)
