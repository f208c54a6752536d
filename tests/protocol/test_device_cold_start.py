"""From nothing to the first packet, and whom a device does not talk to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.forge import with_mac1
from tests.fakes.host import Host, Network, endpoint, is_up, joined, peer_of, share_session
from tests.fakes.wire import Datagram
from vpnd.keys import Secret
from vpnd.protocol.actions import InstallSession, ParametersReceived, SendDatagram
from vpnd.protocol.constants import PacketType

INIT, RESP, COOKIE = PacketType.HS_INIT, PacketType.HS_RESP, PacketType.COOKIE


def test_the_first_packet_arrives_after_one_and_a_half_round_trips() -> None:
    """[A1] A cold start loses nothing and takes three one-way delays of 10 ms."""
    network, left, right = joined()
    left.send(right, b"Eping")
    took = network.run(2.0, until=lambda: bool(right.received()))
    assert right.received() == [b"Eping"]
    assert took < 0.031
    right.send(left, b"Epong")
    took = network.run(2.0, until=lambda: bool(left.received()))
    assert took < 0.011
    assert not left.plane.drops
    assert not right.plane.drops


def test_both_ends_hold_the_same_keys_crosswise() -> None:
    """[A2] What one side sends with, the other receives with; the two directions differ."""
    network, left, right = joined(psk=Secret.copy_of(bytes(range(32))))
    left.send(right)
    network.run(1.0)
    ours, theirs = left.current(right), right.current(left)
    assert ours is not None
    assert theirs is not None
    assert (ours.send_key, ours.receive_key) == (theirs.receive_key, theirs.send_key)
    assert ours.send_key != ours.receive_key
    assert (ours.local_index, ours.remote_index) == (theirs.remote_index, theirs.local_index)
    assert ours.suite == theirs.suite


def test_the_messages_have_the_sizes_of_the_specification(connected: tuple[Network, Host, Host]) -> None:
    """[A1] 200 and 140 bytes by default, one of each."""
    network, _, _ = connected
    assert [len(datagram.data) for datagram in network.wire.of_kind(INIT)] == [200]
    assert [len(datagram.data) for datagram in network.wire.of_kind(RESP)] == [140]


def test_start_shakes_hands_at_once_with_every_peer_whose_endpoint_is_known() -> None:
    """[A1, I1] No traffic is needed: a restarted machine is back after one round trip."""
    network, left, right = joined()
    left.start()
    network.run(0.05)
    assert is_up(left, right)


def test_start_leaves_alone_disabled_peers_and_peers_without_an_endpoint() -> None:
    """[A13] Nobody is called whom the operator switched off or gave no address."""
    network, left, right = joined(both_know=False)
    left.configure(peer_of(right, at=right.address, enabled=False))
    left.start()
    right.start()
    left.send(right)
    right.send(left)
    network.run(10.0)
    assert network.wire.captured == []


def test_an_endpoint_that_becomes_known_starts_the_handshake_that_packets_wait_for() -> None:
    """[C13] A packet waits, the name is resolved, the packet arrives."""
    network, left, right = joined(left_knows=False)
    left.send(right, b"Ewaiting")
    network.run(1.0)
    assert network.wire.captured == []
    left.perform(left.device.set_endpoint(right.key, right.address, network.clock.now))
    network.run(1.0)
    assert right.received() == [b"Ewaiting"]


def test_of_a_thousand_packets_before_the_session_the_last_128_arrive_in_order() -> None:
    """[A22] The bounded queue drops its oldest and leaves by itself, in order, when the session is there."""
    network, left, right = joined()
    packets = [b"E%04d" % number for number in range(1000)]
    for packet in packets:
        left.send(right, packet)
    network.run(1.0)
    assert right.received() == packets[-128:]
    assert left.plane.drops == {"staged_overflow": 872}


def test_the_responders_waiting_packets_leave_in_order_on_confirmation() -> None:
    """[A22, A5] What the responder had staged leaves with the first proof of the initiator."""
    network, left, right = joined(both_know=False)
    packets = [b"E%04d" % number for number in range(50)]
    for packet in packets:
        right.send(left, packet)
    left.send(right)
    network.run(1.0)
    assert left.received() == packets


def test_the_responder_sends_no_data_before_it_is_confirmed() -> None:
    """[A1] Until the first data message nothing of the responder's leaves under the new session."""
    network, left, right = joined(both_know=False)
    right.send(left, b"Etoo early")
    network.wire.drop_all(PacketType.DATA, source=left.address)
    left.send(right)
    network.run(10.0)
    assert right.current(left) is None
    assert [one for one in network.wire.of_kind(PacketType.DATA) if one.source == right.address] == []


