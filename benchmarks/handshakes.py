"""Calls a hub by many peers, a few at a time, and tells how many it answers:

    handshakes.py HUB-KEY ADDRESS PORT COUNT NETWORK SECONDS

The initiations of COUNT peers of the crowd are made beforehand, each by a real Device. Then at most WINDOW
of them wait for their answer at any moment, fewer than put a gate under load; a cookie is taken and the
initiation sent again with it. Every peer has an address of NETWORK as its source. Prints "ready", begins
at a line on standard input, and prints a line of JSON.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Network, ip_address

from tests.fakes.forge import cookie_in, mac2
from tests.lab.crowd import identity_of, now
from vpnd.endpoint import Endpoint
from vpnd.keys import PublicKey, Secret
from vpnd.protocol.actions import SendDatagram
from vpnd.protocol.constants import Feature, PacketType, PaddingMode
from vpnd.protocol.device import Device, DeviceOptions
from vpnd.protocol.peer import PeerOptions

WINDOW = 32
_LOST_AFTER_S = 0.5
_IP_PKTINFO, _IP_FREEBIND = 8, 15
_OPTIONS = DeviceOptions(
    has_aes=False, link_type=Feature.TUN, mtu=1420, padding=PaddingMode.NONE, suites_forced=None
)


def initiation_of(number: int, hub: PublicKey, target: Endpoint) -> bytes:
    """Makes the first message of one peer of the crowd."""
    device = Device(
        identity_of(number),
        knock=Secret.zero(),
        options=_OPTIONS,
        wall_clock_ns=time.time_ns,
        random_bytes=os.urandom,
    )
    peer = PeerOptions(public_key=hub, name="hub", preshared_key=Secret.zero(), endpoint=target)
    device.configure([peer], now())
    return next(action.datagram for action in device.start(now()) if isinstance(action, SendDatagram))


class Calls:
    """One socket that calls from many addresses."""

    def __init__(self, hub: PublicKey, target: Endpoint, network: IPv4Network) -> None:
        self._hub, self._target, self._network = hub, target.to_sockaddr(), network
        # By sender index, the oldest first: the peer's number, its initiation, when it was sent.
        self._waiting: dict[bytes, tuple[int, bytes, float]] = {}
        self.answered = self.cookies = self.lost = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        self._socket.bind(("0.0.0.0", 0))

    def run(self, initiations: list[bytes], seconds: float) -> float:
        """Calls until all have been answered or the time is over; tells the seconds to the last answer."""
        left = iter(enumerate(initiations))
        began = last = time.monotonic()
        self._fill(left)
        while self._waiting and time.monotonic() - began < seconds:
            if select.select([self._socket], (), (), _LOST_AFTER_S)[0] and self._read():
                last = time.monotonic()
            self._forget(time.monotonic() - _LOST_AFTER_S)
            self._fill(left)
        return last - began

    def _fill(self, left: Iterator[tuple[int, bytes]]) -> None:
        while len(self._waiting) < WINDOW and (following := next(left, None)) is not None:
            number, initiation = following
            self._waiting[initiation[4:8]] = (number, initiation, time.monotonic())
            self._send(number, initiation)

    def _forget(self, before: float) -> None:
        """Makes room where no answer came."""
        for index, (_, _, sent_at) in list(self._waiting.items()):
            if sent_at > before:
                return
            del self._waiting[index]
            self.lost += 1

    def _send(self, number: int, datagram: bytes) -> None:
        address = self._network[number + 1].packed
        ancillary = [(socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=I4s4s", 0, address, bytes(4)))]
        self._socket.sendmsg([datagram], ancillary, 0, self._target)

    def _read(self) -> bool:
        """Takes what came; tells whether an answer was among it."""
        before = self.answered
        while True:
            try:
                datagram = self._socket.recv(2048)
            except BlockingIOError:
                return self.answered > before
            called = self._waiting.get(datagram[4:8])
            if called is None:
                continue
            if datagram[0] == PacketType.HS_RESP:
                self.answered += 1
                del self._waiting[datagram[4:8]]
            elif datagram[0] == PacketType.COOKIE:
                self.cookies += 1
                number, initiation, _ = called
                cookie = cookie_in(datagram, initiation, self._hub)
                self._send(number, initiation[:-16] + mac2(initiation, cookie))


def main(arguments: list[str]) -> None:
    key, address, port, count, network, seconds = arguments
    hub, target = PublicKey.from_base64(key), Endpoint(ip_address(address), int(port))
    initiations = [initiation_of(number, hub, target) for number in range(int(count))]
    calls = Calls(hub, target, IPv4Network(network))
    print("ready", flush=True)
    sys.stdin.readline()
    took_s = calls.run(initiations, float(seconds))
    result = {"answered": calls.answered, "cookies": calls.cookies, "lost": calls.lost, "took_s": took_s}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
