"""The talk on a live session: parameters pushed and taken, pings.

Owns the Device's share of section 9.3 but GOODBYE. Everything here comes from an
authenticated peer, which may still be faulty: answers are limited per peer.
"""

from __future__ import annotations

from vpnd.errors import MalformedMessage
from vpnd.protocol.actions import Action, ParametersReceived, Pong, SendControl
from vpnd.protocol.constants import PARAMS_RESENDS, PINGS_OUT_MAX, Feature, Timers
from vpnd.protocol.control_messages import (
    Params,
    encode_params,
    encode_params_ack,
    encode_ping,
)
from vpnd.protocol.local import Local
from vpnd.protocol.parameters import decode_parameters_untrusted
from vpnd.protocol.peer import Peer, Push
from vpnd.protocol.sessions import Session

_SEQUENCES_PER_S = 10  # of 32 bits: enough for 13 years without a boot


def offer_push(peer: Peer, session: Session, timers: Timers, now: float) -> list[Action]:
    """Tells the peer our parameters for it, where it does not know the present ones yet."""
    if peer.slots.current is not session or not session.features & Feature.PARAMS:
        return []
    content = peer.options.pushed()
    # While another one is not acknowledged, the peer may know that one by now.
    if peer.push is None and content == peer.delivered_push:
        return []
    # Boot time as the least number: greater than all of an earlier run of ours in the same epoch, though
    # an operator may reload several times a second.
    peer.push_sequence = max(peer.push_sequence + 1, int(now * _SEQUENCES_PER_S))
    peer.push = Push(peer.push_sequence, content, PARAMS_RESENDS, now + timers.params_resend_s)
    return [SendControl(peer.key, encode_params(peer.push_sequence, content))]


def resend_push(peer: Peer, push: Push, timers: Timers, now: float) -> list[Action]:
    """Repeats what was not acknowledged; after the last time the next session tries anew."""
    if push.resends_left == 0 or peer.slots.current is None:
        # It may have arrived all the same.
        peer.push = peer.delivered_push = None
        return []
    push.resends_left -= 1
    push.next_at = now + timers.params_resend_s
    return [SendControl(peer.key, encode_params(push.sequence, push.content))]


def consume_params_ack(peer: Peer, sequence: int) -> None:
    if peer.push is not None and peer.push.sequence == sequence:
        peer.delivered_push = peer.push.content
        peer.push = None


def consume_params(local: Local, peer: Peer, message: Params, now: float) -> list[Action]:
    """Acknowledges parameters, and hands them on unless they or newer ones came before."""
    try:
        parameters = decode_parameters_untrusted(message.tlvs)
    except MalformedMessage:
        local.refuse("hs_param", now, peer)
        return []
    actions: list[Action] = []
    if peer.answers.take(None, now):
        actions.append(SendControl(peer.key, encode_params_ack(message.sequence)))
    if message.sequence > peer.applied_sequence:
        peer.applied_sequence = message.sequence
        actions.append(ParametersReceived(peer.key, parameters))
    return actions


def ask(peer: Peer, opaque: int, now: float, *, is_asked_for: bool, size: int = 0) -> Action:
    """Sends a PING and remembers when; `is_asked_for` has its PONG reported."""
    while len(peer.pings) >= PINGS_OUT_MAX:
        del peer.pings[next(iter(peer.pings))]
    peer.pings[opaque] = (now, is_asked_for)
    return SendControl(peer.key, encode_ping(opaque, size))


def consume_pong(peer: Peer, opaque: int, now: float) -> list[Action]:
    """Takes the round trip's time from an echo of ours; any other echo is ignored."""
    known = peer.pings.pop(opaque, None)
    if known is None:
        return []
    sent_at, is_asked_for = known
    peer.rtt_s = now - sent_at
    return [Pong(peer.key, opaque, peer.rtt_s)] if is_asked_for else []
