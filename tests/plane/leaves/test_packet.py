"""Inner packets and frames: lengths, places and paddings against simple twins."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.plane.leaves.library import Leaves, Packets

NONE, MULTIPLE_OF_16, BUCKET, FULL = range(4)
TCP, UDP, ICMP = 6, 17, 1


@pytest.fixture(scope="module")
def packets(leaves: Leaves) -> Packets:
    return leaves.packets


def ipv4(
    payload: bytes,
    *,
    protocol: int = TCP,
    options: bytes = b"",
    fragment: int = 0,
    length: int | None = None,
    header_words: int | None = None,
) -> bytes:
    words = 5 + len(options) // 4 if header_words is None else header_words
    total = 20 + len(options) + len(payload) if length is None else length
    head = struct.pack(
        ">BBHHHBBH4s4s",
        0x40 | words,
        0,
        total,
        7,
        fragment,
        64,
        protocol,
        0,
        bytes((192, 168, 53, 99)),
        bytes((192, 168, 60, 5)),
    )
    return head + options + payload


def ipv6(payload: bytes, *, protocol: int = TCP, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    source = ipaddress.IPv6Address("fd00:53::99").packed
    destination = ipaddress.IPv6Address("fd00:60::5").packed
    return struct.pack(">IHBB", 0x6 << 28, size, protocol, 64) + source + destination + payload


def twin_ip_length(packet: bytes) -> int:
    """Protocol section 9.1: 20 <= 4*IHL <= total length <= n, or 40 + payload length <= n."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        header, total = 4 * (packet[0] & 15), int.from_bytes(packet[2:4], "big")
        return total if 20 <= header <= total <= len(packet) else 0
    if version == 6 and len(packet) >= 40:
        total = 40 + int.from_bytes(packet[4:6], "big")
        return total if total <= len(packet) else 0
    return 0


def twin_checksum_place(packet: bytes) -> tuple[int, int] | None:
    length = twin_ip_length(packet)
    if length == 0:
        return None
    if packet[0] >> 4 == 4:
        start, protocol = 4 * (packet[0] & 15), packet[9]
        if int.from_bytes(packet[6:8], "big") & 0x3FFF:
            return None
    else:
        start, protocol = 40, packet[6]
    smallest, offset = {TCP: (20, 16), UDP: (8, 6)}.get(protocol, (1 << 16, 0))
    return (start, offset) if length - start >= smallest else None


HEADS = st.sampled_from([b"", b"\x45\x00\x00", b"\x46\x00\x00", b"\x4f\x00\x00", b"\x60\x00\x00\x00\x00"])
RANDOM_PACKETS = st.builds(bytes.__add__, HEADS, st.binary(max_size=120))


@settings(max_examples=600, deadline=None)
@given(packet=RANDOM_PACKETS)
@example(packet=b"")
@example(packet=b"\x45" * 19)
@example(packet=b"\x60" + bytes(38))
@example(packet=b"\x60" + bytes(39))
def test_any_bytes_get_the_length_the_protocol_gives_them(packets: Packets, packet: bytes) -> None:
    """[H13]"""
    length = packets.ip_length(packet)
    assert length == twin_ip_length(packet)
    assert packets.kind(packet) == (packet[0] >> 4 if length else 0)
    assert packets.checksum_place(packet) == twin_checksum_place(packet)


@settings(max_examples=300, deadline=None)
@given(
    payload=st.binary(max_size=60),
    protocol=st.sampled_from([TCP, UDP, ICMP]),
    options=st.sampled_from([b"", b"\x01" * 4, b"\x01" * 40]),
    fragment=st.sampled_from([0, 0x4000, 0x2000, 0x0001, 0x1FFF, 0x8000]),
    padding=st.binary(max_size=20),
)
def test_a_real_packet_is_measured_without_its_padding(
    packets: Packets, payload: bytes, protocol: int, options: bytes, fragment: int, padding: bytes
) -> None:
    """[D14]"""
    four = ipv4(payload, protocol=protocol, options=options, fragment=fragment)
    six = ipv6(payload, protocol=protocol)
    for packet in (four, six):
        assert packets.ip_length(packet) == len(packet)
        assert packets.ip_length(packet + padding) == len(packet)
        assert packets.checksum_place(packet + padding) == twin_checksum_place(packet)


