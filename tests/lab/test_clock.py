"""Sleep and a wall clock that is set, under traffic: what the daemons make of it, and the plane alone."""

from __future__ import annotations

import time

import pytest

from tests.lab.classical import GATEWAY_TUNNEL, PORT, U_TUNNEL, V_INNER, Classical, build
from tests.lab.namespaces import Lab, eventually
from tests.lab.shifted_clock import ShiftedClock
from tests.lab.tools import Capture, UdpStream

UDP_PAYLOAD = 14 + 20 + 8
DATA = 0x0C
HOUR_S, DAY_S, YEAR_S = 3600, 86_400, 365 * 86_400
QUICK = {"rekey_after_s": 1.5, "rekey_jitter_s": 0.2, "rekey_responder_s": 2.5}


def data_sessions(capture: Capture) -> list[bytes]:
    """The session numbers of the data messages captured, in their order."""
    payloads = [packet[UDP_PAYLOAD:] for packet in capture.packets()]
    return [payload[4:8] for payload in payloads if payload[0] == DATA]


def clocked(lab: Lab) -> tuple[Classical, ShiftedClock, ShiftedClock]:
    """The classical topology, up, and the clocks of U and the gateway."""
    topology = build(lab)
    u, gateway = ShiftedClock(topology.u_vpnd), ShiftedClock(topology.gateway_vpnd)
    topology.start()
    return topology, u, gateway


def check(topology: Classical) -> None:
    topology.u_vpnd.assert_no_error()
    topology.gateway_vpnd.assert_no_error()


def test_a_short_sleep_leaves_the_session_alone(lab: Lab) -> None:
    """[F5] U sleeps for 10 s under traffic: the old session goes on, nothing that U sends is lost."""
    topology, clock, _ = clocked(lab)
    stream = UdpStream(topology.u, topology.v, V_INNER, rate=100)
    time.sleep(0.5)
    before = Capture(topology.gateway, "outer", f"udp dst port {PORT}")
    time.sleep(0.5)
    with topology.u_vpnd.paused():  # it would begin a handshake before we look
        clock.sleep(10)
        after = Capture(topology.gateway, "outer", f"udp dst port {PORT}")
        time.sleep(0.5)
    time.sleep(0.5)
    for capture in (before, after):
        capture.stop()
    sent, received = stream.stop()
    assert received == sent, f"{sent - received} of {sent} lost"
    (session,) = set(data_sessions(before)[:10])
    assert session in data_sessions(after)
    check(topology)


@pytest.mark.parametrize("both", [False, True], ids=["u", "both"])
@pytest.mark.parametrize("seconds", [200, HOUR_S])
def test_a_long_sleep_ends_in_a_new_session_at_once(lab: Lab, seconds: int, both: bool) -> None:
    """[F5] The keys are too old afterwards: a new handshake, and the packets wait for it."""
    topology, u_clock, gateway_clock = clocked(lab)
    handshakes = topology.u_vpnd.peer("gateway")["handshakes"]
    stream = UdpStream(topology.u, topology.v, V_INNER, rate=100)
    time.sleep(0.5)
    with topology.u_vpnd.paused():
        u_clock.sleep(seconds)
        if both:
            time.sleep(0.2)  # what U had sealed before has arrived
            gateway_clock.sleep(seconds)
    eventually(
        lambda: topology.u_vpnd.peer("gateway")["handshakes"] > handshakes, within_s=5, what="the new session"
    )
    assert topology.v.pings(U_TUNNEL, wait_s=2)
    sent, received = stream.stop()
    assert received == sent, f"{sent - received} of {sent} lost"
    check(topology)


@pytest.mark.parametrize(("seconds", "goes_on"), [(10, True), (200, False)])
def test_the_plane_alone_uses_no_key_beyond_its_age(lab: Lab, seconds: int, goes_on: bool) -> None:
    """[F5] The daemon of U is still asleep: what U sends waits, and leaves under a new session only."""
    topology, clock, _ = clocked(lab)
    assert topology.u.pings(GATEWAY_TUNNEL)
    stream = UdpStream(topology.u, topology.v, V_INNER, rate=50)
    before = Capture(topology.gateway, "outer", f"udp dst port {PORT}")
    time.sleep(0.5)
    before.stop()
    with topology.u_vpnd.paused():
        clock.sleep(seconds)
        time.sleep(0.2)  # what was being sent has left
        alone = Capture(topology.gateway, "outer", f"udp dst port {PORT}")
        time.sleep(1)
        alone.stop()
    (session,) = set(data_sessions(before))
    assert set(data_sessions(alone)) == ({session} if goes_on else set())
    time.sleep(1)
    sent, received = stream.stop()
    assert received == sent, f"{sent - received} of {sent} lost"
    assert topology.u.pings(V_INNER)
    check(topology)


def test_a_wall_clock_that_is_set_disturbs_nothing(lab: Lab) -> None:
    """[F6, F3] Forward and back by days and years, on either side, under traffic and rekeys."""
    topology = build(lab)
    topology.u_vpnd.timers = topology.gateway_vpnd.timers = QUICK
    clocks = (ShiftedClock(topology.u_vpnd), ShiftedClock(topology.gateway_vpnd))
    topology.start()
    there = UdpStream(topology.u, topology.v, V_INNER, rate=500)
    back = UdpStream(topology.v, topology.u, U_TUNNEL, rate=500)
    for side, shift_s in ((0, DAY_S), (0, -DAY_S), (1, 10 * YEAR_S), (0, 10 * YEAR_S), (0, 0), (1, 0)):
        handshakes = topology.u_vpnd.peer("gateway")["handshakes"]
        clocks[side].set_wall_clock(shift_s)
        eventually(
            lambda count=handshakes: topology.u_vpnd.peer("gateway")["handshakes"] > count,  # type: ignore[misc]
            what=f"a rekey after a shift to {shift_s} s",
        )
    for name, stream in (("u to v", there), ("v to u", back)):
        sent, received = stream.stop()
        assert received == sent, f"{name}: {sent - received} of {sent} lost"
    assert "hs_stale" not in topology.gateway_vpnd.drops()
    check(topology)
    topology.u_vpnd.stop()
    last_s = int((topology.u_vpnd.state_dir / "last-timestamp").read_text()) / 1e9
    assert last_s > time.time() + 9 * YEAR_S, "the shifts did not reach the daemon"
