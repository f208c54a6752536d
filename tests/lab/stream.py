"""The two ends of a steady stream of numbered UDP datagrams; each prints its count at the end.

    python -m tests.lab.stream receive ADDRESS
    python -m tests.lab.stream send ADDRESS RATE SIZE

Both end at a line on standard input, or when it closes; the receiver once nothing more comes.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys
import time

from tests.lab.arrivals import until_told

PORT = 5999


def receive(address: str) -> int:
    """Counts the different numbers that arrive."""
    with _socket(address) as listener:
        listener.setsockopt(socket.SOL_SOCKET, 33, 4 * 2**20)  # SO_RCVBUFFORCE
        listener.bind((address, PORT))
        print("ready", flush=True)
        seen: set[int] = set()
        for _ in until_told(listener):
            seen.add(struct.unpack_from("!Q", listener.recv(65536))[0])
        return len(seen)


def send(address: str, rate: int, size: int) -> int:
    """Sends until told to stop; a datagram the link refuses is counted as sent."""
    with _socket(address) as sender:
        began, sent = time.monotonic(), 0
        while True:
            due = began + sent / rate
            if select.select([sys.stdin], (), (), max(0.0, due - time.monotonic()))[0]:
                return sent
            # Lost here is lost all the same: the receiver's count tells.
            with contextlib.suppress(OSError):
                sender.sendto(struct.pack("!Q", sent).ljust(size, b"."), (address, PORT))
            sent += 1


def _socket(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        print(receive(sys.argv[2]))
    else:
        print(send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
