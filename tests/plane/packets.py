"""Inner packets and frames, built byte by byte for the tests.

Owns headers and checksums of what travels inside the tunnel. Knows neither plane nor socket.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

UDP = 17
TCP = 6
BROADCAST = b"\xff" * 6


def checksum(data: bytes) -> int:
    """The internet checksum of `data`."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(
    source: str,
    destination: str,
    payload: bytes = b"",
    *,
    protocol: int = 253,
    may_fragment: bool = False,
    tos: int = 0,
    identification: int = 0,
) -> bytes:
    """An IPv4 packet without options; protocol 253 is for experiments, no host answers it."""
    fields = (
        0x45,
        tos,
        20 + len(payload),
        identification,
        0 if may_fragment else 0x4000,
        64,
        protocol,
        0,
        IPv4Address(source).packed,
        IPv4Address(destination).packed,
    )
    header = struct.pack(">BBHHHBBH4s4s", *fields)
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + payload


def ipv6(source: str, destination: str, payload: bytes = b"", *, next_header: int = 253) -> bytes:
    header = struct.pack(">IHBB", 6 << 28, len(payload), next_header, 64)
    return header + IPv6Address(source).packed + IPv6Address(destination).packed + payload


def numbered(source: str, destination: str, number: int, size: int = 100) -> bytes:
    """An IPv4 packet of `size` bytes that carries `number`."""
    return ipv4(source, destination, struct.pack(">I", number).ljust(size - 20, b"\xa5"))


def number_of(packet: bytes) -> int:
    """The number that `numbered` put in."""
    return int.from_bytes(packet[20:24], "big")


def frame(
    destination: bytes, source: bytes, payload: bytes = b"", *, kind: int = 0x88B5, vlan: int | None = None
) -> bytes:
    """An Ethernet frame; kind 0x88b5 is for local experiments, no host answers it."""
    tag = b"" if vlan is None else struct.pack(">HH", 0x8100, vlan)
    return destination + source + tag + struct.pack(">H", kind) + payload


def mac(number: int) -> bytes:
    """A locally administered unicast address."""
    return b"\x02\x00" + number.to_bytes(4, "big")
