"""Sends the datagrams of a file at a rate, once or over and over:

    shoot.py FILE ADDRESS PORT RATE REPEAT

The file holds a 4-byte little-endian length before each. Ends when all are sent, or with REPEAT 1 at a
line on standard input, and prints how many it sent.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time
from pathlib import Path

_BURST = 32


def read(file: Path) -> list[bytes]:
    content, datagrams, offset = file.read_bytes(), [], 0
    while offset < len(content):
        size = int.from_bytes(content[offset : offset + 4], "little")
        datagrams.append(content[offset + 4 : offset + 4 + size])
        offset += 4 + size
    return datagrams


def shoot(datagrams: list[bytes], target: tuple[str, int], rate: int, *, repeat: bool) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(target)
        began, sent = time.monotonic(), 0
        while repeat or sent < len(datagrams):
            if repeat and select.select([sys.stdin], (), (), 0)[0]:
                break
            due = min(int((time.monotonic() - began) * rate) - sent, _BURST)
            if not repeat:
                due = min(due, len(datagrams) - sent)
            for _ in range(due):
                # The port answers that it is closed while nobody listens: that is no reason to stop.
                with contextlib.suppress(ConnectionRefusedError):
                    sender.send(datagrams[sent % len(datagrams)])
                sent += 1
            if due < _BURST:
                time.sleep(0.0005)
        return sent


if __name__ == "__main__":
    print(
        shoot(
            read(Path(sys.argv[1])),
            (sys.argv[2], int(sys.argv[3])),
            int(sys.argv[4]),
            repeat=sys.argv[5] == "1",
        )
    )
