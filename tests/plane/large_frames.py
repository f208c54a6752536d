"""Frames with a virtio_net_hdr on a link, as this machine's own kernel sends and gets them.

Owns a packet socket that speaks PACKET_VNET_HDR: what is sent reaches the link's queue with its
partial checksum and uncut, what the plane writes is seen as it was written. Knows no plane.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterator

from tests.plane.leaves.offloads import LargeFrame
from tests.plane.namespace import Link, Namespace

_SOL_PACKET, _PACKET_AUXDATA, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 8, 15, 23
_AUXDATA = struct.Struct("=IIIHHHH")  # tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
_VLAN_VALID = 0x10
_ETH_P_ALL = 3
_HEADER = struct.Struct("=BBHHHH")
_DATA_VALID = 2  # the kernel found the checksum right by itself


class LargeFrames:
    """The kernel's side of a link."""

    def __init__(self, namespace: Namespace, link: Link) -> None:
        with namespace.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        for option in (_PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING, _PACKET_AUXDATA):
            self._socket.setsockopt(_SOL_PACKET, option, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self._socket.setsockopt(socket.SOL_SOCKET, 32, 64 << 20)  # SO_SNDBUFFORCE
        self._socket.bind((link.name, _ETH_P_ALL))

    def send(self, frame: LargeFrame) -> None:
        header = _HEADER.pack(
            frame.flags, frame.gso_type, frame.hdr_len, frame.gso_size, frame.csum_start, frame.csum_offset
        )
        self._socket.send(header + frame.content)

    def receive(self, timeout_s: float = 20.0) -> LargeFrame:
        """The next frame that was written to the link; TimeoutError if none comes."""
        if not select.select([self._socket], [], [], timeout_s)[0]:
            raise TimeoutError(f"no frame within {timeout_s} s")
        data, ancillary, _, _ = self._socket.recvmsg(1 << 17, 64)
        flags, gso_type, hdr_len, gso_size, start, offset = _HEADER.unpack_from(data)
        content = data[_HEADER.size :]
        for _, _, item in ancillary:
            status, _, _, _, _, tag, kind = _AUXDATA.unpack(item)
            if status & _VLAN_VALID:
                # The kernel hands the outer tag beside the frame.
                content = content[:12] + struct.pack(">HH", kind, tag) + content[12:]
                start += 4 if flags & ~_DATA_VALID else 0
                hdr_len += 4 if gso_type else 0
        return LargeFrame(content, flags & ~_DATA_VALID, gso_type, gso_size, start, offset, hdr_len)

    def receive_until(self, size: int, *, around: int, timeout_s: float = 5.0) -> list[LargeFrame]:
        """Frames until their payload, behind `around` bytes of headers each, comes to so many bytes."""
        frames: list[LargeFrame] = []
        deadline = time.monotonic() + timeout_s
        while sum(len(each.content) - around for each in frames) < size:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            with contextlib.suppress(TimeoutError):
                frames.append(self.receive(left))
        return frames

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def large_frames(namespace: Namespace, link: Link) -> Iterator[LargeFrames]:
    opened = LargeFrames(namespace, link)
    try:
        yield opened
    finally:
        opened.close()
