"""The MSS that a SYN announces, against a simple reader of options."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plane.leaves.library import Leaves, Packets
from tests.plane.packets import TCP, UDP, checksum, ipv4, ipv6

HERE, THERE = "192.168.53.11", "192.168.53.99"
HERE6, THERE6 = "fd53::11", "fd53::99"
SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
MSS_1460 = b"\x02\x04\x05\xb4"
TIMESTAMPS = b"\x08\x0a" + bytes(range(8))


@pytest.fixture(scope="module")
def packets(leaves: Leaves) -> Packets:
    return leaves.packets


def sum_of(packet: bytes) -> int:
    """The checksum over pseudo-header and segment; 0 when the one inside is right."""
    start, addresses = (20, packet[12:20]) if packet[0] >> 4 == 4 else (40, packet[8:40])
    segment = packet[start:]
    return checksum(addresses + struct.pack(">II", TCP, len(segment)) + segment)


def tcp(options: bytes, *, flags: int = SYN, version: int = 4, payload: bytes = b"") -> bytes:
    """A TCP packet with a right checksum."""
    options += bytes(-len(options) % 4)
    header = struct.pack(">HHIIBBHHH", 40000, 80, 1, 2, (5 + len(options) // 4) << 4, flags, 64240, 0, 0)
    segment = header + options + payload

    def whole(body: bytes) -> bytes:
        if version == 4:
            return ipv4(HERE, THERE, body, protocol=TCP)
        return ipv6(HERE6, THERE6, body, next_header=TCP)

    total = sum_of(whole(segment))
    return whole(segment[:16] + total.to_bytes(2, "big") + segment[18:])


def mss_of(packet: bytes) -> int | None:
    """Reads the options as RFC 9293 section 3.2 has them."""
    start = 20 if packet[0] >> 4 == 4 else 40
    options = packet[start + 20 : start + (packet[start + 12] >> 4) * 4]
    while options and options[0] != 0:
        if options[0] == 1:
            options = options[1:]
        elif options[0] == 2:
            return int.from_bytes(options[2:4], "big")
        else:
            options = options[options[1] :]
    return None


@pytest.mark.parametrize("flags", [SYN, SYN_ACK, SYN | 0xC0])
@pytest.mark.parametrize(("version", "around"), [(4, 40), (6, 60)])
@pytest.mark.parametrize("before", [b"", b"\x01", b"\x01\x01", b"\x03\x03\x07", TIMESTAMPS, b"\x01" * 7])
def test_a_syn_is_lowered_to_what_fits_and_its_checksum_follows(
    packets: Packets, version: int, around: int, flags: int, before: bytes
) -> None:
    """[D4] Both families, both ends, wherever the option stands: also at odd places."""
    packet = tcp(before + MSS_1460 + b"\x04\x02", flags=flags, version=version)
    assert sum_of(packet) == 0
    clamped = packets.clamp(packet, 1340)
    assert mss_of(clamped) == 1340 - around
    assert sum_of(clamped) == 0


@given(
    mss=st.integers(0, 65_535),
    mtu=st.integers(0, 70_000),
    before=st.integers(0, 8),
    payload=st.binary(max_size=8),
    version=st.sampled_from([4, 6]),
)
@settings(max_examples=300)
def test_an_mss_never_grows_and_never_falls_below_88(
    packets: Packets, mss: int, mtu: int, before: int, payload: bytes, version: int
) -> None:
    option = b"\x01" * before + b"\x02\x04" + mss.to_bytes(2, "big")
    clamped = packets.clamp(tcp(option, version=version, payload=payload), mtu)
    fits = max(mtu - (40 if version == 4 else 60), 88)
    assert mss_of(clamped) == min(mss, fits)
    assert sum_of(clamped) == 0


def test_a_wrong_checksum_stays_wrong(packets: Packets) -> None:
    """What was damaged on a LAN must not be mended by us."""
    packet = bytearray(tcp(MSS_1460))
    packet[36] ^= 0x10
    clamped = packets.clamp(bytes(packet), 1340)
    assert mss_of(clamped) == 1300
    assert sum_of(clamped) == sum_of(bytes(packet)) != 0


def test_a_partial_checksum_stays_as_it_is(packets: Packets) -> None:
    """It covers the pseudo-header alone."""
    packet = tcp(MSS_1460)
    clamped = packets.clamp(packet, 1340, is_partial=True)
    assert mss_of(clamped) == 1300
    assert clamped[36:38] == packet[36:38]


def test_what_is_no_syn_with_the_option_stays_as_it_is(packets: Packets) -> None:
    fragment = bytearray(tcp(MSS_1460))
    fragment[6:8] = b"\x20\x00"
    segment = tcp(MSS_1460)[20:]
    for packet in (
        tcp(MSS_1460, flags=ACK),
        tcp(b""),
        tcp(TIMESTAMPS),
        tcp(b"\x00" + MSS_1460),
        tcp(b"\x02\x03\x05" + MSS_1460),
        tcp(b"\x03\x00" + MSS_1460),
        tcp(b"\x03\x01" + MSS_1460),
        tcp(b"\x01\x01\x01\x02"),
        tcp(b"\x01\x01\x02\x04"),
        tcp(b"\x01\x01\x01\x03"),
        bytes(fragment),
        ipv4(HERE, THERE, segment, protocol=UDP),
        ipv6(HERE6, THERE6, bytes(8) + segment, next_header=60),
        b"",
        b"\x45",
    ):
        assert packets.clamp(packet, 600) == packet


def test_options_beyond_the_packet_are_not_looked_for(packets: Packets) -> None:
    """The header's length lies: 60 bytes in a segment of 24."""
    packet = bytearray(tcp(MSS_1460))
    packet[32] = 0xF0
    assert packets.clamp(bytes(packet), 600) == bytes(packet)
    assert packets.clamp(tcp(MSS_1460)[:-1], 600) == tcp(MSS_1460)[:-1]


@given(st.binary(max_size=200), st.integers(0, 2000))
@settings(max_examples=300)
def test_any_bytes_are_taken(packets: Packets, garbage: bytes, mtu: int) -> None:
    packets.clamp(garbage, mtu)
    packets.clamp(ipv4(HERE, THERE, garbage, protocol=TCP), mtu)
    packets.clamp(ipv6(HERE6, THERE6, garbage, next_header=TCP), mtu)
