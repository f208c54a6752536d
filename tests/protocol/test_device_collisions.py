"""Both sides shake hands at the same time: one session wins on both, nothing is lost."""

from __future__ import annotations

import random

import pytest

from tests.fakes.host import Host, Network, joined, share_session
from tests.fakes.wire import Weather
from vpnd.protocol.constants import TIMERS


def race(seed: int, weather: Weather) -> tuple[Network, Host, Host]:
    """Both send their first packet within a millisecond of each other."""
    network, left, right = joined(seed=seed, weather=weather)
    chance = random.Random(seed)
    first, second = (left, right) if chance.random() < 0.5 else (right, left)
    first.send(second, b"Efrom first")
    network.run(chance.random() * 0.001)
    second.send(first, b"Efrom second")
    return network, left, right


@pytest.mark.parametrize("block", range(10))
def test_a_race_on_a_good_wire_converges_and_loses_no_packet(block: int) -> None:
    """[A8] 1000 seeds at 0 % loss: one session on both sides, every packet delivered once."""
    for seed in range(1000)[block::10]:
        network, left, right = race(seed, Weather(delay_s=0.01, jitter_s=0.005))
        network.run(1.0, until=lambda: share_session(left, right))  # noqa: B023
        for number in range(20):
            left.send(right, b"El%d" % number)
            right.send(left, b"Er%d" % number)
            network.run(0.01)
        network.run(2.0)
        assert share_session(left, right), seed
        for host in (left, right):
            got = host.received()
            assert len(got) == len(set(got)) == 21, seed
            assert not host.plane.drops, (seed, host.plane.drops)


@pytest.mark.parametrize("block", range(10))
def test_a_race_with_loss_converges(block: int) -> None:
    """[A8] 1000 seeds at up to 50 % loss: whatever was lost, both sides end on one session."""
    for seed in range(1000)[block::10]:
        weather = Weather(delay_s=0.01, jitter_s=0.02, loss=(seed % 6) / 10, duplicate=0.1)
        network, left, right = race(seed, weather)
        network.run(60.0, until=lambda: share_session(left, right))  # noqa: B023
        network.wire.heal()
        network.run(20.0)
        left.send(right, b"El")
        right.send(left, b"Er")
        network.run(1.0)
        assert b"El" in right.received(), seed
        assert b"Er" in left.received(), seed


@pytest.mark.parametrize("seed", range(200))
def test_one_lost_message_in_a_race_costs_at_most_a_retry(seed: int) -> None:
    """[A8] Up within 1.4 s when any one datagram of the race is lost."""
    network, left, right = joined(seed=seed)
    victim = [seed % 6]

    def lose_one(_: object) -> bool:
        victim[0] -= 1
        return victim[0] == -1

    network.wire.drop_rules.append(lose_one)
    left.send(right, b"El")
    right.send(left, b"Er")
    took = network.run(5.0, until=lambda: b"El" in right.received() and b"Er" in left.received())
    lost_data = any(one.kind == 0x0C for one in network.wire.dropped)
    assert lost_data or took <= 1.4, took
    network.run(5.0)
    left.send(right, b"El2")
    right.send(left, b"Er2")
    network.run(0.5)
    assert b"El2" in right.received()
    assert b"Er2" in left.received()


def test_the_session_of_the_greater_key_wins_on_both_sides() -> None:
    """[A8] After a clean race both send on the session whose initiator has the greater static key."""
    network, left, right = joined()
    left.send(right)
    right.send(left)
    network.run(2.0)
    winner = max(left, right, key=lambda host: host.key)
    for host, other in ((left, right), (right, left)):
        session = host.current(other)
        assert session is not None
        assert session.is_initiator == (host is winner)
        assert session.preferred


def test_a_loser_of_the_race_still_receives() -> None:
    """[A8] What was sent on the losing session before the race ended is delivered."""
    network, left, right = joined()
    left.send(right, b"Eleft's own")
    right.send(left, b"Eright's own")
    network.run(2.0)
    assert right.received() == [b"Eleft's own"]
    assert left.received() == [b"Eright's own"]


@pytest.mark.parametrize("seed", range(200))
def test_rekeys_of_both_sides_at_once_under_traffic_lose_nothing(seed: int) -> None:
    """[A9] Rekey by the initiator, rekey by the responder and new data, all in one moment.

    The wire keeps the order: of three sessions two have a slot, so what comes later than the
    first message of the newest may find its session gone.
    """
    network, left, right = joined(seed=seed, weather=Weather(delay_s=0.01))
    left.send(right, b"Efirst")
    network.run(10.0)
    chance = random.Random(seed)
    sent = {left: 0, right: 0}
    for round_number in range(3):
        network.run(10.0)
        start_left, start_right = chance.random() * 0.03, chance.random() * 0.03
        for step in range(60):
            if step == int(start_left * 1000):
                left.perform(left.device.reconnect(right.key, network.clock.now))
            if step == int(start_right * 1000):
                right.perform(right.device.reconnect(left.key, network.clock.now))
            for host, other in ((left, right), (right, left)):
                host.send(other, b"E%d.%d" % (round_number, step))
                sent[host] += 1
            network.run(0.001)
    network.run(2.0)
    assert share_session(left, right)
    assert len(set(right.received())) == sent[left] + 1
    assert len(set(left.received())) == sent[right]
    assert not left.plane.drops
    assert not right.plane.drops


def test_after_a_quiet_two_seconds_one_session_is_current(connected: tuple[Network, Host, Host]) -> None:
    """[A9] A three-way race settles: both sides name the same session."""
    network, left, right = connected
    network.run(TIMERS.rekey_after_s - 20)
    left.perform(left.device.reconnect(right.key, network.clock.now))
    right.perform(right.device.reconnect(left.key, network.clock.now))
    left.send(right, b"Edata")
    network.run(2.0)
    assert share_session(left, right)
    ours, theirs = left.current(right), right.current(left)
    assert ours is not None
    assert theirs is not None
    assert ours.send_key == theirs.receive_key
