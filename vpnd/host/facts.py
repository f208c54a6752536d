"""What the machine does with packets of ours, read for diagnosis.

Owns questions to the kernel and changes nothing. A question that the kernel does not answer
gives None.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from vpnd.endpoint import Endpoint
from vpnd.host.link import observe_addresses, observe_link
from vpnd.host.netlink import Netlink
from vpnd.host.plan import Interface, RoutePlan
from vpnd.host.route_messages import RTM_GETROUTE, RTN_LOCAL, RTN_UNICAST, list_routes
from vpnd.host.routes import observe_routes
from vpnd.host.rtnl import rtmsg
from vpnd.host.sysctl import Sysctls

_SO_MARK = 36  # asm-generic/socket.h; Python has no name for it

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """A standing link; `type` is "tun", "tap" or what else the kernel calls it ("" for hardware)."""

    name: str
    type: str
    is_up: bool
    has_carrier: bool
    mtu: int
    txqueuelen: int
    mac: bytes | None
    addresses: frozenset[Interface]


def link(name: str) -> LinkFacts | None:
    """Gives what stands under that name, None where nothing does."""
    with Netlink() as netlink:
        found = observe_link(netlink, name)
        if found is None:
            return None
        addresses = observe_addresses(netlink, found.index)
    return LinkFacts(
        found.name,
        found.kind,
        found.is_up,
        found.has_carrier,
        found.mtu,
        found.txqueuelen,
        found.mac,
        addresses,
    )


def bridge_of(link: str) -> str | None:
    """Names the bridge that the link is a port of."""
    try:
        with Netlink() as netlink:
            found = observe_link(netlink, link)
        return None if found is None or found.master is None else socket.if_indextoname(found.master)
    except OSError:
        return None


def rp_filter(link: str) -> int | None:
    """Gives the reverse-path filter that holds for the link: 0 off, 1 strict, 2 loose.

    The kernel takes the larger of the link's own value and the machine's. IPv6 has none.
    """
    sysctls = Sysctls()
    values = [sysctls.read(f"net/ipv4/conf/{name}/rp_filter") for name in ("all", link)]
    return max(int(value) for value in values if value is not None) if None not in values else None


def forwarding(link: str, family: int) -> bool | None:
    """Tells whether packets of IP version `family` (4 or 6) that come in by the link are routed on.

    IPv4 asks the link; IPv6 the whole machine, or the link's force_forwarding (Linux 6.17 on).
    """
    sysctls = Sysctls()
    if family == 4:
        value = sysctls.read(f"net/ipv4/conf/{link}/forwarding")
        return None if value is None else value != "0"
    values = [
        sysctls.read(f"net/ipv6/conf/{name}") for name in ("all/forwarding", f"{link}/force_forwarding")
    ]
    return None if values[0] is None else any(value not in (None, "0") for value in values)


def source_to(endpoint: Endpoint, mark: int = 0) -> Address | None:
    """Gives our own address that a datagram to `endpoint` with that fwmark would leave from.

    None without a way there. Asked by connecting a UDP socket, which sends nothing and is cheaper by
    far than netlink.
    """
    family = socket.AF_INET if endpoint.address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asked:
            if mark:
                asked.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
            asked.connect(endpoint.to_sockaddr())
            return ipaddress.ip_address(asked.getsockname()[0].partition("%")[0])
    except OSError:
        return None


def routes_into(link: str) -> frozenset[RoutePlan]:
    """Gives the routes of ours that stand in any table and lead into the link."""
    try:
        with Netlink() as netlink:
            return observe_routes(netlink, socket.if_nametoindex(link))
    except OSError:
        return frozenset()


def least_route_mtu(link: str) -> int | None:
    """Gives the smallest MTU that a route into the link has of its own; None where none has one."""
    found: list[int] = []
    with Netlink() as netlink:
        standing = observe_link(netlink, link)
        if standing is None:
            return None
        for version in (4, 6):
            routes = list_routes(netlink, version, output=standing.index)
            found += [route.mtu for route in routes if route.mtu is not None]
    return min(found, default=None)


def route_to(address: Address, mark: int = 0) -> tuple[str, Address | None] | None:
    """Gives the link and the source address that a packet to `address` with that fwmark leaves by.

    None where the machine has no route for it, or one that refuses.
    """
    message = rtmsg()
    message["family"] = socket.AF_INET if address.version == 4 else socket.AF_INET6
    message["dst_len"] = address.max_prefixlen
    message["attrs"] = [["RTA_DST", str(address)]]
    if mark:
        message["attrs"].append(["RTA_MARK", mark])
    try:
        with Netlink() as netlink:
            answer = netlink.get(message, RTM_GETROUTE)
        if answer["type"] not in (RTN_UNICAST, RTN_LOCAL):
            return None
        name = socket.if_indextoname(answer.get_attr("RTA_OIF"))
    except OSError:
        return None
    source = answer.get_attr("RTA_PREFSRC")
    return name, ipaddress.ip_address(source) if source else None
