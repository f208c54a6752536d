"""An attacker who knows the gateway's public key and sends first messages as fast as told.

    flood.py PUBLIC-KEY ADDRESS PORT RATE SOURCES

Every datagram has a right mac1 and is random otherwise. SOURCES is a network, all of whose addresses
take their turns as the source; they must be local to this host, or look so. The process prints "ready",
sends until a line comes on standard input, and then prints how many it sent.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from ipaddress import IPv4Network

from tests.fakes.forge import with_mac1
from vpnd.keys import PublicKey

SIZE = 200  # of the smallest first message
SEGMENTS = 64  # datagrams of one call: UDP_MAX_SEGMENTS
DIFFERENT = 32_768  # datagrams, before they come again
_SOL_UDP, _UDP_SEGMENT = 17, 103
_IP_PKTINFO, _IP_FREEBIND = 8, 15


def batches(key: PublicKey) -> list[bytes]:
    """Makes what each call sends."""
    head = bytes((0x08, 1, 0, 0))
    return [
        b"".join(with_mac1(head + os.urandom(SIZE - 4), key) for _ in range(SEGMENTS))
        for _ in range(DIFFERENT // SEGMENTS)
    ]


def flood(key: PublicKey, target: tuple[str, int], rate: int, sources: IPv4Network) -> int:
    """Sends at `rate` datagrams a second until told to stop, and tells how many."""
    made = batches(key)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sender.setsockopt(_SOL_UDP, _UDP_SEGMENT, SIZE)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * 2**20)
        sender.bind(("0.0.0.0", 0))
        print("ready", flush=True)
        began, sent, turn = time.monotonic(), 0, 0
        while not select.select([sys.stdin], (), (), 0)[0]:
            due = int((time.monotonic() - began) * rate) - sent
            for _ in range(min(due // SEGMENTS, 64)):
                address = sources[turn % sources.num_addresses]
                source = struct.pack("=I4s4s", 0, address.packed, bytes(4))
                ancillary = [(socket.IPPROTO_IP, _IP_PKTINFO, source)]
                sender.sendmsg([made[turn % len(made)]], ancillary, 0, target)
                turn += 1
                sent += SEGMENTS
            time.sleep(0.0005)
    return sent


if __name__ == "__main__":
    print(
        flood(
            PublicKey.from_base64(sys.argv[1]),
            (sys.argv[2], int(sys.argv[3])),
            int(sys.argv[4]),
            IPv4Network(sys.argv[5]),
        )
    )
