"""Keys change under load, and nobody notices."""

from __future__ import annotations

import time

import pytest

from tests.lab.classical import V_INNER, build, configure
from tests.lab.namespaces import Lab, eventually
from tests.lab.relay import Rules
from tests.lab.tools import UdpStream, iperf3, tcp_mbit

QUICK = {"rekey_after_s": 2.0, "rekey_jitter_s": 0.2, "rekey_responder_s": 3.0}


def test_three_rekeys_lose_no_packet(lab: Lab) -> None:
    """[G1] Both directions at 2,000 packets a second while the keys change at least three times."""
    topology = build(lab)
    roomy = "txqueuelen = 4000"  # what comes in two seconds
    configure(topology, u_interface=roomy, gateway_interface=roomy)
    topology.u_vpnd.timers = topology.gateway_vpnd.timers = QUICK
    topology.start()
    before = topology.u_vpnd.peer("gateway")["handshakes"]
    there = UdpStream(topology.u, topology.v, V_INNER, rate=2000)
    back = UdpStream(topology.v, topology.u, "192.168.53.99", rate=2000)
    eventually(
        lambda: topology.u_vpnd.peer("gateway")["handshakes"] >= before + 3,
        within_s=30,
        every_s=0.5,
        what="the third rekey",
    )
    for stream in (there, back):
        sent, received = stream.stop()
        assert received == sent, f"{sent - received} of {sent} lost"


def test_tcp_goes_on_over_rekeys(lab: Lab) -> None:
    """[G1] A bulk transfer of eight seconds with a rekey every two."""
    topology = build(lab)
    topology.u_vpnd.timers = topology.gateway_vpnd.timers = QUICK
    topology.start()
    before = topology.u_vpnd.peer("gateway")["handshakes"]
    end = iperf3(topology.u, topology.v, V_INNER, seconds=8)
    assert tcp_mbit(end) > 50
    assert topology.u_vpnd.peer("gateway")["handshakes"] >= before + 3


@pytest.mark.parametrize("loss", [0.3])
def test_rekeys_on_a_bad_road_lose_what_the_road_loses(lab: Lab, loss: float) -> None:
    """[G2] 30 % loss, reordering and duplication: no more is lost than on the wire."""
    topology = build(lab, road_seed=11)
    topology.u_vpnd.timers = topology.gateway_vpnd.timers = QUICK
    topology.start()
    assert topology.road is not None
    topology.road.set(Rules(loss=loss, reorder=0.2, duplicate=0.2))
    before = topology.u_vpnd.peer("gateway")["handshakes"]
    stream = UdpStream(topology.u, topology.v, V_INNER, rate=1000)
    time.sleep(10)  # packets enough for their share to be told
    # Half of all tries are lost on this road, and they come 5 s after each other at last.
    eventually(
        lambda: topology.u_vpnd.peer("gateway")["handshakes"] >= before + 2,
        within_s=90,
        every_s=0.5,
        what="the second rekey",
    )
    sent, received = stream.stop()
    lost = 1 - received / sent
    assert abs(lost - loss) < 0.02, f"{lost:.3f} lost of what a road with {loss} carries"
