"""The handshake itself: the stored vector, every bit flipped, strange points, wrong keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from tests.fakes.forge import flipped, with_mac1
from tests.fakes.host import Host, Network, connect, endpoint, joined
from vpnd.errors import MalformedMessage, RejectedMessage
from vpnd.keys import Identity, PublicKey, Secret
from vpnd.protocol import handshake
from vpnd.protocol.boxes import identify, share
from vpnd.protocol.constants import Suite
from vpnd.protocol.messages import (
    parse_initiation_untrusted,
    parse_response_untrusted,
)

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "handshake-1.json").read_text())
INIT, RESP = 0x08, 0x09
SUITE = Suite.AES_256_GCM
FIELD_PRIME = 2**255 - 19

# The points of order 1, 2, 4 and 8 on the curve and its twist, as 32 bytes may say them
# (RFC 7748, section 6.1; the last two are p and p + 1, the same as 0 and 1).
LOW_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (FIELD_PRIME - 1).to_bytes(32, "little"),
    FIELD_PRIME.to_bytes(32, "little"),
    (FIELD_PRIME + 1).to_bytes(32, "little"),
]


def secret(name: str) -> Secret:
    return Secret.copy_of(bytes.fromhex(VECTOR[name]))


@dataclass(slots=True)
class Ends:
    """Both ends of one handshake with the vector's values, or with others for a case."""

    left: Identity = field(default_factory=lambda: Identity.from_private(secret("s_i")))
    right: Identity = field(default_factory=lambda: Identity.from_private(secret("s_r")))
    psk_left: Secret = field(default_factory=lambda: secret("psk"))
    psks_right: tuple[Secret, ...] = field(default_factory=lambda: (secret("psk"),))
    parameters1: bytes = bytes.fromhex(VECTOR["P1"])
    parameters2: bytes = bytes.fromhex(VECTOR["P2"])

    def initiate(self, to: PublicKey | None = None) -> handshake.Initiation:
        responder = to or self.right.public
        return handshake.create_initiation(
            self.left,
            responder,
            version=1,
            local_index=VECTOR["idx_i"],
            ephemeral=secret("e_i"),
            preshared_key=self.psk_left,
            parameters=self.parameters1,
            responder_mac1_key=handshake.mac1_key(responder, Secret.zero()),
            start=handshake.start_chain(1, responder),
            shared=share(self.left.private, responder.raw),
        )

    def open(self, datagram: bytes, initiator: PublicKey | None = None) -> handshake.OpenedInitiation:
        message = parse_initiation_untrusted(datagram)
        start = handshake.start_chain(1, self.right.public)
        chain, named = handshake.open_identity(self.right, start, message)
        known = initiator or self.left.public
        if named != identify(known):
            raise RejectedMessage("hs_unknown_peer")
        shared = share(self.right.private, known.raw)
        return handshake.open_initiation(known, shared, self.psks_right, chain, message)

    def respond(self, datagram: bytes, suite: Suite = SUITE) -> tuple[bytes, handshake.TransportKeys]:
        return handshake.create_response(
            self.open(datagram),
            local_index=VECTOR["idx_r"],
            ephemeral=secret("e_r"),
            parameters=self.parameters2,
            suite=suite,
        )

    def take(self, initiation: handshake.Initiation, datagram: bytes) -> handshake.OpenedResponse:
        return handshake.open_response(self.left, initiation, parse_response_untrusted(datagram))


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises((RejectedMessage, MalformedMessage)) as caught:
        call()
    return caught.value.reason if isinstance(caught.value, RejectedMessage) else "rx_malformed"


@pytest.mark.parametrize("suite", list(Suite))
def test_the_stored_vector_comes_out_byte_for_byte(suite: Suite) -> None:
    """[J1, A2] Both messages, the final state and the transport keys of each suite."""
    ends = Ends()
    initiation = ends.initiate()
    assert initiation.message.hex() == VECTOR["msg1"]
    response, keys = ends.respond(initiation.message, suite)
    assert response.hex() == VECTOR["msg2"]
    opened = ends.take(initiation, response)
    assert opened.parameters.hex() == VECTOR["P2"]
    assert opened.chain._state.expose().hex() == VECTOR["C_final"]
    theirs = opened.derive_keys(suite)
    assert theirs.send.expose().hex() == VECTOR[f"suite{suite}_i2r"]
    assert theirs.receive.expose().hex() == VECTOR[f"suite{suite}_r2i"]
    assert keys.receive.equals(theirs.send)
    assert keys.send.equals(theirs.receive)


