"""When a receiver of the lab ends: told to by standard input, and nothing more on its way."""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Iterator

_QUIET_S = 1.0  # a busy machine may hold back for so long what is under way


def until_told(listener: socket.socket) -> Iterator[None]:
    """One turn for each time there is something to read, until a line or the end of standard input."""
    while True:
        readable, _, _ = select.select([listener, sys.stdin], (), ())
        if listener in readable:
            yield
        elif not select.select([listener], (), (), _QUIET_S)[0]:
            return
