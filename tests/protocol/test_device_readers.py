"""What a reader learns of all peers at once, and what stamps a tick may do without."""

from __future__ import annotations

import pytest

from tests.fakes.host import Host, connect, identity, joined, peer_of, peer_of_key
from vpnd.keys import Secret
from vpnd.protocol.actions import Action, InstallSession
from vpnd.protocol.constants import NoticeReason, Suite

STRANGER = identity(9).public


def test_who_is_up_is_counted_among_those_asked_about() -> None:
    network, left, right = joined()
    left.configure(peer_of(right, at=right.address), peer_of_key(STRANGER, name="other"))
    assert left.device.count_up([right.key, STRANGER]) == 0
    connect(network, left, right)
    assert left.device.count_up([right.key, STRANGER]) == 1
    assert left.device.count_up([STRANGER]) == 0


def test_who_is_up_is_counted_of_the_enabled() -> None:
    network, left, right = joined()
    off = peer_of_key(STRANGER, name="other", enabled=False)
    left.configure(peer_of(right, at=right.address), off)
    assert left.device.tally() == (0, 1)
    connect(network, left, right)
    assert left.device.tally() == (1, 1)


def test_the_suites_in_use_are_those_of_current_sessions() -> None:
    network, left, right = joined()
    assert left.device.suites() == set()
    connect(network, left, right)
    assert left.device.suites() == {Suite.AES_256_GCM}


def test_endpoints_are_told_of_peers_that_have_one() -> None:
    _, left, right = joined()
    left.configure(peer_of(right, at=right.address), peer_of_key(STRANGER, name="other"))
    assert left.device.endpoints() == {right.key: right.address}
    assert left.device.endpoint(right.key) == right.address
    assert left.device.endpoint(STRANGER) is None
    assert left.device.endpoint(identity(8).public) is None


def test_peers_that_do_not_answer_are_told_with_their_attempts() -> None:
    """Also after it gave up; not those that answer, nor those tried less often than asked."""
    network, left, right = joined()
    right.is_running = False
    left.start()
    assert left.device.unanswered(1) == {right.key: 1}
    assert left.device.unanswered(2) == {}
    network.run(100.0)
    assert left.device.unanswered(3)[right.key] > 10
    right.is_running = True
    connect(network, left, right)
    assert left.device.unanswered(1) == {}


def test_peers_of_whom_there_is_something_to_tell_are_few() -> None:
    """One that told of drops; one of whom a message was refused, for as long as the reader cares."""
    network, left, right = joined()
    assert left.device.noteworthy(0.1) == set()
    connect(network, left, right)
    assert left.device.noteworthy(0.1) == set()
    right.perform(right.device.notice(left.key, NoticeReason.SOURCE, 3))
    network.run(1.0)
    assert left.device.noteworthy(0.1) == {right.key}
    left.configure(peer_of(right, at=right.address, psk=Secret.copy_of(bytes(range(32)))))
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(1.0)
    assert right.device.noteworthy(network.clock.now - 10.0) == {left.key}
    assert right.device.noteworthy(network.clock.now + 10.0) == set()


@pytest.mark.parametrize("seed", range(6))
def test_a_tick_that_sees_only_what_moved_does_the_same_as_one_that_sees_all(seed: int) -> None:
    """Rekeys, keepalives, probes of a peer that is silent for a while, the end: at the same moments."""

    def live(*, shows_all: bool) -> tuple[list[tuple[float, type[Action]]], list[tuple[float, bytes]]]:
        network, left, right = joined(seed)
        left.shows_all = right.shows_all = shows_all
        left.configure(peer_of(right, at=right.address, keepalive_s=25))
        done: list[tuple[float, type[Action]]] = []
        connect(network, left, right)
        for number in range(400):
            before = len(left.actions)
            if number % 7 == seed % 7 and not 150 < number < 250:
                left.send(right, b"E%d" % number)
            right.is_running = not 180 < number < 215
            network.run(1.0)
            done += [(network.clock.now, type(action)) for action in left.actions[before:]]
        assert sum(kind is InstallSession for _, kind in done) >= 3
        sent = [(one.sent_at, one.data) for one in network.wire.captured]
        return done, sent

    assert live(shows_all=False) == live(shows_all=True)


def test_a_peer_whose_session_is_gone_is_not_waited_for() -> None:
    """Its stamps are shown no more; the moment they were wanted for passes."""
    network, left, right = joined()
    connect(network, left, right)
    left.device.plane_lost()
    left.device.tick(network.clock.now, {})
    network.clock.advance_to(network.clock.now + 300.0)
    left.device.tick(network.clock.now, {})
    assert left.device.looks_wanted(network.clock.now) == set()
    deadline = left.device.next_deadline(network.clock.now)
    assert deadline is None or deadline > network.clock.now


def removed(host: Host, other: Host) -> set[bytes]:
    host.configure()
    return {key.raw for key in host.device.looks_wanted(1e9)}


def test_a_removed_peer_is_not_looked_at_any_more() -> None:
    network, left, right = joined()
    connect(network, left, right)
    assert removed(left, right) == set()
