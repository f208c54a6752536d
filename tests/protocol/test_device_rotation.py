"""Static keys that are replaced in use: both ends, in every order, without a lost packet."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.forge import with_mac1
from tests.fakes.host import Host, Network, connect, identity, joined, peer_of, peer_of_key, share_session
from vpnd.keys import Identity, PublicKey, Secret
from vpnd.protocol.constants import PacketType
from vpnd.protocol.messages import parse_initiation_untrusted

HOLD_S = 3600.0  # as long as the previous keys hold
NEW = {"left": identity(31), "right": identity(32)}


@dataclass
class Pair:
    """Two machines in use, and what every packet between them was."""

    network: Network
    left: Host
    right: Host
    sent: int = 0
    old: dict[str, PublicKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.old = {host.name: host.key for host in (self.left, self.right)}

    def other(self, host: Host) -> Host:
        return self.right if host is self.left else self.left

    def rotate(self, host: Host) -> None:
        host.change_key(NEW[host.name], HOLD_S)

    def tell(self, host: Host, psk: Secret | None = None, previous_psk: Secret | None = None) -> None:
        """`host` is configured with the other's new key, the old one as its previous."""
        other = self.other(host)
        host.configure(
            peer_of_key(
                NEW[other.name].public,
                at=other.address,
                psk=psk,
                previous_preshared_key=previous_psk,
                previous_public_key=self.old[other.name],
                previous_key_until=self.network.clock.now + HOLD_S,
            )
        )

    def talk(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            for host in (self.left, self.right):
                host.plane.send_packet(host.peers[0].public_key, b"E%d" % self.sent, self.network.clock.now)
                host.drain_events()
            self.sent += 1
            self.network.run(0.1)

    def renew(self, host: Host, within_s: float = 10.0) -> None:
        """A new handshake begun by `host`; it may take an attempt for each combination of keys."""
        peer = host.peers[0].public_key
        before = host.device.snapshot(peer).handshakes
        host.perform(host.device.reconnect(peer, self.network.clock.now))
        self.talk(within_s)
        assert host.device.snapshot(peer).handshakes > before
        assert self.is_joined()

    def is_joined(self) -> bool:
        one, other = (host.plane.peers[host.peers[0].public_key].current for host in (self.left, self.right))
        return one is not None and other is not None and one.remote_index == other.local_index

    def assert_nothing_lost(self) -> None:
        self.network.run(1.0)
        everything = [b"E%d" % number for number in range(self.sent)]
        assert self.left.received() == everything
        assert [packet for packet in self.right.received() if packet != b"Efirst"] == everything


@pytest.fixture
def pair() -> Pair:
    return connected_pair()


def connected_pair(psk: Secret | None = None) -> Pair:
    network, left, right = joined(psk=psk)
    connect(network, left, right)
    return Pair(network, left, right)


STEPS = ("rotate left", "tell right", "rotate right", "tell left")


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(STEPS), callers=st.lists(st.booleans(), min_size=4, max_size=4))
def test_both_ends_change_their_keys_in_any_order_and_no_packet_is_lost(
    order: list[str], callers: list[bool]
) -> None:
    """[A17] After every step either side can begin a handshake that succeeds."""
    pair = connected_pair()
    hosts = {"left": pair.left, "right": pair.right}
    for step, is_left in zip(order, callers, strict=True):
        what, name = step.split()
        (pair.rotate if what == "rotate" else pair.tell)(hosts[name])
        pair.talk(1.0)
        pair.renew(pair.left if is_left else pair.right)
    pair.network.run(HOLD_S)
    since = pair.network.clock.now
    pair.renew(pair.left)
    assert is_for(pair, since, NEW["right"])
    pair.renew(pair.right)
    pair.assert_nothing_lost()


