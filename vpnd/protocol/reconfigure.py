"""A peer's options change while it lives.

Owns what each difference leads to. Whatever is the same in both options is left alone: the
session, its counters, the endpoint the peer roamed to.
"""

from __future__ import annotations

from vpnd.protocol.actions import Action, PeerChanged, SetEndpoint
from vpnd.protocol.dialogue import offer_push
from vpnd.protocol.initiator import begin
from vpnd.protocol.lifecycle import calm, retire_all
from vpnd.protocol.local import Local
from vpnd.protocol.peer import GaveUp, Idle, Peer, PeerOptions, Trying


def change_options(local: Local, peer: Peer, options: PeerOptions, now: float) -> list[Action]:
    """Follows new options; a session goes on, also under a preshared key that is no longer used."""
    before, peer.options = peer.options, options
    has_key_to_show = peer.take_keys()
    has_other_secrets = not before.has_same_secrets(options)
    if has_other_secrets:
        peer.previous_psk_until = now + local.timers.psk_roll_s
        peer.remote_has_next_psk = False
    actions: list[Action] = [PeerChanged(peer.key)]
    if not options.enabled:
        # Who is shut out is told nothing, not even that.
        calm(local, peer)
        return [*actions, *retire_all(local, peer)]
    if not before.enabled:
        peer.effort = Idle()
    has_moved = _follow_endpoint(local, peer, before)
    if has_moved and peer.endpoint is not None:
        actions.append(SetEndpoint(peer.key, peer.endpoint))
    is_engaged = peer.slots.is_usable() or isinstance(peer.effort, Trying | GaveUp)
    if not before.enabled or has_moved or ((has_other_secrets or has_key_to_show) and is_engaged):
        actions += begin(local, peer, now)
    current = peer.slots.current
    if current is not None and current.is_adopted and before.pushed() != options.pushed():
        # Whether the peer takes PARAMS was agreed in an earlier life of ours: the next session knows.
        return [*actions, *begin(local, peer, now)]
    return actions + offer_push(peer, current, local.timers, now) if current is not None else actions


def _follow_endpoint(local: Local, peer: Peer, before: PeerOptions) -> bool:
    """Takes a new endpoint; one that was taken back is forgotten unless a session uses it."""
    wanted = peer.options.endpoint
    if wanted in (before.endpoint, peer.endpoint):
        return False
    if wanted is None:
        if not peer.slots.is_usable():
            calm(local, peer)
            peer.effort, peer.endpoint = Idle(), None
        return False
    peer.endpoint = wanted
    return True
