"""The two ends of a steady stream of numbered datagrams, and the longest silence between two that came:

    python -m tests.system.gap receive ADDRESS
    python -m tests.system.gap send ADDRESS MBIT SIZE

Both end at a line on standard input, the receiver once nothing more comes. The sender prints how many it
sent, the receiver how many different ones came and the longest time without one, in milliseconds. Runs of
datagrams go through the kernel whole (UDP_SEGMENT, UDP_GRO): the load is to be the tunnel's, not ours.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time

from tests.lab.arrivals import until_told

PORT = 5998
TURN_S = 0.001  # the sender's; no run is longer than what is due in ten
RUN_MAX = 40  # datagrams
BUFFER = 64 * 2**20
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104  # linux/udp.h


def receive(address: str) -> str:
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    listener.setsockopt(SOL_UDP, UDP_GRO, 1)
    listener.bind((address, PORT))
    listener.setblocking(False)
    print("ready", flush=True)
    seen: set[int] = set()
    longest = last = 0.0
    for _ in until_told(listener):
        now = time.monotonic()
        longest, last = max(longest, now - last if last else 0.0), now
        data, ancillary, _, _ = listener.recvmsg(65536, 64)
        (size,) = [struct.unpack("=i", each)[0] for _, kind, each in ancillary if kind == UDP_GRO] or [
            len(data)
        ]
        seen.update(struct.unpack_from("!Q", data, at)[0] for at in range(0, len(data), size))
    return f"{len(seen)} {longest * 1000:.1f}"


def send(address: str, mbit: int, size: int) -> str:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
    sender.setsockopt(SOL_UDP, UDP_SEGMENT, size)
    sender.connect((address, PORT))
    rate = mbit * 1e6 / 8 / size
    began, sent = time.monotonic(), 0
    while not select.select([sys.stdin], (), (), TURN_S)[0]:
        # What a busy machine kept us from sending is not made up for in one burst.
        due = min(int((time.monotonic() - began) * rate), sent + int(rate * TURN_S * 10))
        while sent < due:
            count = min(due - sent, RUN_MAX)
            sender.send(b"".join(struct.pack("!Q", sent + at).ljust(size, b".") for at in range(count)))
            sent += count
    return str(sent)


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        print(receive(sys.argv[2]))
    else:
        print(send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