@pytest.mark.parametrize(
    "packet",
    [
        ipv4(b"", length=19),
        ipv4(b"", length=21),
        ipv4(b"", length=65_535),
        ipv4(b"", length=0),
        ipv4(b"", header_words=4),
        ipv4(b"", header_words=0),
        ipv4(b"", header_words=6),
        ipv4(b"abc", header_words=6),
        ipv4(b"")[:19],
        ipv6(b"", length=1),
        ipv6(b"", length=65_535),
        ipv6(b"")[:39],
        b"\x50" + ipv4(b"")[1:],
        b"\x70" + ipv6(b"")[1:],
        b"\x05" + ipv4(b"")[1:],
        b"",
    ],
    ids=lambda packet: packet[:8].hex() or "empty",
)
def test_a_header_that_lies_is_no_packet(packets: Packets, packet: bytes) -> None:
    """[H13]"""
    assert packets.ip_length(packet) == 0
    assert packets.kind(packet) == 0
    assert packets.checksum_place(packet) is None


def test_addresses_stand_where_the_header_has_them(packets: Packets) -> None:
    four, six = ipv4(b"x"), ipv6(b"x")
    assert packets.source(four) == ipaddress.ip_address("192.168.53.99")
    assert packets.destination(four) == ipaddress.ip_address("192.168.60.5")
    assert packets.source(six) == ipaddress.ip_address("fd00:53::99")
    assert packets.destination(six) == ipaddress.ip_address("fd00:60::5")


def test_a_partial_checksum_has_a_place_only_in_whole_tcp_and_udp(packets: Packets) -> None:
    """[H13]"""
    assert packets.checksum_place(ipv4(bytes(20))) == (20, 16)
    assert packets.checksum_place(ipv4(bytes(20), options=bytes(12))) == (32, 16)
    assert packets.checksum_place(ipv4(bytes(8), protocol=UDP)) == (20, 6)
    assert packets.checksum_place(ipv6(bytes(20))) == (40, 16)
    assert packets.checksum_place(ipv6(bytes(8), protocol=UDP)) == (40, 6)
    refused = [
        ipv4(bytes(19)),
        ipv4(bytes(7), protocol=UDP),
        ipv4(bytes(40), protocol=ICMP),
        ipv4(bytes(40), protocol=47),
        ipv4(bytes(40), fragment=0x2000),
        ipv4(bytes(40), fragment=1),
        ipv6(bytes(19)),
        ipv6(bytes(7), protocol=UDP),
        ipv6(bytes(40), protocol=44),
        ipv6(bytes(40), protocol=0),
    ]
    assert [packets.checksum_place(packet) for packet in refused] == [None] * len(refused)


def test_a_transport_header_in_the_padding_does_not_count(packets: Packets) -> None:
    """[H13]"""
    assert packets.checksum_place(ipv4(bytes(4)) + bytes(40)) is None
    assert packets.checksum_place(ipv6(bytes(4)) + bytes(40)) is None


def folded_sum(data: bytes, start: int = 0) -> int:
    padded = data + bytes(len(data) % 2)
    total: int = start + sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@settings(max_examples=300, deadline=None)
@given(start=st.integers(0, 65_535), data=st.binary(max_size=300))
@example(start=0xFFFF, data=b"\xff" * 65_534)
def test_the_checksum_is_the_ones_complement_sum_of_words(packets: Packets, start: int, data: bytes) -> None:
    assert packets.checksum_add(start, data) == folded_sum(data, start)


def pseudo_header(packet: bytes, protocol: int, size: int) -> bytes:
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    return addresses + struct.pack(">II", size, protocol)


@settings(max_examples=200, deadline=None)
@given(
    segment=st.binary(min_size=20, max_size=100),
    six=st.booleans(),
    transport=st.sampled_from([(TCP, 16), (UDP, 6)]),
)
def test_a_completed_checksum_is_the_one_a_receiver_accepts(
    packets: Packets, segment: bytes, six: bool, transport: tuple[int, int]
) -> None:
    protocol, offset = transport
    packet = bytearray((ipv6 if six else ipv4)(segment, protocol=protocol))
    start = 40 if six else 20
    pseudo = pseudo_header(bytes(packet), protocol, len(segment))
    struct.pack_into(">H", packet, start + offset, folded_sum(pseudo))
    done = packets.complete_checksum(bytes(packet), start, offset)
    assert done is not None
    assert folded_sum(pseudo + done[start:]) == 0xFFFF
    stored = done[start + offset : start + offset + 2]
    assert protocol == TCP or stored != b"\0\0"
    assert done[: start + offset] == packet[: start + offset]
    assert done[start + offset + 2 :] == packet[start + offset + 2 :]


def test_a_udp_sum_of_zero_is_written_as_ones_and_a_tcp_sum_is_not(packets: Packets) -> None:
    # All words of the segment add up to 0xffff, whose complement is 0.
    udp = ipv4(b"\xff\xff" + bytes(6), protocol=UDP)
    assert packets.complete_checksum(udp, 20, 6) == udp[:26] + b"\xff\xff"
    tcp = ipv4(b"\xff\xff" + bytes(18))
    assert packets.complete_checksum(tcp, 20, 16) == tcp


