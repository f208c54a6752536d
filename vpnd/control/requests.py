"""What vpnctl may ask: one frozen dataclass per verb, one JSON object per line.

Owns the request side of the control socket's language. A request that exists is valid:
its ranges are checked when it is made, whether from a line or from a command's arguments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vpnd.control.values import from_json, parse_json, to_json
from vpnd.errors import ControlError

REQUEST_LIMIT = 65536  # bytes of one request line, its newline included
PING_SIZE_LIMIT = 1400  # bytes; with its framing an echo must fit one datagram of a usual path (1500)
PING_COUNT_LIMIT = 100_000
WAIT_LIMIT_S = 7 * 86400.0
_PEER_NAME_LIMIT = 255

Topic = Literal["peers", "routes", "groups", "macs", "leases", "config", "drops", "offload"]
TOPICS: tuple[Topic, ...] = ("peers", "routes", "groups", "macs", "leases", "config", "drops", "offload")


@dataclass(frozen=True, slots=True)
class Status:
    """Asks for a StatusReport with this one instance; with `peer` (name or public key) only that peer."""

    peer: str | None = None

    def __post_init__(self) -> None:
        _check_peer(self.peer)


@dataclass(frozen=True, slots=True)
class Show:
    """Asks for the topic's report: PeersReport, RoutesReport, MacsReport and so on."""

    topic: Topic


@dataclass(frozen=True, slots=True)
class Why:
    """Asks for a WhyReport."""

    peer: str

    def __post_init__(self) -> None:
        _check_peer(self.peer)


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for `count` echoes of `size` bytes, one a second: `count` PingEcho lines, then a PingSummary."""

    peer: str
    count: int = 5
    size: int = 56

    def __post_init__(self) -> None:
        _check_peer(self.peer)
        _check_range("count", self.count, 1, PING_COUNT_LIMIT)
        _check_range("size", self.size, 0, PING_SIZE_LIMIT)


@dataclass(frozen=True, slots=True)
class Reload:
    """Asks to read the files again and apply them; answered by a ReloadReport when done."""

    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Asks for a new handshake now; answered at once by a ReconnectReport."""

    peer: str

    def __post_init__(self) -> None:
        _check_peer(self.peer)


@dataclass(frozen=True, slots=True)
class Wait:
    """Asks for a WaitReport once `peer`, or every enabled peer, is up; "timed-out" after `timeout_s`."""

    peer: str | None = None
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        _check_peer(self.peer)
        _check_range("timeout_s", self.timeout_s, 0, WAIT_LIMIT_S)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Asks for a MetricsReport: the status as OpenMetrics text."""


@dataclass(frozen=True, slots=True)
class Monitor:
    """Asks for events as they happen, a Began first, until the asker hangs up; nothing else may follow.

    With `peer` those about other peers are left out.
    """

    peer: str | None = None

    def __post_init__(self) -> None:
        _check_peer(self.peer)


@dataclass(frozen=True, slots=True)
class Pcap:
    """Asks for copies of packets: a CaptureReport that a descriptor comes with, until the asker hangs up."""

    peer: str | None = None
    inner: bool = True
    outer: bool = False
    drops: bool = False

    def __post_init__(self) -> None:
        _check_peer(self.peer)
        if not (self.inner or self.outer or self.drops):
            raise ControlError("usage", "pcap: none of inner, outer and drops is asked for")


Request = Status | Show | Why | Ping | Reload | Reconnect | Wait | Metrics | Monitor | Pcap

_VERBS: Mapping[str, type[Request]] = {
    "status": Status,
    "show": Show,
    "why": Why,
    "ping": Ping,
    "reload": Reload,
    "reconnect": Reconnect,
    "wait": Wait,
    "metrics": Metrics,
    "monitor": Monitor,
    "pcap": Pcap,
}
_VERB_OF = {kind: verb for verb, kind in _VERBS.items()}


def encode_request(request: Request) -> bytes:
    """Gives the request's line, newline included; absent options are left out."""
    options = {key: value for key, value in to_json(request).items() if value is not None}
    return json.dumps({"do": _VERB_OF[type(request)], **options}).encode() + b"\n"


def decode_request(line: bytes) -> Request:
    """Reads one line, with or without its newline.

    Raises ControlError "usage" for whatever breaks the language.
    """
    if len(line) > REQUEST_LIMIT:
        raise ControlError("usage", f"the request has {len(line)} bytes, the limit is {REQUEST_LIMIT}")
    try:
        document = parse_json(line)
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ControlError("usage", f"the request is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ControlError("usage", "the request is no JSON object")
    verb = document.pop("do", None)
    if not isinstance(verb, str) or verb not in _VERBS:
        raise ControlError("usage", f'the request has no known verb; "do" is one of {", ".join(_VERBS)}')
    kind = _VERBS[verb]
    try:
        return from_json(kind, document, strict=True)
    except ValueError as error:
        raise ControlError("usage", f"{verb}: {error}") from None


def _check_peer(name: str | None) -> None:
    if name is None:
        return
    if not name or len(name) > _PEER_NAME_LIMIT or not name.isprintable():
        raise ControlError("usage", f"{json.dumps(name[:_PEER_NAME_LIMIT])} is no name of a peer")


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ControlError("usage", f"{name}: {value:g} is outside {least:g} to {most:g}")
