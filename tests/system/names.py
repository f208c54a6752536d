"""A name server: every name has the same IPv4 address, and no other record.

    names.py ADDRESS ANSWER

Answers at ADDRESS, UDP port 53, until it is ended.
"""

from __future__ import annotations

import socket
import struct
import sys

_A = b"\0\1"
_TTL_S = 60


def reply(query: bytes, address: bytes) -> bytes:
    question = query[12 : query.index(b"\0", 12) + 5]
    is_known = question[-4:-2] == _A
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, _TTL_S, len(address)) + address
    head = query[:2] + struct.pack("!5H", 0x8580, 1, is_known, 0, 0)  # authoritative, no error
    return head + question + (record if is_known else b"")


if __name__ == "__main__":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as serving:
        serving.bind((sys.argv[1], 53))
        while True:
            asked, asking = serving.recvfrom(512)
            serving.sendto(reply(asked, socket.inet_aton(sys.argv[2])), asking)
