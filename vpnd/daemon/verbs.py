"""What each request of the control socket does.

Owns the way from a request to its replies. Knows nothing of sockets and lines; the server
carries the replies, which are values of control's own types.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from vpnd.config import PeerConfig
from vpnd.control import (
    Metrics,
    Monitor,
    Pcap,
    Ping,
    Reconnect,
    Reload,
    Request,
    Show,
    Status,
    StatusReport,
    Wait,
    Why,
    no_such_peer,
)
from vpnd.control.metrics import to_openmetrics
from vpnd.control.reports import MetricsReport, PingEcho, PingSummary, ReconnectReport, WaitReport
from vpnd.daemon import reload, status, topics, why
from vpnd.daemon.captures import Captures
from vpnd.daemon.clock import boottime
from vpnd.daemon.instance import Instance
from vpnd.daemon.watch import Watch
from vpnd.errors import ControlError

PING_INTERVAL_S = 1.0
PING_TIMEOUT_S = 2.0


class Verbs:
    """Answers requests about one instance."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._watch = Watch(instance)
        self._captures = Captures(instance)

    async def answer(self, request: Request) -> AsyncGenerator[object, None]:
        """Gives the replies to one request. Raises ControlError."""
        match request:
            case Ping():
                replies = self._ping(request)
            case Monitor(peer):
                replies = self._watch.events(self._find(peer) if peer else None)
            case Pcap(peer):
                replies = self._captures.run(request, self._find(peer) if peer else None)
            case _:
                yield await self._one(request)
                return
        async with contextlib.aclosing(replies):
            async for reply in replies:
                yield reply

    async def _one(  # noqa: PLR0911 - one arm per request, none with a decision
        self, request: Status | Show | Why | Reload | Reconnect | Wait | Metrics
    ) -> object:
        match request:
            case Status(peer):
                return StatusReport((status.report(self._instance, self._find(peer) if peer else None),))
            case Show(topic):
                return await topics.report(self._instance, topic)
            case Why(peer):
                return await why.report(self._instance, self._find(peer))
            case Reload(dry_run):
                async with self._instance.changing:
                    return await reload.reload(self._instance, dry_run=dry_run)
            case Reconnect(peer):
                return self._reconnect(self._find(peer))
            case Wait(peer, timeout_s):
                return await self._wait(peer, timeout_s)
            case Metrics():
                return MetricsReport(to_openmetrics(StatusReport((status.report(self._instance),))))

    def _find(self, name: str) -> PeerConfig:
        config = self._instance.config
        for peer in config.peers:
            if name in (peer.name, str(peer.public_key)):
                return peer
        raise no_such_peer(config.instance, name, tuple(peer.name for peer in config.peers))

    def _reconnect(self, peer: PeerConfig) -> ReconnectReport:
        if not peer.enabled:
            raise ControlError("refused", f"{peer.name} is disabled; vpnctl peer unblock {peer.name}")
        driver = self._instance.driver
        endpoint = driver.device.snapshot(peer.public_key).endpoint
        if endpoint is None:
            self._instance.resolver.again(peer.name)
            reason = self._instance.resolver.error_of(peer.name) or "no endpoint is known; it has to call us"
            raise ControlError("refused", f"{peer.name}: {reason}")
        driver.act(driver.device.reconnect(peer.public_key, boottime()))
        return ReconnectReport(peer.name, str(endpoint))

    async def _wait(self, name: str | None, timeout_s: float) -> WaitReport:
        deadline = boottime() + timeout_s
        while True:
            changed = self._instance.changed
            wanted = self._instance.config.peers if name is None else (self._find(name),)
            enabled = [each for each in wanted if each.enabled]
            up = self._instance.driver.device.count_up(each.public_key for each in enabled)
            if up == len(enabled) and not self._awaits_addresses(enabled):
                return WaitReport(tuple(each.name for each in enabled))
            left = deadline - boottime()
            if left <= 0:
                peers = status.report(self._instance, None if name is None else wanted[0]).peers
                missing = [each.name for each in peers if each.state not in ("up", "disabled")]
                what = f"not up after {timeout_s:g} s: {', '.join(missing)}"
                if not missing:
                    what = f"up, but without an address for this machine after {timeout_s:g} s"
                raise ControlError("timed-out", what)
            try:
                await asyncio.wait_for(changed.wait(), min(left, 1.0))
            except TimeoutError:
                continue

    def _awaits_addresses(self, peers: Sequence[PeerConfig]) -> bool:
        """A tunnel to one that gives the addresses is of no use before it did."""
        return self._instance.following.awaits_addresses and any("address" in peer.accept for peer in peers)

    async def _ping(self, request: Ping) -> AsyncGenerator[object, None]:
        peer = self._find(request.peer)
        echoes: list[PingEcho] = []
        for sequence in range(1, request.count + 1):
            began = boottime()
            echo = await self._echo(peer, sequence, request.size)
            echoes.append(echo)
            yield echo
            if sequence < request.count:
                await asyncio.sleep(max(0.0, began + PING_INTERVAL_S - boottime()))
        yield PingSummary.of(peer.name, tuple(echoes))

    async def _echo(self, peer: PeerConfig, sequence: int, size: int) -> PingEcho:
        instance = self._instance
        key = peer.public_key
        number, answer = instance.pings.expect(key)
        instance.driver.act(instance.driver.device.ping(key, boottime(), number, size))
        try:
            rtt_s = await asyncio.wait_for(answer, PING_TIMEOUT_S)
        except TimeoutError:
            rtt_s = None
        endpoint = instance.driver.device.snapshot(key).endpoint
        return PingEcho(
            sequence=sequence,
            size=size,
            endpoint=str(endpoint) if endpoint else None,
            rtt_ms=None if rtt_s is None else rtt_s * 1e3,
        )
