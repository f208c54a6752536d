"""A peer: what is configured about it, and everything the protocol remembers of it.

Owns the state, the moment at which something falls due, and the snapshot for readers.
What to do about any of it is decided by initiator, responder, dialogue and upkeep.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from vpnd.endpoint import Endpoint
from vpnd.keys import PublicKey, Secret
from vpnd.protocol.constants import ANSWERS_PER_S, PUSH_MAX, NoticeReason, PaddingMode, Slot, Suite, Timers
from vpnd.protocol.cookies import Cookie
from vpnd.protocol.handshake import Initiation
from vpnd.protocol.parameters import Parameters, encode_parameters
from vpnd.protocol.path_mtu import PathMtu
from vpnd.protocol.ratelimit import TokenBuckets
from vpnd.protocol.sessions import Session, Slots
from vpnd.protocol.statics import OwnKey, Parties, StaticKey


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """What the configuration says of a peer.

    `previous_preshared_key` makes a roll-over: both keys hold for an hour from when it came.
    `previous_public_key` makes a rotation: the peer may still be what it was, until
    `previous_key_until`.
    `push` is TLVs of `encode_push` that the peer is told, `push_mtu` the MTU it is told in place of our
    link's. Raises ValueError where they are more than one control message takes.
    """

    public_key: PublicKey
    name: str
    preshared_key: Secret
    previous_preshared_key: Secret | None = None
    previous_public_key: PublicKey | None = None
    previous_key_until: float = math.inf
    endpoint: Endpoint | None = None
    keepalive_s: int = 0
    enabled: bool = True
    push: bytes = b""
    push_mtu: int | None = None

    def __post_init__(self) -> None:
        size = len(self.pushed())
        if size > PUSH_MAX:
            raise ValueError(f"{size} bytes of parameters to push, at most {PUSH_MAX} fit")

    def pushed(self) -> bytes:
        """All that the peer is told by PARAMS."""
        return encode_parameters(Parameters(mtu=self.push_mtu)) + self.push

    def is_same(self, other: PeerOptions) -> bool:
        """Compares all values, secrets in constant time."""
        return self._plain() == other._plain() and self.has_same_secrets(other)

    def has_same_secrets(self, other: PeerOptions) -> bool:
        return self.preshared_key.equals(other.preshared_key) and _equal(
            self.previous_preshared_key, other.previous_preshared_key
        )

    def public_keys(self) -> tuple[PublicKey, ...]:
        """By what the peer may be known, the newest first."""
        if self.previous_public_key is None:
            return (self.public_key,)
        return (self.public_key, self.previous_public_key)

    def _plain(self) -> tuple[object, ...]:
        keys = (self.public_keys(), self.previous_key_until)
        return (*keys, self.name, self.endpoint, self.keepalive_s, self.enabled, self.pushed())


@dataclass(frozen=True, slots=True)
class Activity:
    """The plane's stamps of one peer in seconds, 0.0 for never, and its current session's counts."""

    last_sent: float = 0.0
    last_received: float = 0.0
    last_data_sent: float = 0.0
    last_data_received: float = 0.0
    unanswered_sent_since: float = 0.0
    unanswered_received_since: float = 0.0
    session_messages: int = 0
    session_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ReceivedNotice:
    """The peer told at `at` that it had dropped `count` of our packets for `reason`."""

    reason: NoticeReason
    count: int
    at: float


@dataclass(frozen=True, slots=True)
class PeerSnapshot:
    """What a reader may know of a peer.

    `remote_mtu` is the largest inner packet the peer takes, `path_mtu` the largest outer one that
    was seen to reach it, `mtu` the largest inner one that fits it; 0: the link's own.
    """

    stage: str
    endpoint: Endpoint | None
    attempts: int
    last_refusal: str | None
    last_refusal_at: float | None
    last_handshake_at: float | None
    handshakes: int
    suite: Suite | None
    current_index: int | None
    rtt_s: float | None
    refusals: Mapping[str, int]
    remote_mtu: int | None
    path_mtu: int | None
    mtu: int
    padding: PaddingMode | None
    features: int
    notices: tuple[ReceivedNotice, ...]


@dataclass(frozen=True, slots=True)
class Idle:
    """No handshake is wanted by us."""


@dataclass(slots=True)
class Trying:
    """Initiations are sent until one is answered. `stays_high` forbids to fall back to a lower version."""

    started_at: float
    next_at: float
    last_at: float
    attempts: int = 0
    stays_high: bool = False


@dataclass(frozen=True, slots=True)
class GaveUp:
    """No answer for HS_GIVEUP; own traffic starts again."""

    at: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Quiet:
    """The peer said goodbye; only own traffic starts a handshake."""


Effort = Idle | Trying | GaveUp | Quiet


@dataclass(slots=True)
class Pending:
    """An initiation in flight, and the moment it leaves once more if a cookie answered it."""

    initiation: Initiation
    peer: Peer
    parties: Parties
    sent_at: float
    is_answered_by_cookie: bool = False
    resend_at: float = math.inf


@dataclass(slots=True)
class Confirmation:
    """Keepalives by which the responder learns that we have the session."""

    session: Session
    left_at: list[float]
    stops_on_receipt: bool


@dataclass(slots=True)
class Push:
    """A PARAMS message that waits for its PARAMS_ACK."""

    sequence: int
    content: bytes
    resends_left: int
    next_at: float


@dataclass(slots=True)
class Farewell:
    """Copies of a GOODBYE still to be sent, each on these sessions; all sessions end with the last."""

    local_indices: list[int]
    payload: bytes
    left: int
    next_at: float


@dataclass(slots=True, eq=False)
class Peer:
    """Everything remembered of one peer while the device lives."""

    options: PeerOptions
    knock: Secret
    endpoint: Endpoint | None
    previous_psk_until: float
    static: StaticKey = field(init=False)
    previous_static: StaticKey | None = field(init=False, default=None)
    hashes: tuple[bytes, ...] = ()  # by which the device finds it
    slots: Slots = field(default_factory=Slots)
    effort: Effort = field(default_factory=Idle)
    pending: list[Pending] = field(default_factory=list)
    cookie: Cookie | None = None
    is_cookie_tried: bool = False  # an initiation that carried it from the start is unanswered
    restart_at: float = math.inf  # a handshake begins then, whatever the effort

    # as initiator and responder
    last_timestamp_ns: int = 0
    greatest_timestamp: bytes = b""
    last_accepted_at: float = -math.inf
    remote_epoch: bytes | None = None
    remote_has_next_psk: bool = False
    remote_has_next_key: bool = False  # its last handshake was under its newest static key
    remote_knows_our_key: bool = False  # likewise, and under ours

    # the conversation on live sessions
    confirmation: Confirmation | None = None
    push: Push | None = None
    push_sequence: int = 0
    delivered_push: bytes | None = b""  # None: not known, as after a restart of ours
    applied_sequence: int = -1
    farewell: Farewell | None = None
    pings: dict[int, tuple[float, bool]] = field(default_factory=dict)  # opaque: sent at, asked for
    answers: TokenBuckets = field(default_factory=lambda: TokenBuckets(ANSWERS_PER_S, ANSWERS_PER_S, 1))
    rtt_s: float | None = None
    path: PathMtu = field(default_factory=PathMtu)
    path_to: Endpoint | None = None  # where `path` leads
    told_mtu: int | None = None  # what the plane has for inner packets; None: a search is to say

    # stamps that upkeep compares
    last_active: float = 0.0
    last_received: float = 0.0
    keepalive_for: float = 0.0  # the stamp that the last keepalive answered
    persistent_sent_at: float = -math.inf
    check_since: float = 0.0  # a change of networks made us ask then; 0.0 for no question
    probed_for: float = 0.0  # the stamp that probes were sent about
    probes: int = 0

    # for readers
    notices: dict[NoticeReason, ReceivedNotice] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    last_refusal: str | None = None
    last_refusal_at: float | None = None
    last_handshake_at: float | None = None
    handshakes: int = 0
    due_at: float = math.inf  # the device's calendar holds an entry for then

    def __post_init__(self) -> None:
        self.static = StaticKey(self.options.public_key, self.knock)
        self.take_previous_key()

    @property
    def key(self) -> PublicKey:
        return self.options.public_key

    def take_keys(self) -> bool:
        """Follows the options' public keys; tells whether the peer is to show that it has the newest."""
        if self.options.public_keys() == tuple(static.public for static in self.static_keys()):
            return False
        if self.static.public != self.options.public_key:
            self.static = StaticKey(self.options.public_key, self.knock)
            self.remote_has_next_key = False
        self.take_previous_key()
        return not self.remote_has_next_key

    def take_previous_key(self) -> None:
        previous = self.options.previous_public_key
        self.previous_static = None if previous is None else StaticKey(previous, self.knock)

    def static_keys(self) -> tuple[StaticKey, ...]:
        """All the peer's static keys, the newest first, whether they hold or not."""
        return (self.static,) if self.previous_static is None else (self.static, self.previous_static)

    def keys(self, now: float) -> tuple[StaticKey, ...]:
        """The peer's static keys that hold now, the newest first."""
        return self.static_keys() if now < self.options.previous_key_until else (self.static,)

    def learn_keys(self, parties: Parties, newest: OwnKey) -> None:
        """A handshake between these keys was authentic: the peer has them."""
        self.remote_knows_our_key = parties.own is newest
        self.remote_has_next_key = parties.theirs is self.static

    def is_rolling(self, now: float) -> bool:
        return self.options.previous_preshared_key is not None and now < self.previous_psk_until

    def preshared_keys(self, now: float) -> tuple[Secret, ...]:
        """The keys that hold now, the newest first."""
        previous = self.options.previous_preshared_key
        if previous is not None and now < self.previous_psk_until:
            return (self.options.preshared_key, previous)
        return (self.options.preshared_key,)

    def may_persist(self) -> bool:
        """Tells whether we keep a session with this peer up without being asked."""
        return self.options.enabled and self.options.keepalive_s > 0 and self.endpoint is not None

    def next_due(self, timers: Timers) -> float:
        """The earliest moment at which something is to be done that needs no stamp of the plane."""
        moments = [self.restart_at, self.path.due_at]
        match self.effort:
            case Trying(started_at=started_at, next_at=next_at):
                moments.append(min(next_at, started_at + timers.hs_giveup_s))
            case GaveUp(at=at) if self.may_persist():
                moments.append(at + timers.persistent_restart_s)
            case Idle() if self.may_persist() and not self.slots.is_usable():
                moments.append(0.0)
            case _:
                pass
        if self.pending:
            moments += [min(one.sent_at + timers.pending_life_s, one.resend_at) for one in self.pending]
        slots = self.slots
        moments += [
            self.session_ends_at(session, timers)
            for session in (*slots.waiting, slots.current, slots.previous)
            if session is not None
        ]
        if self.confirmation is not None:
            moments.append(self.confirmation.left_at[0])
        if self.push is not None:
            moments.append(self.push.next_at)
        if self.farewell is not None:
            moments.append(self.farewell.next_at)
        return min(moments)

    def session_ends_at(self, session: Session, timers: Timers) -> float:
        """When the session's slot empties at the latest."""
        life_ends_at = session.created_at + timers.reject_after_s
        if session.slot is Slot.PREVIOUS:
            return min(life_ends_at, session.placed_at + timers.previous_life_s)
        if session.slot is Slot.UNCONFIRMED:
            return min(life_ends_at, session.created_at + timers.unconfirmed_life_s)
        return life_ends_at

    def snapshot(self) -> PeerSnapshot:
        current = self.slots.current
        return PeerSnapshot(
            stage=self._stage(),
            endpoint=self.endpoint,
            attempts=self.effort.attempts if isinstance(self.effort, Trying | GaveUp) else 0,
            last_refusal=self.last_refusal,
            last_refusal_at=self.last_refusal_at,
            last_handshake_at=self.last_handshake_at,
            handshakes=self.handshakes,
            suite=current.suite if current else None,
            current_index=current.local_index if current else None,
            rtt_s=self.rtt_s,
            refusals=dict(self.refusals),
            remote_mtu=current.remote_mtu if current else None,
            path_mtu=self.path.found,
            mtu=self.told_mtu or 0,
            padding=current.padding if current else None,
            features=current.features if current else 0,
            notices=tuple(self.notices.values()),
        )

    def _stage(self) -> str:
        if not self.options.enabled:
            return "disabled"
        if self.slots.current is not None:
            return "up"
        match self.effort:
            case Trying():
                return "handshaking"
            case GaveUp():
                return "gave-up"
            case _:
                return "idle"


def _equal(one: Secret | None, other: Secret | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.equals(other)
