"""A thousand callers in one process: real Devices over real UDP sockets, each with an address of its own.

    crowd.py HUB-KEY ADDRESS PORT COUNT NETWORK

Prints "ready" when all stand. At each line "go" on standard input all call, and when all are up it prints how
many are, and the seconds it took; who was up before calls anew. A caller is up when a message of the hub has
opened under its new session. Ends at any other line. The keys are the same in every run: `identity_of` gives
them to whoever configures the hub.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, ip_address

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from vpnd.endpoint import Endpoint
from vpnd.keys import Identity, PublicKey, Secret
from vpnd.protocol.actions import Action, InstallSession, SendDatagram, SendKeepalive
from vpnd.protocol.constants import Feature, PaddingMode
from vpnd.protocol.device import Activity, Device, DeviceOptions
from vpnd.protocol.peer import PeerOptions

PATIENCE_S = 30.0
TURN_S = 0.05
DATA = 0x0C
_HEADER = struct.Struct("<B3xIQ")
_IP_FREEBIND = 15


def identity_of(number: int) -> Identity:
    return Identity.from_private(Secret.copy_of(hashlib.sha256(f"caller {number}".encode()).digest()))


class Caller:
    """One Device, its socket, and just enough of a plane to confirm a session."""

    def __init__(self, number: int, hub: PublicKey, target: Endpoint, source: str) -> None:
        self.hub = hub
        self.is_up = False
        self.heard: Callable[[bytes], None] = lambda _: None  # told what opened
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        self.socket.bind((source, 0))
        self._target = target
        self._sessions: dict[int, tuple[InstallSession, ChaCha20Poly1305, ChaCha20Poly1305]] = {}
        self._current = 0
        self._counter = 0
        self._received_at = 0.0
        self._device = Device(
            identity_of(number),
            knock=Secret.zero(),
            options=DeviceOptions(
                has_aes=False, link_type=Feature.TUN, mtu=1420, padding=PaddingMode.NONE, suites_forced=None
            ),
            wall_clock_ns=time.time_ns,
            random_bytes=os.urandom,
        )
        peer = PeerOptions(public_key=hub, name="hub", preshared_key=Secret.zero(), endpoint=target)
        self._device.configure([peer], now())

    def start(self) -> None:
        self.is_up = False
        self._sessions.clear()
        self._current = 0
        # A late answer of a hub that is gone by now would end the effort, and no traffic find it out.
        with contextlib.suppress(BlockingIOError):
            while self.socket.recv(2048):
                pass
        self._perform(self._device.reconnect(self.hub, now()))

    def turn(self) -> None:
        seen = Activity(last_received=self._received_at)
        self._perform(self._device.tick(now(), {self.hub: seen} if self._current else {}))

    def read(self) -> None:
        while True:
            try:
                datagram = self.socket.recv(2048)
            except BlockingIOError:
                return
            if datagram[0] == DATA:
                self._open(datagram)
            else:
                self._perform(self._device.receive(datagram, self._target, now()))

    def _perform(self, wanted: Sequence[Action]) -> None:
        for action in wanted:
            match action:
                case SendDatagram(_, datagram):
                    self.socket.sendto(datagram, self._target.to_sockaddr())
                case InstallSession():
                    keys = (
                        ChaCha20Poly1305(key.expose()[:32]) for key in (action.send_key, action.receive_key)
                    )
                    self._sessions[action.local_index] = (action, *keys)  # type: ignore[assignment]
                    self._current, self._counter = action.local_index, 0
                case SendKeepalive() if self._current:  # before, it is for a session given up
                    self.seal(b"")

    def seal(self, content: bytes) -> None:
        session, sealing, _ = self._sessions[self._current]
        header = _HEADER.pack(DATA, session.remote_index, self._counter)
        nonce = session.send_key.expose()[32:] + header[8:]
        self._counter += 1
        self.socket.sendto(header + sealing.encrypt(nonce, content, header), self._target.to_sockaddr())

    def _open(self, datagram: bytes) -> None:
        _, index, _ = _HEADER.unpack_from(datagram)
        if index not in self._sessions:
            return
        session, _, opening = self._sessions[index]
        nonce = session.receive_key.expose()[32:] + datagram[8:16]
        try:
            content = opening.decrypt(nonce, datagram[16:], datagram[:16])
        except InvalidTag:
            return
        self.is_up = True
        self._received_at = now()
        self.heard(content)


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def run(callers: Sequence[Caller]) -> tuple[int, float]:
    """Calls with all at once until all are up."""
    by_number = {caller.socket.fileno(): caller for caller in callers}
    began = now()
    with select.epoll() as poll:
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        for caller in callers:
            caller.start()
        turn_at = began
        while now() - began < PATIENCE_S and not all(caller.is_up for caller in callers):
            for number, _ in poll.poll(TURN_S, 256):
                by_number[number].read()
            if now() >= turn_at:
                turn_at = now() + TURN_S
                for caller in callers:
                    if not caller.is_up:
                        caller.turn()
    return sum(caller.is_up for caller in callers), now() - began


if __name__ == "__main__":
    network = IPv4Network(sys.argv[5])
    hub = Endpoint(ip_address(sys.argv[2]), int(sys.argv[3]))
    crowd = [
        Caller(number, PublicKey.from_base64(sys.argv[1]), hub, str(network[number + 1]))
        for number in range(int(sys.argv[4]))
    ]
    print("ready", flush=True)
    while sys.stdin.readline() == "go\n":
        up, took_s = run(crowd)
        print(json.dumps({"up": up, "took_s": took_s}), flush=True)
