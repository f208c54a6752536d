"""Options that change under a live device: what each change does, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.host import Host, Network, endpoint, is_up, joined, peer_of, share_session
from vpnd.keys import Secret
from vpnd.protocol.actions import PeerChanged, RetireSession, SendControl, SendDatagram, SetEndpoint
from vpnd.protocol.constants import GoodbyeReason, Slot
from vpnd.protocol.peer import Activity

Pair = tuple[Network, Host, Host]
INIT = 0x08
ELSEWHERE = endpoint("192.0.2.77")


def change(host: Host, **settings: object) -> list[object]:
    """Reloads the only peer of `host` with other settings; gives the device's actions."""
    before = len(host.actions)
    host.configure(replace(host.peers[0], **settings))  # type: ignore[arg-type]
    return list(host.actions[before:])


def test_our_own_key_as_a_peer_is_refused_and_changes_nothing(connected: Pair) -> None:
    """[A12] At configuration."""
    network, left, right = connected
    with pytest.raises(ValueError, match="our own public key"):
        left.device.configure([peer_of(left)], network.clock.now)
    assert left.device.snapshot(right.key).stage == "up"


def test_two_peers_of_one_key_are_refused_and_change_nothing(connected: Pair) -> None:
    """[E6] Which of both would it be."""
    network, left, right = connected
    with pytest.raises(ValueError, match="same public key"):
        left.device.configure([peer_of(right), peer_of(right, keepalive_s=5)], network.clock.now)
    assert left.device.snapshot(right.key).stage == "up"


def test_a_new_name_or_keepalive_touches_no_session(connected: Pair) -> None:
    """[I6] Readers look again, and nothing else happens."""
    _, left, right = connected
    session = left.current(right)
    assert change(left, name="other", keepalive_s=25) == [PeerChanged(right.key)]
    assert left.current(right) is session


def test_equal_secrets_in_other_buffers_are_no_change(connected: Pair) -> None:
    """[I6] Values are compared, not objects."""
    _, left, _ = connected
    assert change(left, preshared_key=Secret.zero()) == []


def test_a_previous_key_alone_makes_a_new_session_only_where_there_is_one() -> None:
    """[A16] An idle peer waits for traffic."""
    _, left, right = joined()
    assert change(left, previous_preshared_key=Secret.copy_of(b"p" * 32)) == [PeerChanged(right.key)]


def test_a_new_endpoint_is_called_at_once(connected: Pair) -> None:
    """[C13] The plane follows, and a handshake goes there."""
    _, left, right = connected
    actions = change(left, endpoint=ELSEWHERE)
    assert SetEndpoint(right.key, ELSEWHERE) in actions
    assert [one.endpoint for one in actions if isinstance(one, SendDatagram)] == [ELSEWHERE]


def test_the_endpoint_the_peer_is_at_already_is_no_change(connected: Pair) -> None:
    """[C1] It roamed there before the operator wrote it down."""
    network, left, right = connected
    left.device.endpoint_moved(right.key, ELSEWHERE, network.clock.now)
    assert change(left, endpoint=ELSEWHERE) == [PeerChanged(right.key)]


def test_an_endpoint_taken_back_stays_with_a_live_session(connected: Pair) -> None:
    """[C1] It was proven by the peer itself meanwhile."""
    _, left, right = connected
    assert change(left, endpoint=None) == [PeerChanged(right.key)]
    assert left.device.snapshot(right.key).endpoint == right.address


def test_an_endpoint_taken_back_ends_the_tries() -> None:
    """[A13] Nobody is called any more, and a new one begins anew."""
    network, left, right = joined()
    network.wire.cut()
    left.start()
    network.run(2.0)
    change(left, endpoint=None)
    tries = len(network.wire.of_kind(INIT))
    network.run(20.0)
    assert len(network.wire.of_kind(INIT)) == tries
    assert left.device.snapshot(right.key).stage == "idle"
    change(left, endpoint=right.address)
    assert left.device.snapshot(right.key).stage == "handshaking"


def test_a_disabled_peer_is_told_nothing_and_an_enabled_one_is_called(connected: Pair) -> None:
    """[A13, I4] Off and on again by the operator: the sessions end at once, the peer has to find out."""
    network, left, right = connected
    index = left.device.snapshot(right.key).current_index
    assert index is not None
    assert change(left, enabled=False) == [PeerChanged(right.key), RetireSession(right.key, index)]
    network.run(0.1)
    assert left.device.snapshot(right.key).stage == "disabled"
    assert right.current(left) is not None
    change(left, enabled=True)
    network.run(0.1)
    assert share_session(left, right)


