"""pcapng as it is written: the blocks, the headers put around outer datagrams, and what tcpdump reads."""

from __future__ import annotations

import io
import struct
import subprocess
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

import pytest

from tests.plane.packets import checksum, ipv4
from vpnd.control.capture import Copy
from vpnd.ctl.pcapng import INNER, OUTER, PcapngWriter

AT_NS = 1_795_293_671_250_000_000
HERE, THERE = (ip_address("192.0.2.1"), 5180), (ip_address("198.51.100.7"), 5181)
INSIDE = Copy(0, 1, 40, ipv4("10.1.0.1", "10.2.0.7", bytes(20)), False, False, None, None, None)
OUTSIDE = Copy(0, 1, 100, bytes(100), True, True, None, THERE, HERE)


def written(*copies: Copy, link: Literal["tun", "tap"] = "tun", comment: str | None = None) -> bytes:
    out = io.BytesIO()
    writer = PcapngWriter(out, "vpn-site", link, "vpnctl 1")
    for copy in copies:
        writer.packet(copy, AT_NS, comment)
    writer.statistics(AT_NS, 5, INNER)
    assert writer.written == len(copies)
    return out.getvalue()


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    """Type and body of every block; each says its size at both ends."""
    found = []
    while data:
        kind, size = struct.unpack_from("<II", data)
        assert size % 4 == 0
        assert struct.unpack_from("<I", data, size - 4) == (size,)
        found.append((kind, data[8 : size - 4]))
        data = data[size:]
    return found


def options(body: bytes) -> dict[int, bytes]:
    found = {}
    while (head := struct.unpack_from("<HH", body)) != (0, 0):
        found[head[0]] = body[4 : 4 + head[1]]
        body = body[4 + (head[1] + 3) // 4 * 4 :]
    assert body == bytes(4)
    return found


def content_of(packet: bytes) -> bytes:
    (size,) = struct.unpack_from("<I", packet, 12)
    return packet[20 : 20 + size]


def test_a_file_is_a_section_two_interfaces_the_packets_and_what_was_lost() -> None:
    section, inner, outer, packet, *statistics = blocks(written(INSIDE, comment="dropped: data_auth"))
    assert (section[0], section[1][:16].hex()) == (0x0A0D0D0A, "4d3c2b1a01000000" + "ff" * 8)
    assert options(section[1][16:]) == {4: b"vpnctl 1"}
    for (kind, body), name in ((inner, b"vpn-site"), (outer, b"vpn-site outer")):
        assert (kind, struct.unpack_from("<HHI", body)) == (1, (113, 0, 65535))
        assert options(body[8:])[2] == name
        assert options(body[8:])[9] == b"\x09"
    kind, body = packet
    assert (kind, struct.unpack_from("<5I", body)) == (6, (0, AT_NS >> 32, AT_NS & 0xFFFFFFFF, 56, 56))
    assert content_of(body) == bytes.fromhex("0004fffe0000" + "00" * 8 + "0800") + INSIDE.content
    assert options(body[20 + 56 :]) == {2: b"\x02\0\0\0", 1: b"dropped: data_auth"}
    assert [kind for kind, _ in statistics] == [5, 5]
    counted = [options(body[12:]) for _, body in statistics]
    assert [struct.unpack("<Q", each[4]) for each in counted] == [(6,), (0,)]
    assert [struct.unpack("<Q", each[5]) for each in counted] == [(5,), (0,)]


def test_of_a_packet_that_was_cut_off_the_whole_length_is_told() -> None:
    packet = blocks(written(replace(INSIDE, size=9000)))[3][1]
    assert struct.unpack_from("<II", packet, 12) == (56, 9016)


def test_an_outer_datagram_has_the_addresses_and_ports_of_its_way() -> None:
    packet = blocks(written(OUTSIDE))[3][1]
    assert struct.unpack_from("<I", packet) == (OUTER,)
    head = content_of(packet)[16:]
    assert (head[12:16], head[16:20]) == (THERE[0].packed, HERE[0].packed)
    assert struct.unpack_from(">HHHH", head, 20) == (5181, 5180, 108, 0)
    assert checksum(head[:20]) == 0
    sent = content_of(blocks(written(replace(OUTSIDE, is_inbound=False)))[3][1])[16:]
    assert (sent[12:16], sent[16:20]) == (HERE[0].packed, THERE[0].packed)


def test_an_address_that_nobody_knows_is_zero() -> None:
    head = content_of(blocks(written(replace(OUTSIDE, local=(ip_address("::"), 5180))))[3][1])[16:]
    assert head[16:20] == bytes(4)
    head = content_of(blocks(written(replace(OUTSIDE, local=None, remote=None)))[3][1])[16:]
    assert head[12:24] == bytes(12)


def test_on_an_ethernet_link_frames_stand_as_they_are_and_datagrams_get_a_header() -> None:
    frame = replace(INSIDE, content=bytes(12) + b"\x08\x06" + bytes(28))
    _, inner, _, packet, outer, *_ = blocks(written(frame, OUTSIDE, link="tap"))
    assert struct.unpack_from("<H", inner[1]) == (1,)
    assert content_of(packet[1]) == frame.content
    assert content_of(outer[1])[:15] == bytes(12) + b"\x08\x00\x45"


@pytest.mark.parametrize("link", ["tun", "tap"])
def test_tcpdump_reads_both_families_with_addresses_and_ports(
    tmp_path: Path, link: Literal["tun", "tap"]
) -> None:
    six = replace(OUTSIDE, remote=(ip_address("2001:db8::7"), 1), local=(ip_address("2001:db8::1"), 2))
    empty = replace(OUTSIDE, content=b"", size=0)
    file = tmp_path / "file.pcapng"
    file.write_bytes(written(OUTSIDE, six, empty, link=link, comment="x"))
    shown = subprocess.run(
        ["tcpdump", "-n", "-r", file], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    ).stdout.splitlines()
    assert len(shown) == 3
    assert "198.51.100.7.5181 > 192.0.2.1.5180: UDP, length 100" in shown[0]
    assert "2001:db8::7.1 > 2001:db8::1.2: UDP, length 100" in shown[1]
