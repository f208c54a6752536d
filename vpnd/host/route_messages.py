"""Routes in the kernel's own words: rtmsg and its attributes (linux/rtnetlink.h), written and read by hand.

A hub has thousands of routes, and pyroute2 takes fifteen times as long for each.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from vpnd.host.netlink import Netlink, pack_number, split_attributes
from vpnd.host.plan import ROUTE_PROTOCOL, RoutePlan

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTN_UNICAST, RTN_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_PRIORITY, _RTA_METRICS, _RTA_TABLE = 1, 4, 6, 8, 15
_RTAX_MTU = 2
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_RTMSG = struct.Struct("=8BI")  # family, bits of dst, of src, tos, table, protocol, scope, type; flags
_ATTRIBUTE = struct.Struct("=HH")  # its length with this, its kind
_U32 = struct.Struct("=I")
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_ADDRESS_SIZES = {int(socket.AF_INET): 4, int(socket.AF_INET6): 16}


class RouteKey(NamedTuple):
    """What the kernel allows once only. `address` is in network order, `metric` what it really stores."""

    address: bytes
    bits: int
    table: int
    metric: int

    @classmethod
    def of(cls, route: RoutePlan) -> RouteKey:
        prefix, table, metric = route.key
        return cls(prefix.network_address.packed, prefix.prefixlen, table, metric)

    @property
    def version(self) -> int:
        """Of IP: 4 or 6."""
        return 4 if len(self.address) == 4 else 6

    def to_plan(self) -> RoutePlan:
        return RoutePlan(ipaddress.ip_network((self.address, self.bits)), self.table, self.metric)


class StandingRoute(NamedTuple):
    """A route as the kernel has it. `output` is None where it leads nowhere or several ways, `mtu` where
    it has none of its own.
    """

    key: RouteKey
    output: int | None
    protocol: int
    mtu: int | None


def list_routes(
    netlink: Netlink, version: int, *, output: int | None = None, table: int | None = None
) -> Iterator[StandingRoute]:
    """Gives the routes of one IP version, of one link or table where that is named. OSError."""
    body = _RTMSG.pack(_FAMILIES[version], 0, 0, 0, 0, 0, 0, 0, 0)
    for kind, value in ((_RTA_OIF, output), (_RTA_TABLE, table)):
        if value is not None:
            body += pack_number(kind, value)
    for message in netlink.dump_raw(body, RTM_GETROUTE):
        route = _read(message)
        # Kernels before 4.20 do not filter.
        if (output is None or route.output == output) and (table is None or route.key.table == table):
            yield route


def _read(message: bytes) -> StandingRoute:
    family, bits, _, _, table, protocol, *_ = _RTMSG.unpack_from(message)
    address, output, metric, mtu = bytes(_ADDRESS_SIZES[family]), None, 0, None
    for kind, begin, end in split_attributes(message, _RTMSG.size):
        if kind == _RTA_DST:
            address = message[begin:end]
        elif kind == _RTA_OIF:
            (output,) = _U32.unpack_from(message, begin)
        elif kind == _RTA_PRIORITY:
            (metric,) = _U32.unpack_from(message, begin)
        elif kind == _RTA_TABLE:
            (table,) = _U32.unpack_from(message, begin)
        elif kind == _RTA_METRICS:
            mtu = _mtu_among(message[begin:end])
    return StandingRoute(RouteKey(address, bits, table, metric), output, protocol, mtu)


def _mtu_among(metrics: bytes) -> int | None:
    for kind, begin, _ in split_attributes(metrics, 0):
        if kind == _RTAX_MTU:
            return int(_U32.unpack_from(metrics, begin)[0])
    return None


def route_body(key: RouteKey, index: int) -> bytes:
    """Writes one of our routes into the link of that index, for RTM_NEWROUTE and RTM_DELROUTE."""
    is_ipv4 = key.version == 4
    table = key.table if key.table < 256 else 0
    scope = _SCOPE_LINK if is_ipv4 else _SCOPE_UNIVERSE
    parts = [
        _RTMSG.pack(_FAMILIES[key.version], key.bits, 0, 0, table, ROUTE_PROTOCOL, scope, RTN_UNICAST, 0),
        _ATTRIBUTE.pack(_ATTRIBUTE.size + len(key.address), _RTA_DST),
        key.address,
        pack_number(_RTA_TABLE, key.table),
        pack_number(_RTA_OIF, index),
    ]
    if key.metric:
        parts.append(pack_number(_RTA_PRIORITY, key.metric))
    return b"".join(parts)
