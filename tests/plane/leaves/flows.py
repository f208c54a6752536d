"""Inner packets of TCP and UDP flows, and what Linux makes of them: the twin of cutting and joining.

Owns headers built field by field, checksums summed word by word, `cut_as_linux` (tcp_gso_segment,
__udp_gso_segment, inet_gso_segment) and `continues_for_linux` (tcp_gro_receive, udp_gro_receive,
inet_gro_receive). Knows nothing of the plane.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

TCP, UDP, ICMP = 6, 17, 1
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
DONT_FRAGMENT, MORE_FRAGMENTS = 0x4000, 0x2000
IPV4, IPV6 = 0x0800, 0x86DD
CHECKSUM_AT = {TCP: 16, UDP: 6}

NO_OPTIONS = b""
TIMESTAMPS = b"\x01\x01\x08\x0a" + bytes(range(8))
SACK = b"\x01\x01\x05\x0a" + bytes(range(100, 108))
RECORD_ROUTE = b"\x07\x07\x04" + bytes(4) + b"\x00"
LOOSE_SOURCE_ROUTE = b"\x83\x07\x04" + bytes((10, 9, 9, 9)) + b"\x00"


# ---- checksums ----


def ones_sum(data: bytes, start: int = 0) -> int:
    """The sum of RFC 1071, folded and not complemented."""
    if len(data) % 2:
        data += b"\0"
    total: int = start + sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo_sum(packet: bytes, protocol: int, length: int) -> int:
    """Over the pseudo-header: what a partial checksum holds."""
    if packet[0] >> 4 == 4:
        return ones_sum(packet[12:20] + struct.pack(">BBH", 0, protocol, length))
    return ones_sum(packet[8:40] + struct.pack(">IHBB", length, 0, 0, protocol))


def real_checksum(packet: bytes, protocol: int, at: int, pseudo: int | None = None) -> int:
    """What the TCP or UDP checksum at `at` should be; the field itself is not looked at."""
    field = at + CHECKSUM_AT[protocol]
    body = packet[at:field] + b"\0\0" + packet[field + 2 :]
    start = pseudo_sum(packet, protocol, len(packet) - at) if pseudo is None else pseudo
    value = 0xFFFF ^ ones_sum(body, start)
    return 0xFFFF if value == 0 and protocol == UDP else value


def with_field(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + value.to_bytes(2, "big") + data[at + 2 :]


def with_header_checksum(packet: bytes) -> bytes:
    """An IPv4 packet with its header's checksum made right."""
    size = (packet[0] & 15) * 4
    blank = with_field(packet, 10, 0)
    return with_field(blank, 10, 0xFFFF ^ ones_sum(blank[:size]))


# ---- packets ----


