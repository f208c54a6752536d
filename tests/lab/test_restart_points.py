"""Killed at the worst moment: between any two steps of a handshake, and with what a power cut leaves on disk.

The road between U and the gateway holds one kind of message back, so that the moment is there for as
long as it takes to kill somebody.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.lab.classical import GATEWAY_TUNNEL, V_INNER, Classical, build
from tests.lab.namespaces import Lab, eventually
from tests.lab.relay import Rules
from tests.lab.tools import UdpStream
from tests.lab.vpnd import Vpnd

INITIATION, RESPONSE, DATA = 0x08, 0x09, 0x0C
RATE = 100
# Up 1.5 s after the restart, and as much again for a machine that does other things too.
UP_S = 3.0
MOMENTS = {
    "initiation is under way": INITIATION,
    "response is under way": RESPONSE,
    "confirmation is under way": DATA,
    "all is through": 0,
}


def ends(topology: Classical, side: str) -> tuple[Vpnd, Vpnd, str, str]:
    """The side that dies and the other, and how each calls the other."""
    if side == "initiator":
        return topology.u_vpnd, topology.gateway_vpnd, "gateway", "u"
    return topology.gateway_vpnd, topology.u_vpnd, "u", "gateway"


def reach(topology: Classical, moment: str) -> None:
    """Begins a handshake by U and stops it where the moment's message is held."""
    assert topology.road is not None
    held = MOMENTS[moment]
    topology.road.set(Rules(hold=held))
    topology.u_vpnd.ask("reconnect", peer="gateway")
    if held:
        road = topology.road
        eventually(lambda: road.held() > 0, every_s=0.01, what=f"{moment}: the message")
    else:
        time.sleep(0.3)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("side", ["initiator", "responder"])
def test_either_end_killed_between_two_steps_is_up_soon_after_its_start(
    lab: Lab, side: str, moment: str
) -> None:
    """[G4, I1, I2] kill -9 of daemon and plane; the other keeps what it has, and packets pass again."""
    topology = build(lab, road_seed=1)
    topology.start()
    assert topology.road is not None
    dying, other, _, its_name = ends(topology, side)
    time.sleep(0.5)  # the first handshake's last message is through
    before = other.peer_now(its_name)
    reach(topology, moment)
    dying.kill()
    kept = other.peer_now(its_name)
    assert kept["state"] == "up"
    if side == "responder" or moment == "initiation is under way":
        assert kept["session_index"] is not None
    if moment == "initiation is under way":
        assert kept["session_index"] == before["session_index"]
    topology.road.set(Rules())  # what was held arrives now, at whoever is there
    time.sleep(0.2)
    assert other.peer_now(its_name)["state"] == "up"
    dying.start()
    began = time.monotonic()
    eventually(
        lambda: topology.u.pings(V_INNER, wait_s=0.3),
        within_s=15,
        every_s=0.01,
        what="packets passing again",
    )
    assert time.monotonic() - began < UP_S
    assert topology.u.pings(V_INNER, count=5)
    assert topology.v.pings("192.168.53.99", count=5)
    topology.u_vpnd.assert_no_error()
    topology.gateway_vpnd.assert_no_error()


@pytest.mark.parametrize("moment", ["initiation is under way", "response is under way"])
@pytest.mark.parametrize("side", ["initiator", "responder"])
def test_a_daemon_killed_between_two_steps_costs_no_packet(lab: Lab, side: str, moment: str) -> None:
    """[G4] Its plane goes on with the session there was, and the next handshake comes through."""
    topology = build(lab, road_seed=1, own_plane=True)
    topology.start()
    assert topology.road is not None
    dying, other, name, its_name = ends(topology, side)
    stream = UdpStream(topology.u, topology.v, V_INNER, rate=RATE)
    time.sleep(0.5)
    reach(topology, moment)
    dying.kill()
    topology.road.set(Rules())
    dying.start()
    before = other.peer_now(its_name)["handshakes"]
    topology.u_vpnd.ask("reconnect", peer="gateway")
    eventually(lambda: other.peer_now(its_name)["handshakes"] > before, what="the next handshake")
    time.sleep(0.5)
    sent, received = stream.stop()
    assert received == sent, f"{sent - received} of {sent} lost"
    assert dying.peer_now(name)["state"] == "up"
    topology.u_vpnd.assert_no_error()
    topology.gateway_vpnd.assert_no_error()


# -- a power cut --

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut in the middle": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "garbage": lambda content: bytes(range(256)) * 4,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_both_killed_and_their_state_files_damaged(lab: Lab, damage: str) -> None:
    """[I3] Both start and find each other; each damaged file is one warning, or none if it is still good."""
    topology = build(lab)
    topology.start()
    assert topology.u.pings(V_INNER)
    both = (topology.u_vpnd, topology.gateway_vpnd)
    for vpnd in both:
        vpnd.stop()  # writes everything down
    topology.start()
    for vpnd in both:
        vpnd.kill()
    for vpnd in both:
        files = [file for file in vpnd.state_dir.iterdir() if file.is_file()]
        assert len(files) >= 2
        for file in files:
            file.write_bytes(DAMAGES[damage](file.read_bytes()))
        vpnd.log_file.write_text("")
    topology.start()
    assert topology.u.pings(V_INNER, count=5)
    for vpnd in both:
        warnings = [line for line in vpnd.log().splitlines() if " WARNING: " in line]
        for line in warnings:
            assert str(vpnd.state_dir) in line, warnings
        for file in vpnd.state_dir.iterdir():
            assert sum(str(file) in line for line in warnings) <= 1, warnings
        assert warnings
        vpnd.assert_no_error()
    # What the damaged files said is written anew, and serves the next start without a warning.
    topology.u_vpnd.stop()
    topology.u_vpnd.log_file.write_text("")
    topology.u_vpnd.start()
    topology.u_vpnd.wait_up()
    assert " WARNING: " not in topology.u_vpnd.log()
    assert topology.u.pings(GATEWAY_TUNNEL)
