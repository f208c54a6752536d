"""Names of endpoints become addresses here, without ever blocking the loop.

Owns when to ask again: soon after a failure, when handshakes with the address at hand go
unanswered, and when the machine's network changed. Of several addresses the next is taken each
time, so that a dead one is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from vpnd.daemon.journal import Event, about
from vpnd.endpoint import Endpoint, EndpointName

_log = logging.getLogger(__name__)

RETRY_LEAST_S = 1.0  # a network that changes all the time is no reason to ask more often
RETRY_S = (2.0, 5.0, 10.0, 30.0, 60.0)  # the last repeats

_REASONS = {
    socket.EAI_NONAME: "does not resolve (NXDOMAIN)",
    socket.EAI_AGAIN: "does not resolve (no answer from the name servers)",
    socket.EAI_FAIL: "does not resolve (the name servers failed)",
}


@dataclass(slots=True)
class Resolution:
    """How the name of one peer stands: `error` is a line for people, None when it resolves."""

    name: EndpointName
    addresses: tuple[Endpoint, ...] = ()
    turn: int = 0
    failures: int = 0
    error: str | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)
    hurry: asyncio.Event = field(default_factory=asyncio.Event, repr=False)


class Resolver:
    """Resolves the endpoint names of all peers; `found(peer name, endpoint)` is called on the loop."""

    def __init__(self, found: Callable[[str, Endpoint], None]) -> None:
        self._found = found
        self._resolutions: dict[str, Resolution] = {}

    def watch(self, names: dict[str, EndpointName]) -> None:
        """Takes the wanted names by peer; unchanged ones keep what they have, new ones are asked for now."""
        for peer in list(self._resolutions):
            if names.get(peer) != self._resolutions[peer].name:
                self._cancel(self._resolutions.pop(peer))
        for peer, name in names.items():
            if peer not in self._resolutions:
                self._resolutions[peer] = Resolution(name)
                self.again(peer)

    def again(self, peer: str) -> None:
        """Asks anew for this peer's name; a question already under way is not asked twice."""
        resolution = self._resolutions.get(peer)
        if resolution is not None and resolution.task is None:
            self._ask(peer, resolution, only_news=False)

    def network_changed(self) -> None:
        """Asks soon for what failed, at once for link-local addresses: a link's number may be another."""
        for peer, resolution in self._resolutions.items():
            resolution.hurry.set()
            if resolution.task is None and "%" in resolution.name.host:
                self._ask(peer, resolution, only_news=True)

    def error_of(self, peer: str) -> str | None:
        """Tells why the peer's name has no address, or None."""
        resolution = self._resolutions.get(peer)
        return resolution.error if resolution else None

    def close(self) -> None:
        for resolution in self._resolutions.values():
            self._cancel(resolution)
        self._resolutions.clear()

    def _ask(self, peer: str, resolution: Resolution, *, only_news: bool) -> None:
        work = self._resolve(peer, resolution, only_news=only_news)
        resolution.task = asyncio.get_running_loop().create_task(work)

    async def _resolve(self, peer: str, resolution: Resolution, *, only_news: bool) -> None:
        try:
            while True:
                resolution.hurry.clear()
                try:
                    addresses = await lookup(resolution.name)
                    break
                except OSError as error:
                    self._failed(peer, resolution, error)
                    await _wait(resolution)
            if resolution.error is not None:
                _log.info("%s resolves again", resolution.name.host, extra=about(Event.NAME_RESOLVES, peer))
            resolution.failures, resolution.error = 0, None
            # The same set in another order is no news: go on to the next address of it.
            known = set(addresses) == set(resolution.addresses)
            if known and only_news:
                return
            resolution.turn = resolution.turn + 1 if known else 0
            resolution.addresses = addresses if not known else resolution.addresses
            chosen = resolution.addresses[resolution.turn % len(resolution.addresses)]
        finally:
            resolution.task = None
        self._found(peer, chosen)

    def _failed(self, peer: str, resolution: Resolution, error: OSError) -> None:
        resolution.failures += 1
        reason = _REASONS.get(error.errno or 0) if isinstance(error, socket.gaierror) else None
        resolution.error = reason or f"does not resolve ({error.strerror or error})"
        if resolution.failures == 1:
            fields = about(Event.NAME_UNRESOLVED, peer)
            _log.warning("%s %s", resolution.name.host, resolution.error, extra=fields)

    @staticmethod
    def _cancel(resolution: Resolution) -> None:
        if resolution.task is not None:
            resolution.task.cancel()
            resolution.task = None


async def _wait(resolution: Resolution) -> None:
    """Waits for the time of the next try, or shorter if the network changes."""
    await asyncio.sleep(RETRY_LEAST_S)
    rest_s = RETRY_S[min(resolution.failures, len(RETRY_S)) - 1] - RETRY_LEAST_S
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(resolution.hurry.wait(), rest_s)


async def lookup(name: EndpointName) -> tuple[Endpoint, ...]:
    """Asks the system's resolver; the answers in its order (RFC 6724). Raises OSError."""
    loop = asyncio.get_running_loop()
    answers = await loop.getaddrinfo(name.host, name.port, type=socket.SOCK_DGRAM)
    endpoints = [
        Endpoint.from_sockaddr(cast(tuple[str, int], sockaddr))
        for family, *_, sockaddr in answers
        if family in (socket.AF_INET, socket.AF_INET6)
    ]
    if not endpoints:
        raise OSError(errno.ENOENT, "no address of the name is IPv4 or IPv6")
    return tuple(dict.fromkeys(endpoints))