@dataclass(frozen=True, slots=True)
class Headers:
    """Everything that stands in front of a payload."""

    protocol: int = TCP
    family: int = 4
    source: int = 1  # last byte of the addresses
    destination: int = 2
    ports: tuple[int, int] = (1000, 2000)
    tos: int = 0
    ttl: int = 64
    identity: int = 7
    fragment: int = DONT_FRAGMENT
    ip_options: bytes = NO_OPTIONS  # of IPv4
    extensions: bytes = b""  # of IPv6, one header of 8 bytes each, destination options
    flow_label: int = 0
    sequence: int = 1000
    acknowledged: int = 5000
    flags: int = ACK
    reserved: int = 0  # four bits between offset and flags
    window: int = 500
    urgent: int = 0
    tcp_options: bytes = NO_OPTIONS
    data_offset: int | None = None  # instead of the right one
    ether: bytes = b""  # of Ethernet: everything up to and with the EtherType
    has_checksum: bool = True  # UDP: false for none

    @property
    def transport_at(self) -> int:
        return 20 + len(self.ip_options) if self.family == 4 else 40 + len(self.extensions)

    @property
    def size(self) -> int:
        """Bytes of IP packet in front of the payload."""
        return self.transport_at + (20 + len(self.tcp_options) if self.protocol == TCP else 8)

    def _transport(self, payload: bytes) -> bytes:
        if self.protocol == UDP:
            return struct.pack(">4H", *self.ports, 8 + len(payload), 0) + payload
        words = 5 + len(self.tcp_options) // 4 if self.data_offset is None else self.data_offset
        fixed = struct.pack(
            ">HHIIBBHHH",
            *self.ports,
            self.sequence & 0xFFFFFFFF,
            self.acknowledged,
            words << 4 | self.reserved,
            self.flags,
            self.window,
            0,
            self.urgent,
        )
        return fixed + self.tcp_options + payload

    def _network(self, length: int) -> bytes:
        if self.family == 4:
            fixed = struct.pack(
                ">BBHHHBBH4s4s",
                0x45 + len(self.ip_options) // 4,
                self.tos,
                (20 + len(self.ip_options) + length) & 0xFFFF,
                self.identity & 0xFFFF,
                self.fragment,
                self.ttl,
                self.protocol,
                0,
                bytes((10, 1, 0, self.source)),
                bytes((10, 2, 0, self.destination)),
            )
            return with_header_checksum(fixed + self.ip_options)
        count = len(self.extensions) // 8
        kinds = [60] * count + [self.protocol]
        chain = b"".join(
            bytes((kinds[i + 1], 0)) + self.extensions[i * 8 + 2 : i * 8 + 8] for i in range(count)
        )
        word = 6 << 28 | self.tos << 20 | self.flow_label
        fixed = struct.pack(">IHBB", word, (len(chain) + length) & 0xFFFF, kinds[0], self.ttl)
        addresses = (b"\xfd" + bytes(14) + bytes((last,)) for last in (self.source, self.destination))
        return fixed + b"".join(addresses) + chain

    def packet(self, payload: bytes, *, partial: bool = False) -> bytes:
        """An IP packet, with a real or partial checksum."""
        body = self._transport(payload)
        packet = self._network(len(body)) + body
        if not self.has_checksum:
            return packet
        at, field = self.transport_at, self.transport_at + CHECKSUM_AT[self.protocol]
        if partial:
            return with_field(packet, field, pseudo_sum(packet, self.protocol, len(packet) - at))
        return with_field(packet, field, real_checksum(packet, self.protocol, at))

    def frame(self, payload: bytes, *, partial: bool = False) -> bytes:
        """The packet behind its Ethernet header, if it has one."""
        return self.ether + self.packet(payload, partial=partial)

    def but(self, **changes: object) -> Headers:
        return replace(self, **changes)  # type: ignore[arg-type]


def ethernet(*tags: int, family: int = 4, last: int = 1) -> bytes:
    """An Ethernet header with VLAN tags, from outside in."""
    kinds = (0x8100,) if len(tags) == 1 else (0x88A8, 0x8100)
    middle = b"".join(struct.pack(">HH", kind, tag) for kind, tag in zip(kinds, tags, strict=False))
    kind = IPV4 if family == 4 else IPV6
    return (
        b"\x02" + bytes(4) + bytes((last,)) + b"\x02" + bytes(4) + b"\x09" + middle + kind.to_bytes(2, "big")
    )


# ---- cutting ----


