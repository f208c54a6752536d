"""Asks one address for echoes out of many links at once, and tells how many each link lost.

    echoes.py ADDRESS LINK...

Prints "ready". At each line "go" it waits for what is still on its way, at most `PATIENCE_S`, and prints a
line of JSON: for each link how many echoes were sent and how many of them lost since the line before. Ends at
any other line, or with standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time
from collections import deque

from tests.plane.packets import checksum

EVERY_S = 0.2  # between two echoes of a link
PATIENCE_S = 3.0
_REQUEST, _REPLY = 8, 0
_HEADER = struct.Struct("!BBHHH")


class Asker:
    """One link, and which of its echoes are unanswered."""

    def __init__(self, link: str, address: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
        self.socket.setblocking(False)
        self.sent = 0
        self.waiting: set[int] = set()
        self._address = address
        self._ours = os.getpid() & 0xFFFF
        self._number = 0

    def ask(self) -> None:
        self._number = (self._number + 1) & 0xFFFF
        request = _HEADER.pack(_REQUEST, 0, 0, self._ours, self._number)
        request = request[:2] + checksum(request).to_bytes(2, "big") + request[4:]
        self.sent += 1
        self.waiting.add(self._number)
        # Lost here is lost all the same.
        with contextlib.suppress(OSError):
            self.socket.sendto(request, (self._address, 0))

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = self.socket.recv(2048)
                kind, _, _, whose, number = _HEADER.unpack_from(packet, (packet[0] & 0xF) * 4)
                if kind == _REPLY and whose == self._ours:
                    self.waiting.discard(number)

    def settle(self) -> tuple[int, int]:
        """Gives what was sent and what of it is lost, and begins anew."""
        told = self.sent, len(self.waiting)
        self.sent = 0
        self.waiting.clear()
        return told


def perform(askers: list[Asker]) -> None:
    by_number = {asker.socket.fileno(): asker for asker in askers}
    began = time.monotonic()
    turns = deque((began + EVERY_S * n / len(askers), asker) for n, asker in enumerate(askers))
    with select.epoll() as poll:
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        poll.register(sys.stdin.fileno(), select.EPOLLIN)
        print("ready", flush=True)
        while True:
            for number, _ in poll.poll(max(0.0, turns[0][0] - time.monotonic())):
                if number in by_number:
                    by_number[number].read()
                elif sys.stdin.readline() != "go\n":
                    return
                else:
                    for asker in askers:
                        asker.ask()  # nobody shall have lost nothing because it sent nothing
                    _collect(askers)
                    print(json.dumps([asker.settle() for asker in askers]), flush=True)
            while turns[0][0] <= time.monotonic():
                _, asker = turns.popleft()
                asker.ask()
                turns.append((time.monotonic() + EVERY_S, asker))


def _collect(askers: list[Asker]) -> None:
    """Reads until nothing is on its way any more."""
    deadline = time.monotonic() + PATIENCE_S
    while any(asker.waiting for asker in askers) and time.monotonic() < deadline:
        select.select([asker.socket for asker in askers], (), (), 0.05)
        for asker in askers:
            asker.read()


if __name__ == "__main__":
    perform([Asker(link, sys.argv[1]) for link in sys.argv[2:]])
