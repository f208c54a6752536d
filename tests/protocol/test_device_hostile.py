"""Bytes that nobody honest sent: garbage, flipped bits, floods, forgeries."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.fakes.forge import flipped, with_mac1
from tests.fakes.host import Host, Network, endpoint, is_up, joined, peer_of, share_session
from tests.fakes.wire import Datagram
from vpnd.keys import Secret
from vpnd.protocol import handshake, responder
from vpnd.protocol.actions import InstallSession, SendDatagram
from vpnd.protocol.constants import PacketType

INIT, RESP, COOKIE, DATA = PacketType.HS_INIT, PacketType.HS_RESP, PacketType.COOKIE, PacketType.DATA
STRANGER = endpoint("203.0.113.66", 666)
Pair = tuple[Network, Host, Host]


@pytest.mark.parametrize("kind", [0x00, 0x07, INIT, RESP, COOKIE, 0x0B, DATA, 0x0D, 0xFF])
def test_random_content_of_every_length_is_counted_and_never_raises(connected: Pair, kind: int) -> None:
    """[H1] Lengths 0 to 2000 of every type: no exception, no answer, one count each."""
    network, left, right = connected
    chance = random.Random(kind)
    before = sum(right.device.refusals.values())
    for length in range(2001):
        garbage = (bytes([kind]) + chance.randbytes(length))[:length]
        assert right.device.receive(garbage, STRANGER, network.clock.now) == []
    assert sum(right.device.refusals.values()) == before + 2001
    own: dict[int, str] = {INIT: "rx_mac1", RESP: "hs_resp_noidx", COOKIE: "cookie_bad"}
    assert set(right.device.refusals) <= {"rx_malformed", own.get(kind, "")}
    assert share_session(left, right)


@pytest.mark.parametrize("kind", [INIT, RESP, COOKIE])
def test_right_heads_with_random_rests_never_raise(connected: Pair, kind: int) -> None:
    """[H1] Version, lengths and index are right, all else is chance."""
    network, left, right = connected
    sizes = {INIT: range(200, 649, 64), RESP: range(140, 1101, 64), COOKIE: range(64, 65)}
    chance = random.Random(kind)
    for size in [*sizes[PacketType(kind)]] * 50:
        garbage = bytes([kind, 1, 0, 0]) + chance.randbytes(size - 4)
        if kind == INIT:
            garbage = with_mac1(garbage, right.key)
        assert right.device.receive(garbage, STRANGER, network.clock.now) == []
    if kind == INIT:
        assert right.device.refusals["hs_box_id"] == 400
    assert share_session(left, right)


def test_every_flipped_bit_of_an_initiation_is_refused() -> None:
    """[H2] 1600 messages with one wrong bit, and again with mac1 made right: none is accepted."""
    network, left, right = joined()
    left.start()
    message = network.wire.captured[0].data
    now = network.clock.now
    for bit in range(8 * len(message)):
        assert right.device.receive(flipped(message, bit), left.address, now) == [], bit
    for bit in range(8 * (len(message) - 32)):
        forged = with_mac1(flipped(message, bit), right.key)
        assert right.device.receive(forged, left.address, now) == [], bit
    assert right.count_of(InstallSession) == 0
    assert set(right.device.refusals) == {
        "rx_malformed",
        "rx_mac1",
        "cookie_bad",
        "hs_box_id",
        "hs_box_params",
    }
    kinds = [type(action) for action in right.device.receive(message, left.address, now)]
    assert InstallSession in kinds


def test_every_flipped_bit_of_a_response_is_refused() -> None:
    """[H2] 1120 messages with one wrong bit: none is accepted, the true one is."""
    network, left, right = joined()
    left.start()
    network.run(0.015)
    (response,) = network.wire.of_kind(RESP)
    now = network.clock.now
    for bit in range(8 * len(response.data)):
        assert left.device.receive(flipped(response.data, bit), right.address, now) == [], bit
    assert set(left.device.refusals) <= {"rx_malformed", "hs_resp_noidx", "hs_resp_mac", "cookie_bad"}
    network.run(1.0)
    assert share_session(left, right)


def test_every_flipped_bit_of_a_cookie_is_refused() -> None:
    """[H2] 512 messages with one wrong bit: none makes the initiator send again, the true one does."""
    network, left, right = joined()
    right.queue_depth = 65
    left.start()
    network.run(0.015)
    (cookie,) = network.wire.of_kind(COOKIE)
    for bit in range(8 * len(cookie.data)):
        assert left.device.receive(flipped(cookie.data, bit), right.address, network.clock.now) == [], bit
    assert len(network.wire.of_kind(INIT)) == 1
    network.run(1.0)
    assert share_session(left, right)


def test_every_cut_and_every_extension_of_a_message_is_refused() -> None:
    """[H2] Lengths 0 to 400 of a valid first message, with mac1 made right: none is accepted."""
    network, left, right = joined()
    left.start()
    message = network.wire.captured[0].data
    for length in range(401):
        changed = message[:length].ljust(length, b"\0")
        if length == len(message):
            continue
        assert right.device.receive(changed, left.address, network.clock.now) == []
        if length > 40:
            forged = with_mac1(changed, right.key)
            assert right.device.receive(forged, left.address, network.clock.now) == []


def test_every_flipped_bit_of_a_data_message_is_refused(connected: Pair) -> None:
    """[H2] On the twin: no wrong bit is delivered, confirms, or moves the endpoint."""
    network, left, right = connected
    left.send(right, b"Eoriginal")
    data = network.wire.captured[-1].data
    network.wire.cut()
    for bit in range(8 * len(data)):
        right.take_datagram(Datagram(STRANGER, right.address, flipped(data, bit)))
    assert right.received() == [b"Efirst"]
    assert right.plane.peers[left.key].endpoint == left.address


def test_replayed_initiations_cost_one_diffie_hellman_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """[H8] 10,000 copies in a second: the first is opened, the others are not."""
    network, left, right = joined()
    left.start()
    message = network.wire.captured[0].data
    opened = Counter[str]()
    original = handshake.open_identity

    def counting(*arguments: object) -> object:
        opened["identity"] += 1
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(responder, "open_identity", counting)
    for number in range(10_000):
        right.device.receive(message, STRANGER, network.clock.now + number / 10_000)
    assert opened["identity"] == 1
    assert right.device.refusals == {"hs_dup": 9_999}


def test_forged_responses_to_a_seen_index_are_stopped_and_the_real_one_is_taken() -> None:
    """[H9] 10,000 forgeries die at mac_r; the true response still makes the session."""
    network, left, right = joined()
    left.start()
    network.run(0.015)
    (response,) = network.wire.of_kind(RESP)
    chance = random.Random(9)
    for _ in range(10_000):
        forged = response.data[:8] + chance.randbytes(len(response.data) - 8)
        assert left.device.receive(forged, STRANGER, network.clock.now) == []
    assert left.device.refusals == {"hs_resp_mac": 10_000}
    network.run(1.0)
    assert share_session(left, right)


def test_a_stranger_who_does_not_know_our_key_gets_no_byte(connected: Pair) -> None:
    """[H10] Anything without a right mac1 is met by silence, also under load."""
    network, _left, right = connected
    chance = random.Random(10)
    for depth in (0, 100):
        for _ in range(500):
            guess = bytes([INIT, 1, 0, 0]) + chance.randbytes(196)
            assert right.device.receive(guess, STRANGER, network.clock.now, queue_depth=depth) == []


@pytest.mark.parametrize("depth", [0, 100])
def test_a_peer_without_the_knock_gets_no_byte(depth: int) -> None:
    """[H10] The public key alone is not enough where a knock is set: not even a cookie comes back."""
    knock = Secret.copy_of(bytes(range(32)))
    network = Network()
    left, right = network.add("left", 1), network.add("right", 2, knock=knock)
    left.configure(peer_of(right, at=right.address))
    right.configure(peer_of(left))
    right.queue_depth = depth
    left.start()
    network.run(30.0)
    assert right.count_of(SendDatagram) == 0
    assert set(right.device.refusals) == {"rx_mac1"}


def test_peers_with_the_same_knock_meet() -> None:
    """[H10] With the knock on both sides all is as without."""
    network, left, right = joined(knock=Secret.copy_of(bytes(range(32))))
    left.send(right, b"Eknock knock")
    network.run(1.0)
    assert right.received() == [b"Eknock knock"]


def test_a_thousand_initiations_a_second_of_one_peer_are_answered_fifty_times(connected: Pair) -> None:
    """[H11] At most one per 20 ms is accepted, the others are `hs_peer_rate`."""
    network, left, right = connected
    network.run(1.0)
    network.wire.cut()
    start = network.clock.now
    before = right.count_of(InstallSession)
    for _ in range(1000):
        network.clock.advance(0.001)
        for action in left.device.reconnect(right.key, network.clock.now):
            if isinstance(action, SendDatagram):
                right.perform(right.device.receive(action.datagram, left.address, network.clock.now))
    accepted = right.count_of(InstallSession) - before
    assert network.clock.now - start == pytest.approx(1.0)
    assert 45 <= accepted <= 51
    assert right.device.refusals["hs_peer_rate"] == 1000 - accepted
    assert len(right.plane.peers[left.key].unconfirmed) == 2


def test_sixteen_failed_draws_of_an_index_refuse_and_harm_nothing(connected: Pair) -> None:
    """[H12] The generator gives an index in use again and again: refused by name, the session lives."""
    network, left, right = connected
    session = right.current(left)
    assert session is not None
    right.stuck_index = session.local_index
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(0.5)
    assert right.device.refusals["idx_exhausted"] >= 1
    assert right.current(left) is session
    left.send(right, b"Estill there")
    network.run(0.5)
    assert right.received()[-1] == b"Estill there"


def test_an_initiator_without_an_index_tries_again_later(connected: Pair) -> None:
    """[H12] On the initiating side too: counted, and the next turn of the schedule succeeds."""
    network, left, right = connected
    session = left.current(right)
    assert session is not None
    left.stuck_index = session.local_index
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(0.5)
    assert left.device.refusals["idx_exhausted"] == 1
    left.stuck_index = None
    network.run(2.0)
    assert left.current(right) is not session
    assert share_session(left, right)


def first_messages(number: int, runs: int) -> list[tuple[bytes, bytes]]:
    """HS_INIT and HS_RESP of many runs of the initiator with this identity."""
    seen = []
    for run in range(runs):
        network = Network(seed=run * 1000 + number)
        left, right = network.add("left", number), network.add("right", 2)
        left.configure(peer_of(right, at=right.address))
        right.configure(peer_of(left))
        left.start()
        network.run(0.05)
        seen.append((network.wire.of_kind(INIT)[0].data, network.wire.of_kind(RESP)[0].data))
    return seen


def test_messages_of_two_identities_can_not_be_told_apart() -> None:
    """[H14] Same lengths; beyond the heads no byte stands out, within a run or between identities."""
    runs = 150
    one, other = first_messages(1, runs), first_messages(3, runs)
    for which, head, tail in ((0, 8, 16), (1, 12, 0)):
        messages = [pair[which] for pair in one + other]
        assert len({len(message) for message in messages}) == 1
        end = len(messages[0]) - tail
        for position in range(head, end):
            (_, times), *_ = Counter(message[position] for message in messages).most_common(1)
            # 300 draws of 256 values: 16 equal ones come by chance once in ten thousand years of runs.
            assert times < 16, (which, position)
        for position in range(end, len(messages[0])):
            assert {message[position] for message in messages} == {0}


def test_the_heads_of_messages_tell_only_type_version_and_random_indices() -> None:
    """[H14] The four bytes before the index are the same for everybody; indices are random."""
    seen = first_messages(1, 20) + first_messages(3, 20)
    assert {initiation[:4] for initiation, _ in seen} == {b"\x08\x01\0\0"}
    assert {response[:4] for _, response in seen} == {b"\x09\x01\0\0"}
    assert len({initiation[4:8] for initiation, _ in seen}) == 40
    assert len({response[8:12] for _, response in seen}) == 40


def test_a_flood_of_twenty_thousand_datagrams_changes_no_state(connected: Pair) -> None:
    """[H1, H2] Random, cut, flipped and replayed ones: silence, each counted, the session lives."""
    network, left, right = connected
    chance = random.Random(100)
    originals = [one.data for one in network.wire.captured if one.kind in (INIT, RESP)]
    before = right.device.snapshot(left.key)
    total = sum(right.device.refusals.values())
    count = 20_000
    for number in range(count):
        data = chance.choice(originals)
        match number % 4:
            case 0:
                data = chance.randbytes(chance.randrange(1, 1500))
            case 1:
                data = data[: chance.randrange(len(data))]
            case 2:
                data = flipped(data, chance.randrange(8 * len(data)))
            case _:
                pass
        assert right.device.receive(data, STRANGER, network.clock.now) == []
    assert sum(right.device.refusals.values()) == total + count
    after = right.device.snapshot(left.key)
    assert (after.current_index, after.handshakes, after.endpoint) == (
        before.current_index,
        before.handshakes,
        before.endpoint,
    )
    assert is_up(left, right)
