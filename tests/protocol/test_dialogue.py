"""Control messages between two devices: pushed parameters, pings, probes, notices."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from tests.fakes.host import OPTIONS, Host, Network, connect, joined, lose_controls, peer_of
from vpnd.errors import MalformedMessage
from vpnd.keys import PublicKey
from vpnd.protocol.actions import EnrolAnswered, EnrolWanted, ParametersReceived, Pong, SendControl
from vpnd.protocol.constants import (
    ANSWERS_PER_S,
    PINGS_OUT_MAX,
    TIMERS,
    Control,
    EnrolAnswer,
    Feature,
    NoticeReason,
)
from vpnd.protocol.control_messages import (
    Echo,
    Enrol,
    EnrolAck,
    Goodbye,
    Notice,
    Params,
    ParamsAck,
    ProbeAck,
    Unhandled,
    decode_control_untrusted,
    encode_enrol_ack,
    encode_goodbye,
    encode_notice,
    encode_params,
    encode_params_ack,
    encode_ping,
    encode_probe,
)
from vpnd.protocol.parameters import encode_push
from vpnd.protocol.peer import PeerOptions

Pair = tuple[Network, Host, Host]

SMALL = encode_push([ip_interface("192.168.53.99/24")], [ip_network("192.168.60.0/24")], [])
OTHER = encode_push([ip_interface("192.168.53.98/24")], [], [])
LARGE = encode_push([], [ip_network((10 << 24 | number << 8, 24)) for number in range(140)], [])


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (encode_goodbye(2), Goodbye(2)),
        (b"\x22\x04\x03\x02\x01\xdc\x05", ProbeAck(0x01020304, 1500)),
        (encode_params(7, b"tlvs"), Params(7, b"tlvs")),
        (encode_params_ack(7), ParamsAck(7)),
        (b"\x28" + bytes([1]) + bytes(7), Echo(1)),
        (encode_notice(NoticeReason(1), 3), Notice(NoticeReason(1), 3)),
        (b"\x2a" + bytes(range(32)), Enrol(PublicKey(bytes(range(32))))),
        (encode_enrol_ack(EnrolAnswer.NOT_NOW), EnrolAck(EnrolAnswer.NOT_NOW)),
        (encode_ping(1), Unhandled()),
        (encode_probe(1, 1000), Unhandled()),
        (b"\x23" + bytes(8), Unhandled()),
    ],
)
def test_control_messages_are_read_as_written_padded_or_not(payload: bytes, message: object) -> None:
    """Section 9.3; only PARAMS cares for what follows."""
    assert decode_control_untrusted(payload) == message
    if not isinstance(message, Params):
        assert decode_control_untrusted(payload + bytes(16)) == message


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x20",
        b"\x1f\0",
        b"\x2f" + bytes(8),
        b"\x25\0\0\0",
        b"\x26\0\0\0",
        b"\x22\0\0\0\0\0",
        b"\x28" + bytes(7),
        encode_notice(NoticeReason(1), 3)[:-1],
        b"\x29\xff" + bytes(8),
        b"\x2a" + bytes(31),
        b"\x2b",
        b"\x2b\x03",
    ],
)
def test_control_messages_that_are_too_short_or_unknown_are_malformed(payload: bytes) -> None:
    """[H13] An authentic peer may still be broken."""
    with pytest.raises(MalformedMessage):
        decode_control_untrusted(payload)


def test_a_ping_may_be_filled_to_a_size() -> None:
    assert encode_ping(0x0102030405060708) == b"\x27\x08\x07\x06\x05\x04\x03\x02\x01"
    assert encode_ping(1, 100) == b"\x27\x01" + bytes(98)


# --- pushed parameters ---


def pushing(push: bytes, *, loses_params: int = 0, **right_settings: object) -> Pair:
    """`right` pushes to `left`, which initiates; the first PARAMS may be lost on their way to the wire."""
    network, left, right = joined(both_know=False)
    right.configure(peer_of(left, push=push))
    return network, left, right


def told(host: Host) -> list[ParametersReceived]:
    return [action for action in host.actions if isinstance(action, ParametersReceived)]


def controls(host: Host, kind: Control) -> list[SendControl]:
    sent = [action for action in host.actions if isinstance(action, SendControl)]
    return [action for action in sent if action.payload[0] == kind]


def test_a_small_push_travels_in_the_response() -> None:
    """[A21] No extra message, and it is known as soon as the session is."""
    network, left, right = pushing(SMALL)
    connect(network, left, right)
    (first,) = told(left)
    assert first.parameters.addresses == (ip_interface("192.168.53.99/24"),)
    assert first.parameters.routes == (ip_network("192.168.60.0/24"),)
    network.run(20.0)
    assert controls(right, Control.PARAMS) == []


def test_a_large_push_follows_on_the_session_and_is_acknowledged() -> None:
    """[A21] What does not fit into three times the question comes by PARAMS, once."""
    network, left, right = pushing(LARGE)
    connect(network, left, right)
    network.run(20.0)
    assert [len(one.parameters.routes) for one in told(left)] == [140]
    assert len(controls(right, Control.PARAMS)) == 1
    assert len(controls(left, Control.PARAMS_ACK)) == 1
    assert max(len(one.data) for one in network.wire.captured) <= 1232


def test_what_a_peer_was_told_is_not_known_after_a_restart() -> None:
    """[I1] Where its session goes on; without one there is nothing to know. Then an empty one is told too."""
    network, left, right = pushing(SMALL)
    assert right.device.told() == {}
    assert right.device.pushed(left.key) == SMALL
    connect(network, left, right)
    assert right.device.told() == {left.key: SMALL}
    right.kill()
    right.peers = [peer_of(left)]
    right.boot()
    assert right.device.told() == {left.key: None}
    right.perform(right.device.reconnect(left.key, network.clock.now))
    network.run(1.0)
    assert right.device.told() == {left.key: b""}
    assert told(left)[-1].parameters.routes == ()


def test_what_is_pushed_after_many_changes_and_a_restart_is_applied() -> None:
    """[I1] The sequence goes on where the life before ended, within a second too."""
    network, left, right = pushing(SMALL)
    connect(network, left, right)
    for push in (OTHER, SMALL, OTHER):
        right.configure(peer_of(left, push=push))
        network.run(0.1)
    right.kill()
    right.peers = [peer_of(left, push=LARGE)]
    right.boot()
    right.perform(right.device.reconnect(left.key, network.clock.now))
    network.run(1.0)
    assert len(told(left)[-1].parameters.routes) == 140


def test_the_initiator_pushes_too() -> None:
    """Nothing beyond offers stands in the first message: its push follows on the session."""
    network, left, right = joined(both_know=False)
    left.configure(peer_of(right, at=right.address, push=SMALL))
    connect(network, left, right)
    network.run(1.0)
    (only,) = told(right)
    assert only.parameters.routes == (ip_network("192.168.60.0/24"),)


def test_a_lost_push_is_sent_again_each_second_and_applied_once() -> None:
    """Resend 1 s x 5; the copies carry the same sequence."""
    network, left, right = pushing(LARGE)
    lose_controls(right, Control.PARAMS, 2)
    lose_controls(left, Control.PARAMS_ACK, 1)
    connect(network, left, right)
    network.run(20.0)
    sent = controls(right, Control.PARAMS)
    assert len(sent) == 4
    assert len({one.payload for one in sent}) == 1
    assert [len(one.parameters.routes) for one in told(left)] == [140]


def test_a_push_that_nobody_acknowledges_ends_after_five_repeats_and_comes_with_the_next_session() -> None:
    """Then the peer is left in peace."""
    network, left, right = pushing(LARGE)
    lose_controls(left, Control.PARAMS_ACK, 6)
    connect(network, left, right)
    network.run(20.0)
    assert len(controls(right, Control.PARAMS)) == 6
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(5.0)
    assert len(controls(right, Control.PARAMS)) == 7
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(5.0)
    assert len(controls(right, Control.PARAMS)) == 7


def test_an_acknowledgement_of_something_else_is_ignored() -> None:
    """[H13] The repeats go on."""
    network, left, right = pushing(LARGE)
    lose_controls(left, Control.PARAMS_ACK, 1)
    connect(network, left, right)
    network.run(0.1)
    left.perform([SendControl(right.key, encode_params_ack(1))])
    network.run(3.0)
    assert len(controls(right, Control.PARAMS)) == 2
    left.perform([SendControl(right.key, encode_params_ack(1))])
    network.run(3.0)
    assert len(controls(right, Control.PARAMS)) == 2


def test_a_push_without_a_session_left_ends() -> None:
    """The session ended before the acknowledgement came."""
    network, left, right = pushing(LARGE)
    lose_controls(left, Control.PARAMS_ACK, 10)
    connect(network, left, right)
    index = right.device.snapshot(left.key).current_index
    assert index is not None
    assert right.device.session_ended(left.key, index, network.clock.now + 180.0) != []
    network.clock.advance_to(network.clock.now + 1.5)
    assert not any(isinstance(action, SendControl) for action in right.device.tick(network.clock.now, {}))


def test_only_a_greater_sequence_is_applied() -> None:
    """Late and doubled pushes are acknowledged and not applied."""
    network, left, right = joined()
    connect(network, left, right)
    for sequence, tlvs in ((5, SMALL), (4, OTHER), (5, OTHER), (6, OTHER)):
        left.perform([SendControl(right.key, encode_params(sequence, tlvs))])
        network.run(0.5)
    assert [one.parameters.addresses for one in told(right)] == [
        (ip_interface("192.168.53.99/24"),),
        (ip_interface("192.168.53.98/24"),),
    ]
    assert len(controls(right, Control.PARAMS_ACK)) == 4


def test_a_push_that_breaks_the_format_is_counted_and_not_acknowledged() -> None:
    """[H13, A19] `hs_param`, with the peer."""
    network, left, right = joined()
    connect(network, left, right)
    left.perform([SendControl(right.key, encode_params(1, b"\x06\x04abc"))])
    network.run(0.5)
    assert right.device.snapshot(left.key).refusals == {"hs_param": 1}
    assert controls(right, Control.PARAMS_ACK) == []


def test_answers_to_a_control_storm_are_ten_a_second() -> None:
    """[H13] Of 50 pushes in an instant."""
    network, left, right = joined()
    connect(network, left, right)
    left.perform([SendControl(right.key, encode_params(number, b"")) for number in range(50)])
    network.run(0.05)
    assert len(controls(right, Control.PARAMS_ACK)) == 10


def test_a_peer_without_the_feature_gets_no_push_by_control() -> None:
    """FEATURES without PARAMS: what did not fit stays unsaid."""
    network = Network()
    left = network.add("left", 1, options=replace(OPTIONS, features=Feature.CSUM))
    right = network.add("right", 2)
    left.configure(peer_of(right, at=right.address))
    right.configure(peer_of(left, push=LARGE))
    connect(network, left, right)
    network.run(5.0)
    assert controls(right, Control.PARAMS) == []


def test_a_changed_push_reaches_a_live_session_at_once() -> None:
    """[I6] A reload with other routes for a peer; taking them back is told as well."""
    network, left, right = pushing(SMALL)
    connect(network, left, right)
    right.configure(peer_of(left, push=OTHER))
    network.run(1.0)
    right.configure(peer_of(left))
    network.run(1.0)
    assert [one.parameters.addresses for one in told(left)] == [
        (ip_interface("192.168.53.99/24"),),
        (ip_interface("192.168.53.98/24"),),
        (),
    ]


@pytest.mark.parametrize("wait_s", [0.1, 20.0])
def test_a_push_taken_back_before_it_was_acknowledged_is_told_as_well(wait_s: float) -> None:
    """[I6] Whether the repeats go on or have ended: the peer may have heard what it did not acknowledge."""
    network, left, right = pushing(SMALL)
    connect(network, left, right)
    lose_controls(left, Control.PARAMS_ACK, 6)
    right.configure(peer_of(left, push=OTHER))
    network.run(wait_s)
    right.configure(peer_of(left, push=SMALL))
    network.run(5.0)
    assert [one.parameters.addresses for one in told(left)] == [
        (ip_interface("192.168.53.99/24"),),
        (ip_interface("192.168.53.98/24"),),
        (ip_interface("192.168.53.99/24"),),
    ]


def test_what_a_new_session_brings_takes_the_place_of_what_is_under_way() -> None:
    """[A21] The response tells the newest: a repeat of something older would undo it."""
    network, left, right = pushing(SMALL)
    connect(network, left, right)
    lose_controls(right, Control.PARAMS, 10)
    right.configure(peer_of(left, push=OTHER))
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(5.0)
    assert len(controls(right, Control.PARAMS)) == 1
    assert told(left)[-1].parameters.addresses == (ip_interface("192.168.53.98/24"),)


@pytest.mark.parametrize("wait_s", [1.0, 10.0])
@pytest.mark.parametrize("pusher", ["left", "right"])
def test_a_push_that_changes_after_a_restart_reaches_a_session_of_before(pusher: str, wait_s: float) -> None:
    """[I1] What the peer can do is learned by a handshake, whether that wins a collision or not."""
    network, left, right = joined()
    hub, client = (left, right) if pusher == "left" else (right, left)
    client.start()
    network.run(wait_s)
    hub.kill()
    hub.boot()
    hub.configure(replace(hub.peers[0], push=OTHER))
    network.run(5.0)
    assert told(client)[-1].parameters.addresses == (ip_interface("192.168.53.98/24"),)


def test_the_pushed_mtu_takes_the_place_of_our_links() -> None:
    """[A21] In the response and, when it changes, by PARAMS."""
    network, left, right = pushing(SMALL)
    right.configure(peer_of(left, push=SMALL, push_mtu=1300))
    connect(network, left, right)
    right.configure(peer_of(left, push=SMALL, push_mtu=1280))
    network.run(1.0)
    assert [one.parameters.mtu for one in told(left)] == [1300, 1280]
    assert told(left)[-1].parameters.addresses == (ip_interface("192.168.53.99/24"),)


def test_refused_pushes_are_counted_with_the_peer_and_are_no_refused_handshake() -> None:
    """[E10]"""
    _, left, right = joined()
    left.device.note_refused_pushes(right.key, 2)
    left.device.note_refused_pushes(right.key, 1)
    assert left.device.refusals == {"push_refused": 3}
    snapshot = left.device.snapshot(right.key)
    assert (snapshot.refusals, snapshot.last_refusal) == ({"push_refused": 3}, None)


def test_more_than_one_control_message_cannot_be_pushed() -> None:
    """[A21] The limit is told where the options are made."""
    network, left, _ = joined()
    with pytest.raises(ValueError, match="1025 bytes"):
        replace(left.peers[0], push=bytes(1025))
    assert isinstance(replace(left.peers[0], push=bytes(1024)), PeerOptions)
    assert network.wire.captured == []


# --- pings, probes, notices ---


def test_a_ping_reports_its_round_trip() -> None:
    """10 ms each way."""
    network, left, right = joined()
    connect(network, left, right)
    left.perform(left.device.ping(right.key, network.clock.now, opaque=0x1122334455667788, size=200))
    network.run(0.1)
    (pong,) = [action for action in left.actions if isinstance(action, Pong)]
    assert (pong.peer, pong.opaque) == (right.key, 0x1122334455667788)
    assert pong.rtt_s == pytest.approx(0.02)
    assert left.device.snapshot(right.key).rtt_s == pong.rtt_s


def test_an_echo_we_did_not_ask_for_is_ignored() -> None:
    """[H13] Neither reported nor measured; nor is the second copy of a true one."""
    network, left, right = joined()
    connect(network, left, right)
    right.perform([SendControl(left.key, b"\x28" + bytes(8))])
    network.run(0.1)
    assert left.device.snapshot(right.key).rtt_s is None
    assert not [action for action in left.actions if isinstance(action, Pong)]


def test_a_ping_without_a_session_begins_one() -> None:
    network, left, right = joined()
    left.perform(left.device.ping(right.key, network.clock.now, opaque=1))
    network.run(1.0)
    assert left.current(right) is not None


def test_unanswered_pings_are_forgotten_beyond_a_number() -> None:
    """[I7] The oldest first."""
    network, left, right = joined()
    connect(network, left, right)
    network.wire.cut()
    for number in range(1000):
        left.perform(left.device.ping(right.key, network.clock.now, opaque=number))
    peer = left.device._peers[right.key]
    assert list(peer.pings) == list(range(1000 - PINGS_OUT_MAX, 1000))


def test_a_probe_is_filled_to_its_size() -> None:
    assert encode_probe(0x01020304, 1220) == b"\x21\x04\x03\x02\x01" + bytes(1215)


def test_control_of_an_unknown_peer_or_session_does_nothing() -> None:
    """[H13] The plane may still deliver what we have just removed."""
    network, left, right = joined()
    connect(network, left, right)
    now = network.clock.now
    stranger = network.add("stranger", 9)
    assert left.device.receive_control(stranger.key, 1, right.address, encode_goodbye(1), now) == []
    assert left.device.receive_control(right.key, 1, right.address, encode_goodbye(1), now) == []
    current = left.current(right)
    assert current is not None
    # What the plane answers itself, it should not have passed up.
    assert (
        left.device.receive_control(right.key, current.local_index, right.address, encode_ping(1), now) == []
    )


def test_a_notice_tells_the_sender_why_its_packets_are_dropped() -> None:
    """[E4] The side that sees the fault tells the side that can mend it; only the latest of a kind stays."""
    network, left, right = joined()
    assert right.device.notice(left.key, NoticeReason(1), 3) == []
    connect(network, left, right)
    right.perform(right.device.notice(left.key, NoticeReason(1), 3))
    network.run(1.0)
    right.perform(right.device.notice(left.key, NoticeReason(1), 2**40))
    network.run(1.0)
    (notice,) = left.device.snapshot(right.key).notices
    assert (notice.reason, notice.count) == (NoticeReason(1), 0xFFFFFFFF)
    assert notice.at == pytest.approx(network.clock.now - 1.0, abs=0.1)


def test_a_peer_that_enrols_is_told_what_became_of_its_key() -> None:
    """Nothing is decided here, and nothing told without a session."""
    network, left, right = joined()
    own = PublicKey(bytes(range(32)))
    assert left.device.enrol(right.key, own) == []
    assert right.device.answer_enrolment(own, EnrolAnswer.DONE) == []
    connect(network, left, right)
    left.perform(left.device.enrol(right.key, own))
    network.run(0.1)
    assert EnrolWanted(left.key, own) in right.actions
    right.perform(right.device.answer_enrolment(left.key, EnrolAnswer.REFUSED))
    network.run(0.1)
    assert EnrolAnswered(right.key, EnrolAnswer.REFUSED) in left.actions


def test_a_peer_that_enrols_too_often_is_not_heard() -> None:
    """[H13]"""
    network, left, right = joined()
    connect(network, left, right)
    for _ in range(3 * ANSWERS_PER_S):
        left.perform(left.device.enrol(right.key, left.key))
    network.run(0.1)
    heard = [action for action in right.actions if isinstance(action, EnrolWanted)]
    assert 0 < len(heard) <= ANSWERS_PER_S + 1


def test_the_probes_of_a_silent_peer_are_pings_at_three_four_and_five_seconds() -> None:
    """[F7] PROBE_PEER; a late tick sends one for all that were due, not one each."""
    network, left, right = joined()
    connect(network, left, right)
    network.run(0.1)
    network.wire.cut()
    left.send(right, b"Elost")
    network.run(3.5)
    assert len(controls(left, Control.PING)) == 1
    network.clock.advance_to(network.clock.now + 2.0)
    network.run(0.1)
    assert len(controls(left, Control.PING)) == 2
    assert TIMERS.probe_s == (3.0, 4.0, 5.0)
