"""Why no handshake succeeds: the way to the peer, our socket, and what came of the messages.

Owns these checks of `vpnctl why`. Sends nothing but one byte to see what the network says to it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator

from vpnd.control.reports import WhyStep
from vpnd.daemon import reasons
from vpnd.daemon.why_case import Case
from vpnd.endpoint import Endpoint, EndpointName
from vpnd.host import facts

_PORT_ANSWER_S = 0.5  # for an ICMP "port unreachable" to come back


def name(case: Case) -> WhyStep:
    """Judges whether the endpoint's name has an address."""
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


def outer_route(case: Case) -> Iterator[WhyStep]:
    """Judges whether our datagrams leave, and not into the tunnel itself."""
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


def udp_socket(case: Case) -> WhyStep:
    """Judges whether we have a socket that speaks the endpoint's IP version."""
    bound = case.instance.listen_endpoints()
    endpoint = case.snapshot.endpoint
    if endpoint is not None and all(type(each.address) is not type(endpoint.address) for each in bound):
        family = f"IPv{endpoint.address.version}"
        remedy = f"add an {family} address to local.listen, such as " + (
            '"0.0.0.0:5180"' if endpoint.address.version == 4 else '"[::]:5180"'
        )
        text = f"no socket of ours speaks {family}, as {endpoint} asks for"
        return WhyStep("socket", False, text, remedy)
    if not bound:
        remedy = "see the log for why it could not be opened"
        return WhyStep("socket", False, "the plane has no UDP socket", remedy)
    return WhyStep("socket", True, f"udp {', '.join(map(str, bound))}")


async def handshake(case: Case) -> WhyStep:
    """Judges whether the peer answers, and if not, by whose word that has a reason."""
    snapshot = case.snapshot
    if case.is_up and not case.is_silent:
        age = case.now - (snapshot.last_handshake_at or case.now)
        return WhyStep("handshake", True, f"up with {snapshot.endpoint}, last handshake {age:.0f} s ago")
    since = case.refusals_since
    if snapshot.last_refusal is not None and (snapshot.last_refusal_at or 0.0) > since:
        text, remedy = reasons.explain_refusal(snapshot.last_refusal, case.peer)
        return WhyStep("handshake", False, text, remedy)
    said = await _word_of_the_network(case)
    if said is not None:
        return said
    stranger = case.instance.driver.strangers.latest(since, snapshot.endpoint)
    if stranger is not None:
        text, remedy = reasons.explain_refusal(stranger.reason, case.peer)
        return WhyStep("handshake", False, f"{stranger.source} was turned away: {text}", remedy)
    return _unanswered(case)


def _unanswered(case: Case) -> WhyStep:
    attempts, endpoint, key = case.snapshot.attempts, case.snapshot.endpoint, f"peer.{case.peer.name}"
    if case.peer.endpoint is None and not attempts:
        ports = ", ".join(sorted({str(each.port) for each in case.instance.listen_endpoints()}))
        remedy = f"start vpnd there, and let UDP to port {ports} through every firewall on the way"
        if endpoint is None:
            text = "the peer has not called, and no endpoint is configured to call it at"
            return WhyStep("handshake", False, text, f"{remedy}; or set {key}.endpoint")
        text = f"the peer has not called; it was last at {endpoint}, and nothing here asks for it"
        return WhyStep("handshake", False, text, remedy)
    if not attempts:
        text = f"there is no session with {endpoint}, and nothing asks for one"
        return WhyStep("handshake", False, text, f"vpnctl reconnect {case.peer.name}, or set {key}.keepalive")
    silent = ", though a session stands" if case.is_silent else ""
    return WhyStep(
        "handshake",
        False,
        f"{endpoint} has not answered {attempts} initiations{silent}",
        "a firewall on the way, a wrong public or preshared key, or a clock that went back: "
        "`vpnctl why` on the other machine can tell which",
    )


async def _word_of_the_network(case: Case) -> WhyStep | None:
    endpoint = case.snapshot.endpoint
    if endpoint is None:
        return None
    error = await _refusal(endpoint, case.instance.config.local.fwmark)
    if error is None:
        return None
    if error == errno.ECONNREFUSED:
        text = f"{endpoint}: the machine answers that nothing listens on this port"
        remedy = "start vpnd there, or mend the port in the endpoint here or in local.listen there"
    elif error == errno.EPERM:
        text = f"{endpoint}: this machine forbids itself to send there"
        remedy = f"let UDP to {endpoint} through this machine's own firewall: `nft list ruleset`"
    else:
        text = f"{endpoint}: the network answers: {os.strerror(error)}"
        remedy = "see whether the other machine is up and its address right, and what lies on the way"
    return WhyStep("handshake", False, text, remedy)


async def _refusal(endpoint: Endpoint, fwmark: int) -> int | None:
    """Sends one zero byte from a socket of its own and gives the errno of what is said to it, if anything."""
    is_ipv4 = endpoint.address.version == 4
    probe = socket.socket(socket.AF_INET if is_ipv4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        probe.setblocking(False)
        if fwmark:
            probe.setsockopt(socket.SOL_SOCKET, 36, fwmark)  # SO_MARK
        probe.connect(endpoint.to_sockaddr())
        probe.send(b"\0")
        await asyncio.wait_for(asyncio.get_running_loop().sock_recv(probe, 1), _PORT_ANSWER_S)
    except TimeoutError:
        return None
    except OSError as error:
        return error.errno
    finally:
        probe.close()
    return None