def cut_as_linux(
    frame: bytes, *, network_at: int, transport_at: int, protocol: int, size: int, partial: bool
) -> list[bytes]:
    """The packets that Linux makes of a frame whose checksum is partial, `size` bytes of payload each.

    The checksums of the pieces come from the frame's own field, less its length: with a source route
    in the packet the addresses of its header are not those that were summed.
    """
    ether, packet = frame[:network_at], frame[network_at:]
    at = transport_at - network_at
    field = at + CHECKSUM_AT[protocol]
    header_size = at + (8 if protocol == UDP else (packet[at + 12] >> 4) * 4)
    header, payload = packet[:header_size], packet[header_size:]
    whole = len(packet) - at
    addresses = ones_sum(
        (0xFFFF ^ whole).to_bytes(2, "big"), int.from_bytes(packet[field : field + 2], "big")
    )
    pieces = []
    for number, start in enumerate(range(0, len(payload), size)):
        is_last = start + size >= len(payload)
        piece = _network_of(header, number, payload[start : start + size])
        if protocol == TCP:
            sequence = (int.from_bytes(header[at + 4 : at + 8], "big") + start) & 0xFFFFFFFF
            flags = header[at + 13] & ~(0 if is_last else FIN | PSH) & ~(CWR if number else 0)
            piece = piece[: at + 4] + sequence.to_bytes(4, "big") + piece[at + 8 :]
            piece = piece[: at + 13] + bytes((flags & 0xFF,)) + piece[at + 14 :]
        else:
            piece = with_field(piece, at + 4, len(piece) - at)
        pseudo = ones_sum((len(piece) - at).to_bytes(2, "big"), addresses)
        value = pseudo if partial else real_checksum(piece, protocol, at, pseudo)
        pieces.append(ether + with_field(piece, field, value))
    return pieces


def cut_frame(headers: Headers, payload: bytes, size: int, *, partial: bool = True) -> list[bytes]:
    """The packets or frames that Linux makes of one with these headers."""
    return cut_as_linux(
        headers.frame(payload, partial=True),
        network_at=len(headers.ether),
        transport_at=len(headers.ether) + headers.transport_at,
        protocol=headers.protocol,
        size=size,
        partial=partial,
    )


def _network_of(header: bytes, number: int, payload: bytes) -> bytes:
    piece = header + payload
    if piece[0] >> 4 == 6:
        return with_field(piece, 4, len(piece) - 40)
    identity = (int.from_bytes(header[4:6], "big") + number) & 0xFFFF
    return with_header_checksum(with_field(with_field(piece, 2, len(piece)), 4, identity))


# ---- joining ----


@dataclass(frozen=True, slots=True)
class Seen:
    """What joining looks at in one arrival."""

    ether: bytes
    packet: bytes
    owner: int
    is_partial: bool
    protocol: int  # 0: neither TCP nor UDP with its header directly behind that of IP
    at: int
    payload_at: int

    @property
    def payload(self) -> bytes:
        return self.packet[self.payload_at :]

    @property
    def flow(self) -> tuple[object, ...]:
        """Addresses, ports and protocol; () for what has none."""
        if self.protocol == 0:
            return ()
        addresses = self.packet[12:20] if self.packet[0] >> 4 == 4 else self.packet[8:40]
        return (self.owner, self.protocol, addresses, self.packet[self.at : self.at + 4])

    def word(self, at: int) -> int:
        return int.from_bytes(self.packet[self.at + at : self.at + at + 2], "big")

    @property
    def flags(self) -> int:
        return self.packet[self.at + 13] if self.protocol == TCP else 0


def look(content: bytes, network_at: int, owner: int, *, is_partial: bool) -> Seen:
    ether, packet = content[:network_at], content[network_at:]
    none = Seen(ether, packet, owner, is_partial, 0, 0, 0)
    if len(packet) < 20 or packet[0] >> 4 not in (4, 6) or (packet[0] >> 4 == 6 and len(packet) < 40):
        return none
    is_four = packet[0] >> 4 == 4
    at = (packet[0] & 15) * 4 if is_four else 40
    length = int.from_bytes(packet[2:4], "big") if is_four else 40 + int.from_bytes(packet[4:6], "big")
    protocol = packet[9] if is_four else packet[6]
    if at < 20 or not at <= length <= len(packet) or protocol not in (TCP, UDP):
        return none
    if is_four and int.from_bytes(packet[6:8], "big") & 0x3FFF:
        return none
    smallest = 20 if protocol == TCP else 8
    if length - at < smallest:
        return none
    header = (packet[at + 12] >> 4) * 4 if protocol == TCP else 8
    if header < smallest or at + header > length:
        return none
    return Seen(ether, packet, owner, is_partial, protocol, at, at + header)


