"""Packets as a pcapng file (draft-ietf-opsawg-pcapng): what tcpdump -r and Wireshark read.

Owns the blocks, and the headers that are put around outer datagrams, of which the plane only has what
UDP carried. Both interfaces have one link type, since libpcap reads no file with two, and of raw IP not
even with one: packets without Ethernet get the header of a "cooked" capture, which tells their way too.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv6Address
from typing import BinaryIO, Literal

from vpnd.control.capture import Copy, OuterEndpoint

SNAPLEN = 65535
INNER, OUTER = 0, 1  # interfaces
_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6  # types of blocks
_LINK_TYPES = {"tap": 1, "tun": 113}  # LINKTYPE_ETHERNET, LINKTYPE_LINUX_SLL
_SLL_IN, _SLL_OUT, _SLL_NO_DEVICE = 0, 4, 0xFFFE  # LINUX_SLL_HOST, LINUX_SLL_OUTGOING, ARPHRD_NONE
_PROTOCOLS = {4: 0x0800, 6: 0x86DD}  # Ethernet's numbers by IP's version
_COMMENT = 1
_NANOSECONDS = b"\x09"
_UDP = 17
_UDP_SIZE = 8
_IPV4_SIZE = 20
_HOPS = 64


class PcapngWriter:
    """Writes one section; times are in ns since 1970."""

    def __init__(self, out: BinaryIO, link: str, link_type: Literal["tun", "tap"], program: str) -> None:
        self._out = out
        self._is_ethernet = link_type == "tap"
        self._received = [0, 0]
        magic = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
        self._block(_SECTION, magic, [(4, program.encode())])
        kind = _LINK_TYPES[link_type]
        for name, what in ((link, "inside the tunnel"), (f"{link} outer", "what carries the tunnel")):
            options = [(2, name.encode()), (3, what.encode()), (9, _NANOSECONDS)]
            self._block(_INTERFACE, struct.pack("<HHI", kind, 0, SNAPLEN), options)

    def packet(self, copy: Copy, at_ns: int, comment: str | None) -> None:
        """Writes one packet; an outer one gets the headers of IP and UDP that it had, as far as known."""
        interface = OUTER if copy.is_outer else INNER
        head = self._head(copy)
        content = head + copy.content
        self._received[interface] += 1
        fixed = struct.pack(
            "<5I", interface, at_ns >> 32, at_ns & 0xFFFFFFFF, len(content), len(head) + copy.size
        )
        options = [(2, struct.pack("<I", 1 if copy.is_inbound else 2))]
        if comment is not None:
            options.append((_COMMENT, comment.encode()))
        self._block(_PACKET, fixed + _padded(content), options)

    def statistics(self, at_ns: int, lost: int, lost_on: int) -> None:
        """Writes how many packets each interface had; the `lost` ones are put down to `lost_on`."""
        for interface, received in enumerate(self._received):
            gone = lost if interface == lost_on else 0
            fixed = struct.pack("<3I", interface, at_ns >> 32, at_ns & 0xFFFFFFFF)
            options = [(4, struct.pack("<Q", received + gone)), (5, struct.pack("<Q", gone))]
            self._block(_STATISTICS, fixed, options)

    def flush(self) -> None:
        self._out.flush()

    @property
    def written(self) -> int:
        """How many packets there are so far."""
        return sum(self._received)

    def _block(self, kind: int, body: bytes, options: Sequence[tuple[int, bytes]]) -> None:
        listed = b"".join(struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options)
        content = body + listed + bytes(4)
        size = struct.pack("<I", len(content) + 12)
        self._out.write(struct.pack("<I", kind) + size + content + size)

    def _head(self, copy: Copy) -> bytes:
        """What stands before the bytes that the plane gave."""
        head = _outer_head(copy) if copy.is_outer else b""
        first = (head or copy.content)[:1]
        protocol = _PROTOCOLS.get(first[0] >> 4 if first else 0, 0)
        if not self._is_ethernet:
            way = _SLL_IN if copy.is_inbound else _SLL_OUT
            return struct.pack(">HHH8xH", way, _SLL_NO_DEVICE, 0, protocol) + head
        return bytes(12) + struct.pack(">H", protocol) + head if copy.is_outer else b""


def _outer_head(copy: Copy) -> bytes:
    near, far = copy.local, copy.remote
    source, destination = (far, near) if copy.is_inbound else (near, far)
    is_ipv6 = far is not None and isinstance(far[0], IPv6Address)
    return (_ipv6_head if is_ipv6 else _ipv4_head)(source, destination, copy.size)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _udp_head(source: OuterEndpoint | None, destination: OuterEndpoint | None, size: int) -> bytes:
    """Without a checksum, which is not known either."""
    ports = (source[1] if source else 0, destination[1] if destination else 0)
    return struct.pack(">4H", *ports, _UDP_SIZE + size, 0)


def _ipv4_head(source: OuterEndpoint | None, destination: OuterEndpoint | None, size: int) -> bytes:
    length = min(_IPV4_SIZE + _UDP_SIZE + size, 0xFFFF)
    ends = _address(source, 4) + _address(destination, 4)
    head = struct.pack(">BBHHHBBH", 0x45, 0, length, 0, 0, _HOPS, _UDP, 0) + ends
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return head[:10] + struct.pack(">H", total) + head[12:] + _udp_head(source, destination, size)


def _ipv6_head(source: OuterEndpoint | None, destination: OuterEndpoint | None, size: int) -> bytes:
    ends = _address(source, 16) + _address(destination, 16)
    head = struct.pack(">IHBB", 6 << 28, _UDP_SIZE + size, _UDP, _HOPS)
    return head + ends + _udp_head(source, destination, size)


def _address(endpoint: OuterEndpoint | None, size: int) -> bytes:
    """An address of the other family, or none, is one that nobody knows: zeros."""
    packed = endpoint[0].packed if endpoint else b""
    return packed if len(packed) == size else bytes(size)
