"""One side dies and comes back: alone, with its plane, between any two steps of a rekey."""

from __future__ import annotations

import pytest

from tests.fakes.host import Host, Network, joined, share_session
from vpnd.protocol.actions import InstallSession
from vpnd.protocol.constants import GoodbyeReason, PacketType

INIT, RESP, DATA = PacketType.HS_INIT, PacketType.HS_RESP, PacketType.DATA
Pair = tuple[Network, Host, Host]


def test_a_restart_of_vpnd_alone_loses_no_packet_and_needs_no_handshake(connected: Pair) -> None:
    """[I1] The plane carries on; the new vpnd adopts its sessions and leaves them alone."""
    network, left, right = connected
    network.run(15.0)
    since = network.clock.now
    left.kill()
    sent = 0
    for step in range(100):
        if step == 50:
            left.boot()
        left.send(right, b"E%d" % step)
        right.send(left, b"E%d" % step)
        sent += 1
        network.run(0.05)
    network.run(0.1)
    assert left.received()[-sent:] == right.received()[-sent:] == [b"E%d" % step for step in range(sent)]
    assert network.wire.of_kind(INIT, since) == []


@pytest.mark.parametrize("caller", ["left", "right"])
def test_the_first_rekey_after_a_restart_of_vpnd_loses_no_packet(connected: Pair, caller: str) -> None:
    """[I1, G1] A new vpnd above the old plane is no restart to the peer: old sessions still receive."""
    network, left, right = connected
    network.run(15.0)
    left.kill()
    left.boot()
    network.run(1.0)
    one, other = (left, right) if caller == "left" else (right, left)
    for step in range(100):
        if step == 20:
            one.perform(one.device.reconnect(other.key, network.clock.now))
        left.send(right, b"El%d" % step)
        right.send(left, b"Er%d" % step)
        network.run(0.002)
    network.run(1.0)
    assert right.received()[-100:] == [b"El%d" % step for step in range(100)]
    assert left.received()[-100:] == [b"Er%d" % step for step in range(100)]


def test_an_adopted_session_is_rekeyed_in_time(connected: Pair) -> None:
    """[I1, F7] The new vpnd knows the session's age and renews it."""
    network, left, right = connected
    network.run(60.0)
    left.kill()
    left.boot()
    for _ in range(70):
        left.send(right)
        right.send(left)
        network.run(1.0)
    assert len(network.wire.of_kind(INIT)) == 2
    assert share_session(left, right)


def test_a_rekey_due_while_vpnd_was_away_happens_at_its_start(connected: Pair) -> None:
    """[I1] Vpnd slept through the rekey of a used session; the first tick makes up for it."""
    network, left, right = connected
    network.run(60.0)
    left.kill()
    right.kill()
    for _ in range(75):
        left.send(right)
        right.send(left)
        network.run(1.0)
    since = network.clock.now
    left.boot()
    right.boot()
    left.send(right)
    network.run(2.0)
    assert network.wire.of_kind(INIT, since)
    assert share_session(left, right)


def test_without_vpnd_traffic_ends_at_180_seconds(connected: Pair) -> None:
    """[G5] A dead vpnd can not stretch a key's life."""
    network, left, right = connected
    session = left.current(right)
    assert session is not None
    left.kill()
    right.kill()
    for _ in range(200):
        left.send(right)
        network.run(1.0)
    last = max(one.sent_at for one in network.wire.of_kind(DATA))
    assert last - session.created_at < 180.0


@pytest.mark.parametrize("victim", ["left", "right"])
def test_a_machine_that_lost_everything_is_back_in_a_round_trip_by_its_endpoint_cache(
    connected: Pair, victim: str
) -> None:
    """[I1, I2] Daemon and plane killed: with the endpoint known, up within a second of the start."""
    network, left, right = connected
    dead, alive = (left, right) if victim == "left" else (right, left)
    dead.kill()
    dead.kill_plane()
    network.run(10.0)
    dead.boot()
    took = network.run(5.0, until=lambda: share_session(left, right))
    assert share_session(left, right)
    assert took < 1.0
    alive.send(dead, b"Eafter")
    network.run(0.5)
    assert b"Eafter" in dead.received()


def test_without_an_endpoint_the_other_sides_probes_find_out_within_seven_seconds() -> None:
    """[I1] The restarted side does not know where to call; the side with traffic notices."""
    network, left, right = joined(both_know=False)
    left.send(right, b"Efirst")
    network.run(30.0)
    right.kill()
    right.kill_plane()
    right.plane.peers[left.key].endpoint = None
    right.boot(endpoint_cache=False)
    left.send(right, b"Einto the void")
    took = network.run(20.0, until=lambda: share_session(left, right))
    assert share_session(left, right)
    assert took <= 7.5


