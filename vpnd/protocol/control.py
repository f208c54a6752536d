"""A control message arrives on a session: who takes it.

Owns the fork from message to deed. The sender is authentic, the content may be anything.
"""

from __future__ import annotations

from vpnd.errors import MalformedMessage
from vpnd.protocol import dialogue, discovery
from vpnd.protocol.actions import Action, EnrolAnswered, EnrolWanted
from vpnd.protocol.control_messages import (
    Echo,
    Enrol,
    EnrolAck,
    Goodbye,
    Notice,
    Params,
    ParamsAck,
    ProbeAck,
    decode_control_untrusted,
)
from vpnd.protocol.lifecycle import consume_goodbye
from vpnd.protocol.local import Local
from vpnd.protocol.peer import Peer, ReceivedNotice
from vpnd.protocol.sessions import Session


def consume_control(  # noqa: PLR0911 - one arm per message
    local: Local, peer: Peer, session: Session, payload: bytes, now: float
) -> list[Action]:
    """Does what the message asks; one that breaks the format is counted as "data_inner"."""
    try:
        message = decode_control_untrusted(payload)
    except MalformedMessage:
        local.refuse("data_inner", now, peer)
        return []
    match message:
        case Goodbye(reason=reason):
            return consume_goodbye(local, peer, session, reason, now)
        case Params():
            return dialogue.consume_params(local, peer, message, now)
        case Echo(opaque=opaque):
            return dialogue.consume_pong(peer, opaque, now)
        case ProbeAck():
            return discovery.consume_probe_ack(local, peer, message, now)
        case Enrol(public_key=key):
            # Each is answered, and each is sent again until it is answered: at most ten a second.
            return [EnrolWanted(peer.key, key)] if peer.answers.take(None, now) else []
        case EnrolAck(answer=answer):
            return [EnrolAnswered(peer.key, answer)]
        case ParamsAck(sequence=sequence):
            dialogue.consume_params_ack(peer, sequence)
        case Notice(reason=why, count=count):
            peer.notices[why] = ReceivedNotice(why, count, now)
        case _:
            pass
    return []
