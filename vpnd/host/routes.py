"""Our routes into the link: those with our protocol number, and no others.

Owns the difference between wanted and standing routes. Never changes a route of another
program: where one stands in the way, that is an error that names it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache

from vpnd.errors import HostError
from vpnd.host.link import Step
from vpnd.host.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink
from vpnd.host.plan import ROUTE_PROTOCOL, Change, RoutePlan
from vpnd.host.route_messages import (
    RTM_DELROUTE,
    RTM_NEWROUTE,
    RouteKey,
    StandingRoute,
    list_routes,
    route_body,
)

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


def observe_routes(netlink: Netlink, index: int) -> frozenset[RoutePlan]:
    """Gives our routes that lead into the link of that index."""
    return frozenset(key.to_plan() for key in _standing(netlink, index))


def _standing(netlink: Netlink, index: int) -> Iterator[RouteKey]:
    for version in (4, 6):
        for route in list_routes(netlink, version, output=index):
            if route.protocol == ROUTE_PROTOCOL:
                yield route.key


def route_steps(
    netlink: Netlink, wanted: Iterable[RoutePlan], link: str, index: int | None, forsaken: Collection[int]
) -> list[Step]:
    """Gives the steps from our standing routes to the wanted ones; `index` is None for a link yet to come.

    `forsaken` are indices of links of ours that are about to be deleted: their routes are in
    nobody's way. HostError where a foreign route has a wanted prefix, table and metric.
    """
    standing = set(_standing(netlink, index)) if index is not None else set()
    wanted_by_key = {RouteKey.of(route): route for route in wanted}
    missing = {key: route for key, route in wanted_by_key.items() if key not in standing}
    for key in _check_foreign(netlink, missing, link, index, forsaken):
        del missing[key]
    extra = sorted(standing - wanted_by_key.keys())
    # The link may be made by an earlier step: its number is asked for with the first route.
    index_of = cache(socket.if_nametoindex)
    steps = [_remove(key, link, index_of) for key in extra]
    return steps + [_add(key, missing[key], link, index_of) for key in sorted(missing)]


def _check_foreign(
    netlink: Netlink,
    missing: dict[RouteKey, RoutePlan],
    link: str,
    index: int | None,
    forsaken: Collection[int],
) -> list[RouteKey]:
    """Gives the missing routes that the kernel has already on the link's own account."""
    served = []
    for version, table in sorted({(key.version, key.table) for key in missing}):
        for route in _routes_of_table(netlink, version, table):
            is_ours = route.protocol == ROUTE_PROTOCOL and route.output in forsaken
            if route.key not in missing or is_ours:
                continue
            if index is not None and route.output == index and route.protocol == _PROTOCOL_KERNEL:
                served.append(route.key)
                continue
            raise _conflict(missing[route.key], link, route.output, route.protocol)
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


def _routes_of_table(netlink: Netlink, version: int, table: int) -> list[StandingRoute]:
    try:
        return list(list_routes(netlink, version, table=table))
    except OSError as error:
        # The table is made with its first route.
        if error.errno == errno.ENOENT:
            return []
        raise


def _add(key: RouteKey, route: RoutePlan, link: str, index_of: Callable[[str], int]) -> Step:
    def act(netlink: Netlink) -> None:
        netlink.change_raw(route_body(key, index_of(link)), RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL)

    return Step(Change("route", f"add {route} into {link}"), act)


def _remove(key: RouteKey, link: str, index_of: Callable[[str], int]) -> Step:
    def act(netlink: Netlink) -> None:
        try:
            netlink.change_raw(route_body(key, index_of(link)), RTM_DELROUTE)
        except OSError as error:
            # The kernel took it away itself, with an address or with the link going down.
            if error.errno != errno.ESRCH:
                raise

    return Step(Change("route", f"remove {key.to_plan()} from {link}"), act)
