"""What running flows notice when the daemon goes away: nothing, while the plane runs on its own."""

from __future__ import annotations

import time

import pytest

from tests.lab.classical import V_INNER, Classical, build
from tests.lab.namespaces import Lab
from tests.lab.tools import UdpStream
from tests.lab.vpnd import Vpnd

RATE = 200


def restart(vpnd: Vpnd, how: str) -> None:
    if how == "restart":
        vpnd.stop()
        vpnd.start()
    elif how == "kill -9":
        vpnd.kill()
        vpnd.start()
    else:
        vpnd.stop()
        time.sleep(20)
        vpnd.start()


@pytest.mark.parametrize("how", ["restart", "kill -9", "stopped for 20 s"])
@pytest.mark.parametrize("side", ["u", "gateway"])
def test_no_packet_is_lost_and_no_handshake_made(lab: Lab, how: str, side: str) -> None:
    """[I1, I2, I13] A stream of 200 packets a second each way crosses the daemon's restart untouched."""
    topology = build(lab, own_plane=True)
    topology.start()
    vpnd = topology.u_vpnd if side == "u" else topology.gateway_vpnd
    other = topology.gateway_vpnd if side == "u" else topology.u_vpnd
    other_peer = "u" if side == "u" else "gateway"
    before, plane = other.peer(other_peer)["handshakes"], vpnd.plane_pid()
    there = UdpStream(topology.u, topology.v, V_INNER, rate=RATE)
    back = UdpStream(topology.v, topology.u, "192.168.53.99", rate=RATE)
    time.sleep(1)
    restart(vpnd, how)
    time.sleep(2)
    for name, stream in (("u to v", there), ("v to u", back)):
        sent, received = stream.stop()
        assert sent > 2 * RATE
        assert received == sent, f"{name}: {sent - received} of {sent} lost"
    assert vpnd.plane_pid() == plane
    assert other.peer(other_peer)["handshakes"] == before
    assert vpnd.peer("gateway" if side == "u" else "u")["state"] == "up"


def test_a_restart_leaves_other_processes_and_the_machine_alone(classical: Classical) -> None:
    """[E11] What stands before a restart stands after it."""

    def machine() -> tuple[str, str, str]:
        host = classical.u
        return host.output("ip -o addr"), host.output("ip route"), host.output("ip -6 route")

    before = machine()
    restart(classical.u_vpnd, "restart")
    classical.u_vpnd.wait_up()
    assert machine() == before


def test_teardown_leaves_nothing_behind(lab: Lab) -> None:
    """[E11] Before the first start and after the teardown the machine is the same."""
    topology = build(lab)
    host = topology.gateway

    def machine() -> tuple[str, ...]:
        return (
            host.output("ip -br addr"),
            host.output("ip route show table all"),
            host.output("ip rule"),
            host.output("nft list ruleset"),
            host.output(
                "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.inner.forwarding"
            ),
        )

    before = machine()
    topology.start()
    assert machine() != before
    topology.gateway_vpnd.kill()
    topology.gateway_vpnd.teardown()
    assert machine() == before
