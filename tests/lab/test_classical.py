"""The cases of the classical topology (drawn in classical.py), one by one."""

from __future__ import annotations

import json
import time

import pytest

from tests.lab.classical import (
    GATEWAY_INNER,
    GATEWAY_OUTER,
    GATEWAY_TUNNEL,
    PORT,
    U_OUTER,
    U_TUNNEL,
    V_INNER,
    V_INNER6,
    Classical,
    build,
    configure,
)
from tests.lab.namespaces import Lab, eventually
from tests.lab.shell_login import Login
from tests.lab.tools import Capture


def test_without_the_tunnel_u_reaches_the_gateway_but_not_v(lab: Lab) -> None:
    """Case 1: the gateway reaches both sides, U only the outer one."""
    topology = build(lab)
    assert topology.u.pings(GATEWAY_OUTER)
    assert topology.gateway.pings(V_INNER)
    assert not topology.u.pings(V_INNER)


def test_the_link_has_its_configured_shape_and_outlives_the_daemon(classical: Classical) -> None:
    """Case 2: name, addresses, MTU, up; persistent."""

    def link() -> dict[str, object]:
        shown: dict[str, object] = json.loads(classical.u.output("ip -j -d addr show dev vpn-u"))[0]
        return shown

    shown = link()
    assert shown["mtu"] == 1420
    assert shown["txqlen"] == 1000
    assert "UP" in shown["flags"]  # type: ignore[operator]
    assert shown["linkinfo"]["info_data"]["persist"] is True  # type: ignore[index]
    addresses = {f"{each['local']}/{each['prefixlen']}" for each in shown["addr_info"]}  # type: ignore[attr-defined]
    assert {f"{U_TUNNEL}/24", "fd53::99/64"} <= addresses
    routes = classical.u.output("ip route show dev vpn-u")
    assert classical.u_vpnd.stop() == 0
    after = link()
    assert {f"{each['local']}/{each['prefixlen']}" for each in after["addr_info"]} >= {f"{U_TUNNEL}/24"}  # type: ignore[attr-defined]
    assert "192.168.60.0/24" in routes
    assert "192.168.60.0/24" in classical.u.output("ip route show dev vpn-u")


def test_outside_there_is_only_udp_and_inside_the_icmp(classical: Classical) -> None:
    """Case 3: what enters the tunnel needs a route into it, and leaves unreadable."""
    outer = Capture(classical.gateway, "outer", "host 10.9.0.5")
    inner = Capture(classical.gateway, "inner", "icmp")
    marker = "6f70656e736573616d65"  # a payload to look for
    assert classical.u.pings_singly(V_INNER, count=3, options=f"-p {marker}")
    classical.u.run("ip route del 192.168.60.0/24 dev vpn-u")
    assert not classical.u.pings(V_INNER)
    outer.stop()
    inner.stop()
    assert outer.lines("udp port 5180")
    assert not outer.lines("not (udp port 5180) and not arp")
    assert bytes.fromhex(marker) not in outer.content
    assert len(inner.lines("icmp[icmptype] = icmp-echo")) == 3
    assert bytes.fromhex(marker) in inner.content


def test_a_login_session_works_both_ways(classical: Classical) -> None:
    """Case 4: ping and ssh from U to V, and answers typed back."""
    assert classical.u.pings(V_INNER)
    assert classical.u.pings(V_INNER6)
    with Login(classical.u, classical.v, V_INNER) as login:
        assert login.says("echo over the tunnel") == "over the tunnel"


@pytest.mark.parametrize("blow", ["stop", "kill daemon", "kill plane", "kill both"])
@pytest.mark.parametrize("side", ["u", "gateway"])
def test_an_open_session_survives(lab: Lab, blow: str, side: str) -> None:
    """Case 5: the tunnel breaks for a while, what was typed meanwhile arrives. [I1, I2]"""
    topology = build(lab, own_plane=blow in ("kill daemon", "kill plane"))
    topology.start()
    broken = topology.u_vpnd if side == "u" else topology.gateway_vpnd
    with Login(topology.u, topology.v, V_INNER) as login:
        assert login.says("echo before") == "before"
        if blow == "stop":
            broken.stop()
            login.type("echo typed while broken")
            time.sleep(20)
            broken.start()
        elif blow == "kill daemon":
            broken.kill()
            login.type("echo typed while broken")
            broken.start()
        elif blow == "kill plane":
            broken.kill_plane()
            login.type("echo typed while broken")
            broken.start_plane()
        else:
            broken.kill()
            login.type("echo typed while broken")
            broken.start()
        assert login.hears("typed while broken", within_s=60)
        assert login.says("echo after") == "after"


