"""What the plane tells without being asked, as values.

Owns the event types and their reading from the wire. Knows no socket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from vpnd.endpoint import Endpoint
from vpnd.errors import PlaneError
from vpnd.plane import wire
from vpnd.plane.wire import WireType

_NS = 1e9


@dataclass(frozen=True, slots=True)
class DatagramEvent:
    """A handshake message came in; `queue_depth` more of them waited behind it."""

    endpoint: Endpoint
    data: bytes
    queue_depth: int
    received_at: float


@dataclass(frozen=True, slots=True)
class ControlEvent:
    """A control message opened under the session `local_index`; `data` begins with its type byte."""

    peer_id: int
    local_index: int
    endpoint: Endpoint
    data: bytes
    received_at: float


@dataclass(frozen=True, slots=True)
class SessionWanted:
    """A packet waits for a session with this peer. Told once until a session comes or the packets go."""

    peer_id: int


@dataclass(frozen=True, slots=True)
class SessionPlaced:
    """A session of our handshake was installed, or another's confirmed, and now stands in `slot`."""

    peer_id: int
    local_index: int
    slot: int


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The plane ended a session by its own limits; `reason` is a wire.SessionEnd."""

    peer_id: int
    local_index: int
    reason: int


@dataclass(frozen=True, slots=True)
class PeerRoamed:
    """The peer's endpoint is `endpoint` from now on; `state` is a wire.RoamState."""

    peer_id: int
    endpoint: Endpoint
    state: int


@dataclass(frozen=True, slots=True)
class LinkFailed:
    """The link's descriptor is dead, as when somebody deleted the link."""

    errno: int


@dataclass(frozen=True, slots=True)
class SocketFailed:
    errno: int


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """A request that nobody waited for was refused: the request's name and the wire error's."""

    type: str
    code: str


@dataclass(frozen=True, slots=True)
class PlaneGone:
    """The connection ended. Nothing more will come."""


Event: TypeAlias = (
    DatagramEvent
    | ControlEvent
    | SessionWanted
    | SessionPlaced
    | SessionEnded
    | PeerRoamed
    | LinkFailed
    | SocketFailed
    | RequestRefused
    | PlaneGone
)


def _datagram(body: bytes) -> DatagramEvent:
    received_at_ns, queue_depth, source = wire.DATAGRAM_EVENT.unpack(body)
    return DatagramEvent(_known(source), body[wire.DATAGRAM_EVENT.size :], queue_depth, received_at_ns / _NS)


def _control(body: bytes) -> ControlEvent:
    received_at_ns, peer, local_index, source = wire.CONTROL_EVENT.unpack(body)
    data = body[wire.CONTROL_EVENT.size :]
    return ControlEvent(peer, local_index, _known(source), data, received_at_ns / _NS)


def _session_wanted(body: bytes) -> SessionWanted:
    return SessionWanted(*wire.PEER_EVENT.unpack(body))


def _session_placed(body: bytes) -> SessionPlaced:
    peer, local_index, slot, _ = wire.SESSION_EVENT.unpack(body)
    return SessionPlaced(peer, local_index, slot)


def _session_ended(body: bytes) -> SessionEnded:
    peer, local_index, _, reason = wire.SESSION_EVENT.unpack(body)
    return SessionEnded(peer, local_index, reason)


def _peer_roamed(body: bytes) -> PeerRoamed:
    peer, state, endpoint = wire.ROAMED_EVENT.unpack(body)
    return PeerRoamed(peer, _known(endpoint), state)


def _link_failed(body: bytes) -> LinkFailed:
    return LinkFailed(*wire.FAILED_EVENT.unpack(body))


def _socket_failed(body: bytes) -> SocketFailed:
    return SocketFailed(*wire.FAILED_EVENT.unpack(body))


_READERS: dict[int, Callable[[bytes], Event]] = {
    WireType.EVENT_DATAGRAM: _datagram,
    WireType.EVENT_CONTROL: _control,
    WireType.EVENT_SESSION_WANTED: _session_wanted,
    WireType.EVENT_SESSION_PLACED: _session_placed,
    WireType.EVENT_SESSION_ENDED: _session_ended,
    WireType.EVENT_PEER_ROAMED: _peer_roamed,
    WireType.EVENT_LINK_FAILED: _link_failed,
    WireType.EVENT_SOCKET_FAILED: _socket_failed,
}


def read_event(message_type: int, body: bytes) -> Event:
    """Raises PlaneError("bad_event") on a type this version does not know."""
    reader = _READERS.get(message_type)
    if reader is None:
        raise PlaneError("bad_event", f"the plane sent a message of unknown type {message_type:#06x}")
    return reader(body)


def _known(packed: bytes) -> Endpoint:
    endpoint = wire.unpack_endpoint(packed)
    if endpoint is None:
        raise PlaneError("bad_event", "the plane sent an event without an address")
    return endpoint
