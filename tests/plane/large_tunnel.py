"""A plane with one peer, driven by large frames on its link and by runs of datagrams on its wire.

Owns what such a frame should become (by the twin in leaves/flows.py), and the watching of what leaves
in one sending. Knows no test's reason.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.plane.far import Session, receive_waiting
from tests.plane.harness import FEATURE_CSUM, FEATURE_TAP, FEATURE_TUN, Far, Rig, wait_until
from tests.plane.large_frames import LargeFrames, large_frames
from tests.plane.leaves import flows
from tests.plane.leaves.flows import CHECKSUM_AT, TCP, UDP, Headers
from tests.plane.leaves.offloads import LargeFrame, large

BODY = os.urandom(70_000)
NETWORKS = ("10.1.0.0/16", "10.2.0.0/16", "fd00::/16")
PARTIAL = FEATURE_TUN | FEATURE_TAP | FEATURE_CSUM
_UDP_SEGMENT, _UDP_GRO = 103, 104
_SIGNED = struct.Struct("=i")


# ---- frames and what becomes of them ----


def marked(content: bytes, *, is_tap: bool, partial: bool = True) -> bytes:
    """As it stands in a DATA message."""
    if is_tap:
        return bytes((0x11 if partial else 0x10,)) + content
    return bytes((content[0] | (0x10 if partial else 0),)) + content[1:]


def split(frame: LargeFrame) -> list[bytes]:
    """What the frame on the link is for the machine behind it: every packet, its checksum completed."""
    network_at = 0
    if frame.content[0] >> 4 not in (4, 6):
        network_at = 14
        while frame.content[network_at - 2 : network_at] in (b"\x81\x00", b"\x88\xa8"):
            network_at += 4
    protocol = TCP if frame.csum_offset == 16 else UDP
    if frame.gso_type:
        return flows.cut_as_linux(
            frame.content,
            network_at=network_at,
            transport_at=frame.csum_start,
            protocol=protocol,
            size=frame.gso_size,
            partial=False,
        )
    if not frame.flags:
        return [frame.content]
    packet = frame.content[network_at:]
    at = frame.csum_start - network_at
    return [
        frame.content[:network_at]
        + flows.with_field(packet, at + frame.csum_offset, flows.real_checksum(packet, protocol, at))
    ]


@dataclass
class Large:
    """A plane with one peer, and the kernel's side of its link."""

    rig: Rig
    peer: Far
    session: Session
    frames: LargeFrames

    def received(self, count: int) -> list[bytes]:
        """The next plaintexts at the peer, in order."""
        return [self.session.open(self.peer.receive()).plaintext for _ in range(count)]

    def nothing_lost(self) -> None:
        assert self.rig.drops() == {}


@contextlib.contextmanager
def joined_to(rig: Rig, *, features: int = PARTIAL, padding: int = 0, kind: str = "tun") -> Iterator[Large]:
    networks = NETWORKS if kind == "tun" else ()
    peer = rig.add_peer(1, networks)
    session = peer.install(features=features, padding=padding)
    with large_frames(rig.namespace, rig.link) as frames:
        yield Large(rig, peer, session, frames)


@contextlib.contextmanager
def paused(rig: Rig) -> Iterator[None]:
    """What is sent meanwhile comes to the plane all at once."""
    os.kill(rig.pid, signal.SIGSTOP)
    stats = list(Path(f"/proc/{rig.pid}/task").glob("*/stat"))
    wait_until(
        lambda: all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in stats),
        "every thread stopped",
    )
    try:
        yield
    finally:
        os.kill(rig.pid, signal.SIGCONT)


def completed(plaintext: bytes) -> bytes:
    """The frame in a message, with the checksum that it has or will get."""
    kind, content = plaintext[0], plaintext[1:]
    if kind == 0x10:
        return content
    assert kind == 0x11
    at = 14
    while content[at - 2 : at] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    seen = flows.look(content, at, 1, is_partial=True)
    value = flows.real_checksum(seen.packet, seen.protocol, seen.at)
    return seen.ether + flows.with_field(seen.packet, seen.at + CHECKSUM_AT[seen.protocol], value)


# ---- the wire ----


def take_runs(sock: socket.socket) -> None:
    """From now on the kernel hands a run over as it was sent, where nothing on the way had to cut it."""
    sock.setsockopt(socket.SOL_UDP, _UDP_GRO, 1)


def parcels(sock: socket.socket, expected: int) -> list[tuple[int, list[bytes]]]:
    """What was sent in one step each: the size that it was cut by, and its datagrams. After take_runs."""
    found: list[tuple[int, list[bytes]]] = []
    sock.settimeout(3)
    while sum(len(datagrams) for _, datagrams in found) < expected:
        data, ancillary, _, _ = sock.recvmsg(1 << 17, 64)
        size = next((_SIGNED.unpack(item)[0] for _, kind, item in ancillary if kind == _UDP_GRO), len(data))
        found.append((size, [data[at : at + size] for at in range(0, len(data), size)]))
    return found


def gather(tunnel: Large, payloads: list[int], size: int) -> list[list[int]]:
    """Sends one frame per payload, all at once, and gives the sizes of datagrams in each sending. All
    datagrams arrive, exactly as they should.
    """
    take_runs(tunnel.peer.socket)
    frames = []
    wanted: list[bytes] = []
    for number, payload in enumerate(payloads):
        headers = Headers(protocol=UDP, ports=(number, 9), identity=number * 100)
        frames.append(large(headers, BODY[:payload], size if payload > size else 0))
        wanted += [marked(each, is_tap=False) for each in flows.cut_frame(headers, BODY[:payload], size)]
    with paused(tunnel.rig):
        for frame in frames:
            tunnel.frames.send(frame)
    sent = parcels(tunnel.peer.socket, len(wanted))
    datagrams = [datagram for _, group in sent for datagram in group]
    assert [tunnel.session.open(each).plaintext for each in datagrams] == wanted
    assert receive_waiting(tunnel.peer.socket) == []
    tunnel.nothing_lost()
    return [[len(each) for each in group] for _, group in sent]


def gather_until(tunnel: Large, payloads: list[int], size: int, expected: list[list[int]]) -> None:
    """Sends the same again until it leaves in these groups: a plane that was idle sends the first frames
    before it looks for others.
    """
    wait_until(
        lambda: gather(tunnel, payloads, size) == [[each + AROUND for each in group] for group in expected],
        f"datagrams in groups of {expected}",
    )


AROUND = 20 + 8 + 32  # headers of UDP inside, and of the message


def send_run(tunnel: Large, datagrams: list[bytes]) -> None:
    """Hands them to the kernel in one step, which gives them to the plane in one."""
    size = len(datagrams[0])
    assert {len(each) for each in datagrams[:-1]} <= {size}
    (target,) = tunnel.rig.sockets
    control = [(socket.SOL_UDP, _UDP_SEGMENT, struct.pack("=H", size))]
    tunnel.peer.socket.sendmsg(datagrams, control, 0, target.getsockname())
