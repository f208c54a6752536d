"""What time and the machine demand of live peers, where the story is told by a Device alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.host import OPTIONS, Host, Network, endpoint, is_up, joined, peer_of, share_session
from vpnd.keys import Secret
from vpnd.protocol.actions import Action, PeerChanged, RetireSession, SendControl, SendDatagram
from vpnd.protocol.constants import TIMERS, Control, Feature, Slot, Suite
from vpnd.protocol.device import Activity, AdoptedSession
from vpnd.protocol.parameters import Parameters, encode_parameters
from vpnd.protocol.peer import PeerOptions

Pair = tuple[Network, Host, Host]
INIT, COOKIE = 0x08, 0x0A


def initiations(actions: list[Action]) -> int:
    return sum(isinstance(action, SendDatagram) and action.datagram[0] == INIT for action in actions)


def inits_of(network: Network, host: Host, since: float = 0.0) -> int:
    return sum(one.source == host.address for one in network.wire.of_kind(INIT, since))


def adopted(index: int, slot: Slot, created_at: float) -> AdoptedSession:
    return AdoptedSession(index, index, Suite.AES_256_GCM, slot, True, True, created_at)


def test_an_idle_device_has_no_deadline() -> None:
    """Nothing lives, nothing is due."""
    network, left, _ = joined()
    assert left.device.next_deadline(network.clock.now) is None
    assert left.device.tick(network.clock.now, {}) == []


def test_a_session_whose_end_the_plane_did_not_tell_ends_by_our_own_clock(connected: Pair) -> None:
    """[F7] 180 s after its birth."""
    network, left, right = connected
    index = left.device.snapshot(right.key).current_index
    assert index is not None
    ended = left.device.tick(network.clock.now + 181.0, {})
    assert RetireSession(right.key, index) in ended
    assert PeerChanged(right.key) in ended
    assert left.device.snapshot(right.key).stage == "idle"


def test_an_unconfirmed_session_ends_after_fifteen_seconds() -> None:
    """The response was lost, and the initiator is gone."""
    network, left, right = joined(both_know=False)
    left.start()
    left.kill()
    network.run(20.0)
    assert len(right.device._local.indices) == 0
    assert right.device.next_deadline(network.clock.now) is None


def test_a_session_displaced_by_another_frees_its_index(connected: Pair) -> None:
    """[H12] Also where the plane says nothing of the one that went."""
    network, left, right = connected
    now = network.clock.now
    live = len(left.device._local.indices)
    left.device.adopt(
        right.key, [adopted(11, Slot.UNCONFIRMED, now), adopted(12, Slot.UNCONFIRMED, now)], None, now
    )
    left.device.session_placed(right.key, 11, Slot.CURRENT, now)
    left.device.session_placed(right.key, 12, Slot.CURRENT, now)
    assert len(left.device._local.indices) == live + 1


def test_sessions_adopted_twice_are_one() -> None:
    """[I1] The inventory may be taken again; of two previous ones the younger is the one."""
    network, left, right = joined()
    now = network.clock.now
    found = [adopted(1, Slot.PREVIOUS, now - 30), adopted(2, Slot.CURRENT, now - 20)]
    for _ in range(2):
        left.device.adopt(right.key, found, None, now)
    assert len(left.device._local.indices) == 2
    left.device.adopt(right.key, [adopted(3, Slot.PREVIOUS, now - 10)], None, now)
    assert len(left.device._local.indices) == 2
    assert left.device.snapshot(right.key).current_index == 2


def test_after_giving_up_on_a_live_session_only_new_data_tries_again(connected: Pair) -> None:
    """[A23] The session still takes packets, so the plane wants none; its stamps tell of the next packet."""
    network, left, right = connected
    network.run(0.1)
    network.wire.cut()
    left.send(right, b"Elost")
    network.run(6.0 + TIMERS.hs_giveup_s + 1.0)
    assert left.device.snapshot(right.key).stage == "up"
    quiet_since = network.clock.now
    network.run(10.0)
    assert inits_of(network, left, quiet_since) == 0
    left.send(right, b"Eagain")
    network.run(1.1)
    assert inits_of(network, left, quiet_since) >= 1


def test_a_lost_plane_ends_all_sessions_and_the_peers_drop_theirs(connected: Pair) -> None:
    """[I1] Another epoch in the next handshake tells that the older sessions are no more."""
    network, left, right = connected
    old = right.device.snapshot(left.key).current_index
    left.kill_plane()
    left.device.plane_lost()
    left.device.set_epoch(b"another.")
    assert left.device.snapshot(right.key).stage == "idle"
    left.send(right, b"Eagain")
    network.run(1.0)
    assert share_session(left, right)
    assert old in right.retired


def test_the_last_refusal_is_of_the_last_datagram(connected: Pair) -> None:
    """For whoever logs what `receive` refused."""
    network, left, right = connected
    assert left.device.receive(b"", right.address, network.clock.now) == []
    assert left.device.last_refusal == "rx_malformed"
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(1.0)
    assert left.device.last_refusal is None


@pytest.mark.parametrize(("stored", "is_behind"), [(0, False), (10**30, True)])
def test_a_clock_behind_the_stored_timestamp_is_told(stored: int, is_behind: bool) -> None:
    """[F1] For the daemon's log."""
    _, left, _ = joined()
    left.stored_timestamp_ns = stored
    assert left._new_device().is_clock_behind is is_behind


