"""What time demands of a live peer: rekey, keepalives, probes, expiry, retries.

Owns every comparison of stamps (section 8). `watch` looks at the plane's stamps of a peer,
`run_due` at moments of our own. Both may come late: they then do once what is due.
"""

from __future__ import annotations

import math

from vpnd.protocol import discovery
from vpnd.protocol.actions import Action, PeerChanged, SendKeepalive
from vpnd.protocol.constants import Slot, Timers
from vpnd.protocol.dialogue import ask, resend_push
from vpnd.protocol.initiator import attempt, begin, drop_pending, give_up, resend
from vpnd.protocol.lifecycle import retire, retire_all, send_on
from vpnd.protocol.local import Local
from vpnd.protocol.peer import Activity, Confirmation, Farewell, GaveUp, Idle, Peer, Trying
from vpnd.protocol.sessions import Session


def watch(local: Local, peer: Peer, seen: Activity, now: float, actions: list[Action]) -> float:
    """Adds what the stamps call for to `actions`; gives the moment to look again if no stamp moves."""
    peer.last_received = seen.last_received
    peer.last_active = max(seen.last_sent, seen.last_received)
    session = peer.slots.current
    if session is None or peer.farewell is not None:
        return math.inf
    look_at = _watch_rekey(local, peer, session, seen, now=now, actions=actions)
    if peer.options.keepalive_s or seen.unanswered_received_since:
        look_at = min(look_at, _watch_keepalive(peer, seen, local.timers, now, actions))
    if seen.unanswered_sent_since or peer.check_since:
        look_at = min(look_at, _watch_silence(local, peer, session, seen, now=now, actions=actions))
    return min(look_at, discovery.watch(local, peer, seen, now, actions))


def run_due(local: Local, peer: Peer, now: float) -> list[Action]:
    """Does what is due by our own moments; `Peer.next_due` tells when."""
    actions: list[Action] = []
    if peer.farewell is not None and now >= peer.farewell.next_at:
        actions += _run_farewell(local, peer, peer.farewell)
    for session in tuple(peer.slots):
        if now >= peer.session_ends_at(session, local.timers):
            actions.append(retire(local, peer, session))
            if session.slot is Slot.CURRENT:
                actions.append(PeerChanged(peer.key))
    for pending in tuple(peer.pending):
        if now >= pending.sent_at + local.timers.pending_life_s:
            drop_pending(local, peer, pending)
        elif now >= pending.resend_at:
            actions.append(resend(peer, pending))
    if peer.confirmation is not None and now >= peer.confirmation.left_at[0]:
        actions += _run_confirmation(peer, peer.confirmation, now)
    if peer.push is not None and now >= peer.push.next_at:
        actions += resend_push(peer, peer.push, local.timers, now)
    return actions + discovery.run(local, peer, now) + _run_effort(local, peer, now)


def _watch_rekey(
    local: Local, peer: Peer, session: Session, seen: Activity, *, now: float, actions: list[Action]
) -> float:
    timers = local.timers
    is_worn = (
        seen.session_messages >= timers.rekey_after_messages or seen.session_bytes >= timers.rekey_after_bytes
    )
    if now < session.rekey_at and not is_worn:
        return session.rekey_at
    is_used = (
        is_worn
        or peer.options.keepalive_s > 0
        or seen.last_data_sent > session.placed_at
        or seen.last_data_received > session.placed_at
    )
    if is_used and _may_begin(peer, seen):
        actions += begin(local, peer, now)
    return math.inf


def _watch_keepalive(peer: Peer, seen: Activity, timers: Timers, now: float, actions: list[Action]) -> float:
    """After data received and nothing sent, and as often as the configuration wants it."""
    look_at = math.inf
    since = seen.unanswered_received_since
    if since and since != peer.keepalive_for:
        look_at = since + timers.keepalive_s
        if now >= look_at:
            peer.keepalive_for, look_at = since, math.inf
            actions.append(SendKeepalive(peer.key))
    interval_s = peer.options.keepalive_s
    if interval_s:
        wanted_at = max(seen.last_sent, peer.persistent_sent_at) + interval_s
        if now >= wanted_at:
            peer.persistent_sent_at, wanted_at = now, now + interval_s
            actions.append(SendKeepalive(peer.key))
        look_at = min(look_at, wanted_at)
    return look_at


def _watch_silence(
    local: Local, peer: Peer, session: Session, seen: Activity, *, now: float, actions: list[Action]
) -> float:
    """Asks a peer that does not answer, and at last tries a new handshake."""
    timers = local.timers
    if seen.last_received >= peer.check_since:
        peer.check_since = 0.0
    since = seen.unanswered_sent_since or peer.check_since
    if not since:
        return math.inf
    since = max(since, session.placed_at)
    if since != peer.probed_for:
        peer.probed_for, peer.probes = since, 0
    silent_s = now - since
    if silent_s >= timers.probe_handshake_s:
        if _may_begin(peer, seen):
            actions += begin(local, peer, now)
        return math.inf
    passed = sum(silent_s >= after_s for after_s in timers.probe_s)
    if passed > peer.probes:
        peer.probes = passed
        actions.append(ask(peer, int.from_bytes(local.random_bytes(8), "little"), now, is_asked_for=False))
    return since + (*timers.probe_s, timers.probe_handshake_s)[passed]


def _may_begin(peer: Peer, seen: Activity) -> bool:
    match peer.effort:
        case Trying():
            return False
        case GaveUp(at=at):
            return seen.last_data_sent > at
        case _:
            # A session of ours that the plane has yet to place is the answer already.
            return not any(session.is_initiator for session in peer.slots.waiting)


def _run_farewell(local: Local, peer: Peer, farewell: Farewell) -> list[Action]:
    actions = send_on(peer, farewell.local_indices, farewell.payload)
    farewell.left -= 1
    farewell.next_at += local.timers.goodbye_interval_s
    if farewell.left:
        return actions
    peer.farewell = None
    return [*actions, *retire_all(local, peer), PeerChanged(peer.key)]


def _run_confirmation(peer: Peer, confirmation: Confirmation, now: float) -> list[Action]:
    session = confirmation.session
    is_heard = confirmation.stops_on_receipt and peer.last_received >= session.created_at
    while confirmation.left_at and confirmation.left_at[0] <= now:
        del confirmation.left_at[0]
    if is_heard or session.slot is Slot.PREVIOUS or not confirmation.left_at:
        peer.confirmation = None
    return [] if is_heard or session.slot is Slot.PREVIOUS else [SendKeepalive(peer.key)]


def _run_effort(local: Local, peer: Peer, now: float) -> list[Action]:
    if now >= peer.restart_at:
        peer.restart_at = math.inf
        return begin(local, peer, now)
    match peer.effort:
        case Trying() as trying:
            if now >= trying.started_at + local.timers.hs_giveup_s:
                return give_up(peer, trying, now)
            return attempt(local, peer, trying, now) if now >= trying.next_at else []
        case GaveUp(at=at) if peer.may_persist() and now >= at + local.timers.persistent_restart_s:
            return begin(local, peer, now)
        case Idle() if peer.may_persist() and not peer.slots.is_usable():
            return begin(local, peer, now)
        case _:
            return []