def test_an_orphan_response_is_counted_and_nothing_else() -> None:
    """[A10] A response to an index nobody has, or had, changes nothing."""
    network, left, right = joined()
    left.send(right)
    network.run(1.0)
    response = network.wire.of_kind(RESP)[0].data
    before = left.device.snapshot(right.key)
    for index in (b"\0\0\0\0", b"\xff\xff\xff\xff", response[4:8]):
        orphan = response[:4] + index + response[8:]
        assert left.device.receive(orphan, right.address, network.clock.now) == []
    assert left.device.refusals["hs_resp_noidx"] == 3
    after = left.device.snapshot(right.key)
    assert (after.current_index, after.handshakes, after.stage) == (
        before.current_index,
        before.handshakes,
        "up",
    )


def test_a_response_that_comes_after_fifteen_seconds_finds_no_initiation() -> None:
    """[A10] An initiation is forgotten after 15 s, and its late answer is an orphan."""
    network, left, _right = joined()
    network.wire.drop_all(RESP)
    left.start()
    network.run(0.5)
    late = network.wire.dropped[0]
    network.wire.cut()
    network.run(15.5)
    network.wire.heal()
    network.wire.inject(late, network.clock.now)
    network.run(0.1)
    assert left.device.refusals["hs_resp_noidx"] == 1
    assert left.count_of(InstallSession) == 0


@pytest.mark.parametrize(("waited", "taken"), [(14.5, True), (15.5, False)])
def test_an_initiation_waits_fifteen_seconds_for_its_answer(waited: float, taken: bool) -> None:
    """[A10] Meanwhile the other side's handshake gave a session; the late answer still counts, up to 15 s."""
    network, left, right = joined()
    held = network.wire.hold(lambda one: one.kind == RESP)
    left.start()
    started = network.clock.now
    network.run(0.1)
    network.wire.heal()
    right.perform(right.device.reconnect(left.key, network.clock.now))
    network.run(started + waited - network.clock.now)
    assert share_session(left, right)
    left.device.receive(held[0].data, right.address, network.clock.now)
    assert left.device.refusals.get("hs_resp_noidx", 0) == (0 if taken else 1)
    assert left.device.snapshot(right.key).handshakes == (2 if taken else 1)


def test_a_wrong_responder_gives_no_reply_and_the_retries_go_on() -> None:
    """[A11] Somebody else at the address: it stays silent, keeps nothing, and we go on trying."""
    network, left, right = joined()
    stranger = network.add("stranger", 3)
    left.configure(peer_of(right, at=stranger.address))
    left.send(right)
    network.run(20.0)
    assert stranger.actions == []
    assert set(stranger.device.refusals) == {"rx_mac1"}
    assert stranger.device.refusals["rx_mac1"] == len(network.wire.of_kind(INIT)) > 4
    assert left.device.snapshot(right.key).stage == "handshaking"


def test_our_own_key_as_a_peer_is_refused_and_changes_nothing() -> None:
    """[A12] A configuration that names us as our own peer is an error, not a state."""
    network, left, right = joined()
    with pytest.raises(ValueError, match="our own"):
        left.device.configure([peer_of(left, at=left.address)], network.clock.now)
    left.send(right, b"Eas before")
    network.run(1.0)
    assert right.received() == [b"Eas before"]


def test_our_own_initiation_thrown_back_at_us_is_silent() -> None:
    """[A12] A reflected first message is addressed to another key and dies at mac1."""
    network, left, right = joined()
    left.start()
    own = network.wire.captured[0].data
    assert left.device.receive(own, right.address, network.clock.now) == []
    assert left.device.refusals == {"rx_mac1": 1}


def test_a_peer_we_do_not_have_gets_silence() -> None:
    """[A13] A correct first message of a key we do not know is counted and not answered."""
    network, _left, right = joined()
    stranger = network.add("stranger", 3)
    stranger.configure(peer_of(right, at=right.address))
    stranger.start()
    network.run(0.5)
    assert right.device.refusals == {"hs_unknown_peer": 1}
    assert right.actions == []


def test_a_disabled_peer_gets_silence() -> None:
    """[A13] The operator switched the peer off: its messages are those of a stranger."""
    network, left, right = joined()
    right.configure(peer_of(left, at=left.address, enabled=False))
    left.start()
    network.run(0.5)
    assert right.device.refusals["hs_unknown_peer"] == 1
    assert right.count_of(SendDatagram) == 0


