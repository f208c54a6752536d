"""Who may reach what: a machine that answers on some ports, and one that tries them.

    knock.py answer PORT...               on all addresses, TCP and UDP, until it is ended; prints "ready"
    knock.py try KIND/ADDRESS/PORT...     KIND is tcp or udp; prints one word for each. With /LINK after
                                          the port it goes out by that link, whatever the routes say.

The words: "answered"; "forbidden", when the network answers that it is prohibited; "silent", when nothing
comes; "closed", when nothing but the end comes; else the name of the error.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import sys

PATIENCE_S = 3.0  # a first packet that was lost is sent again after one second
_FORBIDDEN = (errno.EHOSTUNREACH, errno.EACCES)  # what ICMP and ICMPv6 "administratively prohibited" become


def answer(ports: list[int]) -> None:
    with selectors.DefaultSelector() as selector:
        for port in ports:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                listener = socket.socket(socket.AF_INET6, kind)
                listener.bind(("::", port))
                if kind == socket.SOCK_STREAM:
                    listener.listen()
                selector.register(listener, selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            for key, _ in selector.select():
                listener = key.fileobj  # type: ignore[assignment]
                if listener.type == socket.SOCK_STREAM:
                    with listener.accept()[0] as visitor, contextlib.suppress(OSError):
                        visitor.send(b"who is there")
                else:
                    data, source = listener.recvfrom(100)
                    listener.sendto(data, source)


def knock(what: str) -> str:
    kind, address, port, *link = what.split("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as trying:
        trying.settimeout(PATIENCE_S)
        for name in link:
            trying.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
        try:
            trying.connect((address, int(port)))
            if kind == "udp":
                trying.send(b"knock")
            # A connection that is refused on the way may seem to stand for a moment: only words count.
            return "answered" if trying.recv(100) else "closed"
        except TimeoutError:
            return "silent"
        except OSError as error:
            return "forbidden" if error.errno in _FORBIDDEN else errno.errorcode[error.errno or 0]


if __name__ == "__main__":
    if sys.argv[1] == "answer":
        answer([int(port) for port in sys.argv[2:]])
    else:
        print(*map(knock, sys.argv[2:]), sep="\n")
