"""Plans as the tests write them: short, with literals."""

from __future__ import annotations

import ipaddress
from typing import Any

from vpnd.host import HostPlan, LinkPlan, RoutePlan


def a_link(*addresses: str, name: str = "vpn-site", **rest: Any) -> LinkPlan:
    """A link, TUN unless `type` says otherwise."""
    kind = rest.pop("type", "tun")
    return LinkPlan(name=name, type=kind, addresses=tuple(map(ipaddress.ip_interface, addresses)), **rest)


def a_route(prefix: str, table: int = 254, metric: int = 50) -> RoutePlan:
    return RoutePlan(ipaddress.ip_network(prefix), table, metric)


def a_plan(link: LinkPlan, *routes: RoutePlan, masquerade: tuple[str, ...] = (), **rest: Any) -> HostPlan:
    instance = rest.pop("instance", "site")
    networks = tuple(map(ipaddress.ip_network, masquerade))
    return HostPlan(instance, link, frozenset(routes), masquerade=networks, **rest)


def a_site(**rest: Any) -> HostPlan:
    """A plan that uses everything, both IP versions."""
    link = a_link("10.255.0.1/30", "fd00:ff::1/64", mtu=1400, txqueuelen=700)
    routes = (a_route("10.20.0.0/16"), a_route("fd00:20::/48"), a_route("10.30.0.0/16", table=1000))
    return a_plan(link, *routes, masquerade=("10.20.0.0/16", "fd00:20::/48"), forward=True, **rest)
