"""Why a peer does not work: the checks in the order in which one breaks the next.

Owns the questions and the words of the remedies. Asks the Device, the plane's counters and the
machine; changes nothing, and sends nothing but one byte to see whether a port is closed.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from vpnd.config import IPNetwork, PeerConfig
from vpnd.control import WhyReport, WhyStep
from vpnd.daemon import permits, reasons
from vpnd.daemon.clock import boottime
from vpnd.daemon.instance import Instance
from vpnd.daemon.wanted import host_plan
from vpnd.endpoint import Endpoint, EndpointName
from vpnd.host import facts
from vpnd.plane.counters import PeerCounters
from vpnd.protocol.peer import PeerSnapshot

PORT_ANSWER_S = 0.5  # for an ICMP "port unreachable" to come back
_ASKED_TABLES = (253, 254, 255)  # default, main, local: the kernel's own rules ask them for every packet
_ASIDE = ("push", "dns")  # parts without which a tunnel still carries packets
_STRICT = 1  # rp_filter's value, kernel Documentation/networking/ip-sysctl
RECENT_S = 300.0  # refusals and notices older than this explain nothing present


@dataclass(frozen=True, slots=True)
class _Case:
    """Everything the checks look at."""

    instance: Instance
    peer: PeerConfig
    snapshot: PeerSnapshot
    counters: PeerCounters | None
    now: float

    @property
    def is_up(self) -> bool:
        return self.snapshot.current_index is not None

    @property
    def link(self) -> str:
        return self.instance.config.interface.name


async def report(instance: Instance, peer: PeerConfig) -> WhyReport:
    """Runs the checks for one peer and gives all of them; the first that failed is the cause."""
    if not peer.enabled:
        step = WhyStep("config", False, f"{peer.name} is disabled", f"vpnctl peer unblock {peer.name}")
        return WhyReport(peer.name, (step,))
    key = peer.public_key
    case = _Case(
        instance, peer, instance.driver.device.snapshot(key), instance.driver.counters(key), boottime()
    )
    steps = [WhyStep("config", True, f"{peer.name} is configured and enabled"), *_plane(case), _name(case)]
    steps += await asyncio.to_thread(lambda: [*_outer_route(case), *_socket(case)])
    steps.append(await _handshake(case))
    steps += [_path(case), *_runs(case)]
    steps += _inner(case)
    steps += _pushed(case)
    steps += [
        WhyStep(part, False, text, "mend what the text names; it is tried again by itself")
        for part, text in instance.failures.items()
        if part in _ASIDE
    ]
    steps += await asyncio.to_thread(lambda: [*_routes(case), *_rp_filter(case), *_forwarding(case)])
    refused = await asyncio.to_thread(permits.refused_lately, instance.config)
    steps += permits.why_steps(instance.config, peer.name, refused)
    return WhyReport(peer.name, tuple(steps))


# -- the way to the peer --


def _plane(case: _Case) -> Iterator[WhyStep]:
    broken = {part: text for part, text in case.instance.failures.items() if part not in _ASIDE}
    for part, text in broken.items():
        yield WhyStep(part, False, text, "it is being brought back; see the log for what the kernel answers")
    if not broken:
        yield WhyStep("plane", True, "link and plane stand")


def _name(case: _Case) -> WhyStep:
    wanted = case.peer.endpoint
    if not isinstance(wanted, EndpointName):
        return WhyStep("name", None, f"no name to resolve: {wanted or 'the peer calls us'}")
    error = case.instance.resolver.error_of(case.peer.name)
    if error is None:
        return WhyStep(
            "name", True, f"{wanted.host} resolves to {case.snapshot.endpoint or 'an address soon'}"
        )
    return WhyStep(
        "name",
        False,
        f"{wanted.host} {error}",
        f"mend peer.{case.peer.name}.endpoint, or this machine's name servers",
    )


def _outer_route(case: _Case) -> Iterator[WhyStep]:
    endpoint = case.snapshot.endpoint
    if endpoint is None:
        return
    route = facts.route_to(endpoint.address, case.instance.config.local.fwmark)
    if route is None:
        text = f"this machine has no route to {endpoint.address}"
        yield WhyStep("outer route", False, text, "give it a route, such as a default route")
    elif route[0] == case.link:
        yield WhyStep(
            "outer route",
            False,
            f"the route to {endpoint.address} leads into {case.link} itself, a loop",
            f"leave {endpoint.address} out of the peer's networks, or give it a route of its own",
        )
    else:
        yield WhyStep("outer route", True, f"{endpoint.address} is reached by {route[0]}")


def _socket(case: _Case) -> Iterator[WhyStep]:
    bound = case.instance.listen_endpoints()
    endpoint = case.snapshot.endpoint
    if endpoint is not None and all(type(each.address) is not type(endpoint.address) for each in bound):
        family = f"IPv{endpoint.address.version}"
        remedy = f"add an {family} address to local.listen, such as " + (
            '"0.0.0.0:5180"' if endpoint.address.version == 4 else '"[::]:5180"'
        )
        yield WhyStep("socket", False, f"no socket of ours speaks {family}, as {endpoint} asks for", remedy)
    elif not bound:
        yield WhyStep(
            "socket", False, "the plane has no UDP socket", "see the log for why it could not be opened"
        )
    else:
        yield WhyStep("socket", True, f"udp {', '.join(map(str, bound))}")


# -- the handshake --


async def _handshake(case: _Case) -> WhyStep:
    snapshot = case.snapshot
    if case.is_up:
        age = case.now - (snapshot.last_handshake_at or case.now)
        return WhyStep("handshake", True, f"up with {snapshot.endpoint}, last handshake {age:.0f} s ago")
    if snapshot.last_refusal is not None and case.now - (snapshot.last_refusal_at or 0.0) < RECENT_S:
        text, remedy = reasons.explain_refusal(snapshot.last_refusal, case.peer)
        return WhyStep("handshake", False, text, remedy)
    closed = await _closed_port(case)
    if closed is not None:
        return closed
    stranger = case.instance.driver.strangers.latest(case.now - RECENT_S, snapshot.endpoint)
    if stranger is not None:
        text, remedy = reasons.explain_refusal(stranger.reason, case.peer)
        return WhyStep("handshake", False, f"{stranger.source} was turned away: {text}", remedy)
    return _unanswered(case)


def _unanswered(case: _Case) -> WhyStep:
    if case.snapshot.endpoint is None:
        return WhyStep(
            "handshake",
            False,
            "the peer has not called, and no endpoint is configured to call it at",
            f"start vpnd there, or set peer.{case.peer.name}.endpoint",
        )
    return WhyStep(
        "handshake",
        False,
        f"{case.snapshot.endpoint} has not answered {case.snapshot.attempts} initiations",
        "a firewall on the way, a wrong public or preshared key, or a clock that went back: "
        "`vpnctl why` on the other machine can tell which",
    )


async def _closed_port(case: _Case) -> WhyStep | None:
    endpoint = case.snapshot.endpoint
    if endpoint is None:
        return None
    refusal = await _port_refusal(endpoint, case.instance.config.local.fwmark)
    if refusal is None:
        return None
    return WhyStep(
        "handshake",
        False,
        f"{endpoint}: {refusal}",
        "start vpnd there, or mend the port in the endpoint here or in local.listen there",
    )


async def _port_refusal(endpoint: Endpoint, fwmark: int) -> str | None:
    """Sends one zero byte from a socket of its own and tells what the network answers, if anything."""
    is_ipv4 = endpoint.address.version == 4
    probe = socket.socket(socket.AF_INET if is_ipv4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        probe.setblocking(False)
        if fwmark:
            probe.setsockopt(socket.SOL_SOCKET, 36, fwmark)  # SO_MARK
        probe.connect(endpoint.to_sockaddr())
        probe.send(b"\0")
        await asyncio.wait_for(asyncio.get_running_loop().sock_recv(probe, 1), PORT_ANSWER_S)
    except TimeoutError:
        return None
    except ConnectionRefusedError:
        return "the machine answers that nothing listens on this port"
    except OSError as error:
        return f"the network answers: {error.strerror}"
    finally:
        probe.close()
    return None


# -- inside the tunnel --


def _path(case: _Case) -> WhyStep:
    """A narrow path is no fault: senders are told what fits. It costs those who do not listen."""
    snapshot = case.snapshot
    if not snapshot.mtu:
        known = "not known yet" if snapshot.path_mtu is None else "carries all that the link does"
        return WhyStep("path", None if snapshot.path_mtu is None else True, f"the path's MTU: {known}")
    told = case.counters.drops.get("path_too_large", 0) if case.counters else 0
    carries = "" if snapshot.path_mtu is None else f"the path carries {snapshot.path_mtu} bytes: "
    return WhyStep(
        "path",
        None,
        f"{carries}packets above {snapshot.mtu} are sent back to their senders ({told} so far); "
        f"interface.mtu = {snapshot.mtu} on both machines would spare that",
        f"set interface.mtu = {snapshot.mtu} on both machines",
    )


def _runs(case: _Case) -> Iterator[WhyStep]:
    """A path that refuses segmentation offload costs speed, and no packet."""
    if case.counters is not None and case.counters.gso_error:
        error = os.strerror(case.counters.gso_error)
        yield WhyStep("offload", None, f"the path takes no runs of datagrams ({error}); they are sent singly")


def _inner(case: _Case) -> Iterator[WhyStep]:
    if case.counters is not None and (count := case.counters.drops.get("data_source", 0)):
        yield WhyStep(
            "networks",
            False,
            f"{count} packets from {case.peer.name} were dropped: inner source not in the peer's networks",
            f"add the address to peer.{case.peer.name}.networks here, or use another address there",
        )
        return
    for notice in case.snapshot.notices:
        if case.now - notice.at < RECENT_S:
            text, remedy = reasons.explain_notice(notice.reason, notice.count, case.peer)
            yield WhyStep("networks", False, text, remedy)
            return
    if case.instance.config.interface.type == "tun" and not case.peer.networks:
        yield WhyStep(
            "networks",
            False,
            "the peer has no networks: nothing is sent to it and nothing taken from it",
            f"set peer.{case.peer.name}.networks",
        )
        return
    yield WhyStep("networks", True, ", ".join(map(str, case.peer.networks[:8])) or "any Ethernet frame")


def _pushed(case: _Case) -> Iterator[WhyStep]:
    """What the peer wants set here. That a kind of setting is not accepted is a choice, and no fault."""
    config, pushes = case.instance.config, case.instance.following.pushes
    told = pushes.of(case.peer)
    if told is None or not told.is_push:
        if case.is_up and case.instance.following.awaits_addresses and "address" in case.peer.accept:
            text = f"{case.peer.name} gives this machine no address"
            yield WhyStep(
                "push", False, text, "there, set [pool], and leave other addresses out of our networks"
            )
        return
    refusals = pushes.refusals(config, case.peer)
    faults = [refusal for refusal in refusals if refusal.is_fault]
    if faults:
        name = case.peer.name
        remedy = f"change [push] on {name}, or peer.{name}.networks and interface.mtu here"
        yield WhyStep("push", False, f"refused: {'; '.join(map(str, faults))}", remedy)
    elif refusals:
        yield WhyStep("push", None, f"not taken: {'; '.join(map(str, refusals))}")
    else:
        yield WhyStep("push", True, "all that it pushes is in force")


def _expected(case: _Case) -> tuple[IPNetwork, ...]:
    """What is to be routed to the peer: with `route = false`, what it pushes and we take."""
    routes = case.instance.following.pushes.accepted_of(case.instance.config, case.peer).routes
    return routes if routes and not case.peer.route else case.peer.networks


def _routes(case: _Case) -> Iterator[WhyStep]:
    table = case.instance.config.routing.table
    # What leads packets to a table of its own is the operator's; that the routes stand there is ours.
    apart = (
        set()
        if table in _ASKED_TABLES
        else {route.prefix for route in facts.routes_into(case.link) if route.table == table}
    )
    elsewhere = [
        (network, route)
        for network in _expected(case)
        if network not in apart
        and ((route := facts.route_to(network.network_address, 0)) is None or route[0] != case.link)
    ]
    if not elsewhere:
        place = f"{case.link}, by table {table}" if apart else case.link
        yield WhyStep("routes", True, f"the peer's networks are routed into {place}")
        return
    network, route = elsewhere[0]
    place = "nowhere" if route is None else f"into {route[0]}"
    remedy = f"ip route add {network} dev {case.link}"
    if not case.peer.route:
        remedy = f"set peer.{case.peer.name}.route = true, or {remedy}"
    yield WhyStep("routes", False, f"{network} is routed {place}, not into {case.link}", remedy)


def _rp_filter(case: _Case) -> Iterator[WhyStep]:
    if facts.rp_filter(case.link) != _STRICT:
        yield WhyStep("rp_filter", True, f"not strict on {case.link}")
        return
    elsewhere = [
        network
        for network in case.peer.networks
        if network.version == 4
        and ((route := facts.route_to(network.network_address, 0)) is None or route[0] != case.link)
    ]
    if elsewhere:
        yield WhyStep(
            "rp_filter",
            False,
            f"strict reverse-path filtering on {case.link} drops what comes from {elsewhere[0]}, "
            "for the way back leads elsewhere",
            f"route {elsewhere[0]} into {case.link}, or sysctl net.ipv4.conf.{case.link}.rp_filter=2",
        )
    else:
        yield WhyStep("rp_filter", True, "strict, and the way back leads into the link")


def _forwarding(case: _Case) -> Iterator[WhyStep]:
    plan = host_plan(case.instance.config, case.instance.secrets.identity.public)
    families = sorted({network.version for network in case.peer.networks}) or [4]
    off = [family for family in families if not facts.forwarding(case.link, family)]
    if not off:
        yield WhyStep("forwarding", True, f"on for {case.link}")
        return
    family = f"IPv{off[0]}"
    remedy = "set routing.forward = true and reload" if not plan.forward else "vpnctl reload sets it again"
    text = f"{family} packets that come out of {case.link} for other machines are not forwarded"
    dropped = case.instance.unforwarded_packets()
    if plan.forward or dropped:
        evidence = f" ({dropped} since the start)" if dropped else ""
        yield WhyStep("forwarding", False, text + evidence, remedy)
    else:
        yield WhyStep("forwarding", None, f"{text}; that is fine for an end machine", remedy)
