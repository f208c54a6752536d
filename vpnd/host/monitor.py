"""Tells when the machine's links, addresses or routes change under us.

Owns a netlink socket for a loop's reader; asks nothing and changes nothing after its start.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from vpnd.host.link import (
    IFF_LOWER_UP,
    IFF_UP,
    RTM_DELLINK,
    RTM_GETADDR,
    RTM_NEWADDR,
    address_of_message,
    observe_links,
)
from vpnd.host.netlink import Frame, Netlink, read_news
from vpnd.host.plan import ROUTE_PROTOCOL, Interface
from vpnd.host.route_messages import RTM_NEWROUTE, RTN_UNICAST
from vpnd.host.rtnl import ifaddrmsg, ifinfmsg

# linux/rtnetlink.h: RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE, rules of both
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400 | 0x80 | 0x40000
_IFA_F_DADFAILED, _IFA_F_TENTATIVE = 0x8, 0x40
_RTM_F_CLONED = 0x200
_RTN_PROHIBIT = 8
_RTN_REFUSING = range(6, _RTN_PROHIBIT + 1)  # blackhole, unreachable, prohibit
_BUFFER_BYTES = 1024 * 1024
# struct rtmsg behind the header: family, dst_len, src_len, tos, table, protocol, scope, type, flags
_RTMSG = struct.Struct("=16x8BI")


@dataclass(frozen=True, slots=True)
class LinkGone:
    """A link of this name was there and is not: deleted, renamed, or moved to another namespace."""

    name: str


@dataclass(frozen=True, slots=True)
class AddressesChanged:
    """These links gained or lost addresses; a mere renewal of one does not count."""

    links: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RoutesChanged:
    """Packets may leave another way: a route came or went, a rule went, a link went up or down, into a bridge
    or out of one.
    """


MonitorEvent = LinkGone | AddressesChanged | RoutesChanged


@dataclass(frozen=True, slots=True)
class _State:
    """Of a link; `master` is the index of the bridge or the like that it is a port of."""

    is_running: bool
    master: int | None


_AWAY = _State(is_running=False, master=None)


class Monitor:
    """An open watch. Give `fileno` to the loop's add_reader and call `read` when it is readable.

    It watches the network namespace of the thread that made it; `read` works in any thread.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
        )
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._socket.bind((0, _GROUPS))
            self._links, self._states, self._addresses = _survey()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Gives the descriptor to wait on; it stays the monitor's own."""
        return self._socket.fileno()

    def close(self) -> None:
        """Ends the watch."""
        self._socket.close()

    def read(self) -> list[MonitorEvent]:
        """Gives what changed since the last read, each thing once; never waits, never raises OSError.

        Where the kernel dropped news because nobody read for long, what stands is looked at
        anew and compared, and the routes count as changed.
        """
        links_before, addresses_before = dict(self._links), set(self._addresses)
        is_route_news = False
        for frame in read_news(self._socket):
            if frame is not None:
                is_route_news = self._take(frame) or is_route_news
                continue
            with contextlib.suppress(OSError):
                self._links, self._states, self._addresses = _survey()
            is_route_news = True
        return self._news(links_before, addresses_before, is_route_news=is_route_news)

    def _news(
        self, links: dict[int, str], addresses: set[tuple[int, Interface]], *, is_route_news: bool
    ) -> list[MonitorEvent]:
        events: list[MonitorEvent] = []
        gone = [name for index, name in links.items() if self._links.get(index) != name]
        events += [LinkGone(name) for name in sorted(gone)]
        touched = {index for index, _ in addresses ^ self._addresses}
        if touched:
            names = {self._links.get(index) or links.get(index, "") for index in touched}
            events.append(AddressesChanged(frozenset(names - {""})))
        if is_route_news:
            events.append(RoutesChanged())
        return events

    def _take(self, frame: Frame) -> bool:
        """Notes one message; tells whether packets may leave another way after it."""
        match frame.kind:
            case 16 | 17:  # RTM_NEWLINK, RTM_DELLINK
                return self._take_link(frame)
            case 20 | 21:  # RTM_NEWADDR, RTM_DELADDR
                self._take_address(frame)
                return False
            case 24 | 25:  # RTM_NEWROUTE, RTM_DELROUTE
                return _is_worth_telling(frame)
            case 33:  # RTM_DELRULE
                return True
            case _:
                return False

    def _take_link(self, frame: Frame) -> bool:
        message = ifinfmsg(frame.data)
        message.decode()
        # AF_BRIDGE messages speak of a bridge's port; the link itself stays where it is.
        if message["family"] != socket.AF_UNSPEC:
            return False
        index = message["index"]
        before = self._states.get(index, _AWAY)
        if frame.kind == RTM_DELLINK:
            self._links.pop(index, None)
            self._states.pop(index, None)
            self._addresses = {entry for entry in self._addresses if entry[0] != index}
            return before.is_running
        self._links[index] = message.get_attr("IFLA_IFNAME")
        self._states[index] = _State(_runs(message["flags"]), message.get_attr("IFLA_MASTER"))
        return before != self._states[index]

    def _take_address(self, frame: Frame) -> None:
        message = ifaddrmsg(frame.data)
        message.decode()
        entry = (message["index"], address_of_message(message))
        if frame.kind == RTM_NEWADDR and _is_usable(message):
            self._addresses.add(entry)
        else:
            self._addresses.discard(entry)


def _is_usable(message: Any) -> bool:
    # An IPv6 address can be sent from only after the check for a duplicate has ended well.
    return not (message.get_attr("IFA_FLAGS") or message["flags"]) & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED)


def _runs(flags: int) -> bool:
    return bool(flags & IFF_UP and flags & IFF_LOWER_UP)


def _is_worth_telling(frame: Frame) -> bool:
    # Read by hand: a machine with a full routing table may bring thousands of these a second.
    *_, protocol, _, kind, flags = _RTMSG.unpack_from(frame.data)
    if flags & _RTM_F_CLONED or not (kind == RTN_UNICAST or kind in _RTN_REFUSING):
        return False
    # Our own new routes are no news to us; a loss of one is.
    return not (frame.kind == RTM_NEWROUTE and protocol == ROUTE_PROTOCOL)


def _survey() -> tuple[dict[int, str], dict[int, _State], set[tuple[int, Interface]]]:
    with Netlink() as netlink:
        links = observe_links(netlink).values()
        addresses = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            message = ifaddrmsg()
            message["family"] = family
            for answer in filter(_is_usable, netlink.dump(message, RTM_GETADDR)):
                addresses.add((answer["index"], address_of_message(answer)))
    return (
        {link.index: link.name for link in links},
        {link.index: _State(link.is_up and link.has_carrier, link.master) for link in links},
        addresses,
    )
