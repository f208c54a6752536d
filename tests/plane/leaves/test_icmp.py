"""Answers to packets that have nowhere to go, against the rules of RFC 1122, RFC 1812 and RFC 4443."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plane.leaves.library import Leaves, Packets
from tests.plane.packets import UDP, checksum, ipv4, ipv6

HERE, THERE = "192.168.53.11", "192.168.53.99"
HERE6, THERE6 = "fd53::11", "fd53::99"
ICMP, ICMP6 = 1, 58
DATA = 0x0C


@pytest.fixture(scope="module")
def packets(leaves: Leaves) -> Packets:
    return leaves.packets


def udp(payload: bytes) -> bytes:
    return struct.pack(">HHHH", 5180, 5180, 8 + len(payload), 0) + payload


def echo(kind: int) -> bytes:
    return struct.pack(">BBHHH", kind, 0, 0, 1, 1) + bytes(56)


@pytest.mark.parametrize("size", [0, 1, 56, 520, 521, 1392])
def test_an_ipv4_sender_gets_host_unreachable_with_a_quote_of_576_bytes_at_most(
    packets: Packets, size: int
) -> None:
    """[E7] From the address that was asked for, with right checksums."""
    packet = ipv4(HERE, THERE, udp(bytes(size)), protocol=UDP)
    answer = packets.unreachable(packet)
    assert len(answer) == min(576, 28 + len(packet))
    assert (answer[0], answer[9], answer[20], answer[21]) == (0x45, ICMP, 3, 1)
    assert int.from_bytes(answer[2:4], "big") == len(answer)
    assert (answer[12:16], answer[16:20]) == (packet[16:20], packet[12:16])
    assert answer[28:] == packet[: len(answer) - 28]
    assert checksum(answer[:20]) == 0
    assert checksum(answer[20:]) == 0


@pytest.mark.parametrize("size", [0, 1, 56, 1184, 1185, 1372])
def test_an_ipv6_sender_gets_address_unreachable_with_a_quote_of_1280_bytes_at_most(
    packets: Packets, size: int
) -> None:
    """[E7] The checksum covers the pseudo-header."""
    packet = ipv6(HERE6, THERE6, udp(bytes(size)), next_header=UDP)
    answer = packets.unreachable(packet)
    assert len(answer) == min(1280, 48 + len(packet))
    assert (answer[0] >> 4, answer[6], answer[40], answer[41]) == (6, ICMP6, 1, 3)
    assert int.from_bytes(answer[4:6], "big") == len(answer) - 40
    assert (answer[8:24], answer[24:40]) == (packet[24:40], packet[8:24])
    assert answer[48:] == packet[: len(answer) - 48]
    assert checksum(answer[8:40] + struct.pack(">II", len(answer) - 40, ICMP6) + answer[40:]) == 0


@pytest.mark.parametrize(("kind", "is_answered"), [(0, True), (8, True), (13, True)])
@pytest.mark.parametrize("error", [3, 4, 5, 11, 12])
def test_ipv4_errors_are_never_answered_and_questions_are(
    packets: Packets, kind: int, is_answered: bool, error: int
) -> None:
    assert bool(packets.unreachable(ipv4(HERE, THERE, echo(kind), protocol=ICMP))) == is_answered
    assert packets.unreachable(ipv4(HERE, THERE, echo(error), protocol=ICMP)) == b""
    assert packets.unreachable(ipv4(HERE, THERE, b"", protocol=ICMP)) == b""


def test_of_icmpv6_only_echoes_are_answered(packets: Packets) -> None:
    answered = {
        kind for kind in range(256) if packets.unreachable(ipv6(HERE6, THERE6, echo(kind), next_header=ICMP6))
    }
    assert answered == {128, 129}
    assert packets.unreachable(ipv6(HERE6, THERE6, b"", next_header=ICMP6)) == b""


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        (HERE, "224.0.0.5"),
        (HERE, "255.255.255.255"),
        (HERE, "0.0.0.0"),
        ("0.0.0.0", THERE),
        ("127.0.0.1", THERE),
        ("239.1.2.3", THERE),
        ("255.255.255.255", THERE),
    ],
)
def test_groups_and_nobody_are_never_answered(packets: Packets, source: str, destination: str) -> None:
    assert packets.unreachable(ipv4(source, destination, udp(b"x"), protocol=UDP)) == b""


@pytest.mark.parametrize(
    ("source", "destination"), [(HERE6, "ff02::1"), (HERE6, "::"), ("::", THERE6), ("ff0e::7", THERE6)]
)
def test_groups_and_nobody_of_ipv6_are_never_answered(
    packets: Packets, source: str, destination: str
) -> None:
    assert packets.unreachable(ipv6(source, destination, udp(b"x"), next_header=UDP)) == b""


def test_of_a_fragmented_packet_the_first_fragment_is_answered(packets: Packets) -> None:
    packet = bytearray(ipv4(HERE, THERE, udp(bytes(64)), protocol=UDP))
    packet[6:8] = b"\x20\x00"
    assert packets.unreachable(bytes(packet)) != b""
    packet[6:8] = b"\x00\x01"
    assert packets.unreachable(bytes(packet)) == b""


def test_extension_headers_and_damaged_packets_are_not_answered(packets: Packets) -> None:
    for header in (0, 43, 44, 50, 51, 59, 60):
        assert packets.unreachable(ipv6(HERE6, THERE6, bytes(64), next_header=header)) == b""
    whole = ipv4(HERE, THERE, udp(bytes(64)), protocol=UDP)
    for packet in (b"", b"\x45", whole[:-1], ipv6(HERE6, THERE6, udp(b"x"), next_header=UDP)[:-1]):
        assert packets.unreachable(packet) == b""


@given(st.binary(max_size=1500))
@settings(max_examples=200)
def test_no_answer_is_ever_answered(packets: Packets, garbage: bytes) -> None:
    for packet in (garbage, ipv4(HERE, THERE, garbage), ipv6(HERE6, THERE6, garbage, next_header=UDP)):
        assert packets.unreachable(packets.unreachable(packet)) == b""


# -- a tunnel's datagrams inside a tunnel --


def test_a_data_message_inside_udp_is_known_with_its_hops(packets: Packets) -> None:
    """[E2, E3] In both families, behind options, and in the first fragment of several."""
    data = DATA.to_bytes(4, "little") + bytes(28)
    packet = bytearray(ipv4(HERE, THERE, udp(data), protocol=UDP))
    assert packets.udp_with(bytes(packet), DATA) == 64
    packet[8] = 17
    assert packets.udp_with(bytes(packet), DATA) == 17
    packet[6:8] = b"\x20\x00"
    assert packets.udp_with(bytes(packet), DATA) == 17
    packet[6:8] = b"\x00\x01"
    assert packets.udp_with(bytes(packet), DATA) is None
    with_options = ipv4(HERE, THERE, bytes(4) + udp(data), protocol=UDP)
    assert packets.udp_with(b"\x46" + with_options[1:], DATA) == 64
    assert packets.udp_with(ipv6(HERE6, THERE6, udp(data), next_header=UDP), DATA) == 64


def test_other_payloads_and_protocols_are_no_data_message(packets: Packets) -> None:
    data = DATA.to_bytes(4, "little") + bytes(28)
    for packet in (
        ipv4(HERE, THERE, udp(b"\x0b" + data[1:]), protocol=UDP),
        ipv4(HERE, THERE, udp(data[:3]), protocol=UDP),
        ipv4(HERE, THERE, udp(data), protocol=6),
        ipv6(HERE6, THERE6, udp(b"\0" + data), next_header=UDP),
        ipv6(HERE6, THERE6, udp(data), next_header=44),
        ipv4(HERE, THERE, udp(data), protocol=UDP)[:-1],
        b"",
    ):
        assert packets.udp_with(packet, DATA) is None
    assert packets.udp_with(ipv6(HERE6, str(IPv6Address(1)), udp(data[:4]), next_header=UDP), DATA) == 64


# -- packets larger than the path --


@pytest.mark.parametrize(("size", "mtu"), [(1341, 1340), (1420, 1340), (577, 576), (1420, 68)])
def test_an_ipv4_packet_that_must_stay_whole_is_told_what_fits(packets: Packets, size: int, mtu: int) -> None:
    """[D6] RFC 1191: the MTU stands in the last two bytes of the header."""
    packet = ipv4(HERE, THERE, udp(bytes(size - 28)), protocol=UDP)
    answer = packets.too_big(packet, mtu)
    assert (answer[9], answer[20], answer[21]) == (ICMP, 3, 4)
    assert (answer[24:26], int.from_bytes(answer[26:28], "big")) == (b"\0\0", mtu)
    assert (answer[12:16], answer[16:20]) == (packet[16:20], packet[12:16])
    assert answer[28:] == packet[: len(answer) - 28]
    assert (checksum(answer[:20]), checksum(answer[20:])) == (0, 0)


@pytest.mark.parametrize(("size", "mtu", "told"), [(1321, 1320, 1320), (1420, 1200, 1280), (1281, 68, 1280)])
def test_an_ipv6_packet_is_told_what_fits_but_never_less_than_1280(
    packets: Packets, size: int, mtu: int, told: int
) -> None:
    """[D6]"""
    packet = ipv6(HERE6, THERE6, udp(bytes(size - 48)), next_header=UDP)
    answer = packets.too_big(packet, mtu)
    assert (answer[6], answer[40], answer[41], int.from_bytes(answer[44:48], "big")) == (ICMP6, 2, 0, told)
    assert answer[48:] == packet[: len(answer) - 48]
    assert checksum(answer[8:40] + struct.pack(">II", len(answer) - 40, ICMP6) + answer[40:]) == 0


def test_what_fits_or_may_be_cut_or_cannot_be_answered_goes_as_it_is(packets: Packets) -> None:
    body = udp(bytes(1392))
    for packet, mtu in (
        (ipv4(HERE, THERE, body, protocol=UDP), 1420),
        (ipv4(HERE, THERE, body, protocol=UDP, may_fragment=True), 1340),
        (ipv4(HERE, "224.0.0.5", body, protocol=UDP), 1340),
        (ipv6(HERE6, THERE6, body, next_header=UDP), 1440),
        (ipv6(HERE6, THERE6, bytes(1240), next_header=UDP), 1220),
        (ipv6(HERE6, THERE6, body, next_header=60), 1340),
        (b"\x45" + bytes(1419), 1340),
        (b"", 0),
    ):
        assert packets.too_big(packet, mtu) == b""


def test_of_ipv6_fragments_the_first_is_answered(packets: Packets) -> None:
    """A large datagram of a sender that believes in the link's MTU."""
    for next_header, body in ((UDP, udp(bytes(1380))), (ICMP6, echo(128) + bytes(1324))):
        first = struct.pack(">BBHI", next_header, 0, 1, 7) + body
        later = struct.pack(">BBHI", next_header, 0, 1388 | 1, 7) + body
        assert packets.too_big(ipv6(HERE6, THERE6, first, next_header=44), 1340)[40] == 2
        assert packets.too_big(ipv6(HERE6, THERE6, later, next_header=44), 1340) == b""
    error = struct.pack(">BBHI", ICMP6, 0, 1, 7) + echo(1) + bytes(1324)
    assert packets.too_big(ipv6(HERE6, THERE6, error, next_header=44), 1340) == b""
    assert packets.unreachable(ipv6(HERE6, THERE6, b"\x11\0\0\1", next_header=44)) == b""


