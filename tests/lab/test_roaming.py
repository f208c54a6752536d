"""The caller moves: other address, other port, other family, and an attacker who pretends that it did."""

from __future__ import annotations

import re
import time

from tests.lab.classical import (
    GATEWAY_OUTER,
    GATEWAY_OUTER6,
    PORT,
    U_OUTER,
    U_OUTER6,
    U_TUNNEL,
    V_INNER,
    Classical,
    build,
    configure,
)
from tests.lab.namespaces import Lab, eventually
from tests.lab.relay import Rules
from tests.lab.tools import Capture, UdpStream
from tests.lab.vpnd import BIN

U_OUTER_NEW = "10.9.0.6"
VICTIM = "198.51.100.7"
UNPROVEN_MAX = 16 * 1024  # bytes that an address may get before it is proven
CONFIRMATIONS_S = 1.5  # the caller repeats its confirmation for about a second


def move_u(topology: Classical, *, old: str, new: str) -> None:
    """Gives U another outer address in place of the one it has."""
    topology.u.run(f"ip addr add {new}/24 dev eth0")
    topology.u.run(f"ip addr del {old}/24 dev eth0")


def gateway_sees(topology: Classical) -> str:
    return topology.gateway_vpnd.endpoint("u")


def gateway_follows(topology: Classical, start: str) -> None:
    """Waits until the gateway's daemon has heard from its plane that U's endpoint begins so."""
    eventually(lambda: gateway_sees(topology).startswith(start), what=f"{start} at the gateway")


def test_the_address_of_the_caller_changes_under_traffic(classical: Classical) -> None:
    """[C1] What U sends arrives all the same, and the gateway answers to the new address."""
    classical.u.sysctl("net.ipv4.conf.eth0.promote_secondaries", 1)
    stream = UdpStream(classical.u, classical.v, V_INNER, rate=200)
    time.sleep(0.5)
    move_u(classical, old=U_OUTER, new=U_OUTER_NEW)
    time.sleep(0.5)
    sent, received = stream.stop()
    assert received == sent, f"{sent - received} of {sent} lost"
    gateway_follows(classical, f"{U_OUTER_NEW}:")
    assert classical.v.pings(U_TUNNEL)


def test_the_next_packet_of_the_caller_is_enough(classical: Classical) -> None:
    """[C1] One packet from a new address, and the answer to it finds the way."""
    classical.u.sysctl("net.ipv4.conf.eth0.promote_secondaries", 1)
    assert classical.u.pings(V_INNER)
    for old, new in ((U_OUTER, U_OUTER_NEW), (U_OUTER_NEW, U_OUTER)):
        move_u(classical, old=old, new=new)
        assert classical.u.pings(V_INNER)
        gateway_follows(classical, f"{new}:")
    assert classical.gateway_vpnd.drops().get("path_failed", 0) == 0


def test_the_port_of_the_caller_changes_under_traffic(lab: Lab) -> None:
    """[C1] Something on the way gives U's datagrams another source port; nothing is lost either way."""
    topology = build(lab, road_seed=1)
    topology.start()
    assert topology.road is not None
    before = gateway_sees(topology)
    there = UdpStream(topology.u, topology.v, V_INNER, rate=200)
    time.sleep(0.5)
    topology.road.set(Rules(rebind=7))
    time.sleep(0.5)
    sent, received = there.stop()
    assert received == sent, f"{sent - received} of {sent} lost"
    gateway_follows(topology, f"{U_OUTER}:{int(before.rpartition(':')[2]) + 7}")
    assert topology.v.pings(U_TUNNEL)


def test_a_new_port_by_configuration_is_followed(classical: Classical) -> None:
    """[C1] U's own socket is replaced by a reload; the gateway follows its next packet."""
    handshakes = classical.u_vpnd.peer("gateway")["handshakes"]
    configure(classical, u_local='listen = ["0.0.0.0:6000"]')
    classical.u_vpnd.ctl("reload")
    assert classical.u.pings(V_INNER)
    gateway_follows(classical, f"{U_OUTER}:6000")
    assert classical.v.pings(U_TUNNEL)
    assert classical.u_vpnd.peer("gateway")["handshakes"] == handshakes


