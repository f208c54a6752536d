"""DATA messages in and out: what is delivered, and under which name the rest is dropped."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from ipaddress import ip_network

import pytest

from tests.plane import far
from tests.plane.far import Session
from tests.plane.harness import FEATURE_TUN, Far, Rig, wait_until
from tests.plane.packets import TCP, UDP, checksum, ipv4, ipv6, number_of, numbered
from vpnd.plane import events

HERE, THERE = "10.1.0.1", "10.2.0.7"
SUITES = [far.AES_256_GCM, far.CHACHA20_POLY1305]
LIMIT = 1 << 33
WINDOW = 16320


@pytest.fixture
def peer(tun: Rig) -> Far:
    return tun.add_peer(1)


def deliver(tun: Rig, peer: Far, datagrams: list[bytes]) -> list[bytes]:
    """Sends all and gives what came out of the link, once every datagram was dealt with."""
    before = tun.received()
    for datagram in datagrams:
        peer.send(datagram)
    settle(tun, before + len(datagrams))
    return tun.link.receive_all()


def settle(tun: Rig, datagrams: int) -> None:
    """Waits until this many datagrams came in, and until each was dropped or written to the link."""

    def done() -> bool:
        totals = tun.client.counters.totals()
        assert totals.rx_datagrams <= datagrams
        return totals.rx_datagrams == datagrams and totals.link_tx_packets + tun.dropped() >= datagrams

    wait_until(done, f"{datagrams} datagrams dealt with, but {tun.received()}, {tun.drops()}")


@pytest.mark.parametrize("suite", SUITES)
def test_packets_travel_both_ways_unchanged(tun: Rig, peer: Far, suite: int) -> None:
    session = peer.install(suite=suite)
    for size in (24, 64, 100, 576, 1419, 1420):
        out = numbered(HERE, THERE, size, size)
        tun.link.send(out)
        assert session.open(peer.receive()).plaintext == out
        back = numbered(THERE, HERE, size, size)
        peer.send(session.seal(back))
        assert tun.link.receive() == back
    counters = peer.counters()
    assert (counters.tx_packets, counters.rx_packets) == (6, 6)
    assert counters.tx_bytes == counters.rx_bytes == 24 + 64 + 100 + 576 + 1419 + 1420
    assert tun.drops() == {}


@pytest.mark.parametrize("suite", SUITES)
def test_ipv6_inside_ipv4_outside(tun: Rig, suite: int) -> None:
    peer = tun.add_peer(2, ["2001:db8:2::/48"])
    session = peer.install(suite=suite)
    out = ipv6("2001:db8:1::1", "2001:db8:2::7", b"there")
    tun.link.send(out)
    assert session.open(peer.receive()).plaintext == out
    back = ipv6("2001:db8:2::7", "2001:db8:1::1", b"back")
    peer.send(session.seal(back))
    assert tun.link.receive() == back


def test_counters_on_the_wire_begin_at_zero_and_leave_no_gap(tun: Rig, peer: Far) -> None:
    session = peer.install()
    for number in range(300):
        tun.link.send(numbered(HERE, THERE, number))
    opened = [session.open(peer.receive()) for _ in range(300)]
    assert [each.counter for each in opened] == list(range(300))
    assert [number_of(each.plaintext) for each in opened] == list(range(300))
    assert peer.counters().session_messages == 300


def test_a_keepalive_is_empty_and_counts_as_no_data(tun: Rig, peer: Far) -> None:
    session = peer.install()
    tun.client.send_keepalive(1)
    datagram = peer.receive()
    assert len(datagram) == 32
    assert session.open(datagram).plaintext == b""
    peer.send(session.seal(b""))
    wait_until(lambda: peer.counters().last_received_ns, "a keepalive in")
    counters = peer.counters()
    assert counters.last_sent_ns > 0
    assert (counters.last_data_sent_ns, counters.last_data_received_ns) == (0, 0)
    assert (counters.tx_packets, counters.rx_packets) == (0, 0)
    assert tun.link.receive_all() == []


def test_stamps_tell_who_waits_for_whom(tun: Rig, peer: Far) -> None:
    session = peer.install()
    tun.link.send(numbered(HERE, THERE, 1))
    peer.receive()
    sent = wait_until(lambda: peer.counters().unanswered_sent_since_ns, "unanswered since the first packet")
    tun.link.send(numbered(HERE, THERE, 2))
    peer.receive()
    assert peer.counters().unanswered_sent_since_ns == sent
    peer.send(session.seal(numbered(THERE, HERE, 3)))
    tun.link.receive()
    received = wait_until(lambda: peer.counters().unanswered_received_since_ns, "received and not answered")
    assert peer.counters().unanswered_sent_since_ns == 0
    assert received >= sent
    tun.client.send_keepalive(1)
    wait_until(lambda: peer.counters().unanswered_received_since_ns == 0, "the keepalive answered")


@pytest.mark.parametrize("suite", SUITES)
def test_every_flipped_bit_is_refused(tun: Rig, peer: Far, suite: int) -> None:
    """[H2] No DATA message with any one bit changed is delivered; each is counted."""
    session = peer.install(suite=suite)
    datagram = session.seal(numbered(THERE, HERE, 1, 60))
    flipped = []
    for bit in range(len(datagram) * 8):
        changed = bytearray(datagram)
        changed[bit // 8] ^= 1 << bit % 8
        flipped.append(bytes(changed))
    # The type's own bits may make it a handshake message, which goes up to vpnd.
    sent = [each for each in flipped if each[0] not in (0x08, 0x09, 0x0A)]
    assert deliver(tun, peer, sent) == []
    assert tun.dropped() == len(sent)
    assert peer.counters().rx_packets == 0
    drops = tun.drops()
    assert set(drops) <= {"rx_malformed", "data_noidx", "data_expired", "data_auth"}
    assert drops["data_noidx"] == 32
    assert deliver(tun, peer, [datagram]) == [numbered(THERE, HERE, 1, 60)]


@pytest.mark.parametrize("suite", SUITES)
def test_every_truncation_and_extension_is_refused(tun: Rig, peer: Far, suite: int) -> None:
    """[H2, J4] A short tag, a missing one and trailing bytes are all refused."""
    session = peer.install(suite=suite)
    datagram = session.seal(numbered(THERE, HERE, 1, 60))
    wrong = [datagram[:size] for size in range(1, len(datagram))]
    wrong += [datagram + b"\0" * size for size in range(1, 40)]
    assert deliver(tun, peer, wrong) == []
    drops = tun.drops()
    assert drops == {"rx_malformed": 31, "data_auth": len(wrong) - 31}
    assert deliver(tun, peer, [datagram]) == [numbered(THERE, HERE, 1, 60)]


def test_a_message_under_another_key_salt_or_direction_is_refused(tun: Rig, peer: Far) -> None:
    """[J4] Wrong key, wrong nonce, wrong direction: data_auth."""
    session = peer.install()
    wrong_key = Session(session.local_index, 0, to_plane=b"\0" * 36)
    wrong_salt = Session(session.local_index, 0, to_plane=session.to_plane[:32] + b"\0\0\0\1")
    reflected = Session(session.local_index, 0, to_plane=session.from_plane)
    packet = numbered(THERE, HERE, 1)
    assert deliver(tun, peer, [each.seal(packet) for each in (wrong_key, wrong_salt, reflected)]) == []
    assert tun.drops() == {"data_auth": 3}


def test_every_length_of_every_type_is_counted_or_handed_up(tun: Rig, peer: Far) -> None:
    """[H1] Random content of 0 to 2000 bytes under every first byte: counted, nothing delivered."""
    peer.install()
    stream = os.urandom(4096)
    datagrams = [bytes([kind]) + stream[: size - 1] for kind in range(256) for size in range(1, 2001, 111)]
    datagrams += [bytes([0x0C]) + stream[: size - 1] for size in range(1, 2001)]
    # A handshake message of a possible size goes up to vpnd; one shorter or longer is malformed.
    datagrams = [each for each in datagrams if each[0] not in (0x08, 0x09, 0x0A)]
    datagrams += [bytes([kind]) * size for kind in (0x08, 0x09, 0x0A) for size in (1, 4, 7, 1501, 2000)]
    before = tun.received()
    for start in range(0, len(datagrams), 500):
        chunk = datagrams[start : start + 500]
        for datagram in chunk:
            peer.send(datagram)
        wait_until(lambda: tun.dropped() >= start + len(chunk), "every datagram counted")  # noqa: B023
    assert tun.received() - before == len(datagrams)
    assert tun.dropped() == len(datagrams)
    assert tun.link.receive_all() == []


def test_an_empty_datagram_is_malformed(tun: Rig, peer: Far) -> None:
    peer.send(b"")
    tun.wait_drops("rx_malformed", 1)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_reserved_bytes_must_be_zero(tun: Rig, peer: Far, zero: int) -> None:
    session = peer.install()
    datagram = bytearray(session.seal(b""))
    datagram[zero] = 1
    peer.send(bytes(datagram))
    tun.wait_drops("rx_malformed", 1)


# ---- replay ----


def test_a_replay_is_dropped_also_from_elsewhere_and_after_a_rekey(tun: Rig, peer: Far) -> None:
    """[B5] Every captured message again: none delivered, endpoint unchanged, data_replay."""
    session = peer.install()
    datagrams = [session.seal(numbered(THERE, HERE, number)) for number in range(50)]
    assert len(deliver(tun, peer, datagrams)) == 50
    assert deliver(tun, peer, datagrams) == []
    assert tun.drops() == {"data_replay": 50}
    elsewhere = tun.udp_socket("127.0.0.9")
    for datagram in datagrams:
        peer.send(datagram, via=elsewhere)
    tun.wait_drops("data_replay", 100)
    peer.install()
    peer.send(datagrams[0], via=elsewhere)
    tun.wait_drops("data_replay", 101)
    tun.client.retire_session(1, session.local_index)
    peer.send(datagrams[0], via=elsewhere)
    tun.wait_drops("data_noidx", 1)
    assert tun.inventory().peers[0].endpoint == peer.endpoint
    assert tun.link.receive_all() == []
    tun.no_event(events.PeerRoamed)


def test_the_window_is_16320_wide(tun: Rig, peer: Far) -> None:
    """[B2, B8] A late message is taken within the window and refused beyond it."""
    session = peer.install()
    top = 100_000
    counters = [top, top - WINDOW + 1, top - WINDOW, top - WINDOW - 1, top - 1, top, top - 1, 0]
    delivered = deliver(
        tun, peer, [session.seal(numbered(THERE, HERE, counter), counter) for counter in counters]
    )
    expected = [top, top - WINDOW + 1, top - WINDOW, top - 1]  # c + 1 + 16320 >= highest + 1
    assert sorted(number_of(each) for each in delivered) == sorted(expected)
    assert tun.drops() == {"data_replay": 4}


def test_counters_reach_two_to_the_33_and_no_further(tun: Rig, peer: Far) -> None:
    """[B4] 2^33 - 1 is accepted; 2^33 and all above are data_expired."""
    session = peer.install()
    packet = numbered(THERE, HERE, 1)
    refused = [LIMIT, LIMIT + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
    assert deliver(tun, peer, [session.seal(packet, counter) for counter in refused]) == []
    assert tun.drops() == {"data_expired": len(refused)}
    assert deliver(tun, peer, [session.seal(packet, LIMIT - 1)]) == [packet]
    assert deliver(tun, peer, [session.seal(packet, LIMIT - 1)]) == []


def test_batches_and_single_messages_agree_on_what_was_seen(tun: Rig, peer: Far) -> None:
    """[B7] Runs, gaps, overlaps and repeats sent as fast as they go give what a set gives."""
    session = peer.install()
    generator = random.Random(7)
    sent: list[int] = []
    at = 0
    for _ in range(60):
        start = max(0, at - generator.choice([0, 0, 0, 5, 60]) + generator.choice([0, 0, 1, 70]))
        run = list(range(start, start + generator.randint(1, 64)))
        sent += run
        at = run[-1] + 1
    delivered = deliver(
        tun, peer, [session.seal(numbered(THERE, HERE, counter), counter) for counter in sent]
    )
    assert sorted(number_of(each) for each in delivered) == sorted(set(sent))
    assert tun.drops().get("data_replay", 0) == len(sent) - len(set(sent))


# ---- what is inside ----


def test_an_inner_source_outside_the_networks_is_dropped(tun: Rig, peer: Far) -> None:
    """[E4] A source that is not the peer's: data_source, though the message counts as heard."""
    session = peer.install()
    wrong = [
        ipv4("10.3.0.1", HERE),
        ipv4(HERE, THERE),
        ipv4("0.0.0.0", HERE),
        ipv6("2001:db8::1", "2001:db8::2"),
    ]
    assert deliver(tun, peer, [session.seal(each) for each in wrong]) == []
    assert tun.drops() == {"data_source": 4}
    assert peer.counters().drops == {"data_source": 4}
    assert peer.counters().last_received_ns > 0


