"""A Python twin of the plane's session rules: slots, confirmation, collisions, limits, stamps.

Owns the sessions of one machine and moves its data messages over the fake wire. Seals with
a keyed hash instead of an AEAD: what matters here is which key, which counter, which slot.
Refuses to decide when a handshake is due; that is the Device's.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vpnd.endpoint import Endpoint
from vpnd.keys import PublicKey
from vpnd.protocol.actions import InstallSession, SendControl
from vpnd.protocol.constants import Control, Slot, Suite

STAGED_PACKETS_MAX = 128
STAGED_BYTES_MAX = 1 << 20
SESSION_LIFE_S = 180.0
PREVIOUS_LIFE_S = 30.0
UNCONFIRMED_LIFE_S = 15.0
UNCONFIRMED_MAX = 2
COLLISION_S = 5.0
WANT_AGAIN_S = 1.0
PONGS_PER_S = 10
COUNTER_LIMIT = 1 << 33
REPLAY_USABLE = 16320

HEAD = struct.Struct("<IIQ")
TAG_SIZE = 16


@dataclass(slots=True)
class TwinSession:
    """One session: its keys, counters and window."""

    peer: PublicKey
    local_index: int
    remote_index: int
    suite: Suite
    is_initiator: bool
    preferred: bool
    endpoint: Endpoint
    send_key: bytes
    receive_key: bytes
    created_at: float
    slot: Slot = Slot.UNCONFIRMED
    current_since: float = 0.0
    confirmed_at: float | None = None
    superseded_at: float | None = None
    counter: int = 0
    bytes_sent: int = 0
    top: int = 0
    seen: set[int] = field(default_factory=set)

    def is_new(self, counter: int) -> bool:
        too_old = counter + 1 + REPLAY_USABLE < self.top
        return counter < COUNTER_LIMIT and not too_old and counter not in self.seen


@dataclass(slots=True)
class Stamps:
    """What the shared counters tell vpnd of a peer; 0.0 is never."""

    last_sent: float = 0.0
    last_received: float = 0.0
    last_data_sent: float = 0.0
    last_data_received: float = 0.0
    unanswered_sent_since: float = 0.0
    unanswered_received_since: float = 0.0


@dataclass(slots=True)
class TwinPeer:
    """What the plane knows of a peer."""

    public_key: PublicKey
    endpoint: Endpoint | None = None
    mtu: int = 0
    current: TwinSession | None = None
    previous: TwinSession | None = None
    unconfirmed: list[TwinSession] = field(default_factory=list)
    staged: deque[bytes] = field(default_factory=deque)
    wanted_at: float = 0.0
    stamps: Stamps = field(default_factory=Stamps)
    pongs: deque[float] = field(default_factory=deque)

    def sessions(self) -> Iterator[TwinSession]:
        yield from (session for session in (self.current, self.previous) if session is not None)
        yield from self.unconfirmed


@dataclass(frozen=True, slots=True)
class Wanted:
    peer: PublicKey


@dataclass(frozen=True, slots=True)
class Placed:
    peer: PublicKey
    local_index: int
    slot: Slot


@dataclass(frozen=True, slots=True)
class Ended:
    peer: PublicKey
    local_index: int


@dataclass(frozen=True, slots=True)
class Roamed:
    peer: PublicKey
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class ControlReceived:
    peer: PublicKey
    local_index: int
    source: Endpoint
    payload: bytes


Event = Wanted | Placed | Ended | Roamed | ControlReceived


class PlaneTwin:
    """The packet mover of one machine; outlives the Device above it."""

    def __init__(self, put_on_wire: Callable[[Endpoint, bytes], None]) -> None:
        self._put_on_wire = put_on_wire
        self.peers: dict[PublicKey, TwinPeer] = {}
        self.by_index: dict[int, TwinSession] = {}
        self.events: deque[Event] = deque()
        self.delivered: list[tuple[PublicKey, bytes]] = []
        self.drops: dict[str, int] = {}
        self.installed_send_keys: list[bytes] = []

    # --- requests ---

    def set_peer(self, peer: PublicKey, endpoint: Endpoint | None) -> None:
        known = self.peers.setdefault(peer, TwinPeer(peer))
        known.endpoint = endpoint or known.endpoint

    def rename_peer(self, before: PublicKey, after: PublicKey) -> None:
        """The peer has another key from now on, and keeps all it has."""
        known = self.peers[after] = self.peers.pop(before)
        known.public_key = after
        for session in known.sessions():
            session.peer = after

    def set_peer_mtu(self, peer: PublicKey, mtu: int) -> None:
        self.peers[peer].mtu = mtu

    def remove_peer(self, peer: PublicKey) -> None:
        known = self.peers.pop(peer, None)
        for session in list(known.sessions()) if known else []:
            self.by_index.pop(session.local_index, None)

    def install_session(self, install: InstallSession, now: float) -> None:
        """Takes a session's keys and places it: an initiator's at once, a responder's unconfirmed."""
        self.expire(now)
        peer = self.peers[install.peer]
        assert install.local_index not in self.by_index, "an index in use was given out again"
        session = TwinSession(
            peer=install.peer,
            local_index=install.local_index,
            remote_index=install.remote_index,
            suite=install.suite,
            is_initiator=install.is_initiator,
            preferred=install.preferred,
            endpoint=install.endpoint,
            send_key=install.send_key.expose(),
            receive_key=install.receive_key.expose(),
            created_at=now,
        )
        self.installed_send_keys.append(session.send_key)
        self.by_index[session.local_index] = session
        if install.is_initiator:
            peer.endpoint = install.endpoint
            self._make_current(peer, session, now)
            self._send_staged(peer, now)
            return
        peer.unconfirmed.append(session)
        while len(peer.unconfirmed) > UNCONFIRMED_MAX:
            self._end(peer, peer.unconfirmed[0])

    def retire_session(self, peer: PublicKey, local_index: int) -> None:
        session = self.by_index.get(local_index)
        if session is not None and session.peer == peer:
            self._forget(self.peers[peer], session)

    def flush_staged(self, peer: PublicKey) -> None:
        known = self.peers[peer]
        self._count("staged_flushed", len(known.staged))
        known.staged.clear()
        known.wanted_at = 0.0

    def send_keepalive(self, peer: PublicKey, now: float) -> None:
        self.expire(now)
        known = self.peers[peer]
        if known.current is not None:
            self._seal_and_send(known, known.current, b"", now)

    def send_control(self, control: SendControl, now: float) -> None:
        self.expire(now)
        known = self.peers[control.peer]
        session = known.current if control.local_index == 0 else self.by_index.get(control.local_index)
        if session is not None and session.slot is not Slot.UNCONFIRMED:
            self._seal_and_send(known, session, control.payload, now, control.endpoint)

    # --- the packet road ---

    def send_packet(self, peer: PublicKey, packet: bytes, now: float) -> None:
        """Seals a packet from the link, or stages it until there is a session."""
        self.expire(now)
        known = self.peers[peer]
        if known.current is not None:
            self._seal_and_send(known, known.current, packet, now)
            return
        known.staged.append(packet)
        while len(known.staged) > STAGED_PACKETS_MAX or sum(map(len, known.staged)) > STAGED_BYTES_MAX:
            known.staged.popleft()
            self._count("staged_overflow")
        self._want(known, now)

    def want_again(self, now: float) -> None:
        """Vpnd is back: it is told which peers have packets waiting."""
        for peer in self.peers.values():
            peer.wanted_at = 0.0
            if peer.staged:
                self._want(peer, now)

    def receive(self, datagram: bytes, source: Endpoint, now: float) -> None:
        """Opens a data message; every refusal is counted and silent."""
        self.expire(now)
        if len(datagram) < HEAD.size + TAG_SIZE or datagram[1:4] != b"\0\0\0":
            self._count("rx_malformed")
            return
        _, index, counter = HEAD.unpack_from(datagram)
        session = self.by_index.get(index)
        if session is None:
            self._count("data_noidx")
            return
        if not session.is_new(counter):
            self._count("data_expired" if counter >= COUNTER_LIMIT else "data_replay")
            return
        body, tag = datagram[:-TAG_SIZE], datagram[-TAG_SIZE:]
        if not hmac.compare_digest(tag, _tag(session.receive_key, body)):
            self._count("data_auth")
            return
        self._accept(session, counter, body[HEAD.size :], source, now)

    def _want(self, peer: TwinPeer, now: float) -> None:
        if peer.wanted_at == 0.0 or now - peer.wanted_at >= WANT_AGAIN_S:
            peer.wanted_at = now
            self.events.append(Wanted(peer.public_key))

    # --- time ---

    def expire(self, now: float) -> None:
        """Applies the hard limits, which hold also while nobody is above."""
        for peer in self.peers.values():
            for session in list(peer.sessions()):
                if now >= self._end_of(session):
                    self._end(peer, session)

    def next_deadline(self) -> float | None:
        ends = [self._end_of(session) for session in self.by_index.values()]
        return min(ends, default=None)

    def _end_of(self, session: TwinSession) -> float:
        if session.slot is Slot.UNCONFIRMED:
            return session.created_at + UNCONFIRMED_LIFE_S
        end = session.created_at + SESSION_LIFE_S
        if session.superseded_at is not None:
            end = min(end, session.superseded_at + PREVIOUS_LIFE_S)
        return end

    # --- placing ---

    def _make_current(self, peer: TwinPeer, session: TwinSession, now: float) -> None:
        old = peer.current
        collides = (
            old is not None
            and now - old.current_since < COLLISION_S
            and old.is_initiator != session.is_initiator
        )
        if session in peer.unconfirmed:
            for older in peer.unconfirmed[: peer.unconfirmed.index(session)]:
                self._end(peer, older)
            peer.unconfirmed.remove(session)
        session.current_since = now
        if collides and not session.preferred:
            self._make_previous(peer, session, now)
        else:
            if old is not None:
                self._make_previous(peer, old, None if session.is_initiator else now)
            peer.current = session
            session.slot = Slot.CURRENT
        peer.wanted_at = 0.0
        self.events.append(Placed(peer.public_key, session.local_index, session.slot))

    def _make_previous(self, peer: TwinPeer, session: TwinSession, superseded_at: float | None) -> None:
        if peer.previous is not None:
            self._end(peer, peer.previous)
        peer.previous = session
        session.slot = Slot.PREVIOUS
        session.superseded_at = superseded_at

    def _confirm(self, peer: TwinPeer, session: TwinSession, now: float) -> None:
        """Notes the first authentic message of a session; a responder's becomes current."""
        session.confirmed_at = now
        if session.slot is Slot.UNCONFIRMED:
            self._make_current(peer, session, now)
            if not self._send_staged(peer, now) and peer.current is not None:
                self._seal_and_send(peer, peer.current, b"", now)
        if peer.current is session and peer.previous is not None and peer.previous.superseded_at is None:
            peer.previous.superseded_at = now

    def _end(self, peer: TwinPeer, session: TwinSession) -> None:
        self._forget(peer, session)
        self.events.append(Ended(peer.public_key, session.local_index))

    def _forget(self, peer: TwinPeer, session: TwinSession) -> None:
        self.by_index.pop(session.local_index, None)
        if peer.current is session:
            peer.current = None
        elif peer.previous is session:
            peer.previous = None
        elif session in peer.unconfirmed:
            peer.unconfirmed.remove(session)

    # --- sealing and opening ---

    def _send_staged(self, peer: TwinPeer, now: float) -> bool:
        had_some = bool(peer.staged)
        while peer.staged and peer.current is not None:
            self._seal_and_send(peer, peer.current, peer.staged.popleft(), now)
        return had_some

    def _seal_and_send(
        self,
        peer: TwinPeer,
        session: TwinSession,
        plain: bytes,
        now: float,
        endpoint: Endpoint | None = None,
    ) -> None:
        target = endpoint or peer.endpoint
        if target is None:
            self._count("no_endpoint")
            return
        body = HEAD.pack(0x0C, session.remote_index, session.counter) + plain
        session.counter += 1
        session.bytes_sent += len(plain)
        stamps = peer.stamps
        stamps.last_sent = now
        stamps.unanswered_received_since = 0.0
        if _is_packet(plain):
            stamps.last_data_sent = now
            stamps.unanswered_sent_since = stamps.unanswered_sent_since or now
        self._put_on_wire(target, body + _tag(session.send_key, body))

    def _accept(self, session: TwinSession, counter: int, plain: bytes, source: Endpoint, now: float) -> None:
        peer = self.peers[session.peer]
        session.seen.add(counter)
        is_highest = counter >= session.top
        session.top = max(session.top, counter + 1)
        proven = (one for one in peer.sessions() if one is session or one.slot is not Slot.UNCONFIRMED)
        newest = max(proven, key=lambda one: one.created_at)
        if is_highest and session is newest and source != peer.endpoint:
            peer.endpoint = source
            self.events.append(Roamed(peer.public_key, source))
        if session.confirmed_at is None:
            self._confirm(peer, session, now)
        stamps = peer.stamps
        stamps.last_received = now
        stamps.unanswered_sent_since = 0.0
        if _is_packet(plain):
            stamps.last_data_received = now
            stamps.unanswered_received_since = stamps.unanswered_received_since or now
            self.delivered.append((peer.public_key, plain))
        elif plain:
            self._accept_control(peer, session, plain, source, now)

    def _accept_control(
        self, peer: TwinPeer, session: TwinSession, plain: bytes, source: Endpoint, now: float
    ) -> None:
        if plain[0] == Control.PING and len(plain) >= 9:
            while peer.pongs and now - peer.pongs[0] >= 1.0:
                peer.pongs.popleft()
            if len(peer.pongs) < PONGS_PER_S and peer.current is not None:
                peer.pongs.append(now)
                pong = bytes([Control.PONG]) + plain[1:9]
                self._seal_and_send(peer, peer.current, pong, now, source)
        elif plain[0] == Control.PROBE and len(plain) >= 5:
            if peer.current is not None:
                answer = bytes([Control.PROBE_ACK]) + plain[1:5] + len(plain).to_bytes(2, "little")
                self._seal_and_send(peer, peer.current, answer, now, source)
        elif plain[0] not in (Control.PATH_CHALLENGE, Control.PATH_RESPONSE):
            self.events.append(ControlReceived(peer.public_key, session.local_index, source, plain))

    def _count(self, reason: str, times: int = 1) -> None:
        self.drops[reason] = self.drops.get(reason, 0) + times


def _is_packet(plain: bytes) -> bool:
    return bool(plain) and plain[0] >> 4 != 2


def _tag(key: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=TAG_SIZE, key=key).digest()
