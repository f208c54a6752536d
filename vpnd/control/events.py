"""What `vpnctl monitor` prints: one frozen dataclass per kind of event, one JSON object a line.

Owns the shapes of vpnd.event/1 (monitor.schema.json describes the same in JSON Schema). Field names
are the JSON keys; within /1 kinds and keys are only ever added. `time` is UTC, as RFC 3339 writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from vpnd.control.status import PeerState

EventState = Literal["up", "connecting", "down", "disabled", "removed"]


@dataclass(frozen=True, slots=True)
class Began:
    """From here on events are told; `peers` are the states before the first of them."""

    event: Literal["begin"] = field(default="begin", kw_only=True)
    time: str
    instance: str
    uptime_s: float
    peers: Mapping[str, PeerState]


@dataclass(frozen=True, slots=True)
class PeerEvent:
    """A peer's state, endpoint or session is another one; "removed" is a state that only events know."""

    event: Literal["peer"] = field(default="peer", kw_only=True)
    time: str
    instance: str
    peer: str
    state: EventState
    before: PeerState | None
    reason: str | None
    endpoint: str | None
    handshakes: int


@dataclass(frozen=True, slots=True)
class LogEvent:
    """A line of the journal; `kind`, and the journal's own `message_id`, say what it tells of."""

    event: Literal["log"] = field(default="log", kw_only=True)
    time: str
    instance: str
    peer: str | None
    level: Literal["info", "warning", "error"]
    kind: str
    message_id: str
    text: str


@dataclass(frozen=True, slots=True)
class HealthEvent:
    """A finding of `vpnctl status` came or went."""

    event: Literal["health"] = field(default="health", kw_only=True)
    time: str
    instance: str
    peer: str | None
    state: Literal["raised", "cleared"]
    code: str
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The reader was too slow: so many events, the oldest, are missing here."""

    event: Literal["lost"] = field(default="lost", kw_only=True)
    time: str
    instance: str
    count: int


@dataclass(frozen=True, slots=True)
class Away:
    """vpnctl's own word: the daemon went away, and is waited for; where it returns a Began follows."""

    event: Literal["away"] = field(default="away", kw_only=True)
    time: str
    instance: str
    text: str


MonitorEvent = Began | PeerEvent | LogEvent | HealthEvent | Lost | Away


def event_time(seconds: float) -> str:
    """Writes seconds since 1970 as an event has them: "2026-11-21T20:41:11.250Z"."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