def test_a_peer_disabled_during_a_goodbye_hears_no_more_of_it(connected: Pair) -> None:
    """[I4] Its copies go with the session that they would be sent on."""
    network, left, right = connected
    index = left.device.snapshot(right.key).current_index
    assert index is not None
    left.perform(left.device.goodbye(GoodbyeReason.SHUTDOWN, network.clock.now))
    assert change(left, enabled=False) == [PeerChanged(right.key), RetireSession(right.key, index)]
    assert left.device.tick(network.clock.now + 1.0, {}) == []


def test_changes_of_a_disabled_peer_stay_silent() -> None:
    """[A13] No handshake for other keys, or because the operator asks for an echo."""
    _, left, right = joined()
    change(left, enabled=False)
    actions = change(left, preshared_key=Secret.copy_of(b"p" * 32), endpoint=ELSEWHERE)
    assert actions == [PeerChanged(right.key)]
    assert left.device.ping(right.key, 1.0, 1) == []


def test_a_peer_enabled_again_at_once_has_a_new_session(connected: Pair) -> None:
    """[I4] Two reloads within 20 ms: the peer knows nothing of the end, and takes the new session."""
    network, left, right = connected
    change(left, enabled=False)
    change(left, enabled=True)
    network.run(3.0)
    assert share_session(left, right)
    left.send(right, b"Eafter")
    network.run(0.1)
    assert right.received()[-1] == b"Eafter"


def test_a_removed_peer_hears_three_goodbyes_and_all_its_sessions_end(connected: Pair) -> None:
    """[E7, I4] At once, since its keys leave with it."""
    network, left, right = connected
    index = left.device.snapshot(right.key).current_index
    assert index is not None
    actions = left.device.configure([], network.clock.now)
    goodbye = SendControl(right.key, bytes((0x20, GoodbyeReason.REMOVED)), index)
    assert actions == [goodbye, goodbye, goodbye, RetireSession(right.key, index)]


def test_a_removed_peer_without_a_session_leaves_in_silence() -> None:
    """[E7] And its pending initiation is forgotten."""
    network, left, right = joined()
    left.start()
    response_to = network.wire.of_kind(INIT)[0].data[4:8]
    assert left.device.configure([], network.clock.now) == []
    late = (b"\x09\x01\0\0" + response_to).ljust(140, b"\0")
    assert left.device.receive(late, right.address, network.clock.now) == []
    assert left.device.refusals == {"hs_resp_noidx": 1}
    assert left.device.next_deadline(network.clock.now) is None


def test_word_of_a_peer_that_was_removed_does_nothing(connected: Pair) -> None:
    """[I6] The plane's events may be older than the reload."""
    network, left, right = connected
    now = network.clock.now
    index = left.device.snapshot(right.key).current_index
    assert index is not None
    left.device.configure([], now)
    assert left.device.want_session(right.key, now) == []
    assert left.device.session_placed(right.key, index, Slot.CURRENT, now) == []
    assert left.device.session_ended(right.key, index, now) == []
    left.device.endpoint_moved(right.key, ELSEWHERE, now)
    assert left.device.tick(now, {right.key: Activity(last_received=now)}) == []


def test_word_of_a_session_that_is_gone_does_nothing(connected: Pair) -> None:
    """[I6] Or of one that never was."""
    network, left, right = connected
    now = network.clock.now
    assert left.device.session_placed(right.key, 12345, Slot.CURRENT, now) == []
    assert left.device.session_ended(right.key, 12345, now) == []
    assert is_up(left, right)


def test_a_session_that_changes_its_slot_again_is_no_new_handshake(connected: Pair) -> None:
    """[A9] The plane moved it; readers look again."""
    network, left, right = connected
    index = left.device.snapshot(right.key).current_index
    assert index is not None
    before = left.device.snapshot(right.key).handshakes
    actions = left.device.session_placed(right.key, index, Slot.PREVIOUS, network.clock.now)
    assert actions == [PeerChanged(right.key)]
    assert left.device.snapshot(right.key).handshakes == before


def test_a_current_session_lost_before_its_time_is_replaced_at_once(connected: Pair) -> None:
    """FORGE_LIMIT and REJECT_AFTER_MESSAGES: the plane ended it, a handshake starts."""
    network, left, right = connected
    index = left.device.snapshot(right.key).current_index
    assert index is not None
    actions = left.device.session_ended(right.key, index, network.clock.now)
    assert any(isinstance(action, SendDatagram) for action in actions)


def test_a_lost_previous_session_is_not_replaced(connected: Pair) -> None:
    """Nothing is sent on it."""
    network, left, right = connected
    old = left.device.snapshot(right.key).current_index
    assert old is not None
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(0.5)
    assert left.device.snapshot(right.key).current_index != old
    assert left.device.session_ended(right.key, old, network.clock.now) == []
