"""The two ends of one TCP stream that never ends; the sink tells how it went.

    pour.py sink ADDRESS            pour.py pour ADDRESS

The sink answers every line on standard input by the bytes that came so far and the longest time
since the line before in which none did.
"""

from __future__ import annotations

import select
import socket
import sys
import time

PORT = 5998


def sink(address: str) -> None:
    listener = socket.create_server((address, PORT))
    print("ready", flush=True)
    stream, _ = listener.accept()
    count, pause, last = 0, 0.0, time.monotonic()
    while True:
        readable, _, _ = select.select([stream, sys.stdin], (), ())
        now = time.monotonic()
        if sys.stdin in readable:
            if not sys.stdin.readline():
                return
            print(count, max(pause, now - last), flush=True)
            pause = 0.0
        if stream in readable:
            came = len(stream.recv(1 << 20))
            if came == 0:
                return
            count += came
            pause, last = max(pause, now - last), now


def pour(address: str) -> None:
    stream = socket.create_connection((address, PORT))
    # Little waits on the way: what TCP takes for the round trip decides when it tries again.
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
    while True:
        stream.sendall(bytes(1 << 16))


if __name__ == "__main__":
    (sink if sys.argv[1] == "sink" else pour)(sys.argv[2])
