"""Tells when somebody touches one table of nftables, be it us.

Owns a netlink socket for a loop's reader; asks nothing and changes nothing.
"""

from __future__ import annotations

import socket

from vpnd.host.netlink import read_news, split_attributes
from vpnd.host.table import table_name

_NETLINK_NETFILTER = 12
_NFNLGRP_NFTABLES = 7  # linux/netfilter/nfnetlink.h
_SUBSYSTEM_NFTABLES = 10
_AFTER_HEADERS = 16 + 4  # struct nlmsghdr, struct nfgenmsg
# The attribute 1 of a message about a table, chain, rule, set or element names the table (NFTA_*_TABLE).
_NFTA_TABLE = 1
_BUFFER_BYTES = 1024 * 1024


class TableMonitor:
    """An open watch over one instance's table. Give `fileno` to the loop's add_reader, then call `read`.

    It watches the network namespace of the thread that made it. OSError.
    """

    def __init__(self, instance: str) -> None:
        self._name = table_name(instance).encode() + b"\0"
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            _NETLINK_NETFILTER,
        )
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._socket.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Gives the descriptor to wait on; it stays the monitor's own."""
        return self._socket.fileno()

    def close(self) -> None:
        """Ends the watch."""
        self._socket.close()

    def read(self) -> bool:
        """Tells whether the table may have changed since the last read; never waits, never raises OSError."""
        is_touched = False
        for frame in read_news(self._socket):
            # Of news that the kernel dropped, ours may have been one.
            is_touched = is_touched or frame is None or self._is_ours(frame.kind, frame.data)
        return is_touched

    def _is_ours(self, kind: int, data: bytes) -> bool:
        if kind >> 8 != _SUBSYSTEM_NFTABLES:
            return False
        for attribute, begin, end in split_attributes(data, _AFTER_HEADERS):
            if attribute == _NFTA_TABLE:
                return data[begin:end] == self._name
        return False
