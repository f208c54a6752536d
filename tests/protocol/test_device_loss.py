"""Messages lost, late or never answered."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.fakes.host import joined, peer_of, share_session
from tests.fakes.wire import Weather
from vpnd.protocol.actions import FlushStaged
from vpnd.protocol.constants import PacketType

INIT, RESP, DATA = PacketType.HS_INIT, PacketType.HS_RESP, PacketType.DATA


@pytest.mark.parametrize(("lost", "least", "most"), [(1, 1.0, 1.33), (2, 3.0, 3.66), (3, 7.0, 7.99)])
def test_lost_initiations_are_tried_again_after_one_two_and_four_seconds(
    lost: int, least: float, most: float
) -> None:
    """[A3] Each lost first message costs its step of the schedule and no packet."""
    network, left, right = joined(seed=lost)
    network.wire.drop_next(INIT, times=lost)
    left.send(right, b"Efirst")
    took = network.run(20.0, until=lambda: bool(right.received()))
    assert right.received() == [b"Efirst"]
    assert least <= took <= most + 0.05


@pytest.mark.parametrize("seed", range(10))
def test_a_lost_response_costs_one_retry_and_no_staged_packet(seed: int) -> None:
    """[A4] Up within 1.4 s, and all that waited arrives in order."""
    network, left, right = joined(seed=seed)
    network.wire.drop_next(RESP)
    packets = [b"E%d" % number for number in range(100)]
    for packet in packets:
        left.send(right, packet)
    took = network.run(5.0, until=lambda: len(right.received()) == 100)
    assert right.received() == packets
    assert took <= 1.4


def test_a_lost_confirmation_costs_a_tenth_of_a_second() -> None:
    """[A5] The responder may send after 0.1 s and one trip, since the confirmation is repeated."""
    network, left, right = joined(both_know=False)
    right.send(left, b"Ewaits for proof")
    network.wire.drop_next(DATA, source=left.address)
    left.start()
    took = network.run(5.0, until=lambda: bool(left.received()))
    assert left.received() == [b"Ewaits for proof"]
    assert took <= 0.1 + 4 * 0.01 + 0.02


@pytest.mark.parametrize(("lost", "most"), [(2, 0.3), (3, 1.0)])
def test_more_lost_confirmations_are_repeated_later(lost: int, most: float) -> None:
    """[A5] The third and fourth keepalive come at 0.3 and 1.0 s."""
    network, left, right = joined(both_know=False)
    network.wire.drop_next(DATA, times=lost, source=left.address)
    left.start()
    took = network.run(5.0, until=lambda: right.current(left) is not None)
    assert right.current(left) is not None
    assert took <= most + 3 * 0.01 + 0.02


def test_confirmations_stop_when_something_authentic_came() -> None:
    """[A5] On a good wire one confirmation leaves and one answer comes; nothing is repeated."""
    network, left, _right = joined()
    left.start()
    network.run(5.0)
    by_left = [one for one in network.wire.of_kind(DATA) if one.source == left.address]
    assert len(by_left) == 1


def test_a_round_trip_of_three_seconds_costs_no_packet() -> None:
    """[A7] The answer to the first try comes after the second and third were sent, and is taken."""
    network, left, right = joined(weather=Weather(delay_s=1.5))
    left.send(right, b"Eslow")
    took = network.run(60.0, until=lambda: bool(right.received()))
    assert right.received() == [b"Eslow"]
    assert took <= 4.6
    network.run(30.0)
    assert share_session(left, right)


def test_a_round_trip_of_seven_seconds_still_comes_up() -> None:
    """[A7] Slower than every patience we have, and yet most packets of a minute arrive.

    The responder keeps two sessions of three tries, and probes give up before they can be
    answered: some packets meet a session that is gone already.
    """
    network, left, right = joined(weather=Weather(delay_s=3.5))
    for number in range(60):
        left.send(right, b"E%d" % number)
        network.run(1.0)
    assert share_session(left, right)
    assert len(set(right.received())) >= 40


def test_the_answer_to_the_first_try_is_taken_after_the_second_was_sent() -> None:
    """[A7] The session comes from whichever response is first; the other changes nothing bad."""
    network, left, right = joined()
    held = network.wire.hold(lambda one: one.kind == RESP)
    left.send(right, b"Efirst")
    network.run(1.36)
    assert len(network.wire.of_kind(INIT)) == 2
    network.wire.heal()
    network.wire.inject(held[0], network.clock.now)
    network.run(5.0)
    assert b"Efirst" in right.received()
    assert share_session(left, right)


def test_of_five_tries_the_last_three_can_still_be_answered() -> None:
    """[A7, A10] A fourth initiation forgets the oldest; the answers to the others count."""
    network, left, right = joined()
    held = network.wire.hold(lambda one: one.kind == RESP)
    for _ in range(5):
        left.perform(left.device.reconnect(right.key, network.clock.now))
        network.run(0.1)
    assert len(held) == 5
    refused = [left.device.refusals.get("hs_resp_noidx", 0)]
    for response in held:
        left.device.receive(response.data, right.address, network.clock.now)
        refused.append(left.device.refusals.get("hs_resp_noidx", 0))
    assert refused == [0, 1, 2, 2, 2, 2]
    assert left.device.snapshot(right.key).handshakes == 3


def test_ninety_seconds_without_an_answer_flush_the_queue_and_the_next_packet_tries_again() -> None:
    """[A23] HS_GIVEUP, exactly once, then silence until there is something to send."""
    network, left, right = joined()
    network.wire.cut()
    left.send(right, b"Elost")
    network.run(89.0)
    assert left.device.snapshot(right.key).stage == "handshaking"
    assert left.count_of(FlushStaged) == 0
    network.run(2.0)
    assert left.device.snapshot(right.key).stage == "gave-up"
    assert left.count_of(FlushStaged) == 1
    assert not left.plane.peers[right.key].staged
    quiet_since = network.clock.now
    network.run(300.0)
    assert network.wire.of_kind(INIT, since=quiet_since) == []
    network.wire.heal()
    left.send(right, b"Eagain")
    network.run(1.0)
    assert right.received() == [b"Eagain"]


def test_after_giving_up_a_persistent_peer_is_tried_again_every_thirty_seconds() -> None:
    """[A23] With a persistent keepalive the tunnel comes back without traffic."""
    network, left, right = joined()
    left.configure(peer_of(right, at=right.address, keepalive_s=25))
    network.wire.cut()
    left.start()
    network.run(100.0)
    gave_up = network.clock.now
    network.run(40.0)
    assert network.wire.of_kind(INIT, since=gave_up)
    network.wire.heal()
    network.run(120.0, until=lambda: share_session(left, right))
    assert share_session(left, right)


def test_the_retry_schedule_is_one_two_four_and_then_five_seconds() -> None:
    """[A3, F7] Each step carries at most a third of a second of jitter."""
    network, left, right = joined()
    network.wire.cut()
    left.send(right)
    network.run(60.0)
    sent = [one.sent_at for one in network.wire.of_kind(INIT)]
    steps = [later - earlier for earlier, later in pairwise(sent)]
    for step, wanted in zip(steps, [1, 2, 4, 5, 5, 5, 5, 5, 5], strict=False):
        assert wanted <= step <= wanted + 0.33 + 1e-3
    assert len({round(step % 1, 6) for step in steps}) > 3


def test_every_try_has_a_new_ephemeral_a_new_index_and_a_later_timestamp() -> None:
    """[A3, J6] A retry repeats nothing of the message before."""
    network, left, right = joined()
    network.wire.cut()
    left.send(right)
    network.run(60.0)
    messages = [one.data for one in network.wire.of_kind(INIT)]
    assert len(messages) > 8
    for place in (slice(4, 8), slice(8, 40), slice(40, 88), slice(88, 168), slice(168, 184)):
        assert len({message[place] for message in messages}) == len(messages)


@pytest.mark.parametrize("seed", range(200))
def test_handshakes_end_well_in_bad_weather(seed: int) -> None:
    """[A3, A4, A5, G2] At 30 % loss with doubling, damage and reordering the first packet arrives."""
    weather = Weather(delay_s=0.02, jitter_s=0.2, loss=0.3, duplicate=0.2, corrupt=0.05)
    network, left, right = joined(seed=seed, weather=weather)
    left.send(right, b"Efirst")
    network.run(80.0, until=lambda: left.current(right) is not None)
    assert left.current(right) is not None
    network.wire.heal()
    network.run(30.0, until=lambda: share_session(left, right))
    left.send(right, b"Esecond")
    network.run(1.0)
    assert b"Esecond" in right.received()