def test_a_removed_peer_loses_its_session_and_gets_silence(connected: tuple[Network, Host, Host]) -> None:
    """[A13, E7] Removal tells the peer goodbye, ends the sessions, and later messages find a stranger."""
    network, left, right = connected
    right.configure()
    network.run(0.5)
    assert left.current(right) is None
    assert not right.plane.by_index
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(0.5)
    assert right.device.refusals["hs_unknown_peer"] >= 1


def test_a_new_static_key_works_within_a_second(connected: tuple[Network, Host, Host]) -> None:
    """[A17] The right side changes its key; once the left knows it, packets pass."""
    network, left, right = connected
    renewed = network.add("renewed", 9)
    network.hosts.remove(right)
    renewed.address = right.address
    renewed.configure(peer_of(left, at=left.address))
    left.configure(peer_of(renewed, at=renewed.address))
    left.send(renewed, b"Eto the new key")
    took = network.run(2.0, until=lambda: bool(renewed.received()))
    assert renewed.received() == [b"Eto the new key"]
    assert took < 1.0


def test_a_version_2_initiation_gets_silence() -> None:
    """[A20] A version we do not speak is malformed to us, though its mac1 is right."""
    network, left, right = joined()
    left.start()
    message = bytearray(network.wire.captured[0].data)
    message[1] = 2
    forged = with_mac1(bytes(message), right.key)
    assert right.device.receive(forged, left.address, network.clock.now) == []
    assert right.device.refusals == {"rx_malformed": 1}


def test_the_largest_push_arrives_whole_and_no_message_grows_too_long() -> None:
    """[A21] 1024 bytes of routes go by a control message: datagrams stay short, answers within 3x."""
    network, left, right = joined()

    push = b"".join(bytes([0x08, 5, 24, 10, number, 7, 0]) for number in range(146))
    assert 1000 < len(push) <= 1024
    right.configure(peer_of(left, push=push))
    left.start()
    network.run(3.0)
    for sent in network.wire.captured:
        assert len(sent.data) <= 1232
    (initiation,), (response,) = network.wire.of_kind(INIT), network.wire.of_kind(RESP)
    assert len(response.data) <= 3 * len(initiation.data)
    told = [action.parameters for action in left.actions if isinstance(action, ParametersReceived)]
    assert {str(route) for parameters in told for route in parameters.routes} == {
        f"10.{number}.7.0/24" for number in range(146)
    }


def test_the_response_goes_where_the_initiation_came_from() -> None:
    """[C11] Not to the configured endpoint: the answer follows the question."""
    network, left, right = joined()
    left.start()
    elsewhere = endpoint("198.51.100.7", 4000)
    network.wire.drop_all(INIT)
    first = network.wire.captured[0]
    network.wire.inject(Datagram(elsewhere, right.address, first.data), network.clock.now)
    network.wire.drop_rules.append(lambda sent: sent.destination == left.address)
    network.run(0.005)
    sent = [one for one in right.actions if isinstance(one, SendDatagram)]
    assert [one.endpoint for one in sent] == [elsewhere]


def test_a_first_message_moves_nothing_of_a_running_session(connected: tuple[Network, Host, Host]) -> None:
    """[B6] An initiation from elsewhere leaves endpoint and current session as they are."""
    network, left, right = connected
    network.run(1.0)
    other = network.add("left again", 1)
    other.address = endpoint("198.51.100.7", 4000)
    other.configure(peer_of(right, at=right.address))
    current = right.current(left)
    network.wire.drop_rules.append(lambda sent: sent.destination == other.address)
    other.wall.offset_s = 10
    other.start()
    network.run(2.0)
    assert right.current(left) is current
    assert right.plane.peers[left.key].endpoint == left.address
    assert right.device.snapshot(left.key).endpoint == left.address


def test_an_unchanged_configuration_changes_nothing(connected: tuple[Network, Host, Host]) -> None:
    """[I6] A reload with equal values keeps the session and does nothing at all."""
    network, left, right = connected
    before = left.current(right)
    actions = left.device.configure([replace(peer) for peer in left.peers], network.clock.now)
    assert actions == []
    assert left.current(right) is before


def test_after_a_handshake_both_ends_share_one_session() -> None:
    """[A1] A quiet handshake leaves one session and one handshake counted on each side."""
    network, left, right = joined()
    left.send(right)
    network.run(3.0)
    assert share_session(left, right)
    assert len(left.plane.by_index) == len(right.plane.by_index) == 1
    assert left.device.snapshot(right.key).handshakes == 1
    assert right.device.snapshot(left.key).handshakes == 1
