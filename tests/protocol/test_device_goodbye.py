"""GOODBYE: seen, lost, replayed, late; what each reason makes the other side do."""

from __future__ import annotations

import pytest

from tests.fakes.host import Host, Network, peer_of, share_session
from tests.fakes.wire import Datagram
from vpnd.protocol.constants import Control, GoodbyeReason, PacketType

INIT, DATA = PacketType.HS_INIT, PacketType.DATA
Pair = tuple[Network, Host, Host]


def goodbyes(network: Network) -> list[Datagram]:
    return [one for one in network.wire.of_kind(DATA) if one.data[16] == Control.GOODBYE]


def test_a_goodbye_leaves_three_times_ten_milliseconds_apart_with_different_counters(
    connected: Pair,
) -> None:
    """[I4] Three copies, three counters."""
    network, _left, right = connected
    right.say_goodbye(GoodbyeReason.SHUTDOWN)
    network.run(1.0)
    sent = goodbyes(network)
    assert len(sent) == 3
    assert len({one.data[8:16] for one in sent}) == 3
    assert sent[1].sent_at - sent[0].sent_at == pytest.approx(0.01, abs=0.005)
    assert sent[2].sent_at - sent[1].sent_at == pytest.approx(0.01, abs=0.005)


@pytest.mark.parametrize("reason", [GoodbyeReason.SHUTDOWN, GoodbyeReason.REMOVED, GoodbyeReason.IDLE])
def test_after_a_final_goodbye_nothing_is_sent_until_there_is_traffic(
    connected: Pair, reason: GoodbyeReason
) -> None:
    """[I4] Reasons 1, 3 and 4: the session ends at once, and even a persistent peer is left in peace."""
    network, left, right = connected
    left.configure(peer_of(right, at=right.address, keepalive_s=25))
    right.say_goodbye(reason)
    network.run(0.05)
    assert left.current(right) is None
    assert not left.plane.by_index
    since = network.clock.now
    network.run(300.0)
    assert [one for one in network.wire.of_kind(INIT, since) if one.source == left.address] == []
    left.send(right, b"Eown traffic")
    network.run(1.0)
    assert b"Eown traffic" in right.received()


def test_neither_resume_nor_a_changed_network_calls_a_peer_that_said_goodbye(connected: Pair) -> None:
    """[I4, F5] Only own traffic does, whatever happens to our machine."""
    network, left, right = connected
    right.say_goodbye(GoodbyeReason.SHUTDOWN)
    network.run(0.1)
    since = network.clock.now
    left.perform(left.device.resumed(network.clock.now))
    left.perform(left.device.network_changed(network.clock.now))
    network.run(5.0)
    assert network.wire.of_kind(INIT, since) == []


def test_after_a_goodbye_to_restart_a_handshake_comes_a_second_later(connected: Pair) -> None:
    """[I4] Reason 2."""
    network, left, right = connected
    right.say_goodbye(GoodbyeReason.RESTART)
    network.run(0.05)
    since = network.clock.now
    assert left.current(right) is None
    network.run(3.0)
    (first, *_) = [one for one in network.wire.of_kind(INIT, since) if one.source == left.address]
    assert 0.9 <= first.sent_at - since <= 1.4
    assert share_session(left, right)


def test_a_lost_goodbye_is_made_good_by_its_copies(connected: Pair) -> None:
    """[I4] Two of three may be lost."""
    network, left, right = connected
    network.wire.drop_next(DATA, times=2, source=right.address)
    right.say_goodbye(GoodbyeReason.SHUTDOWN)
    network.run(0.1)
    assert left.current(right) is None


def test_when_every_goodbye_is_lost_probes_find_out(connected: Pair) -> None:
    """[I4] The other side is gone and said nothing we heard: a handshake comes by our traffic."""
    network, left, right = connected
    network.run(10.0)
    network.wire.drop_all(DATA, source=right.address)
    right.say_goodbye(GoodbyeReason.SHUTDOWN)
    network.run(0.1)
    network.wire.heal()
    left.send(right, b"Eanybody there")
    network.run(9.0)
    assert share_session(left, right)


def test_a_replayed_goodbye_changes_nothing(connected: Pair) -> None:
    """[I4] After a new session the old goodbye finds no session, or a full window."""
    network, left, right = connected
    right.say_goodbye(GoodbyeReason.SHUTDOWN)
    network.run(0.1)
    left.send(right, b"Enew session")
    network.run(1.0)
    session = left.current(right)
    for one in goodbyes(network):
        network.wire.inject(one, network.clock.now)
    network.run(0.1)
    assert left.current(right) is session is not None


def test_a_late_goodbye_of_an_old_session_leaves_the_new_one_alone(connected: Pair) -> None:
    """[I4] It destroys its own session and older ones only."""
    network, left, right = connected
    held = network.wire.hold(lambda one: one.kind == DATA and one.data[16] == Control.GOODBYE)
    old = right.current(left)
    assert old is not None
    right.perform(right.device.goodbye(GoodbyeReason.SHUTDOWN, network.clock.now))
    network.run(0.1)
    network.wire.heal()
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(1.0)
    renewed = left.current(right)
    assert renewed is not None
    assert renewed.remote_index != old.local_index
    assert held
    for one in held:
        network.wire.inject(one, network.clock.now)
    network.run(0.5)
    assert left.current(right) is renewed


def test_a_goodbye_on_the_current_session_ends_the_previous_one_too(connected: Pair) -> None:
    """[I4] Older sessions go with it."""
    network, left, right = connected
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(1.0)
    assert len(left.plane.by_index) == 2
    right.say_goodbye(GoodbyeReason.SHUTDOWN)
    network.run(0.1)
    assert not left.plane.by_index


@pytest.mark.parametrize("calls", ["who leaves", "who stays"])
def test_a_goodbye_ends_a_session_too_that_the_plane_has_not_told_of(connected: Pair, calls: str) -> None:
    """[I4] The plane uses a new session before its event is read; who stays is up with nobody otherwise."""
    network, left, right = connected
    old = left.current(right)
    right.device.session_placed = lambda *_: []  # type: ignore[method-assign]
    caller, called = (right, left) if calls == "who leaves" else (left, right)
    caller.perform(caller.device.reconnect(called.key, network.clock.now))
    network.run(1.0, until=lambda: share_session(left, right) and left.current(right) is not old)
    assert left.current(right) is not old
    right.say_goodbye(GoodbyeReason.SHUTDOWN)
    network.run(0.1)
    assert not left.plane.by_index
    assert not right.plane.by_index


def test_after_saying_goodbye_our_own_sessions_are_gone(connected: Pair) -> None:
    """[I4] With the last copy the keys are wiped on our side as well."""
    network, _left, right = connected
    right.say_goodbye(GoodbyeReason.SHUTDOWN)
    network.run(0.1)
    assert not right.plane.by_index


@pytest.mark.parametrize("payload", [b"\x20", b"\x20\xff", b"\x20\x01\0\0", b"\x2f", b"\x25\0", b"\x22"])
def test_control_messages_of_odd_form_never_raise(connected: Pair, payload: bytes) -> None:
    """[H13, I4] An authenticated peer may send what it likes: counted or obeyed, never an exception."""
    network, left, right = connected
    session = left.current(right)
    assert session is not None
    left.perform(
        left.device.receive_control(right.key, session.local_index, right.address, payload, network.clock.now)
    )
    network.run(0.1)
