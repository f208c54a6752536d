"""A mixture of packets that a third host sends into a tunnel, the same for the same seed.

    python -m tests.lab.mixture send LINK SOURCE_MAC TARGET_MAC SEED COUNT
    python -m tests.lab.mixture receive LINK FILE

Whole and partial checksums, large frames, options, extension headers, fragments, damage. What comes out
at the other end is sorted by flow, for a flow's order is all that a network promises.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.lab.arrivals import until_told
from tests.plane.leaves import flows
from tests.plane.leaves.flows import CHECKSUM_AT, IPV4, IPV6, TCP, UDP, Headers
from tests.plane.leaves.offloads import GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, LargeFrame
from tests.plane.leaves.senders import CHANGES, Flow

SOURCE, TARGET = "10.1.0.1", "10.2.0.2"  # as Headers has them
SOURCE6, TARGET6 = "fd00::1", "fd00::2"
ETHERNET = 14
BURST, PAUSE_S = 20, 0.003
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 15, 23
_ETH_P_ALL = 3
_BUFFER = 64 << 20
_HTTP = (8080).to_bytes(2, "big")  # of tools.serve_file; the mixture's own ports are others
_HEADER = struct.Struct("=BBHHHH")
# Routers write into some options of IPv4, and tunnels into the MSS of a SYN.
_LEFT_OUT = ("syn", "vlan", "owner", "options")
_USUAL = [change for change in CHANGES if change not in _LEFT_OUT]
_UNKNOWN_OPTION = b"\x9e\x06true\x01\x01"


def mixture(ether: bytes, seed: int, count: int) -> Iterator[LargeFrame]:
    """Frames for an Ethernet link; `ether` are both of its addresses."""
    chance = random.Random(seed)
    ether4, ether6 = ether + IPV4.to_bytes(2, "big"), ether + IPV6.to_bytes(2, "big")
    senders = [
        Flow(
            Headers(
                protocol=chance.choice((TCP, UDP)),
                family=family,
                ports=(1000 + number, 7000),
                tcp_options=chance.choice((b"", flows.TIMESTAMPS, flows.SACK)),
                tos=chance.choice((0, 1, 2, 3, 0xB8, 0xBA)),
                identity=chance.randrange(65536),
                sequence=chance.randrange(2**32),
                ether=ether4 if family == 4 else ether6,
            )
        )
        for number in range(8)
        for family in (4, 6)
    ]
    for _ in range(count):
        sender = chance.choice(senders)
        kind = chance.random()
        if kind < 0.25:
            yield _large(sender, chance)
        elif kind < 0.32:
            yield _odd(sender, chance)
        else:
            partial = chance.random() < 0.4
            arriving = sender.send(chance.choice(_USUAL), partial=partial)
            yield _sent(arriving.content, sender.headers, is_partial=arriving.is_partial)


def _sent(content: bytes, headers: Headers, *, is_partial: bool) -> LargeFrame:
    if not is_partial:
        return LargeFrame(content)
    at = ETHERNET + (20 if headers.family == 4 else 40)
    return LargeFrame(content, NEEDS_CSUM, csum_start=at, csum_offset=CHECKSUM_AT[headers.protocol])


def _large(sender: Flow, chance: random.Random) -> LargeFrame:
    """Several segments of a flow as one frame, which goes on behind it."""
    headers = sender.headers
    size = chance.choice((40, 500, 1000, 1300))
    payload = chance.randbytes(min(size * chance.randrange(2, 40) + chance.randrange(size), 60_000))
    segments = -(-len(payload) // size)
    sender.headers = headers.but(
        sequence=(headers.sequence + len(payload)) & 0xFFFFFFFF,
        identity=(headers.identity + segments) & 0xFFFF,
    )
    types = {(TCP, 4): GSO_TCPV4, (TCP, 6): GSO_TCPV6}
    return LargeFrame(
        headers.frame(payload, partial=True),
        flags=NEEDS_CSUM,
        gso_type=types.get((headers.protocol, headers.family), GSO_UDP_L4),
        gso_size=size,
        csum_start=ETHERNET + headers.transport_at,
        csum_offset=CHECKSUM_AT[headers.protocol],
        hdr_len=ETHERNET + headers.size,
    )


def _odd(sender: Flow, chance: random.Random) -> LargeFrame:
    """What is never joined: options, extension headers, fragments of both families."""
    headers = sender.headers
    payload = chance.randbytes(chance.randrange(8, 900))
    if headers.family == 4:
        odd = chance.choice(
            (
                headers.but(ip_options=b"\x01" * 4),
                headers.but(ip_options=_UNKNOWN_OPTION),
                headers.but(fragment=flows.MORE_FRAGMENTS),
                headers.but(fragment=100),
            )
        )
        return LargeFrame(odd.frame(payload[: len(payload) // 8 * 8]))
    if chance.random() < 0.5:
        return LargeFrame(headers.but(extensions=b"\0\0\1\4" + bytes(4)).frame(payload))
    packet = headers.packet(payload[: len(payload) // 8 * 8])
    fragment = bytes((headers.protocol, 0)) + struct.pack(">HI", 1 | chance.randrange(9) << 3, 77)
    body = packet[:6] + b"\x2c" + packet[7:40] + fragment + packet[40:]
    return LargeFrame(headers.ether + flows.with_field(body, 4, len(body) - 40))


def by_flow(frames: Sequence[bytes]) -> dict[object, list[bytes]]:
    """Captured packets of the mixture in the order of each flow, without their Ethernet headers."""
    sorted_: dict[object, list[bytes]] = defaultdict(list)
    for frame in frames:
        packet = frame[ETHERNET:]
        is_four = packet[0] >> 4 == 4
        length = int.from_bytes(packet[2:4], "big") if is_four else 40 + int.from_bytes(packet[4:6], "big")
        packet = packet[:length]  # short frames are padded
        addresses = packet[12:20] if is_four else packet[8:40]
        flow = flows.look(packet, 0, 1, is_partial=False).flow
        sorted_[flow or addresses].append(packet)
    return dict(sorted_)


def send(link: str, source: str, target: str, seed: str, count: str) -> None:
    addresses = bytes.fromhex(target.replace(":", "")) + bytes.fromhex(source.replace(":", ""))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sending:
        sending.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        sending.setsockopt(socket.SOL_SOCKET, 32, _BUFFER)  # SO_SNDBUFFORCE
        sending.bind((link, 0))
        for number, frame in enumerate(mixture(addresses, int(seed), int(count))):
            header = _HEADER.pack(
                frame.flags,
                frame.gso_type,
                frame.hdr_len,
                frame.gso_size,
                frame.csum_start,
                frame.csum_offset,
            )
            sending.send(header + frame.content)
            if number % BURST == BURST - 1:
                time.sleep(PAUSE_S)


def receive(link: str, file: str) -> None:
    """Keeps every packet of the mixture that comes in until standard input has ended and no more comes."""
    packets: list[bytes] = []
    sources = (socket.inet_aton(SOURCE), socket.inet_pton(socket.AF_INET6, SOURCE6))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as receiving:
        receiving.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        receiving.setsockopt(socket.SOL_SOCKET, 33, _BUFFER)  # SO_RCVBUFFORCE
        receiving.bind((link, _ETH_P_ALL))
        print("ready", flush=True)
        for _ in until_told(receiving):
            frame = receiving.recv(1 << 17)
            is_ours = frame[26:30] == sources[0] or frame[22:38] == sources[1]
            if is_ours and _HTTP not in (frame[34:36], frame[36:38]):  # last words of a transfer that is over
                packets.append(frame)
    with Path(file).open("wb") as kept:
        for packet in packets:
            kept.write(struct.pack("=I", len(packet)) + packet)


def read_packets(file: Path) -> list[bytes]:
    """What `receive` kept."""
    data, at, packets = file.read_bytes(), 0, []
    while at < len(data):
        (size,) = struct.unpack_from("=I", data, at)
        packets.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return packets


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(*sys.argv[2:])
    else:
        receive(*sys.argv[2:])
