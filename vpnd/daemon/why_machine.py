"""Why packets of a peer go astray on this machine: the link, its routes, and what the kernel does with both.

Owns these checks of `vpnctl why`. Asks the kernel and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from vpnd.config import IPNetwork
from vpnd.control.reports import WhyStep
from vpnd.daemon.wanted import host_plan
from vpnd.daemon.why_case import Case
from vpnd.host import facts

_ASKED_TABLES = (253, 254, 255)  # default, main, local: the kernel's own rules ask them for every packet
_STRICT = 1  # rp_filter's value, kernel Documentation/networking/ip-sysctl


def link(case: Case) -> WhyStep:
    """Judges whether the link is as it was brought: somebody may have changed it by hand since."""
    name, following = case.link, case.instance.following
    found = facts.link(name)
    if found is None:
        return WhyStep("link", False, f"there is no link {name}", "vpnctl reload makes it again")
    if not found.is_up:
        return WhyStep("link", False, f"{name} was set down", "vpnctl reload sets it up, with its routes")
    if missing := [address for address in following.link_addresses if address not in found.addresses]:
        text = f"{name} has lost its address {', '.join(map(str, missing))}"
        return WhyStep("link", False, text, "vpnctl reload sets it again")
    if found.mtu != following.link_mtu:
        text = f"{name} has an MTU of {found.mtu}, and not {following.link_mtu}"
        return WhyStep("link", False, text, "vpnctl reload sets it again; to change it, set interface.mtu")
    return WhyStep("link", True, f"{name} is up, mtu {found.mtu}")


def ways(case: Case) -> Iterator[WhyStep]:
    """Judges the ways through the machine, between the link and everybody else on it."""
    if case.instance.config.interface.bridge is None:
        yield from (_rp_filter(case), _routes(case), _forwarding(case))
    else:  # frames come out of a port; what the bridge routes is its own business
        yield from (_bridge(case, case.instance.config.interface.bridge), _rp_filter(case), _routes(case))


def _bridge(case: Case, bridge: str) -> WhyStep:
    if facts.bridge_of(case.link) == bridge:
        return WhyStep("bridge", True, f"{case.link} is a port of {bridge}")
    text = f"{case.link} is no port of {bridge}: somebody took it out, or deleted the bridge"
    return WhyStep("bridge", False, text, "vpnctl reload puts it back")


def _rp_filter(case: Case) -> WhyStep:
    """Judges whether the kernel drops what comes from the peer, which is before any answer to it."""
    if facts.rp_filter(case.link) != _STRICT:
        return WhyStep("rp_filter", True, f"not strict on {case.link}")
    elsewhere = next(
        (each for each in case.peer.networks if each.version == 4 and _is_elsewhere(each, case.link)), None
    )
    if elsewhere is None:
        return WhyStep("rp_filter", True, "strict, and the way back leads into the link")
    return WhyStep(
        "rp_filter",
        False,
        f"strict reverse-path filtering on {case.link} drops what comes from {elsewhere}, "
        "for the way back leads elsewhere",
        f"route {elsewhere} into {case.link}, or sysctl net.ipv4.conf.{case.link}.rp_filter=2",
    )


def _routes(case: Case) -> WhyStep:
    """Judges whether what is for the peer's networks goes into the link."""
    table = case.instance.config.routing.table
    # What leads packets to a table of its own is the operator's; that the routes stand there is ours.
    apart = (
        set()
        if table in _ASKED_TABLES
        else {route.prefix for route in facts.routes_into(case.link) if route.table == table}
    )
    network = next(
        (each for each in _expected(case) if each not in apart and _is_elsewhere(each, case.link)), None
    )
    if network is None:
        place = f"{case.link}, by table {table}" if apart else case.link
        return WhyStep("routes", True, f"the peer's networks are routed into {place}")
    route = facts.route_to(network.network_address, 0)
    place = "nowhere" if route is None else f"into {route[0]}"
    remedy = f"ip route add {network} dev {case.link}"
    if not case.peer.route:
        remedy = f"set peer.{case.peer.name}.route = true, or {remedy}"
    return WhyStep("routes", False, f"{network} is routed {place}, not into {case.link}", remedy)


def _expected(case: Case) -> tuple[IPNetwork, ...]:
    """What is to be routed to the peer: with `route = false`, what it pushes and we take."""
    pushed = case.instance.following.pushes.accepted_of(case.instance.config, case.peer).routes
    return pushed if pushed and not case.peer.route else case.peer.networks


def _is_elsewhere(network: IPNetwork, link: str) -> bool:
    route = facts.route_to(network.network_address, 0)
    return route is None or route[0] != link


def _forwarding(case: Case) -> WhyStep:
    """Judges whether packets that come out of the link go on to other machines, where that is wanted."""
    plan = host_plan(case.instance.config, case.instance.secrets.identity.public)
    families = sorted({network.version for network in case.peer.networks}) or [4]
    off = [family for family in families if not facts.forwarding(case.link, family)]
    if not off:
        return WhyStep("forwarding", True, f"on for {case.link}")
    family = f"IPv{off[0]}"
    remedy = "set routing.forward = true and reload" if not plan.forward else "vpnctl reload sets it again"
    text = f"{family} packets that come out of {case.link} for other machines are not forwarded"
    dropped = case.instance.unforwarded_packets()
    if plan.forward or dropped:
        evidence = f" ({dropped} since the start)" if dropped else ""
        return WhyStep("forwarding", False, text + evidence, remedy)
    return WhyStep("forwarding", None, f"{text}; that is fine for an end machine", remedy)