def test_the_vector_agrees_with_hashlib_up_to_the_first_secret() -> None:
    """[J1] The public start of the key schedule, by Python's own BLAKE2b."""
    name = b"vpnd/1 IKpsk1+2 X25519-HSalsa20 XSalsa20Poly1305 BLAKE2b"
    state = hashlib.blake2b(name, person=b"vpnd1.a.init").digest()
    right = Ends().right.public
    state = hashlib.blake2b(right.raw, key=state, person=b"vpnd1.a.sr").digest()
    assert handshake.start_chain(1, right)._state.expose() == state


def test_versions_start_from_unrelated_states() -> None:
    """[A20] Nothing of one version's keys can be used in another."""
    right = Ends().right.public
    assert not handshake.start_chain(1, right).equals(handshake.start_chain(2, right))


def flips(datagram: bytes, but: range = range(0)) -> Iterator[bytes]:
    return (flipped(datagram, bit) for bit in range(8 * len(datagram)) if bit not in but)


def test_no_bit_of_an_initiation_can_change_even_with_mac1_made_right() -> None:
    """[H2] All flips but those of the MACs, each with a fresh mac1: refused by header or box."""
    ends = Ends()
    message = ends.initiate().message
    for forged in flips(message[:-32]):
        datagram = with_mac1(forged + bytes(32), ends.right.public)
        if datagram[1:4] != message[1:4] or datagram[0] != INIT:
            continue  # the frame's own checks; Device tests below hold them
        assert reason_of(partial(ends.open, datagram)) in ("hs_box_id", "hs_box_params")


def test_no_bit_of_a_response_can_change() -> None:
    """[H2] All 1120 flips are refused, and the true response is taken afterwards."""
    ends = Ends()
    initiation = ends.initiate()
    response, _ = ends.respond(initiation.message)
    for forged in flips(response, but=range(8)):
        assert reason_of(partial(ends.take, initiation, forged)) in (
            "rx_malformed",
            "hs_resp_mac",
        )
    assert ends.take(initiation, response).parameters == ends.parameters2


@dataclass(slots=True)
class Prepared:
    """Two machines and the messages between them, none delivered yet."""

    network: Network
    left: Host
    right: Host
    init: bytes
    resp: bytes


@pytest.fixture
def prepared() -> Prepared:
    """A started handshake whose first message `right` has not seen; `resp` is a twin's answer to it."""
    network, left, right = joined()
    left.start()
    init = network.wire.of_kind(INIT)[0].data
    network.wire.arrivals(network.clock.now + 1.0)
    twin_network, _, twin = joined()
    twin.take_datagram(network.wire.captured[0])
    resp = twin_network.wire.of_kind(RESP)[0].data
    return Prepared(network, left, right, init, resp)


def state_of(host: Host) -> list[object]:
    """Everything of a device that a refused message must not change."""
    device, now = host.device, host.clock.now
    snapshots = [device.snapshot(peer.public_key) for peer in host.peers]
    plain = [
        replace(snapshot, refusals={}, last_refusal=None, last_refusal_at=None) for snapshot in snapshots
    ]
    return [*plain, device.next_deadline(now)]


def test_every_flipped_initiation_is_counted_and_changes_nothing(prepared: Prepared) -> None:
    """[H2] 1600 flips at a device: no action, one refusal each, and the true message still works."""
    device, here = prepared.right.device, prepared.left.address
    before = state_of(prepared.right)
    for number, forged in enumerate(flips(prepared.init), start=1):
        assert device.receive(forged, here, prepared.network.clock.now) == []
        assert sum(device.refusals.values()) == number
    assert set(device.refusals) == {"rx_malformed", "rx_mac1", "cookie_bad"}
    assert state_of(prepared.right) == before
    prepared.right.perform(device.receive(prepared.init, here, prepared.network.clock.now))
    prepared.network.run(1.0)
    assert prepared.right.current(prepared.left) is not None


