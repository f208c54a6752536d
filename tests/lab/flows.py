"""The two ends of several flows of numbered UDP datagrams, which come in bursts.

    python -m tests.lab.flows receive ADDRESS PORT
    python -m tests.lab.flows send ADDRESS PORT FLOWS RATE SIZE

A flow is a source port; RATE is datagrams per second of one flow. The sender prints how many
datagrams it sent in all. The receiver prints a JSON list: for each flow how many came, and how many
of them after a younger one. Both end at a line on standard input, or when it closes; the receiver once
nothing more comes.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import sys
import time

from tests.lab.arrivals import until_told

BURST = 10  # datagrams of one flow without a pause: workers that shared it would overtake each other


def receive(address: str, port: int) -> str:
    flows: dict[tuple[object, ...], list[int]] = {}  # by source: came, disordered, latest number
    with _socket(address) as listener:
        listener.setsockopt(socket.SOL_SOCKET, 33, 4 * 2**20)  # SO_RCVBUFFORCE
        listener.bind((address, port))
        print("ready", flush=True)
        for _ in until_told(listener):
            data, source = listener.recvfrom(65536)
            (number,) = struct.unpack_from("!Q", data)
            flow = flows.setdefault(source, [0, 0, -1])
            flow[0] += 1
            flow[1] += number < flow[2]
            flow[2] = max(flow[2], number)
    return json.dumps([flow[:2] for flow in flows.values()])


def send(address: str, port: int, flows: int, rate: int, size: int) -> int:
    with contextlib.ExitStack() as stack:
        senders = [stack.enter_context(_socket(address)) for _ in range(flows)]
        began, sent = time.monotonic(), 0
        while True:
            due = began + sent / rate
            if select.select([sys.stdin], (), (), max(0.0, due - time.monotonic()))[0]:
                return sent * flows
            for sender in senders:
                for number in range(sent, sent + BURST):
                    with contextlib.suppress(OSError):  # lost here is lost all the same
                        sender.sendto(struct.pack("!Q", number).ljust(size, b"."), (address, port))
            sent += BURST


def _socket(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        print(receive(sys.argv[2], int(sys.argv[3])))
    else:
        print(send(sys.argv[2], *map(int, sys.argv[3:])))