def is_for(pair: Pair, since: float, responder: Identity) -> bool:
    """Whether the first initiation since then is for this key: its mac1 is right under it."""
    message = pair.network.wire.of_kind(PacketType.HS_INIT, since)[0].data
    return with_mac1(message, responder.public)[-32:-16] == parse_initiation_untrusted(message).mac1


def test_the_old_key_is_no_longer_answered_when_its_time_is_over(pair: Pair) -> None:
    """[A17] Whoever still calls it is a stranger: no byte, and the counter of a wrong public key."""
    pair.rotate(pair.left)
    pair.renew(pair.right)
    pair.network.run(HOLD_S)
    since, refused = pair.network.clock.now, pair.left.device.refusals.get("rx_mac1", 0)
    pair.right.perform(pair.right.device.reconnect(pair.old["left"], since))
    pair.network.run(5.0)
    assert pair.left.device.refusals["rx_mac1"] > refused
    assert not [
        datagram
        for datagram in pair.network.wire.of_kind(PacketType.HS_RESP, since)
        if datagram.source == pair.left.address
    ]


def test_a_peer_is_no_longer_taken_for_its_old_key_when_that_time_is_over(pair: Pair) -> None:
    """[A17] The old key may be in other hands by then."""
    pair.tell(pair.right)
    pair.renew(pair.left)
    pair.network.run(HOLD_S)
    refused = pair.right.device.refusals.get("hs_unknown_peer", 0)
    pair.left.perform(pair.left.device.reconnect(pair.right.key, pair.network.clock.now))
    pair.network.run(1.0)
    assert pair.right.device.refusals["hs_unknown_peer"] > refused
    assert not pair.is_joined()


def test_under_load_the_old_key_is_answered_by_its_own_cookie(pair: Pair) -> None:
    """[A17, H7] The caller that knows only the old key opens the cookie and gets through."""
    pair.rotate(pair.left)
    pair.network.run(5.0)
    pair.left.queue_depth = 1000
    pair.renew(pair.right)
    assert pair.left.device.refusals["hs_cookie_sent"] >= 1
    assert pair.right.device.refusals.get("cookie_bad", 0) == 0


def test_the_gate_is_given_both_keys_while_both_hold(pair: Pair) -> None:
    """[A17] The newest first; afterwards one again."""
    before = pair.left.device.gate_keys(pair.network.clock.now)
    pair.rotate(pair.left)
    both = pair.left.device.gate_keys(pair.network.clock.now)
    assert both.mac1_keys[1:] == before.mac1_keys
    assert both.cookie_keys[1:] == before.cookie_keys
    assert both.mac1_keys[0] != before.mac1_keys[0]
    after = pair.left.device.gate_keys(pair.network.clock.now + HOLD_S)
    assert after.mac1_keys == both.mac1_keys[:1]


def test_the_previous_key_can_be_ended_early(pair: Pair) -> None:
    """[A17] At once, whatever time it had left."""
    pair.rotate(pair.left)
    pair.left.device.answer_also(None, 0.0)
    assert len(pair.left.device.gate_keys(pair.network.clock.now).mac1_keys) == 1


def test_more_time_for_the_previous_key_is_more_time(pair: Pair) -> None:
    """[A17] The same key with another end; nothing else is different."""
    pair.rotate(pair.left)
    before = pair.left.device.gate_keys(pair.network.clock.now)
    pair.left.device.answer_also(pair_identity("left"), pair.network.clock.now + 2 * HOLD_S)
    assert pair.left.device.gate_keys(pair.network.clock.now) == before
    assert len(pair.left.device.gate_keys(pair.network.clock.now + HOLD_S).mac1_keys) == 2


def pair_identity(name: str) -> Identity:
    return identity({"left": 1, "right": 2}[name])


