"""The UDP sockets of one instance: opened here, because here is the capability, and passed to the plane.

Owns binding, buffer sizes and marks. Never reads a datagram.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from vpnd.daemon.journal import Event, about
from vpnd.endpoint import Endpoint
from vpnd.errors import HostError

_log = logging.getLogger(__name__)

SEND_BUFFER_BYTES = 4 * 2**20  # 28 ms of 1.2 Gbit/s
# What a descheduled plane may miss without loss. Half of it was less than four TCP streams at full speed have
# on their way at once.
RECEIVE_BUFFER_BYTES = 8 * 2**20
EPHEMERAL = (Endpoint(IPv4Address("0.0.0.0"), 0), Endpoint(IPv6Address("::"), 0))  # noqa: S104

# linux/in.h and linux/in6.h; Python names only some of them.
_IP_PKTINFO = 8
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_IP_PMTUDISC_OMIT = 5  # no DF, and a forged "too big" changes nothing
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_SO_MARK = 36


def open_sockets(
    listen: Sequence[Endpoint], fwmark: int, workers: int = 1, *, held: Sequence[Endpoint] = ()
) -> list[socket.socket]:
    """Binds `workers` UDP sockets per endpoint, or to an ephemeral port of each family when none is named.

    Those of one endpoint share its port and stand together; the kernel keeps what comes from one
    source to one of them. A port of `held`, where sockets of ours are bound already, is shared with
    them; any other must be free. Raises HostError that names the endpoint. A machine without IPv6
    gets no ephemeral IPv6 socket.
    """
    sockets: list[socket.socket] = []
    ports = {(type(each.address), each.port) for each in held}
    try:
        for endpoint in listen or EPHEMERAL:
            shares = (type(endpoint.address), endpoint.port) in ports
            try:
                sockets += _open_group(endpoint, fwmark, workers, shares=shares)
            except OSError as error:
                if not listen and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    why = error.strerror
                    _log.info("no socket for %s: %s", endpoint, why, extra=about(Event.NO_SOCKET))
                    continue
                raise HostError(f"bind udp {endpoint}", _remedy(error)) from error
    except HostError:
        close_sockets(sockets)
        raise
    return sockets


def close_sockets(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        each.close()


def serves(bound: Sequence[Endpoint], listen: Sequence[Endpoint], workers: int = 1) -> bool:
    """Tells whether sockets bound to `bound` are what `listen` asks for, `workers` to each endpoint."""
    if any(count != workers for count in Counter(bound).values()):
        return False
    return set(bound) == set(listen) if listen else is_anywhere(bound)


def is_anywhere(bound: Sequence[Endpoint]) -> bool:
    """Tells whether sockets bound to `bound` serve a configuration that names no endpoint."""
    addresses = {each.address for each in EPHEMERAL}
    return bool(bound) and all(each.address in addresses for each in bound)


def _open_group(endpoint: Endpoint, fwmark: int, workers: int, *, shares: bool) -> list[socket.socket]:
    opened: list[socket.socket] = []
    try:
        for _ in range(workers):
            opened.append(_open_socket(endpoint, fwmark, shares=shares or bool(opened)))
            # All have the port that the kernel gave to the first.
            endpoint = replace(endpoint, port=opened[0].getsockname()[1])
    except OSError:
        close_sockets(opened)
        raise
    return opened


def _open_socket(endpoint: Endpoint, fwmark: int, *, shares: bool) -> socket.socket:
    is_ipv4 = isinstance(endpoint.address, IPv4Address)
    family = socket.AF_INET if is_ipv4 else socket.AF_INET6
    opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if is_ipv4:
            opened.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            opened.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_OMIT)
        else:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _IP_PMTUDISC_OMIT)
        for forced, polite, size in (
            (_SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES),
            (_SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER_BYTES),
        ):
            try:
                opened.setsockopt(socket.SOL_SOCKET, forced, size)
            except PermissionError:
                opened.setsockopt(socket.SOL_SOCKET, polite, size)
        if fwmark:
            opened.setsockopt(socket.SOL_SOCKET, _SO_MARK, fwmark)
        # Among sockets of one user that all say so a port is shared without a word. One that does not say
        # so before it is bound finds out whether another program, such as a second vpnd, has the port.
        if shares:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind(endpoint.to_sockaddr())
        if not shares:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        opened.close()
        raise
    return opened


def _remedy(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another program has the port; choose another in local.listen, or stop that program"
        case errno.EADDRNOTAVAIL:
            return "no interface of this machine has the address; local.listen names an address of its own"
        case errno.EACCES | errno.EPERM:
            return (
                f"{error.strerror}; ports below 1024 need CAP_NET_BIND_SERVICE and local.fwmark CAP_NET_ADMIN"
            )
        case _:
            return error.strerror or str(error)
