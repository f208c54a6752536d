"""An attacker with a few real addresses: fetches a cookie for each, then sends with them for ever.

    cookies.py PUBLIC-KEY ADDRESS PORT SOURCES

Ends at a line on standard input and prints how many cookies it got and how many datagrams it sent with them.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fakes.forge import cookie_in, mac2, with_mac1
from vpnd.keys import PublicKey

_PATIENCE_S = 10.0
_IP_FREEBIND = 15


def initiation(key: PublicKey) -> bytes:
    return with_mac1(bytes((0x08, 1, 0, 0)) + os.urandom(196), key)


def fetch(key: PublicKey, sender: socket.socket) -> bytes:
    """Asks until a cookie comes."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        asked = initiation(key)
        sender.send(asked)
        if select.select([sender], (), (), 0.1)[0]:
            return cookie_in(sender.recv(2048), asked, key)
    raise TimeoutError("no cookie came")


def main(key: PublicKey, target: tuple[str, int], sources: IPv4Network) -> tuple[int, int]:
    senders = []
    for source in sources:
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sender.bind((str(source), 0))
        sender.connect(target)
        senders.append(sender)
    cookies = [fetch(key, sender) for sender in senders]
    sent = 0
    while not select.select([sys.stdin], (), (), 0.001)[0]:
        for sender, cookie in zip(senders, cookies, strict=True):
            message = initiation(key)
            sender.send(message[:-16] + mac2(message, cookie))
            sent += 1
    for sender in senders:
        sender.close()
    return len(cookies), sent


if __name__ == "__main__":
    got, shots = main(
        PublicKey.from_base64(sys.argv[1]), (sys.argv[2], int(sys.argv[3])), IPv4Network(sys.argv[4])
    )
    print(got, shots)
