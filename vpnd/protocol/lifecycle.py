"""What happens to sessions after their birth: placed by the plane, ended, adopted, said goodbye to.

Owns the mirror's changes that follow events, and both ends of GOODBYE. Deciding by time is
upkeep's work.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from vpnd.protocol import discovery
from vpnd.protocol.actions import Action, PeerChanged, RetireSession, SendControl, SendKeepalive
from vpnd.protocol.birth import rekey_time
from vpnd.protocol.constants import GOODBYE_COPIES, GoodbyeReason, Slot
from vpnd.protocol.control_messages import encode_goodbye
from vpnd.protocol.dialogue import offer_push
from vpnd.protocol.initiator import begin, drop_pending, finish
from vpnd.protocol.local import Local
from vpnd.protocol.peer import Farewell, Peer, Quiet, Trying
from vpnd.protocol.sessions import AdoptedSession, Session

_AGE_GRACE_S = 1.0  # a session that ends this shortly before its time ended of age


def follow_placement(local: Local, peer: Peer, local_index: int, slot: Slot, now: float) -> list[Action]:
    """The plane put a session into a slot: ours at once, the peer's once it is confirmed."""
    session = peer.slots.find(local_index)
    if session is None or slot in (Slot.UNCONFIRMED, session.slot):
        return []
    is_new = session.slot is Slot.UNCONFIRMED
    older = peer.slots.waiting[: peer.slots.waiting.index(session)] if is_new else []
    for displaced in peer.slots.place(session, slot, now):
        local.indices.free(displaced.local_index)
    if not is_new:
        return [PeerChanged(peer.key)]
    actions: list[Action] = []
    if not session.is_initiator:
        actions += (retire(local, peer, other) for other in older if not other.is_initiator)
        if slot is Slot.CURRENT:
            # The initiator waits for any sign that its confirmation came.
            actions.append(SendKeepalive(peer.key))
        actions += finish(local, peer, session, now)
        if session.pushed is not None:
            peer.delivered_push, peer.push = session.pushed, None
    actions += _follow_epoch(local, peer, session)
    current = peer.slots.current
    if current is not None and current.is_adopted:
        # The new one lost a collision with it, and tells what the peer can do all the same.
        current.features, current.is_adopted = session.features, False
        actions += offer_push(peer, current, local.timers, now)
    actions += offer_push(peer, session, local.timers, now)
    return actions + discovery.follow_session(local, peer, session, now)


def follow_end(local: Local, peer: Peer, local_index: int, now: float) -> list[Action]:
    """The plane ended a session by its own limits; one that ended before its time is replaced."""
    session = peer.slots.find(local_index)
    if session is None:
        return []
    was_current = peer.slots.current is session
    _forget(local, peer, session)
    if not was_current:
        return []
    is_early = now < session.created_at + local.timers.reject_after_s - _AGE_GRACE_S
    if is_early and not peer.slots.is_usable() and not isinstance(peer.effort, Trying):
        return begin(local, peer, now)
    return [PeerChanged(peer.key)]


def retire(local: Local, peer: Peer, session: Session) -> RetireSession:
    """Ends a session here and in the plane."""
    _forget(local, peer, session)
    return RetireSession(peer.key, session.local_index)


def retire_all(local: Local, peer: Peer) -> list[Action]:
    return [retire(local, peer, session) for session in tuple(peer.slots)]


def adopt(local: Local, peer: Peer, sessions: Iterable[AdoptedSession], now: float) -> None:
    """Takes over sessions of the plane that an earlier run made."""
    for found in sorted(sessions, key=lambda session: session.created_at):
        known = peer.slots.find(found.local_index)
        if known is not None:
            peer.slots.remove(known)
        session = Session(
            local_index=found.local_index,
            remote_index=found.remote_index,
            suite=found.suite,
            is_initiator=found.is_initiator,
            created_at=found.created_at,
            rekey_at=rekey_time(local, found.created_at, is_initiator=found.is_initiator),
            is_adopted=True,
        )
        local.indices.claim(session.local_index, peer)
        peer.delivered_push = None
        peer.slots.waiting.append(session)
        # When a previous one became so is not known: its 30 s begin now.
        placed_at = now if found.slot is Slot.PREVIOUS else found.created_at
        for displaced in peer.slots.place(session, found.slot, placed_at):
            local.indices.free(displaced.local_index)