def test_every_flipped_initiation_with_its_mac1_made_right_is_counted(prepared: Prepared) -> None:
    """[H2] The attacker knows the responder's key: the frame or the boxes refuse it."""
    device, here = prepared.right.device, prepared.left.address
    before = state_of(prepared.right)
    for number, forged in enumerate(flips(prepared.init[:-32]), start=1):
        datagram = with_mac1(forged + bytes(32), prepared.right.key)
        assert device.receive(datagram, here, prepared.network.clock.now) == []
        assert sum(device.refusals.values()) == number
    assert set(device.refusals) == {"rx_malformed", "hs_box_id", "hs_box_params"}
    assert state_of(prepared.right) == before


def test_every_flipped_response_is_counted_and_changes_nothing(prepared: Prepared) -> None:
    """[H2, H9] 1120 flips at a device: no action, one refusal each, and the true response still works."""
    device, there = prepared.left.device, prepared.right.address
    before = state_of(prepared.left)
    for number, forged in enumerate(flips(prepared.resp), start=1):
        assert device.receive(forged, there, prepared.network.clock.now) == []
        assert sum(device.refusals.values()) == number
    assert set(device.refusals) == {
        "rx_malformed",
        "hs_resp_mac",
        "hs_resp_noidx",
        "cookie_bad",
        "rx_mac1",
    } - {
        "cookie_bad",
        "rx_mac1",
    }
    assert state_of(prepared.left) == before
    prepared.left.perform(device.receive(prepared.resp, there, prepared.network.clock.now))
    assert prepared.left.current(prepared.right) is not None


def test_every_length_of_every_type_is_counted(prepared: Prepared) -> None:
    """[H1] Truncated and extended forms of both messages, and all other first bytes."""
    device, here = prepared.right.device, prepared.left.address
    sent = 0
    for whole in (prepared.init, prepared.resp, bytes([0x0A]) + bytes(63)):
        for size in range(401):
            datagram = whole[:size].ljust(size, b"\x55")
            if datagram in (prepared.init, prepared.resp):
                continue
            assert device.receive(datagram, here, prepared.network.clock.now) == []
            sent += 1
    for first in set(range(256)) - {0x08, 0x09, 0x0A}:
        assert device.receive(bytes([first]) * 200, here, prepared.network.clock.now) == []
        sent += 1
    assert sum(device.refusals.values()) == sent


# --- strange points and encodings ---


@pytest.mark.parametrize("point", LOW_ORDER, ids=[point.hex()[:8] for point in LOW_ORDER])
def test_a_low_order_ephemeral_of_the_initiator_is_refused(point: bytes) -> None:
    """[A14] As E_i, with everything else made right."""
    ends = Ends()
    message = ends.initiate().message
    forged = with_mac1(message[:8] + point + message[40:], ends.right.public)
    assert reason_of(lambda: ends.open(forged)) == "hs_box_id"