def test_a_refused_source_still_moves_the_endpoint(tun: Rig, peer: Far) -> None:
    """[E4] The message is authentic, so its sender is where the peer is."""
    session = peer.install()
    elsewhere = tun.udp_socket("127.0.0.9")
    peer.send(session.seal(ipv4("10.3.0.1", HERE)), via=elsewhere)
    tun.wait_drops("data_source", 1)
    assert tun.wait_event(events.PeerRoamed).endpoint == far.endpoint_of(elsewhere)


def test_a_network_moved_to_another_peer_moves_both_directions_at_once(tun: Rig, peer: Far) -> None:
    """[E4] The more specific prefix goes to the other peer, in use."""
    session = peer.install()
    other = tun.add_peer(2, ["10.2.128.0/17"], address="127.0.0.3")
    other_session = other.install()
    there = "10.2.200.1"
    tun.link.send(numbered(HERE, there, 1))
    assert number_of(other_session.open(other.receive()).plaintext) == 1
    assert deliver(tun, peer, [session.seal(numbered(there, HERE, 2))]) == []
    assert tun.drops() == {"data_source": 1}
    tun.client.set_peer(1, peer.public_key, [ip_network("10.2.0.0/16"), ip_network("10.2.128.0/17")], None)
    tun.link.send(numbered(HERE, there, 3))
    assert number_of(session.open(peer.receive()).plaintext) == 3
    assert deliver(tun, other, [other_session.seal(numbered(there, HERE, 4))]) == []
    assert tun.drops() == {"data_source": 2}