# --- the machine's network and sleep ---


def test_a_changed_network_tries_an_unreachable_peer_again_at_once() -> None:
    """[C12] A second after the last try at the earliest; also after giving up."""
    network, left, right = joined(both_know=False)
    network.wire.cut()
    left.start()
    network.run(0.5)
    assert left.device.network_changed(network.clock.now) == []
    network.run(5.0)
    assert initiations(left.device.network_changed(network.clock.now)) == 1
    network.run(100.0)
    assert left.device.snapshot(right.key).stage == "gave-up"
    network.wire.heal()
    left.perform(left.device.network_changed(network.clock.now))
    network.run(0.1)
    assert is_up(left, right)


def test_a_change_right_after_a_try_brings_the_next_one_forward() -> None:
    """[C12] News that come too soon for another try are not lost: it comes a second after the last."""
    network, left, _ = joined(both_know=False)
    network.wire.cut()
    left.start()
    network.run(20.0)  # tries are 5 s apart by now
    last = network.wire.of_kind(INIT)[-1].sent_at
    network.run(last + 5.5 - network.clock.now)
    last = network.wire.of_kind(INIT)[-1].sent_at
    network.run(last + 0.5 - network.clock.now)
    assert left.device.network_changed(network.clock.now) == []
    since = network.clock.now
    network.run(0.6)
    assert inits_of(network, left, since) == 1


def test_a_changed_network_asks_no_idle_peer_and_no_live_one_twice_in_a_second(connected: Pair) -> None:
    """[C12] A burst of netlink events is one question."""
    network, left, right = connected
    third = network.add("third", 3)
    left.configure(left.peers[0], peer_of(third, at=third.address))
    network.run(1.0)
    now = network.clock.now
    (question,) = left.device.network_changed(now)
    assert isinstance(question, SendControl)
    assert (question.peer, question.payload[0]) == (right.key, Control.PING)
    assert left.device.network_changed(now + 0.5) == []
    assert len(left.device.network_changed(now + 1.5)) == 1


def test_a_live_peer_that_was_silent_for_long_is_not_asked(connected: Pair) -> None:
    """[F5] Active in the last 180 s, as the limit says."""
    network, left, right = connected
    now = network.clock.now
    left.device.tick(now + 100.0, {right.key: Activity(last_sent=now - 100.0)})
    assert left.device.network_changed(now + 100.0) == []


