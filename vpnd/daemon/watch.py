"""What there is to tell those who watch an instance: peers that changed, journal lines, findings.

Owns the comparison of now with before, which is only made while somebody watches. Reads everybody,
changes nobody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from vpnd.config import PeerConfig
from vpnd.control import HealthFinding, PeerState
from vpnd.control.events import Began, EventState, HealthEvent, LogEvent, Lost, PeerEvent, event_time
from vpnd.daemon import health, status
from vpnd.daemon.clock import boottime
from vpnd.daemon.feed import Feed, FeedEvent
from vpnd.daemon.instance import Instance
from vpnd.daemon.journal import Event
from vpnd.keys import PublicKey

HEALTH_INTERVAL_S = 5.0
_LEVELS: dict[int, Literal["info", "warning", "error"]] = {
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
}


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was told last of one peer."""

    name: str
    state: PeerState
    endpoint: str | None
    handshakes: int


class Watch:
    """Gives the events of one instance to any number of readers."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._feed = Feed(self._begin, self._end)
        self._seen: dict[PublicKey, _Seen] = {}
        self._found: dict[tuple[str, str | None], HealthFinding] = {}
        self._health_timer: asyncio.TimerHandle | None = None
        self._journal: _JournalTap | None = None

    async def events(self, peer: PeerConfig | None) -> AsyncGenerator[object, None]:
        """Gives a Began, then events without end. Raises ControlError where too many watch."""
        instance = self._instance
        name = None if peer is None else peer.name
        with self._feed.reader(name) as reader:
            yield Began(
                _now(),
                instance.config.instance,
                boottime() - instance.started_at,
                {seen.name: seen.state for seen in self._seen.values() if name in (None, seen.name)},
            )
            async for event in reader.events(self._lost):
                yield event

    def _begin(self) -> None:
        self._seen = {peer.public_key: self._look(peer)[0] for peer in self._instance.config.peers}
        self._found = self._findings()
        self._instance.tell_peers = self._peers_changed
        self._journal = _JournalTap(self._log_line)
        logging.getLogger().addHandler(self._journal)
        self._health_timer = asyncio.get_running_loop().call_later(HEALTH_INTERVAL_S, self._health_turn)

    def _end(self) -> None:
        self._instance.tell_peers = None
        assert self._journal is not None
        assert self._health_timer is not None
        logging.getLogger().removeHandler(self._journal)
        self._health_timer.cancel()

    def _lost(self, count: int) -> Lost:
        return Lost(_now(), self._instance.config.instance, count)

    # -- peers --

    def _peers_changed(self, keys: Iterable[PublicKey]) -> None:
        configured = {peer.public_key: peer for peer in self._instance.config.peers}
        for key in keys:
            if (peer := configured.get(key)) is not None:
                self._compare(peer)

    def _peers_configured(self) -> None:
        """Tells of peers that a reload added, removed or changed."""
        peers = self._instance.config.peers
        kept = {peer.public_key for peer in peers}
        names = {peer.name for peer in peers}
        for key in [key for key in self._seen if key not in kept]:
            gone = self._seen.pop(key)
            if gone.name not in names:  # else its key was replaced
                self._publish_peer(gone, "removed", before=gone.state)
        for peer in peers:
            self._compare(peer)

    def _compare(self, peer: PeerConfig) -> None:
        before = self._seen.get(peer.public_key)
        seen, reason = self._look(peer)
        if seen == before:
            return
        self._seen[peer.public_key] = seen
        self._publish_peer(seen, seen.state, before=None if before is None else before.state, reason=reason)

    def _look(self, peer: PeerConfig) -> tuple[_Seen, str | None]:
        snapshot = self._instance.driver.device.snapshot(peer.public_key)
        state, reason = status.peer_state(self._instance, peer, snapshot)
        endpoint = snapshot.endpoint or peer.endpoint
        return _Seen(peer.name, state, str(endpoint) if endpoint else None, snapshot.handshakes), reason

    def _publish_peer(
        self, seen: _Seen, state: EventState, *, before: PeerState | None, reason: str | None = None
    ) -> None:
        self._feed.publish(
            PeerEvent(
                time=_now(),
                instance=self._instance.config.instance,
                peer=seen.name,
                state=state,
                before=before,
                reason=reason,
                endpoint=seen.endpoint,
                handshakes=seen.handshakes,
            )
        )

    # -- the journal --

    def _log_line(self, record: logging.LogRecord) -> None:
        message_id: str = record.MESSAGE_ID  # type: ignore[attr-defined]
        kind = Event(message_id)
        self._feed.publish(
            LogEvent(
                event_time(record.created),
                self._instance.config.instance,
                getattr(record, "VPND_PEER", None),
                _LEVELS.get(record.levelno, "info"),
                kind.name.lower().replace("_", "-"),
                message_id,
                record.getMessage(),
            )
        )
        if kind is Event.RELOADED:
            self._peers_configured()

    # -- findings --

    def _findings(self) -> dict[tuple[str, str | None], HealthFinding]:
        return {(finding.code, finding.peer): finding for finding in health.findings(self._instance)}

    def _health_turn(self) -> None:
        loop = asyncio.get_running_loop()
        self._health_timer = loop.call_later(HEALTH_INTERVAL_S, self._health_turn)
        before, self._found = self._found, self._findings()
        for key in before.keys() - self._found.keys():
            self._publish_finding("cleared", before[key])
        for key in self._found.keys() - before.keys():
            self._publish_finding("raised", self._found[key])

    def _publish_finding(self, state: Literal["raised", "cleared"], finding: HealthFinding) -> None:
        event: FeedEvent = HealthEvent(
            _now(),
            self._instance.config.instance,
            finding.peer,
            state,
            finding.code,
            finding.text,
            finding.remedy,
        )
        self._feed.publish(event)


class _JournalTap(logging.Handler):
    """Hands lines that tell of an event to the loop, whatever thread they were written in."""

    def __init__(self, take: Callable[[logging.LogRecord], None]) -> None:
        super().__init__(logging.INFO)
        self._take = take
        self._loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "MESSAGE_ID"):
            self._loop.call_soon_threadsafe(self._take, record)


def _now() -> str:
    return event_time(time.time())