def test_both_kinds_of_keys_change_at_once() -> None:
    """[A16, A17] Static keys of both ends and the preshared one: a handshake tries every combination."""
    old_psk, new_psk = Secret.copy_of(bytes(range(32))), Secret.copy_of(bytes(range(100, 132)))
    pair = connected_pair(old_psk)
    pair.rotate(pair.left)
    pair.tell(pair.left, new_psk, old_psk)
    pair.talk(1.0)
    pair.renew(pair.left, within_s=40.0)
    pair.assert_nothing_lost()


def test_once_the_peer_has_shown_the_newest_key_the_old_one_is_not_tried(pair: Pair) -> None:
    """[A17] The old key may be the one that was stolen."""
    pair.tell(pair.right)
    pair.rotate(pair.left)
    pair.renew(pair.right)
    since = pair.network.clock.now
    pair.network.wire.drop_all(PacketType.HS_RESP)
    pair.right.perform(pair.right.device.reconnect(NEW["left"].public, since))
    pair.network.run(12.0)
    calls = [
        datagram.data
        for datagram in pair.network.wire.of_kind(PacketType.HS_INIT, since)
        if datagram.source == pair.right.address
    ]
    assert len(calls) >= 3
    refusals = pair.left.device.refusals
    assert refusals.get("rx_mac1", 0) == 0


def test_a_change_that_is_taken_back_leaves_the_session_alone(pair: Pair) -> None:
    """[A17] From the new key to the old one: either configuration names both."""
    pair.tell(pair.right)
    pair.talk(1.0)
    pair.right.configure(peer_of(pair.left, at=pair.left.address))
    pair.talk(1.0)
    pair.renew(pair.right)
    pair.assert_nothing_lost()


def test_a_key_replaced_without_naming_the_old_one_ends_the_session(pair: Pair) -> None:
    """[A17] Another machine, or one whose key was stolen: nothing of the old one is trusted any more."""
    pair.right.configure(peer_of_key(NEW["left"].public, at=pair.left.address))
    assert not pair.right.plane.by_index
    pair.left.perform(pair.left.device.reconnect(pair.right.key, pair.network.clock.now))
    pair.network.run(1.0)
    assert pair.right.device.refusals["hs_unknown_peer"] >= 1


def test_the_newest_key_is_kept_when_another_third_key_comes_as_previous(pair: Pair) -> None:
    """[A17] A previous key that nobody had is only one more by which the peer may come."""
    session = pair.right.current(pair.left)
    third = identity(33)
    pair.right.configure(
        peer_of(pair.left, at=pair.left.address, previous_public_key=third.public, previous_key_until=1e9)
    )
    assert pair.right.current(pair.left) is session
    pair.left.change_key(third, 0.0)
    pair.network.run(5.0)
    pair.talk(1.0)
    pair.renew(pair.left)


def test_a_previous_key_that_goes_to_another_peer_is_that_peers(pair: Pair) -> None:
    """[A17] In one reload: the session stays with the peer whose newest key it has."""
    pair.tell(pair.right)
    pair.rotate(pair.left)
    pair.renew(pair.left)
    session = pair.right.current(pair.left)
    other = peer_of_key(pair.old["left"], name="other")
    pair.right.configure(other, peer_of(pair.left, at=pair.left.address))
    assert pair.right.current(pair.left) is session
    assert pair.right.device.snapshot(pair.old["left"]).stage == "idle"
    pair.right.configure(peer_of(pair.left, at=pair.left.address))
    pair.renew(pair.left)


@pytest.mark.parametrize("whose", ["our own", "another peer's", "its own"])
def test_a_previous_key_that_somebody_has_is_refused_and_changes_nothing(pair: Pair, whose: str) -> None:
    """[A17] Which of both would it be."""
    previous = {"our own": pair.right.key, "another peer's": identity(40).public, "its own": pair.left.key}
    peers = [peer_of(pair.left, previous_public_key=previous[whose]), peer_of_key(identity(40).public)]
    with pytest.raises(ValueError, match="public key"):
        pair.right.device.configure(peers, pair.network.clock.now)
    assert share_session(pair.left, pair.right)