def consume_goodbye(local: Local, peer: Peer, session: Session, reason: int, now: float) -> list[Action]:
    """The peer ended this session and the older ones; a late copy cannot touch a newer one."""
    ended = [other for other in peer.slots if other.created_at <= session.created_at]
    actions: list[Action] = [retire(local, peer, other) for other in ended]
    if any(peer.slots):
        return [*actions, PeerChanged(peer.key)]
    if reason in (GoodbyeReason.SHUTDOWN, GoodbyeReason.REMOVED, GoodbyeReason.IDLE):
        calm(local, peer)
    elif reason == GoodbyeReason.RESTART:
        calm(local, peer)
        peer.restart_at = now + local.timers.restart_wait_s
    return [*actions, PeerChanged(peer.key)]


def say_goodbye(local: Local, peer: Peer, reason: GoodbyeReason, now: float) -> list[Action]:
    """Sends the first GOODBYE; the others follow by time, and the sessions end with the last."""
    calm(local, peer)
    local_indices, payload = _perhaps_current(peer), encode_goodbye(reason)
    if not local_indices:
        return retire_all(local, peer)
    next_at = now + local.timers.goodbye_interval_s
    peer.farewell = Farewell(local_indices, payload, GOODBYE_COPIES - 1, next_at)
    return send_on(peer, local_indices, payload)


def part_at_once(local: Local, peer: Peer) -> list[Action]:
    """Sends every GOODBYE now and ends all: for a peer that leaves the configuration."""
    calm(local, peer)
    goodbyes = send_on(peer, _perhaps_current(peer), encode_goodbye(GoodbyeReason.REMOVED))
    return goodbyes * GOODBYE_COPIES + retire_all(local, peer)


def send_on(peer: Peer, local_indices: Iterable[int], payload: bytes) -> list[Action]:
    """One control message on each of these sessions."""
    return [SendControl(peer.key, payload, index) for index in local_indices]


def _perhaps_current(peer: Peer) -> list[int]:
    """Local indices of sessions that the plane may use: which one it does, it tells a little later.

    One that still waits for its confirmation sends nothing.
    """
    current = peer.slots.current
    return [each.local_index for each in (current, *peer.slots.waiting) if each is not None]


def calm(local: Local, peer: Peer) -> None:
    """Stops all that we wanted of this peer; own traffic starts anew."""
    for pending in tuple(peer.pending):
        drop_pending(local, peer, pending)
    peer.effort = Quiet()
    peer.restart_at = math.inf
    peer.push = None


def _forget(local: Local, peer: Peer, session: Session) -> None:
    peer.slots.remove(session)
    local.indices.free(session.local_index)
    if peer.confirmation is not None and peer.confirmation.session is session:
        peer.confirmation = None
    farewell = peer.farewell
    if farewell is not None and session.local_index in farewell.local_indices:
        farewell.local_indices.remove(session.local_index)
        peer.farewell = farewell if farewell.local_indices else None


def _follow_epoch(local: Local, peer: Peer, session: Session) -> list[Action]:
    """Another epoch than before: the peer started anew and has lost what it had of us."""
    if session.remote_epoch is None or session.remote_epoch == peer.remote_epoch:
        return []
    is_first = peer.remote_epoch is None
    peer.remote_epoch = session.remote_epoch
    peer.applied_sequence = -1
    peer.rtt_s = None
    if is_first:
        return []
    peer.delivered_push = session.pushed or b""
    stale = [other for other in peer.slots if other.remote_epoch != session.remote_epoch]
    return [retire(local, peer, other) for other in stale if other.created_at <= session.created_at]
