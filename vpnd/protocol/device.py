"""Our end of the protocol: identity, peers, and the verbs that the driver calls.

Owns the set of peers, and what is done when one of them falls due. Pure: `now` (seconds of
CLOCK_BOOTTIME) and all bytes come in, actions go out to be performed in order. Knows no
socket, clock, log or generator of random bytes of its own.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from vpnd.endpoint import Endpoint
from vpnd.errors import MalformedMessage, RejectedMessage
from vpnd.keys import Identity, PublicKey, Secret
from vpnd.protocol import dialogue, discovery, initiator, lifecycle, reconfigure, responder, upkeep
from vpnd.protocol.actions import Action, SendControl, SendDatagram, SetEndpoint
from vpnd.protocol.calendar import Calendar
from vpnd.protocol.constants import (
    TIMERS,
    EnrolAnswer,
    GoodbyeReason,
    NoticeReason,
    PacketType,
    Slot,
    Suite,
    Timers,
)
from vpnd.protocol.control import consume_control
from vpnd.protocol.control_messages import encode_enrol, encode_enrol_ack, encode_notice
from vpnd.protocol.gate import Gate, GateKeys
from vpnd.protocol.local import DeviceOptions, Local
from vpnd.protocol.messages import parse_cookie_untrusted, parse_response_untrusted
from vpnd.protocol.peer import (
    Activity,
    GaveUp,
    Idle,
    Peer,
    PeerOptions,
    PeerSnapshot,
    Quiet,
    Trying,
)
from vpnd.protocol.roster import Roster, check_keys
from vpnd.protocol.sessions import AdoptedSession
from vpnd.protocol.timestamps import TimestampSource

__all__ = ["Activity", "AdoptedSession", "Device", "DeviceOptions"]


class Device:
    """One end of the protocol with all its peers.

    `last_timestamp_ns` is the greatest one that an earlier run stored; `epoch` has 8 bytes
    that change whenever our sessions are lost (at random by default). `random_bytes` must
    give a new object at each call, since what made a key is wiped.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        knock: Secret,
        options: DeviceOptions,
        wall_clock_ns: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        last_timestamp_ns: int = 0,
        timers: Timers = TIMERS,
        epoch: bytes | None = None,
    ) -> None:
        self._local = Local(
            identity,
            knock,
            options,
            timers,
            random_bytes=random_bytes,
            timestamps=TimestampSource(wall_clock_ns, last_timestamp_ns, timers),
            epoch=epoch,
        )
        self._gate = Gate(self._local)
        self._roster = Roster()
        self._peers = self._roster.by_key
        self._calendar = Calendar()
        self._look_at: dict[PublicKey, float] = {}  # when stamps matter again that do not move till then
        self._watch_at = math.inf  # the least of them
        self._changed: set[Peer] = set()  # since the last tick
        self._unprepared: deque[Peer] = deque()
        self._ticked_at = -math.inf
        self._gap = (-math.inf, -math.inf)  # the latest time without ticks: from, to

    # --- what a reader may know ---

    @property
    def refusals(self) -> Mapping[str, int]:
        """All refusals by the names of the protocol."""
        return self._local.refusals

    @property
    def last_refusal(self) -> str | None:
        """Why the last datagram given to `receive` was refused; None when it was not."""
        return self._local.last_refusal

    @property
    def last_timestamp_ns(self) -> int:
        """The greatest timestamp used; kept between runs by the daemon."""
        return self._local.timestamps.last_used_ns

    @property
    def is_clock_behind(self) -> bool:
        """Tells that at start the clock stood below `last_timestamp_ns`."""
        return self._local.timestamps.is_behind

    def snapshot(self, peer: PublicKey) -> PeerSnapshot:
        return self._peers[peer].snapshot()

    def endpoint(self, peer: PublicKey) -> Endpoint | None:
        """Where the peer is; None where that is not known, or the peer is not."""
        known = self._peers.get(peer)
        return None if known is None else known.endpoint

    # Of all peers at once, and cheap: somebody asks every second, of ten thousand peers too.

    def count_up(self, keys: Iterable[PublicKey]) -> int:
        """How many of these peers have a current session."""
        peers = self._peers
        return sum(peers[key].slots.current is not None for key in keys)

    def tally(self) -> tuple[int, int]:
        """How many enabled peers have a current session, and how many are enabled."""
        enabled = [peer for peer in self._peers.values() if peer.options.enabled]
        return sum(peer.slots.current is not None for peer in enabled), len(enabled)

    def unanswered(self, attempts: int) -> dict[PublicKey, int]:
        """The peers of whom so many attempts in a row, or more, went unanswered, with their number."""
        return {
            peer.key: peer.effort.attempts
            for peer in self._peers.values()
            if isinstance(peer.effort, Trying | GaveUp) and peer.effort.attempts >= attempts
        }

    def noteworthy(self, since: float) -> set[PublicKey]:
        """The peers with narrow paths, with notices of drops, or with a message refused since then."""
        return {
            peer.key
            for peer in self._peers.values()
            if peer.told_mtu or peer.notices or (peer.last_refusal_at or 0.0) >= since
        }

    def suites(self) -> set[Suite]:
        """The suites of all current sessions."""
        return {peer.slots.current.suite for peer in self._peers.values() if peer.slots.current is not None}

    def endpoints(self) -> dict[PublicKey, Endpoint]:
        """Where the peers are, those whose endpoint is known."""
        return {key: peer.endpoint for key, peer in self._peers.items() if peer.endpoint is not None}

    def told(self) -> dict[PublicKey, bytes | None]:
        """What each peer with a session was told last of our pushes; None where that is not known."""
        peers = self._peers.values()
        return {peer.key: peer.delivered_push for peer in peers if peer.slots.current is not None}

    def pushed(self, peer: PublicKey) -> bytes:
        """What the peer is to be told now."""
        return self._peers[peer].options.pushed()

    # --- configuration ---

    def configure(self, peers: Sequence[PeerOptions], now: float) -> list[Action]:
        """Makes `peers` the whole set; what is the same keeps all it has.

        New peers wait for `start`. A peer that had the key which is now its previous one, or the
        other way round, is the same. Raises ValueError, and changes nothing, where a peer has our
        own key or two have the same.
        """
        wanted = {options.public_key: options for options in peers}
        check_keys(peers, self._local.key.public)
        actions: list[Action] = []
        for options in peers:
            before = self._roster.rename(options, wanted)
            if before is not None:
                self._look_at.pop(before, None)
        for key in [key for key in self._peers if key not in wanted]:
            actions += self._remove(self._peers[key])
        for key, options in wanted.items():
            known = self._peers.get(key)
            if known is None:
                self._add(options, now)
            elif not known.options.is_same(options):
                changes = reconfigure.change_options(self._local, known, options, now)
                self._roster.reindex(known)
                actions += self._acted(known, changes)
        return actions

    def answer_also(self, previous: Identity | None, until: float) -> None:
        """Has handshakes for our key before this one answered too until then; None ends it.

        Our own handshakes are under it in turns, with peers that have not shown to know the newest.
        """
        if self._local.set_previous(previous, until):
            for peer in self._peers.values():
                peer.remote_knows_our_key = False

    def start(self, now: float) -> list[Action]:
        """Begins with every peer that can be reached, has no session and was not tried yet."""
        actions: list[Action] = []
        for peer in self._peers.values():
            actions += discovery.remind(self._local, peer)
            if isinstance(peer.effort, Idle) and not peer.slots.is_usable():
                actions += self._acted(peer, initiator.begin(self._local, peer, now))
        return actions

    def set_endpoint(self, peer: PublicKey, endpoint: Endpoint, now: float) -> list[Action]:
        """Takes an endpoint found by name or in the cache; a peer without session is tried there."""
        known = self._peers[peer]
        is_new = known.endpoint != endpoint
        self._move(known, endpoint, now)
        actions: list[Action] = [SetEndpoint(peer, endpoint)] if is_new else []
        may_begin = isinstance(known.effort, Idle) or (is_new and not isinstance(known.effort, Quiet))
        if may_begin and not known.slots.is_usable():
            actions += initiator.begin(self._local, known, now)
        return self._acted(known, actions)

    def adopt(
        self,
        peer: PublicKey,
        sessions: Sequence[AdoptedSession],
        endpoint: Endpoint | None,
        now: float,
        mtu: int = 0,
    ) -> None:
        """Takes over what the plane holds of a peer since an earlier run; `mtu` as in SetPeerMtu."""
        known = self._peers[peer]
        lifecycle.adopt(self._local, known, sessions, now)
        if endpoint is not None:
            self._move(known, endpoint, now)
        discovery.adopt(self._local, known, mtu)
        self._schedule(known)

    # --- from the network ---

    def receive(self, datagram: bytes, source: Endpoint, now: float, *, queue_depth: int = 0) -> list[Action]:
        """Takes a handshake datagram, whatever it is; what is refused is counted, never raised.

        `queue_depth` is how many wait behind it.
        """
        self._local.last_refusal = None
        try:
            match datagram[0] if datagram else None:
                case PacketType.HS_INIT:
                    return self._receive_initiation(datagram, source, now, queue_depth)
                case PacketType.HS_RESP:
                    return self._receive_response(datagram, source, now)
                case PacketType.COOKIE:
                    return self._receive_cookie(datagram, now)
        except RejectedMessage as refusal:
            self._local.refuse(refusal.reason, now)
            return []
        except MalformedMessage:
            pass
        self._local.refuse("rx_malformed", now)
        return []

    def receive_control(
        self,
        peer: PublicKey,
        local_index: int,
        source: Endpoint,  # noqa: ARG002 where an answer would go: what needs one from there, the plane answers
        payload: bytes,
        now: float,
    ) -> list[Action]:
        """Takes a control message that the plane opened under one of the peer's sessions."""
        known = self._peers.get(peer)
        session = known.slots.find(local_index) if known is not None else None
        if known is None or session is None:
            return []
        actions = consume_control(self._local, known, session, payload, now)
        return self._acted(known, actions)

    def gate_keys(self, now: float) -> GateKeys:
        """What the plane needs to answer a flood by cookies before it reaches us."""
        return self._gate.keys(now)

    def note_handshake_cpu(self, seconds: float, now: float) -> None:
        """Adds CPU time that `receive` took, which tells whether we are under load."""
        self._gate.load.note_cpu(seconds, now)

    @property
    def loaded_until(self) -> float:
        """When handshakes cease to be too many, if no more come; in the past, they are not."""
        return self._gate.load.until

    # --- from the plane ---

    def plane_lost(self) -> None:
        """The plane is gone, and all sessions with it."""
        for peer in self._peers.values():
            lifecycle.retire_all(self._local, peer)
            self._schedule(peer)

    def set_epoch(self, epoch: bytes) -> None:
        """Another plane holds our sessions from now on; peers learn of it by our next handshake."""
        self._local.epoch = epoch

    def want_session(self, peer: PublicKey, now: float) -> list[Action]:
        """The plane has packets for the peer and no session: own traffic, which starts anything."""
        known = self._peers.get(peer)
        if known is None or isinstance(known.effort, Trying) or known.slots.is_usable():
            return []
        return self._acted(known, initiator.begin(self._local, known, now))

    def session_placed(self, peer: PublicKey, local_index: int, slot: Slot, now: float) -> list[Action]:
        known = self._peers.get(peer)
        if known is None:
            return []
        return self._acted(known, lifecycle.follow_placement(self._local, known, local_index, slot, now))

    def session_ended(self, peer: PublicKey, local_index: int, now: float) -> list[Action]:
        known = self._peers.get(peer)
        if known is None:
            return []
        return self._acted(known, lifecycle.follow_end(self._local, known, local_index, now))

    def endpoint_moved(self, peer: PublicKey, endpoint: Endpoint, now: float) -> None:
        """The peer was heard from another endpoint, which the plane uses already."""
        known = self._peers.get(peer)
        if known is not None:
            self._move(known, endpoint, now)
            self._schedule(known)

    # --- time ---

    def looks_wanted(self, now: float) -> set[PublicKey]:
        """Whose stamps the next `tick` must have, whether they moved or not."""
        wanted = {peer.key for peer in self._changed}
        wanted.update(key for key, at in self._look_at.items() if at <= now)
        return wanted

    def tick(self, now: float, activity: Mapping[PublicKey, Activity]) -> list[Action]:
        """Does what is due, by the plane's stamps and by our own moments.

        `activity` may leave out peers whose stamps are as they were in the tick before, and who are
        not among `looks_wanted`.
        """
        if now - self._ticked_at > self._local.timers.sleep_gap_s:
            self._gap = (self._ticked_at, now)
        self._ticked_at = now
        self._changed.clear()
        # Who was to be looked at and is not shown has no session any more.
        self._look_at = {key: at for key, at in self._look_at.items() if at > now and key not in activity}
        actions: list[Action] = []
        local, peers = self._local, self._peers
        for key, seen in activity.items():
            peer = peers.get(key)
            if peer is None:
                continue
            before = len(actions)
            look_at = upkeep.watch(local, peer, seen, now, actions)
            if look_at < math.inf:
                self._look_at[key] = look_at
            if len(actions) > before:
                self._schedule(peer)
        self._watch_at = min(self._look_at.values(), default=math.inf)
        while (due := self._calendar.pop_due(now)) is not None:
            actions += self._acted(due, upkeep.run_due(local, due, now))
        return actions

    def next_deadline(self, now: float) -> float | None:
        """When `tick` has to come at the latest; None where nothing lives."""
        moments = [self._watch_at, self._calendar.earliest()]
        if len(self._local.indices) > 0:
            # Stamps move without a word to us: they are looked at regularly.
            moments.append(max(self._ticked_at + self._local.timers.poll_s, now))
        earliest = min(moments)
        return None if earliest == math.inf else earliest

    # --- from the operator and the machine ---

    def prepare(self, count: int) -> bool:
        """Computes what handshakes with some of the peers begin with, so that these have less to do.

        Tells whether there are more peers to prepare. Who is not, is when a handshake comes.
        """
        while self._unprepared and count:
            peer = self._unprepared.popleft()
            peer.static.shared(self._local.key)
            count -= 1
        return bool(self._unprepared)

    def reconnect(self, peer: PublicKey, now: float) -> list[Action]:
        """Begins a handshake at once, whatever there is; a live session serves until the new one."""
        known = self._peers[peer]
        return self._acted(known, initiator.begin(self._local, known, now))

    def resumed(self, now: float) -> list[Action]:
        """The machine slept: handshakes with all peers that were active before."""
        active_since = self._slept_at(now) - self._local.timers.active_s
        actions: list[Action] = []
        for peer in self._peers.values():
            is_active = peer.last_active > 0.0 and peer.last_active >= active_since
            if is_active and not isinstance(peer.effort, Quiet):
                actions += self._acted(peer, initiator.begin(self._local, peer, now))
        return actions

    def network_changed(self, now: float) -> list[Action]:
        """Addresses or routes changed: asks active peers, and tries the unreachable again."""
        timers = self._local.timers
        actions: list[Action] = []
        for peer in self._peers.values():
            if peer.slots.current is not None:
                is_active = peer.last_active > 0.0 and peer.last_active >= now - timers.active_s
                if is_active and now - peer.check_since >= timers.network_retry_s:
                    peer.check_since = now
                    actions += self._acted(peer, [self._ask(peer, now)])
            elif isinstance(peer.effort, Trying):
                soon = peer.effort.last_at + timers.network_retry_s
                if now >= soon:
                    actions += self._acted(peer, initiator.begin(self._local, peer, now))
                else:
                    peer.effort.next_at = min(peer.effort.next_at, soon)
                    self._schedule(peer)
            elif isinstance(peer.effort, GaveUp):
                actions += self._acted(peer, initiator.begin(self._local, peer, now))
        return actions

    def ping(self, peer: PublicKey, now: float, opaque: int, size: int = 0) -> list[Action]:
        """Asks the peer for an echo, answered by a Pong; without a session it begins one instead."""
        known = self._peers[peer]
        if known.slots.current is None:
            return self.want_session(peer, now)
        return [dialogue.ask(known, opaque, now, is_asked_for=True, size=size)]

    def notice(self, peer: PublicKey, reason: NoticeReason, count: int) -> list[Action]:
        """Tells the peer on a live session why `count` of its packets were dropped here."""
        if self._peers[peer].slots.current is None:
            return []
        return [SendControl(peer, encode_notice(reason, count))]

    def note_refused_pushes(self, peer: PublicKey, count: int) -> None:
        """Counts pushed settings that our configuration does not take from this peer."""
        self._local.count("push_refused", self._peers[peer], count)

    def enrol(self, peer: PublicKey, own: PublicKey) -> list[Action]:
        """Tells the peer, which invited us under this device's key, the key that is to be ours."""
        return [] if self._peers[peer].slots.current is None else [SendControl(peer, encode_enrol(own))]

    def answer_enrolment(self, peer: PublicKey, answer: EnrolAnswer) -> list[Action]:
        return [SendControl(peer, encode_enrol_ack(answer))] if peer in self._peers else []

    def goodbye(self, reason: GoodbyeReason, now: float) -> list[Action]:
        """Takes leave of every peer; the copies that follow come by `tick`, until no deadline is left."""
        actions: list[Action] = []
        for peer in self._peers.values():
            actions += self._acted(peer, lifecycle.say_goodbye(self._local, peer, reason, now))
        return actions

    # --- helpers ---

    def _move(self, peer: Peer, endpoint: Endpoint, now: float) -> None:
        if peer.endpoint != endpoint:
            peer.endpoint = endpoint
            discovery.follow_endpoint(self._local, peer, now)

    def _slept_at(self, now: float) -> float:
        """When the machine fell asleep, as far as the ticks tell."""
        began_at, ended_at = self._gap
        if now - self._ticked_at > self._local.timers.sleep_gap_s:
            return self._ticked_at
        return began_at if now - ended_at <= self._local.timers.resume_notice_s else now

    def _receive_initiation(
        self, datagram: bytes, source: Endpoint, now: float, queue_depth: int
    ) -> list[Action]:
        passed = self._gate.pass_untrusted(datagram, source, now, queue_depth)
        if isinstance(passed, bytes):
            self._local.refuse("hs_cookie_sent", now)
            return [SendDatagram(source, passed, None)]
        message, own = passed
        peer, parties, chain = responder.identify_initiator(own, self._roster.by_hash, message, now)
        return self._acted(
            peer,
            responder.consume_initiation(self._local, peer, parties, chain, message, source=source, now=now),
        )

    def _receive_response(self, datagram: bytes, source: Endpoint, now: float) -> list[Action]:
        message = parse_response_untrusted(datagram)
        pending = initiator.find_pending(self._local, message.receiver_index, "hs_resp_noidx")
        return self._acted(
            pending.peer, initiator.consume_response(self._local, pending, message, source, now)
        )

    def _receive_cookie(self, datagram: bytes, now: float) -> list[Action]:
        message = parse_cookie_untrusted(datagram)
        pending = initiator.find_pending(self._local, message.receiver_index, "cookie_bad")
        initiator.consume_cookie(self._local, pending, message, now)
        return self._acted(pending.peer, [])

    def _add(self, options: PeerOptions, now: float) -> None:
        peer = Peer(options, self._local.knock, options.endpoint, now + self._local.timers.psk_roll_s)
        self._roster.add(peer)
        self._unprepared.append(peer)
        self._schedule(peer)

    def _remove(self, peer: Peer) -> list[Action]:
        self._roster.remove(peer)
        self._look_at.pop(peer.key, None)
        self._changed.discard(peer)
        self._calendar.put(peer, math.inf)
        return lifecycle.part_at_once(self._local, peer)

    def _ask(self, peer: Peer, now: float) -> Action:
        opaque = int.from_bytes(self._local.random_bytes(8), "little")
        return dialogue.ask(peer, opaque, now, is_asked_for=False)

    def _acted(self, peer: Peer, actions: list[Action]) -> list[Action]:
        self._schedule(peer)
        return actions

    def _schedule(self, peer: Peer) -> None:
        self._changed.add(peer)
        self._calendar.put(peer, peer.next_due(self._local.timers))