def test_v_answers_by_a_return_route_alone(classical: Classical) -> None:
    """Case 6: V has no default route, only the way back to the tunnel's addresses."""
    assert "default" not in classical.v.output("ip route")
    assert classical.u.pings(V_INNER)


def test_a_wrong_inner_address_is_dropped_counted_and_explained_on_both_sides(lab: Lab) -> None:
    """Case 7, first half: the inner source is not in the networks the gateway has for U. [E4]"""
    topology = build(lab)
    configure(topology, u_address="192.168.30.99/24")
    topology.start()
    assert topology.u.is_silent(V_INNER, count=3)
    assert topology.gateway_vpnd.peer("u")["drops"]["data_source"] == 3
    why = topology.gateway_vpnd.why("u")
    assert "inner source not in the peer's networks" in why
    eventually(
        lambda: "inner source not in the networks" in topology.u_vpnd.why("gateway"),
        what="the gateway's notice to U",
    )
    configure(topology, u_address="192.168.30.99/24", gateway_networks=("192.168.30.99/32",))
    topology.gateway_vpnd.ask("reload")
    assert "inner source not in" not in topology.gateway_vpnd.why("u"), "what was dropped before is past"


def test_strict_reverse_path_filtering_is_named(lab: Lab) -> None:
    """Case 7, second half: the address is allowed, but the kernel's filter drops it."""
    topology = build(lab)
    configure(
        topology,
        u_address="192.168.30.99/24",
        gateway_networks=("192.168.30.99/32",),
        gateway_peer="route = false",
    )
    topology.start()
    topology.gateway.sysctl("net.ipv4.conf.vpn-gw.rp_filter", 1)
    topology.gateway.sysctl("net.ipv4.conf.all.rp_filter", 0)
    topology.gateway.run("ip route add 192.168.30.0/24 dev inner")
    assert not topology.u.pings(V_INNER)
    why = topology.gateway_vpnd.why("u")
    assert "rp_filter" in why
    assert "strict reverse-path filtering on vpn-gw" in why


def test_garbage_written_into_the_link_is_dropped_and_counted(classical: Classical) -> None:
    """Case 8: not an IP packet; nothing dies."""
    before = classical.u_vpnd.drops().get("link_not_ip", 0)
    classical.u.run(
        'python3 -c "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM); '
        "[s.sendto(bytes([n % 64]) * (n + 1), ('vpn-u', 0x0800)) for n in range(50)]\""
    )
    eventually(
        lambda: (
            classical.u_vpnd.drops().get("link_not_ip", 0) + classical.u_vpnd.drops().get("no_peer", 0)
            > before
        ),
        what="the count of garbage",
    )
    assert classical.u.pings(V_INNER)


def test_masquerade_and_forwarding_decide_what_v_sees(lab: Lab) -> None:
    """Case 11: V sees the gateway's address when told so, U's otherwise."""
    topology = build(lab)
    topology.start()

    def seen_by_v() -> str:
        capture = Capture(topology.v, "eth0", "icmp")
        assert topology.u.pings(V_INNER)
        capture.stop()
        return capture.lines("icmp[icmptype] = icmp-echo")[0]

    assert f"{U_TUNNEL} > {V_INNER}" in seen_by_v()
    configure(topology, routing='forward = true\nmasquerade = ["192.168.53.0/24"]')
    topology.gateway_vpnd.ctl("reload")
    assert f"{GATEWAY_INNER} > {V_INNER}" in seen_by_v()
    configure(topology, routing="forward = false")
    topology.gateway_vpnd.ctl("reload")
    assert not topology.u.pings(V_INNER)
    assert topology.u.pings(GATEWAY_TUNNEL)


def test_the_tunnel_is_udp_between_the_configured_endpoints(classical: Classical) -> None:
    """What `status` says is what the wire shows."""
    peer = classical.u_vpnd.peer("gateway")
    assert peer["endpoint"] == f"{GATEWAY_OUTER}:{PORT}"
    assert peer["state"] == "up"
    assert classical.gateway_vpnd.peer("u")["endpoint"].startswith(f"{U_OUTER}:")