def test_the_tunnel_moves_between_families_and_back(classical: Classical) -> None:
    """[C2] U calls by IPv4, then IPv6, then IPv4 again; no packet of either direction is lost."""
    there = UdpStream(classical.u, classical.v, V_INNER, rate=200)
    back = UdpStream(classical.v, classical.u, U_TUNNEL, rate=200)
    for endpoint, seen in (
        (f"[{GATEWAY_OUTER6}]:{PORT}", f"[{U_OUTER6}]:"),
        (f"{GATEWAY_OUTER}:{PORT}", f"{U_OUTER}:"),
    ):
        configure(classical, endpoint=endpoint)
        classical.u_vpnd.ctl("reload")
        gateway_follows(classical, seen)
        # What the gateway had sent before by the other family may be heard after the reload.
        eventually(lambda: classical.u_vpnd.endpoint("gateway") == endpoint, what=endpoint)  # noqa: B023
    for name, stream in (("u to v", there), ("v to u", back)):
        sent, received = stream.stop()
        assert received == sent, f"{name}: {sent - received} of {sent} lost"


def test_a_late_packet_from_the_old_address_changes_nothing(lab: Lab) -> None:
    """[C3] It is older than what came from the new address: taken, but no reason to move back."""
    topology = build(lab, road_seed=2)
    topology.start()
    assert topology.road is not None
    old = gateway_sees(topology)
    time.sleep(CONFIRMATIONS_S)
    late = Capture(topology.gateway, "outer", f"udp src port {old.rpartition(':')[2]}")
    topology.road.set(Rules(delay_s=5.0))
    assert not topology.u.pings(V_INNER, wait_s=0.2)
    topology.road.set(Rules(rebind=7))
    assert topology.u.pings(V_INNER)
    assert not late.lines()
    eventually(lambda: gateway_sees(topology) != old, what="the new address")
    new = gateway_sees(topology)
    delivered = topology.gateway_vpnd.peer("u")["rx_packets"]
    eventually(lambda: bool(late.lines()), what="the late packet")
    eventually(
        lambda: topology.gateway_vpnd.peer("u")["rx_packets"] == delivered + 1, what="its way to the link"
    )
    assert gateway_sees(topology) == new
    assert topology.v.pings(U_TUNNEL)
    assert gateway_sees(topology) == new


def test_a_forged_source_gets_little_and_not_for_long(lab: Lab) -> None:
    """[C4] An attacker on the way sends a copy of U's datagram from a victim's address, ahead of the
    real one, while V floods U: the victim gets no more than an unproven address may, the gateway
    goes back to where U is, and the failure is counted.
    """
    topology = build(lab, road_seed=3)
    victim = lab.host("victim")
    lab.cable(topology.gateway, "side", victim, "eth0")
    topology.gateway.run("ip addr add 198.51.100.1/24 dev side")
    victim.run(f"ip addr add {VICTIM}/24 dev eth0")
    topology.start()
    assert topology.road is not None
    time.sleep(CONFIRMATIONS_S)
    real = gateway_sees(topology)
    reached = Capture(victim, "eth0", f"udp dst port {real.rpartition(':')[2]}")
    flood = UdpStream(topology.v, topology.u, U_TUNNEL, rate=400, size=1000)
    topology.road.set(Rules(forge_source=VICTIM, forge_count=1))
    # An echo request between the daemons: unlike a ping it makes U expect no data in answer.
    topology.u.start(
        *(BIN / "vpnctl", "-i", topology.u_vpnd.instance, "--runtime-dir", topology.u_vpnd.runtime_root),
        *("ping", "gateway", "-c", "1"),
    )
    eventually(lambda: gateway_sees(topology).startswith(VICTIM), what="the move to the forged address")
    took_s = eventually(lambda: gateway_sees(topology) == real, what="the way back")
    assert took_s < 5
    drops = topology.gateway_vpnd.peer("u")["drops"]
    assert drops["path_failed"] == 1
    assert drops["path_budget"] > 100
    before = topology.u_vpnd.peer("gateway")["rx_packets"]
    eventually(
        lambda: topology.u_vpnd.peer("gateway")["rx_packets"] > before + 100, what="the flood at U again"
    )
    flood.stop()
    reached.stop()
    sizes = [int(re.findall(r"UDP, length (\d+)", line)[0]) for line in reached.lines()]
    assert sum(sizes) > 6000, "the attack reached nobody, so it shows nothing"
    assert sum(sizes) <= UNPROVEN_MAX
    assert topology.u.pings(V_INNER)
    topology.gateway_vpnd.assert_no_error()
