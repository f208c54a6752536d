"""A bad stretch of road between two cables: delays, drops, doubles, reorders, corrupts, narrows, rebinds.

Runs as a process of its own inside the namespace that holds both ends:

    python -m tests.lab.relay LEFT RIGHT SEED

and takes new rules as JSON lines on standard input; "ready" is printed when a rule is in force. Every
decision comes from the seed, so a run can be had again. Frames are whole: the hosts at either end
must compute checksums and segments themselves (`Road` sees to that).
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import random
import select
import socket
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

from tests.lab.namespaces import Host, Lab

_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_IGNORE_OUTGOING = 23
_HEADERS = 14 + 20  # Ethernet and IPv4 without options
_UDP = 17


@dataclass(frozen=True)
class Rules:
    """What happens to a frame, either way. Chances are 0..1, times are seconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0  # a frame so chosen waits `reorder_s` longer than the others
    reorder_s: float = 0.005
    corrupt: float = 0.0  # one bit of a UDP payload flips, its checksum is taken off
    delay_s: float = 0.0
    mtu: int = 0  # IP packets larger than this are swallowed; 0: any size passes
    rebind: int = 0  # added to the source port of UDP from left to right, as a NAT would
    cut: bool = False  # nothing passes
    forge_source: str = ""  # the first copy of UDP from left to right comes from here, the real one after it
    forge_count: int = 0  # so many datagrams are treated so
    hold: int = 0  # UDP whose payload begins with this byte waits until a rule without it comes


class Road:
    """The relay between two hosts of a lab, and the two cables that lead to it."""

    def __init__(
        self, lab: Lab, left: Host, left_link: str, right: Host, right_link: str, *, seed: int
    ) -> None:
        self._host = lab.host(f"road{len(lab.hosts)}")
        lab.cable(self._host, "left", left, left_link)
        lab.cable(self._host, "right", right, right_link)
        for host, link in (
            (left, left_link),
            (right, right_link),
            (self._host, "left"),
            (self._host, "right"),
        ):
            host.run(f"ethtool -K {link} tx off rx off tso off gso off gro off")
        self._process = self._host.start(
            *(sys.executable, "-m", "tests.lab.relay", "left", "right", str(seed)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None,
        )
        self.set(Rules())

    def set(self, rules: Rules) -> None:
        """Puts rules in force; returns when they are."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(rules)).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer == b"ready\n", f"the relay died: {answer!r}"

    def held(self) -> int:
        """Tells how many datagrams wait at the moment."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b'"held?"\n')
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


class Relay:
    """Moves frames between two packet sockets by the rules in force."""

    def __init__(self, left: str, right: str, seed: int) -> None:
        self._sockets = (_open(left), _open(right))
        self._random = random.Random(seed)
        self._rules = Rules()
        self._forged = 0
        self._held: list[tuple[int, bytes]] = []
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._numbers = itertools.count()

    def serve(self) -> None:
        orders = sys.stdin.buffer
        while True:
            timeout = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None
            ready, _, _ = select.select([*self._sockets, orders], (), (), timeout)
            if orders in ready:
                line = orders.readline()
                if not line:
                    return
                order = json.loads(line)
                if order == "held?":
                    print(len(self._held), flush=True)
                else:
                    self._set(Rules(**order))
                    print("ready", flush=True)
            for side, each in enumerate(self._sockets):
                if each in ready:
                    self._take(side)
            self._release()

    def _set(self, rules: Rules) -> None:
        self._rules = rules
        if not rules.hold:
            held, self._held = self._held, []
            for side, frame in held:
                self._send(side, frame)

    def _take(self, side: int) -> None:
        for _ in range(64):
            try:
                frame = self._sockets[side].recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                return  # the link at the other end is down for the moment
            self._judge(side, frame)

    def _judge(self, side: int, frame: bytes) -> None:
        rules, chance = self._rules, self._random.random
        too_large = rules.mtu and len(frame) - 14 > rules.mtu
        if rules.cut or too_large or (rules.loss and chance() < rules.loss):
            return
        if rules.hold and _is_udp(frame) and frame[_HEADERS + 8 : _HEADERS + 9] == bytes((rules.hold,)):
            self._held.append((side, frame))
            return
        if rules.corrupt and chance() < rules.corrupt:
            frame = _corrupted(frame, self._random)
        if rules.rebind:
            frame = _rebound(frame, rules.rebind, is_left=side == 0)
        if side == 0 and self._forged < rules.forge_count and _is_udp(frame):
            self._forged += 1
            self._send(side, _from_source(frame, rules.forge_source))
        copies = 2 if rules.duplicate and chance() < rules.duplicate else 1
        for _ in range(copies):
            due = time.monotonic() + rules.delay_s
            if rules.reorder and chance() < rules.reorder:
                due += rules.reorder_s
            if rules.delay_s or rules.reorder:
                heapq.heappush(self._waiting, (due, next(self._numbers), side, frame))
            else:
                self._send(side, frame)

    def _release(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, side, frame = heapq.heappop(self._waiting)
            self._send(side, frame)

    def _send(self, side: int, frame: bytes) -> None:
        # A full or absent cable loses frames, as cables do.
        with contextlib.suppress(OSError):
            self._sockets[1 - side].send(frame, socket.MSG_DONTWAIT)


def _open(link: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    opened.setsockopt(socket.SOL_SOCKET, 33, 8 * 2**20)  # SO_RCVBUFFORCE
    opened.bind((link, 0))
    return opened


def _is_udp(frame: bytes) -> bool:
    """Plain IPv4 UDP without options and fragments."""
    return len(frame) >= _HEADERS + 8 and frame[12:15] == b"\x08\x00\x45" and frame[23] == _UDP


def _corrupted(frame: bytes, chosen: random.Random) -> bytes:
    if not _is_udp(frame) or len(frame) == _HEADERS + 8:
        return frame
    changed = bytearray(frame)
    changed[chosen.randrange(_HEADERS + 8, len(changed))] ^= 1 << chosen.randrange(8)
    return _without_checksum(changed)


def _rebound(frame: bytes, shift: int, *, is_left: bool) -> bytes:
    if not _is_udp(frame):
        return frame
    changed = bytearray(frame)
    offset = _HEADERS if is_left else _HEADERS + 2
    (port,) = struct.unpack_from("!H", changed, offset)
    struct.pack_into("!H", changed, offset, (port + (shift if is_left else -shift)) % 65536)
    return _without_checksum(changed)


def _from_source(frame: bytes, address: str) -> bytes:
    changed = bytearray(frame)
    changed[26:30] = socket.inet_aton(address)
    changed[24:26] = b"\0\0"
    total = sum(struct.unpack_from("!10H", changed, 14))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", changed, 24, total ^ 0xFFFF)
    return _without_checksum(changed)


def _without_checksum(frame: bytearray) -> bytes:
    frame[_HEADERS + 6 : _HEADERS + 8] = b"\0\0"
    return bytes(frame)


if __name__ == "__main__":
    Relay(sys.argv[1], sys.argv[2], int(sys.argv[3])).serve()
