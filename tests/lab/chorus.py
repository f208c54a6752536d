"""Callers as in crowd.py that, once up, all ask the hub's inner address for echoes, again and again.

    chorus.py HUB-KEY ADDRESS PORT COUNT NETWORK INNER

Prints "ready" when all are up and heard. Then at each line "go" a line of JSON: how many echoes of each
caller went unanswered since the line before. Ends at any other line, or with standard input.
"""

from __future__ import annotations

import json
import select
import struct
import sys
from collections import deque
from ipaddress import IPv4Address, IPv4Network, ip_address

from tests.lab.crowd import Caller, now, run
from tests.plane.packets import checksum, ipv4
from vpnd.endpoint import Endpoint
from vpnd.keys import PublicKey

EVERY_S = 0.1  # between two echoes of a caller
LATE_S = 1.0  # an echo unanswered for so long is lost


class Singer:
    """One caller, and which of its echoes are on their way."""

    def __init__(self, caller: Caller, inner: IPv4Address, hub: IPv4Address) -> None:
        self.caller = caller
        self.lost = 0
        self._inner, self._hub = inner, hub
        self._number = 0
        self._waiting: deque[tuple[int, float]] = deque()
        caller.heard = self._hear

    def sing(self) -> None:
        self._number = (self._number + 1) & 0xFFFF
        self._waiting.append((self._number, now()))
        self.caller.seal(echo(self._inner, self._hub, self._number))

    def look(self) -> None:
        """Counts what is late."""
        while self._waiting and now() - self._waiting[0][1] > LATE_S:
            self._waiting.popleft()
            self.lost += 1

    def _hear(self, packet: bytes) -> None:
        if len(packet) == 28 and packet[20] == 0:  # an echo reply
            number = int.from_bytes(packet[26:28], "big")
            self._waiting = deque(one for one in self._waiting if one[0] != number)


def echo(source: IPv4Address, target: IPv4Address, number: int) -> bytes:
    request = struct.pack("!BBHHH", 8, 0, 0, 1, number)
    request = request[:2] + checksum(request).to_bytes(2, "big") + request[4:]
    return ipv4(str(source), str(target), request, protocol=1)


def perform(singers: list[Singer]) -> None:
    by_number = {singer.caller.socket.fileno(): singer.caller for singer in singers}
    turns = deque((now() + EVERY_S * n / len(singers), singer) for n, singer in enumerate(singers))
    with select.epoll() as poll:
        poll.register(sys.stdin.fileno(), select.EPOLLIN)
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        print("ready", flush=True)
        while True:
            for number, _ in poll.poll(max(0.0, turns[0][0] - now()), 256):
                if number in by_number:
                    by_number[number].read()
                elif sys.stdin.readline() != "go\n":
                    return
                else:
                    print(json.dumps([singer.lost for singer in singers]), flush=True)
                    for singer in singers:
                        singer.lost = 0
            while turns[0][0] <= now():
                at, singer = turns.popleft()
                singer.look()
                singer.sing()
                turns.append((at + EVERY_S, singer))


if __name__ == "__main__":
    network, inner = IPv4Network(sys.argv[5]), IPv4Network(sys.argv[6], strict=False)
    hub = Endpoint(ip_address(sys.argv[2]), int(sys.argv[3]))
    callers = [
        Caller(number, PublicKey.from_base64(sys.argv[1]), hub, str(network[number + 1]))
        for number in range(int(sys.argv[4]))
    ]
    if run(callers)[0] == len(callers):
        hub_inner = IPv4Address(sys.argv[6].partition("/")[0])
        perform([Singer(caller, inner[n + 1], hub_inner) for n, caller in enumerate(callers)])