def _with_length(packet: bytes, length: int) -> bytes:
    return packet[:2] + struct.pack(">H", length) + packet[4:]


GOOD = ipv4(THERE, HERE, b"x" * 40)
GOOD6 = ipv6("2001:db8:2::7", "2001:db8:1::1", b"x" * 40)
BAD_INNER = {
    "one byte": b"\x45",
    "nineteen bytes": GOOD[:19],
    "header of 16 bytes": b"\x44" + GOOD[1:],
    "header longer than the packet": b"\x4f" + GOOD[1:30],
    "length below the header": _with_length(GOOD, 19),
    "length zero": _with_length(GOOD, 0),
    "length above the plaintext": _with_length(GOOD, len(GOOD) + 1),
    "length 65535": _with_length(GOOD, 65535),
    "IPv6 of 39 bytes": GOOD6[:39],
    "IPv6 longer than the plaintext": GOOD6[:4] + b"\0\x29" + GOOD6[6:],
    "partial checksum of no TCP or UDP": b"\x55" + GOOD[1:],
    "partial checksum of a fragment": b"\x55"
    + ipv4(THERE, HERE, b"x" * 40, protocol=TCP)[1:6]
    + b"\x20\0"
    + GOOD[8:],
    "partial checksum beyond the end": b"\x55" + ipv4(THERE, HERE, b"x" * 7, protocol=UDP)[1:],
    "partial checksum of IPv6 no TCP or UDP": b"\x70" + GOOD6[1:],
    "virtio header without the feature": b"\x30" + bytes(10) + GOOD,
    "a frame on a TUN": b"\x10" + b"\xff" * 12 + b"\x88\xb5",
    **{f"nibble {nibble:x}": bytes([nibble << 4 | 5]) + GOOD[1:] for nibble in (0, 1, 3, 8, 9, 0xA, 0xF)},
}