def may_join_for_linux(seen: Seen) -> bool:
    """May it have a predecessor or a successor in one frame, and would cutting give its very bytes?"""
    packet = seen.packet
    is_four = packet[0] >> 4 == 4
    length = int.from_bytes(packet[2:4], "big") if is_four else 40 + int.from_bytes(packet[4:6], "big")
    if seen.protocol == 0 or length != len(packet) or not seen.payload:
        return False
    # Cutting writes the one right checksum of an IPv4 header, which is never the other zero.
    if is_four and (seen.at != 20 or ones_sum(packet[:20]) != 0xFFFF or packet[10:12] == b"\xff\xff"):
        return False
    if seen.protocol == TCP:
        return seen.flags & (SYN | RST | URG | CWR | ACK) == ACK
    return seen.word(6) != 0 and seen.word(4) == len(packet) - seen.at


def is_right(seen: Seen) -> bool:
    """Is its checksum partial, or exactly the one that would be written?"""
    field = seen.at + CHECKSUM_AT[seen.protocol]
    value = int.from_bytes(seen.packet[field : field + 2], "big")
    return seen.is_partial or value == real_checksum(seen.packet, seen.protocol, seen.at)


def continues_for_linux(run: Sequence[Seen], last: Seen) -> bool:
    """Does `last` belong behind the packets of `run` in one frame?"""
    first, before = run[0], run[-1]
    unit = len(first.payload)
    if not (may_join_for_linux(first) and may_join_for_linux(last)) or first.flow != last.flow:
        return False
    if len(before.payload) < unit or len(last.payload) > unit or before.flags & (PSH | FIN):
        return False
    if first.ether != last.ether or len(run) == 129:
        return False
    if sum(len(each.payload) for each in (*run, last)) + first.payload_at > 65535:
        return False
    return (
        _network_continues(first, last, len(run))
        and _transport_continues(first, last, len(run) * unit)
        and is_right(first)
        and is_right(last)
    )


def _network_continues(first: Seen, last: Seen, number: int) -> bool:
    one, other = first.packet, last.packet
    if one[0] >> 4 == 6:
        return one[:4] == other[:4] and one[6:8] == other[6:8]
    identity = (int.from_bytes(one[4:6], "big") + number) & 0xFFFF
    return one[:2] == other[:2] and one[6:9] == other[6:9] and int.from_bytes(other[4:6], "big") == identity


def _transport_continues(first: Seen, last: Seen, distance: int) -> bool:
    if first.protocol == UDP:
        return True
    one = first.packet[first.at : first.payload_at]
    other = last.packet[last.at : last.payload_at]
    sequence = (int.from_bytes(one[4:8], "big") + distance) & 0xFFFFFFFF
    return (
        len(one) == len(other)
        and int.from_bytes(other[4:8], "big") == sequence
        and one[8:13] == other[8:13]
        and (one[13] ^ other[13]) & ~(PSH | FIN) & 0xFF == 0
        and one[14:16] == other[14:16]
        and one[18:] == other[18:]
    )


def join_as_linux(arrivals: Sequence[Seen]) -> list[list[int]]:
    """Which arrivals become one frame, without a limit of room: only the last frame of a flow may be
    continued, and none at all behind a packet whose flow is not known.
    """
    frames: list[list[int]] = []
    open_frames: dict[tuple[object, ...], list[int]] = {}
    for number, seen in enumerate(arrivals):
        if seen.flow == ():
            open_frames.clear()
            frames.append([number])
            continue
        latest = open_frames.get(seen.flow)
        if latest is not None and continues_for_linux([arrivals[each] for each in latest], seen):
            latest.append(number)
        else:
            open_frames[seen.flow] = [number]
            frames.append(open_frames[seen.flow])
    return frames