@pytest.mark.parametrize(
    ("start", "offset"),
    [(40, 0), (39, 0), (0, 39), (20, 19), (41, 0), (2**64 - 1, 2), (2, 2**64 - 1), (2**63, 2**63)],
)
def test_a_checksum_field_outside_the_packet_is_not_touched(
    packets: Packets, start: int, offset: int
) -> None:
    """[H13]"""
    assert packets.complete_checksum(ipv4(bytes(20)), start, offset) is None


def twin_padded(size: int, mode: int, mtu: int) -> int:
    if size == 0 or size >= mtu:
        return size
    if mode == NONE:
        return size
    if mode == MULTIPLE_OF_16:
        return min(-(-size // 16) * 16, mtu)
    if mode == BUCKET:
        return min([b for b in (128, 256, 512, 768, 1024, 1280) if b >= size and b <= mtu] or [mtu])
    return mtu


@settings(max_examples=500, deadline=None)
@given(
    size=st.integers(0, 10_000),
    mode=st.integers(0, 3),
    mtu=st.sampled_from([100, 576, 1280, 1420, 1421, 9000]),
)
def test_padding_follows_its_mode_and_never_shortens_or_exceeds_the_mtu(
    packets: Packets, size: int, mode: int, mtu: int
) -> None:
    """[D14]"""
    padded = packets.padded_length(size, mode, mtu)
    assert padded == twin_padded(size, mode, mtu)
    assert padded >= size
    assert padded <= max(size, mtu)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, (0, 0, 0, 0)),
        (1, (1, 16, 128, 1420)),
        (16, (16, 16, 128, 1420)),
        (40, (40, 48, 128, 1420)),
        (128, (128, 128, 128, 1420)),
        (129, (129, 144, 256, 1420)),
        (576, (576, 576, 768, 1420)),
        (1280, (1280, 1280, 1280, 1420)),
        (1281, (1281, 1296, 1420, 1420)),
        (1409, (1409, 1420, 1420, 1420)),
        (1420, (1420, 1420, 1420, 1420)),
        (1421, (1421, 1421, 1421, 1421)),
    ],
)
def test_padded_lengths_at_an_mtu_of_1420(packets: Packets, size: int, expected: tuple[int, ...]) -> None:
    """[D14]"""
    assert tuple(packets.padded_length(size, mode, 1420) for mode in range(4)) == expected


def frame(*tags: int, ether_type: int = 0x0800, payload: bytes = b"inner") -> bytes:
    """A frame with the VLAN tags given as TPID << 16 | TCI."""
    addresses = bytes.fromhex("020000000001020000000002")
    return (
        addresses + b"".join(struct.pack(">I", tag) for tag in tags) + struct.pack(">H", ether_type) + payload
    )


def test_a_frames_vlan_is_its_outer_tags_number(packets: Packets) -> None:
    """[E9]"""
    assert packets.vlan(frame()) == 0
    assert packets.vlan(frame(0x8100_0064)) == 100
    assert packets.vlan(frame(0x8100_E064)) == 100
    assert packets.vlan(frame(0x8100_2000)) == 0
    assert packets.vlan(frame(0x88A8_0FFF, 0x8100_0064)) == 4095
    assert packets.vlan(frame(0x8100_0064)[:17]) == 0
    assert packets.vlan(frame()[:14]) == 0
    assert packets.vlan(b"") == 0


def test_a_frames_payload_begins_behind_its_tags(packets: Packets) -> None:
    """[E9]"""
    assert packets.payload(frame()) == (14, 0x0800)
    assert packets.payload(frame(payload=b"")) == (14, 0x0800)
    assert packets.payload(frame(0x8100_0064, ether_type=0x86DD)) == (18, 0x86DD)
    assert packets.payload(frame(0x88A8_0001, 0x8100_0064, ether_type=0x0806)) == (22, 0x0806)
    assert packets.payload(frame(0x88A8_0001, 0x8100_0064, 0x8100_0065))[0] == 0
    for size in range(14):
        assert packets.payload(frame()[:size])[0] == 0
    for size in range(14, 18):
        assert packets.payload(frame(0x8100_0064)[:size])[0] == 0


def test_a_frames_addresses_and_their_groups(packets: Packets) -> None:
    """[E9]"""
    destination, source = packets.addresses(frame())
    assert (destination.hex(), source.hex()) == ("020000000001", "020000000002")
    assert packets.is_group(b"\xff" * 6)
    assert packets.is_group(bytes.fromhex("01005e000001"))
    assert not packets.is_group(destination)