@pytest.mark.parametrize("name", BAD_INNER)
def test_a_plaintext_that_is_no_packet_is_dropped(tun: Rig, peer: Far, name: str) -> None:
    """[H13] An authentic peer's nonsense: data_inner, and nothing reaches the link."""
    tun.client.set_peer(1, peer.public_key, [ip_network("10.2.0.0/16"), ip_network("2001:db8:2::/48")], None)
    session = peer.install(features=FEATURE_TUN | 4)
    assert deliver(tun, peer, [session.seal(BAD_INNER[name])]) == []
    assert tun.drops() == {"data_inner": 1}
    assert deliver(tun, peer, [session.seal(GOOD)]) == [GOOD]


def test_bytes_beyond_the_inner_length_are_padding(tun: Rig, peer: Far) -> None:
    """[D14] What follows the packet by its own length is cut off."""
    session = peer.install()
    assert (
        deliver(tun, peer, [session.seal(GOOD + b"\0" * padding) for padding in (1, 16, 500)]) == [GOOD] * 3
    )


def _to_16(size: int) -> int:
    return min(-(-size // 16) * 16, 1420)


def _to_bucket(size: int) -> int:
    return next(each for each in (128, 256, 512, 768, 1024, 1280, 1420) if size <= each)


PADDINGS: list[tuple[int, Callable[[int], int]]] = [
    (0, lambda size: size),
    (1, _to_16),
    (2, _to_bucket),
    (3, lambda _: 1420),
]


@pytest.mark.parametrize(("mode", "expected"), PADDINGS)
def test_padding_gives_the_sizes_of_its_mode(
    tun: Rig, peer: Far, mode: int, expected: Callable[[int], int]
) -> None:
    """[D14] Sizes on the wire are those of the mode, the packet inside is whole; keepalives stay empty."""
    session = peer.install(padding=mode)
    for size in (24, 32, 33, 128, 129, 700, 1281, 1419, 1420):
        packet = numbered(HERE, THERE, size, size)
        tun.link.send(packet)
        plaintext = session.open(peer.receive()).plaintext
        assert len(plaintext) == expected(size)
        assert plaintext == packet + bytes(len(plaintext) - size)
    tun.client.send_keepalive(1)
    assert session.open(peer.receive()).plaintext == b""
    # Counted only after the kernel took the datagram, which may already have arrived.
    sent = 24 + 32 + 33 + 128 + 129 + 700 + 1281 + 1419 + 1420
    wait_until(lambda: peer.counters().tx_bytes == sent, "all bytes counted")


# ---- from the link ----


@pytest.mark.parametrize("garbage", [b"\0" * 40, b"\x45", b"\xff" * 100, b"\x60" + bytes(20), GOOD[:30]])
def test_what_is_no_packet_stays_on_the_link(tun: Rig, peer: Far, garbage: bytes) -> None:
    peer.install()
    tun.link.send(garbage)
    tun.wait_drops("link_not_ip", 1)
    assert far.receive_waiting(peer.socket) == []


def test_a_destination_of_no_peer_is_counted(tun: Rig, peer: Far) -> None:
    peer.install()
    tun.link.send(ipv4(HERE, "10.99.0.1"))
    tun.link.send(ipv6("2001:db8::1", "2001:db8::2"))
    tun.wait_drops("no_peer", 2)


def test_a_sender_hears_that_no_peer_has_its_destination_but_not_for_ever(tun: Rig) -> None:
    """[E7] "Host unreachable" comes out of the link, from the destination, and a storm gets few."""
    packet = ipv4(HERE, "10.99.0.1", b"x" * 40)
    tun.link.send(packet)
    answer = tun.link.receive()
    assert answer[9:10] == b"\x01"
    assert answer[12:20] == packet[16:20] + packet[12:16]
    assert answer[20:22] == b"\x03\x01"
    assert answer[28:] == packet[: len(answer) - 28]
    assert checksum(answer[:20]) == checksum(answer[20:]) == 0
    for _ in range(1000):
        tun.link.send(packet)
    tun.wait_drops("no_peer", 1001)
    assert len(tun.link.receive_all()) < 200


def test_a_packet_above_the_mtu_is_counted_and_not_sent(rig: Rig) -> None:
    rig.add_link(mtu=1280, link_mtu=1500)
    rig.add_sockets("127.0.0.1")
    peer = rig.add_peer(1)
    session = peer.install()
    rig.link.send(numbered(HERE, THERE, 1, 1281))
    rig.wait_drops("link_too_large", 1)
    rig.link.send(numbered(HERE, THERE, 2, 1280))
    assert number_of(session.open(peer.receive()).plaintext) == 2