@pytest.mark.parametrize("tags", [b"", b"\x81\x00\x00\x07", b"\x88\xa8\x00\x05\x81\x00\x00\x07"])
def test_the_answer_to_a_frame_comes_back_by_the_way_it_came(packets: Packets, tags: bytes) -> None:
    """[D6] Addresses exchanged, tags kept; inside is the answer to the packet."""
    us, them = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
    for packet, kind in (
        (ipv4(HERE, THERE, udp(bytes(1392)), protocol=UDP), b"\x08\x00"),
        (ipv6(HERE6, THERE6, udp(bytes(1372)), next_header=UDP), b"\x86\xdd"),
    ):
        answer = packets.frame_too_big(them + us + tags + kind + packet, 1340)
        assert answer == us + them + tags + kind + packets.too_big(packet, 1340)


def test_frames_that_nobody_could_answer_go_as_they_are(packets: Packets) -> None:
    us, them, group = (
        bytes.fromhex("020000000001"),
        bytes.fromhex("020000000002"),
        bytes.fromhex("01005e000001"),
    )
    packet = ipv4(HERE, THERE, udp(bytes(1392)), protocol=UDP)
    assert packets.frame_too_big(them + us + b"\x08\x00" + packet, 1340)
    for frame in (
        group + us + b"\x08\x00" + packet,
        them + group + b"\x08\x00" + packet,
        them + us + b"\x86\xdd"[::-1] + packet,
        them + us + b"\x08\x00",
        them + us,
        (them + us + b"\x81\x00\x00\x01" * 3 + b"\x08\x00" + packet),
        them + us + b"\x08\x00" + ipv4(HERE, THERE, udp(bytes(1392)), protocol=UDP, may_fragment=True),
    ):
        assert packets.frame_too_big(frame, 1340) == b""


@given(st.binary(max_size=1500), st.integers(0, 70_000))
@settings(max_examples=200)
def test_any_bytes_may_be_too_big(packets: Packets, garbage: bytes, mtu: int) -> None:
    for packet in (garbage, ipv4(HERE, THERE, garbage, protocol=UDP), ipv6(HERE6, THERE6, garbage)):
        answer = packets.too_big(packet, mtu)
        assert not answer or len(packet) > mtu
        assert packets.unreachable(answer) == b""
        packets.frame_too_big(packet, mtu)