@pytest.mark.parametrize("point", LOW_ORDER, ids=[point.hex()[:8] for point in LOW_ORDER])
def test_a_low_order_ephemeral_of_the_responder_is_refused(
    point: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[A14] As E_r, from a responder who holds every secret and makes mac_r right."""
    ends = Ends()
    initiation = ends.initiate()
    monkeypatch.setattr(handshake, "public_of", lambda _: point)
    response, _ = ends.respond(initiation.message)
    assert response[12:44] == point
    assert reason_of(lambda: ends.take(initiation, response)) == "hs_resp_box"


@pytest.mark.parametrize("point", LOW_ORDER, ids=[point.hex()[:8] for point in LOW_ORDER])
def test_to_a_low_order_peer_no_first_message_can_be_made(point: bytes) -> None:
    """[A14] As S_r."""
    assert reason_of(lambda: Ends().initiate(PublicKey(point))) == "hs_box_id"


@pytest.mark.parametrize("point", LOW_ORDER, ids=[point.hex()[:8] for point in LOW_ORDER])
def test_from_a_low_order_peer_no_first_message_is_taken(point: bytes) -> None:
    """[A14] As S_i: whoever configured such a peer gets no session with anybody."""
    ends = Ends()
    ends.left = Identity(ends.left.private, PublicKey(point))
    message = ends.initiate().message
    assert reason_of(lambda: ends.open(message)) == "hs_box_params"


def test_a_device_sends_nothing_to_a_low_order_peer() -> None:
    """[A14] The operator's file holds such a key: silence, and a reason in the snapshot."""
    network, left, right = joined()
    strange = PublicKey(bytes(32))
    options = left.peers[0].__class__(strange, "strange", Secret.zero(), endpoint=right.address)
    left.configure(options)
    left.start()
    network.run(2.0)
    assert network.wire.captured == []
    snapshot = left.device.snapshot(strange)
    assert (snapshot.stage, snapshot.last_refusal, snapshot.attempts) == ("handshaking", "hs_box_id", 2)


def equivalents(key: PublicKey) -> Iterator[PublicKey]:
    """Other 32 bytes that X25519 takes for the same point."""
    yield PublicKey(flipped(key.raw, 255))


def test_a_non_canonical_responder_key_does_not_shake_hands() -> None:
    """[A15] The same point in other bytes is another key: each end absorbs the bytes it knows."""
    ends = Ends()
    for other in equivalents(ends.right.public):
        message = ends.initiate(other).message
        assert reason_of(partial(ends.open, message)) == "hs_box_id"


def test_a_non_canonical_initiator_key_does_not_shake_hands() -> None:
    """[A15] The responder knows the initiator under other bytes: its identity is another."""
    ends = Ends()
    message = ends.initiate().message
    for other in equivalents(ends.left.public):
        assert reason_of(partial(ends.open, message, other)) == "hs_unknown_peer"


def test_an_initiator_that_names_itself_otherwise_is_bound_to_that_name() -> None:
    """[A15] It may say its key in other bytes, and is then only who has these bytes configured."""
    ends = Ends()
    canonical = ends.left.public
    other = next(equivalents(canonical))
    ends.left = Identity(ends.left.private, other)
    message = ends.initiate().message
    assert reason_of(lambda: ends.open(message, canonical)) == "hs_unknown_peer"
    assert ends.open(message, other).initiator == other


@pytest.mark.parametrize("small", [2, 9, 18])
def test_an_ephemeral_beyond_the_prime_is_bound_by_its_bytes(small: int) -> None:
    """[A15] x and p + x are one point, but changing one into the other breaks the first box."""
    ends = Ends()
    message = ends.initiate().message
    low, high = small.to_bytes(32, "little"), (FIELD_PRIME + small).to_bytes(32, "little")
    for point in (low, high):
        forged = with_mac1(message[:8] + point + message[40:], ends.right.public)
        assert reason_of(partial(ends.open, forged)) == "hs_box_id"
    for bit in (255,):
        changed = with_mac1(message[:8] + flipped(message[8:40], bit) + message[40:], ends.right.public)
        assert reason_of(partial(ends.open, changed)) == "hs_box_id"


def test_the_top_bit_of_the_responders_ephemeral_is_bound(prepared: Prepared) -> None:
    """[A15] E_r in its other encoding does not pass mac_r."""
    forged = prepared.resp[:12] + flipped(prepared.resp[12:44], 255) + prepared.resp[44:]
    device = prepared.left.device
    assert device.receive(forged, prepared.right.address, prepared.network.clock.now) == []
    assert device.refusals == {"hs_resp_mac": 1}


# --- keys ---


def other_key() -> Secret:
    return Secret.copy_of(b"o" * 32)


def test_the_responder_takes_any_of_its_preshared_keys_and_answers_with_that_one() -> None:
    """[A16] During a roll-over the first that fits is used in both messages."""
    ends = Ends()
    ends.psks_right = (other_key(), secret("psk"))
    initiation = ends.initiate()
    response, keys = ends.respond(initiation.message)
    theirs = ends.take(initiation, response).derive_keys(SUITE)
    assert keys.send.equals(theirs.receive)


def test_a_wrong_preshared_key_is_seen_in_the_first_message() -> None:
    """[A16] Different, and missing."""
    for wrong in (other_key(), Secret.zero()):
        ends = Ends(psk_left=wrong)
        message = ends.initiate().message
        assert reason_of(partial(ends.open, message)) == "hs_box_params"


def test_the_wrong_responder_cannot_open_the_first_message() -> None:
    """[A11] Its own key does not open what was meant for another."""
    ends = Ends()
    message = ends.initiate().message
    ends.right = Identity.from_private(other_key())
    assert reason_of(lambda: ends.open(message)) == "hs_box_id"


def test_a_responder_without_the_static_key_cannot_answer() -> None:
    """[H9] It knows all public values and the preshared key; mac_r needs message 1's secrets."""
    ends = Ends()
    initiation = ends.initiate()
    elsewhere = Ends(right=Identity.from_private(other_key()))
    response, _ = elsewhere.respond(elsewhere.initiate().message)
    assert reason_of(lambda: ends.take(initiation, response)) == "hs_resp_mac"


def test_a_response_to_one_initiation_does_not_fit_another() -> None:
    """[H9] Each first message has its own mac_r."""
    ends = Ends()
    response, _ = ends.respond(ends.initiate().message)
    later = Ends(parameters1=flipped(ends.parameters1, 95))
    assert reason_of(lambda: ends.take(later.initiate(), response)) == "hs_resp_mac"


def test_a_responder_that_computes_otherwise_fails_at_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """[H9] It knows message 1's secrets, so mac_r is right, but not the initiator's public key's."""
    ends = Ends()
    initiation = ends.initiate()
    with monkeypatch.context() as patched:
        patched.setattr(handshake, "_SE", handshake._EE)
        response, _ = ends.respond(initiation.message)
    assert reason_of(lambda: ends.take(initiation, response)) == "hs_resp_box"


def test_a_refused_response_leaves_the_initiation_as_it_was() -> None:
    """[H2] Chain and ephemeral are bytewise the same after a forgery that got as far as the box."""
    ends = Ends()
    initiation = ends.initiate()
    chain, ephemeral = initiation.chain.copy(), initiation.ephemeral.expose()
    response, _ = ends.respond(initiation.message)
    reason_of(lambda: ends.take(initiation, flipped(response, 1000)))
    assert initiation.chain.equals(chain)
    assert initiation.ephemeral.expose() == ephemeral


def test_spent_secrets_are_wiped() -> None:
    """[G6] The responder's chain and ephemeral at its answer, the initiator's at its end."""
    ends = Ends()
    initiation = ends.initiate()
    opened = ends.open(initiation.message)
    ephemeral = secret("e_r")
    handshake.create_response(
        opened, local_index=1, ephemeral=ephemeral, parameters=ends.parameters2, suite=SUITE
    )
    assert ephemeral.is_zero()
    assert opened.chain._state.is_zero()
    initiation.wipe()
    assert initiation.ephemeral.is_zero()
    assert initiation.chain._state.is_zero()


def test_a_session_that_was_made_wipes_its_initiation() -> None:
    """[G6] At the device: what was pending is zero once the response is taken."""
    network, left, right = joined()
    left.start()
    peer = left.device._peers[right.key]
    initiation = peer.pending[0].initiation
    connect(network, left, right)
    assert initiation.ephemeral.is_zero()
    assert peer.pending == []


def test_a_stranger_without_the_knock_gets_no_byte() -> None:
    """[H10] It knows the public key; the network's knock keys mac1."""
    network, left, _ = joined()
    guarded = network.add("guarded", 3, knock=Secret.copy_of(b"k" * 32))
    left.start()
    init = network.wire.of_kind(INIT)[0].data
    forged = with_mac1(init, guarded.key)
    assert guarded.device.receive(forged, endpoint("192.0.2.1"), 0.0, queue_depth=1000) == []
    assert guarded.device.refusals == {"rx_mac1": 1}
