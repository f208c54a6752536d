"""Our routes into the link: those with our protocol number, and no others.

Owns the difference between wanted and standing routes. Never changes a route of another
program: where one stands in the way, that is an error that names it.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Callable, Collection, Iterable
from functools import cache
from typing import Any

from vpnd.errors import HostError
from vpnd.host.link import Step
from vpnd.host.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink
from vpnd.host.plan import ROUTE_PROTOCOL, Change, Network, RoutePlan
from vpnd.host.rtnl import rtmsg

# linux/rtnetlink.h
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTN_UNICAST, RTN_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_PRIORITY, _RTA_TABLE = 1, 4, 6, 15
_RTMSG = struct.Struct("=8BI")  # family, bits of dst, of src, tos, table, protocol, scope, type; flags
_ATTRIBUTE = struct.Struct("=HH")  # its length with this, its kind
_NUMBER = struct.Struct("=HHI")
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_PROTOCOL_KERNEL = 2
_PROTOCOL_NAMES = {
    2: "kernel",
    3: "boot",
    4: "static",
    9: "ra",
    12: "bird",
    16: "dhcp",
    186: "bgp",
    188: "ospf",
}

Key = tuple[Network, int, int]


def observe_routes(netlink: Netlink, index: int) -> frozenset[RoutePlan]:
    """Gives our routes that lead into the link of that index."""
    found = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        message = rtmsg()
        message["family"], message["proto"] = family, ROUTE_PROTOCOL
        message["attrs"] = [["RTA_OIF", index]]
        for answer in netlink.dump(message, RTM_GETROUTE):
            if answer["proto"] == ROUTE_PROTOCOL and answer.get_attr("RTA_OIF") == index:
                found.add(RoutePlan(*_key_of_message(answer)))
    return frozenset(found)


def route_steps(
    netlink: Netlink, wanted: Iterable[RoutePlan], link: str, index: int | None, forsaken: Collection[int]
) -> list[Step]:
    """Gives the steps from our standing routes to the wanted ones; `index` is None for a link yet to come.

    `forsaken` are indices of links of ours that are about to be deleted: their routes are in
    nobody's way. HostError where a foreign route has a wanted prefix, table and metric.
    """
    standing = {route.key: route for route in observe_routes(netlink, index)} if index is not None else {}
    wanted_by_key = {route.key: route for route in wanted}
    missing = {key: route for key, route in wanted_by_key.items() if key not in standing}
    for key in _check_foreign(netlink, missing, link, index, forsaken):
        del missing[key]
    extra = [route for key, route in standing.items() if key not in wanted_by_key]
    # The link may be made by an earlier step: its number is asked for with the first route.
    index_of = cache(socket.if_nametoindex)
    steps = [_remove(route, link, index_of) for route in sorted(extra, key=str)]
    return steps + [_add(route, link, index_of) for route in sorted(missing.values(), key=str)]


def _check_foreign(
    netlink: Netlink, missing: dict[Key, RoutePlan], link: str, index: int | None, forsaken: Collection[int]
) -> list[Key]:
    """Gives the missing routes that the kernel has already on the link's own account."""
    served = []
    for family, table in sorted({(key[0].version, key[1]) for key in missing}):
        for answer in _routes_of_table(netlink, family, table):
            key = _key_of_message(answer)
            output, protocol = answer.get_attr("RTA_OIF"), answer["proto"]
            if key not in missing or (protocol == ROUTE_PROTOCOL and output in forsaken):
                continue
            if index is not None and output == index and protocol == _PROTOCOL_KERNEL:
                served.append(key)
                continue
            raise _conflict(missing[key], link, output, protocol)
    return served


def _conflict(route: RoutePlan, link: str, output: int | None, protocol: int) -> HostError:
    through = _name_of(output) if output is not None else "several ways or none"
    by = _PROTOCOL_NAMES.get(protocol, str(protocol))
    return HostError(
        f"route: add {route} into {link}",
        f"a route that is not ours has this prefix and metric already (through {through}, protocol {by}); "
        "delete it, choose another [routing] metric, or set route = false for the peer",
    )


def _name_of(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"link {index}"


def _routes_of_table(netlink: Netlink, version: int, table: int) -> list[Any]:
    message = rtmsg()
    message["family"] = socket.AF_INET if version == 4 else socket.AF_INET6
    message["attrs"] = [["RTA_TABLE", table]]
    try:
        answers = netlink.dump(message, RTM_GETROUTE)
    except OSError as error:
        # The table is made with its first route.
        if error.errno == errno.ENOENT:
            return []
        raise
    return [answer for answer in answers if _table_of(answer) == table]


def _table_of(message: Any) -> int:
    return int(message.get_attr("RTA_TABLE") or message["table"])


def _key_of_message(message: Any) -> Key:
    destination = message.get_attr("RTA_DST")
    if destination is None:
        # The default route, which the kernel sends without its zeros.
        destination = str(ipaddress.ip_address(bytes(4 if message["family"] == socket.AF_INET else 16)))
    prefix = ipaddress.ip_network(f"{destination}/{message['dst_len']}", strict=False)
    return (prefix, _table_of(message), message.get_attr("RTA_PRIORITY") or 0)


def _route_body(route: RoutePlan, index: int) -> bytes:
    """Writes an rtmsg and its attributes (linux/rtnetlink.h) by hand: a hub has thousands of routes, and
    pyroute2 takes fifteen times as long for each.
    """
    prefix, table, metric = route.key
    is_ipv4 = prefix.version == 4
    head = _RTMSG.pack(
        socket.AF_INET if is_ipv4 else socket.AF_INET6,
        prefix.prefixlen,
        0,
        0,
        table if table < 256 else 0,
        ROUTE_PROTOCOL,
        _SCOPE_LINK if is_ipv4 else _SCOPE_UNIVERSE,
        RTN_UNICAST,
        0,
    )
    address = prefix.network_address.packed
    parts = [head, _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address), _RTA_DST), address]
    numbers = [(_RTA_TABLE, table), (_RTA_OIF, index)]
    if metric:
        numbers.append((_RTA_PRIORITY, metric))
    parts += [_NUMBER.pack(_NUMBER.size, kind, value) for kind, value in numbers]
    return b"".join(parts)


def _add(route: RoutePlan, link: str, index_of: Callable[[str], int]) -> Step:
    def act(netlink: Netlink) -> None:
        netlink.change_raw(_route_body(route, index_of(link)), RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL)

    return Step(Change("route", f"add {route} into {link}"), act)


def _remove(route: RoutePlan, link: str, index_of: Callable[[str], int]) -> Step:
    def act(netlink: Netlink) -> None:
        try:
            netlink.change_raw(_route_body(route, index_of(link)), RTM_DELROUTE)
        except OSError as error:
            # The kernel took it away itself, with an address or with the link going down.
            if error.errno != errno.ESRCH:
                raise

    return Step(Change("route", f"remove {route} from {link}"), act)