def test_a_new_daemon_start_is_seen_and_older_sessions_of_the_peer_go(connected: Pair) -> None:
    """[I1, G6] The peer's EPOCH changed after confirmation: what it forgot, we forget too."""
    network, left, right = connected
    old = left.current(right)
    assert old is not None
    network.run(15.0)
    right.kill()
    right.kill_plane()
    right.boot()
    network.run(3.0)
    assert share_session(left, right)
    assert old.local_index not in left.plane.by_index


STEPS = [
    ("init sent", INIT, 0.001),
    ("init received", INIT, 0.0101),
    ("response on its way", RESP, 0.015),
    ("response received", RESP, 0.0201),
    ("confirmation on its way", DATA, 0.025),
    ("confirmation received", DATA, 0.0301),
    ("answer on its way", DATA, 0.035),
    ("answer received", DATA, 0.0401),
]


@pytest.mark.parametrize("victim", ["left", "right"])
@pytest.mark.parametrize("after", [step[2] for step in STEPS], ids=[step[0] for step in STEPS])
def test_a_kill_between_any_two_steps_of_a_rekey_keeps_the_old_session(
    connected: Pair, victim: str, after: float
) -> None:
    """[G4] Daemon killed at eight points: packets pass all the time, also 1.5 s after its start."""
    network, left, right = connected
    network.run(20.0)
    dead = left if victim == "left" else right
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(after)
    dead.kill()
    for number in range(20):
        left.send(right, b"El%d" % number)
        right.send(left, b"Er%d" % number)
        network.run(0.1)
    dead.boot()
    network.run(1.5)
    left.send(right, b"Elast")
    right.send(left, b"Elast")
    network.run(0.5)
    assert right.received()[-21:] == [b"El%d" % number for number in range(20)] + [b"Elast"]
    assert left.received()[-21:] == [b"Er%d" % number for number in range(20)] + [b"Elast"]


@pytest.mark.parametrize("victim", ["left", "right"])
@pytest.mark.parametrize("after", [step[2] for step in STEPS], ids=[step[0] for step in STEPS])
def test_a_kill_of_both_programs_between_any_two_steps_is_repaired(
    connected: Pair, victim: str, after: float
) -> None:
    """[G4] Daemon and plane killed at eight points: up within 1.5 s after the restart."""
    network, left, right = connected
    network.run(20.0)
    dead = left if victim == "left" else right
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(after)
    dead.kill()
    dead.kill_plane()
    network.run(3.0)
    dead.boot()
    network.run(1.5)
    left.send(right, b"Elast")
    right.send(left, b"Elast")
    network.run(0.2)
    assert right.received()[-1] == b"Elast"
    assert left.received()[-1] == b"Elast"


@pytest.mark.parametrize("stored", [0, 1, 2**63, 2**64 - 1, -5])
def test_a_device_starts_with_any_stored_timestamp(stored: int) -> None:
    """[I3] What a damaged state file gave never stops a start; a peer that knew nothing answers."""
    network, left, right = joined()
    left.stored_timestamp_ns = stored
    left.boot()
    network.run(1.0)
    assert share_session(left, right)


def test_both_machines_restart_with_nothing_and_meet_again(connected: Pair) -> None:
    """[I3] No sessions, no stored timestamp, on either side."""
    network, left, right = connected
    for host in (left, right):
        host.kill()
        host.kill_plane()
        host.stored_timestamp_ns = 0
    network.run(5.0)
    for host in (left, right):
        host.boot()
    network.run(2.0)
    assert share_session(left, right)


def test_a_clean_restart_of_a_machine_says_so_and_is_back_soon(connected: Pair) -> None:
    """[I4, I1] GOODBYE(restart), two seconds away, and packets pass again."""
    network, left, right = connected
    right.say_goodbye(GoodbyeReason.RESTART)
    network.run(0.1)
    right.kill()
    right.kill_plane()
    network.run(2.0)
    right.boot()
    took = network.run(5.0, until=lambda: share_session(left, right))
    assert share_session(left, right)
    assert took <= 1.5


def test_an_adopted_index_is_never_given_out_again(connected: Pair) -> None:
    """[H12] The new vpnd knows the indices the plane still holds."""
    network, left, right = connected
    left.kill()
    left.boot()
    for _ in range(5):
        left.perform(left.device.reconnect(right.key, network.clock.now))
        network.run(0.5)
    indices = [action.local_index for action in left.actions if isinstance(action, InstallSession)]
    assert len(set(indices)) == len(indices)