def test_a_peer_that_does_not_answer_after_a_change_is_called_anew(connected: Pair) -> None:
    """[C12] The question of a changed network goes the way of unanswered data."""
    network, left, _ = connected
    network.run(1.0)
    network.wire.cut()
    left.perform(left.device.network_changed(network.clock.now))
    asked_at = network.clock.now
    network.run(TIMERS.probe_handshake_s + 0.1)
    assert inits_of(network, left, asked_at) == 1


def test_word_of_a_resume_may_come_before_or_after_the_first_tick(connected: Pair) -> None:
    """[F5] Either way the sleep is not counted as silence."""
    network, left, right = connected
    now = network.clock.now
    seen = {right.key: Activity(last_sent=now, last_received=now)}
    left.device.tick(now, seen)
    assert initiations(left.device.resumed(now + 3600.0)) == 1
    left.device.tick(now + 3600.0, seen)
    assert initiations(left.device.resumed(now + 3601.0)) == 1
    assert initiations(left.device.resumed(now + 3620.0)) == 0


# --- floods at the gate ---


def test_under_load_one_address_gets_its_burst_and_no_more() -> None:
    """[H5] Ten machines behind one address prove it by cookies within 0.1 s: five and a bit pass."""
    network = Network()
    hub = network.add("hub", 1)
    hub.queue_depth = 100
    clients = [network.add(f"client {number}", 10 + number) for number in range(10)]
    hub.configure(*[peer_of(client) for client in clients])
    for number, client in enumerate(clients):
        client.address = endpoint("192.0.2.200", 6000 + number)
        client.configure(peer_of(hub, at=hub.address))
        client.start()
    network.run(0.2)
    refusals = hub.device.refusals
    assert refusals["hs_cookie_sent"] == 10
    assert len(network.wire.of_kind(COOKIE)) == 10
    passed = 10 - refusals["hs_ratelimited"]
    assert 5 <= passed <= 5 + 2
    assert sum(is_up(client, hub) for client in clients) == passed


def test_the_meter_of_load_forgets_after_a_quiet_second() -> None:
    """[H4] A hub that was busy once is not busy for ever."""
    network, left, right = joined(both_know=False)
    now = network.clock.now
    right.device.note_handshake_cpu(0.2, now)
    right.device.note_handshake_cpu(0.2, now + 5.0)
    network.clock.advance_to(now + 5.0)
    left.start()
    network.run(0.1)
    assert "hs_cookie_sent" not in right.device.refusals


# --- values ---


def test_secrets_of_options_are_compared_by_value() -> None:
    """[I6] A previous key on one side only, on both, and different ones."""
    _, left, right = joined()
    plain = left.peers[0]
    old, same, other = (Secret.copy_of(byte * 32) for byte in (b"o", b"o", b"x"))
    assert plain.is_same(replace(plain, preshared_key=Secret.zero()))
    assert not plain.is_same(replace(plain, previous_preshared_key=old))
    rolling = replace(plain, previous_preshared_key=old)
    assert rolling.is_same(replace(plain, previous_preshared_key=same))
    assert not rolling.is_same(replace(plain, previous_preshared_key=other))
    assert not rolling.is_same(plain)
    assert isinstance(plain, PeerOptions)
    assert right.key == plain.public_key


def test_a_capability_of_the_plane_is_offered_only_where_it_is_named() -> None:
    """[D10] Features come from the options."""
    offered = replace(OPTIONS, features=Feature(0)).capabilities()
    assert offered.features == Feature.TUN
    assert OPTIONS.capabilities().features == Feature.TUN | Feature.CSUM | Feature.PATH | Feature.PARAMS


def test_an_offer_of_everything_fits_the_smallest_step() -> None:
    """[H14] Every first message has 200 bytes, also in a roll-over and with a keepalive wish."""
    whole = Parameters(
        versions=(1,), suites=(1, 2), mtu=1420, features=127, keepalive_s=25, epoch=bytes(8), psk_next=True
    )
    assert 12 + len(encode_parameters(whole)) + 3 <= 64
