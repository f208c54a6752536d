"""A private network namespace with links in it, for tests that run as root.

Owns the namespace, the TUN and TAP links and the kernel's side of them. Everything vanishes
with the last open descriptor, also after a crash of the tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_TAP, _IFF_MULTI_QUEUE, _IFF_NO_PI, _IFF_VNET_HDR = 0x1, 0x2, 0x100, 0x1000, 0x4000
_SOL_PACKET, _PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING = 263, 8, 23
_AUXDATA = struct.Struct("=IIIHHHH")  # tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
_VLAN_VALID = 0x10
_ETH_P_ALL = 3
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace of our own; sockets and links opened inside stay there."""

    def __init__(self) -> None:
        self._outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        self._inside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Neighbour discovery of the kernel's own would mix with the packets a test counts.
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
            Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").write_text("0")
            Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 0")
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        finally:
            _check(_libc.setns(self._outside, _CLONE_NEWNET), "setns")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Within, this thread's new sockets, links and child processes are the namespace's."""
        _check(_libc.setns(self._inside, _CLONE_NEWNET), "setns")
        try:
            yield
        finally:
            _check(_libc.setns(self._outside, _CLONE_NEWNET), "setns")

    def run(self, *command: str) -> None:
        with self.entered():
            subprocess.run(command, check=True)

    def index_of(self, name: str) -> int:
        """The number of an interface of the namespace."""
        with self.entered():
            return socket.if_nametoindex(name)

    def udp_socket(
        self, address: str, port: int = 0, *, buffer: int = 4 << 20, scope: int = 0, dual_stack: bool = False
    ) -> socket.socket:
        """A bound UDP socket; its buffers take bursts that the test reads later."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.entered():
            opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
        opened.setsockopt(socket.SOL_SOCKET, 33, buffer)  # SO_RCVBUFFORCE
        opened.setsockopt(socket.SOL_SOCKET, 32, buffer)  # SO_SNDBUFFORCE
        opened.bind((address, port, 0, scope) if family == socket.AF_INET6 else (address, port))
        return opened

    def close(self) -> None:
        os.close(self._inside)
        os.close(self._outside)


class Link:
    """A TUN or TAP link: its queues for the plane, and what the kernel sees and sends on it."""

    def __init__(
        self, namespace: Namespace, kind: str, name: str, *, mtu: int = 1420, queues: int = 1
    ) -> None:
        self.kind = kind
        self.name = name
        flags = (_IFF_TUN if kind == "tun" else _IFF_TAP) | _IFF_NO_PI | _IFF_VNET_HDR
        if queues > 1:
            flags |= _IFF_MULTI_QUEUE
        self._namespace = namespace
        with namespace.entered():
            self.queues = [_open_queue(name, flags) for _ in range(queues)]
            subprocess.run(
                ["ip", "link", "set", name, "up", "mtu", str(mtu), "txqueuelen", "20000"], check=True
            )
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE
        self._socket.bind((name, _ETH_P_ALL))

    def send(self, packet: bytes) -> None:
        """Sends a packet or frame as this machine would: the plane reads it from its queue."""
        self._socket.send(packet)

    def receive(self, timeout_s: float = 20.0) -> bytes:
        """The next packet or frame that the plane wrote into the link; TimeoutError if none comes."""
        ready, _, _ = select.select([self._socket], [], [], timeout_s)
        if not ready:
            raise TimeoutError(f"nothing came out of {self.name} within {timeout_s} s")
        return self._receive()

    def receive_all(self) -> list[bytes]:
        """Everything that waits now."""
        received = []
        with contextlib.suppress(BlockingIOError):
            while True:
                received.append(self._receive())
        return received

    def _receive(self) -> bytes:
        """One packet as it was on the link: the kernel hands a VLAN tag beside the frame."""
        packet, ancillary, _, _ = self._socket.recvmsg(65536, 64, socket.MSG_DONTWAIT)
        for _, _, data in ancillary:
            status, _, _, _, _, tag, kind = _AUXDATA.unpack(data)
            if status & _VLAN_VALID:
                packet = packet[:12] + struct.pack(">HH", kind, tag) + packet[12:]
        return packet

    def close_queues(self) -> None:
        """Closes our copies; the link lives on while the plane holds its own."""
        for queue in self.queues:
            os.close(queue)
        self.queues = []

    def delete(self) -> None:
        self._namespace.run("ip", "link", "del", self.name)

    def close(self) -> None:
        self.close_queues()
        self._socket.close()


def _open_queue(name: str, flags: int) -> int:
    queue = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(queue, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError:
        os.close(queue)
        raise
    return queue


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
