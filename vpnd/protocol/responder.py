"""Our end as responder: opens an initiation, judges it, answers.

Owns steps 6 to 11 of section 5.2. Nothing is stored before the last step, and the peer's
endpoint and current session are not touched: the initiator has yet to prove itself (5.5).
"""

from __future__ import annotations

from collections.abc import Mapping

from vpnd.endpoint import Endpoint
from vpnd.errors import MalformedMessage, RejectedMessage
from vpnd.protocol.actions import Action, RetireSession, SendDatagram
from vpnd.protocol.birth import create_session, install
from vpnd.protocol.boxes import Chain
from vpnd.protocol.constants import DATAGRAM_MAX, PARAMETERS2_MAX, PARAMETERS_STEP, RESPONSE_RATIO_MAX
from vpnd.protocol.handshake import OpenedInitiation, create_response, open_identity, open_initiation
from vpnd.protocol.local import Local
from vpnd.protocol.messages import RESPONSE_FIXED, InitiationMessage
from vpnd.protocol.parameters import (
    Agreement,
    Parameters,
    accept_offer,
    decode_parameters_untrusted,
    encode_parameters,
    pad_parameters,
)
from vpnd.protocol.peer import Peer
from vpnd.protocol.statics import OwnKey, Parties
from vpnd.protocol.timestamps import TIMESTAMP_SIZE


def identify_initiator(
    own: OwnKey, peers_by_identity: Mapping[bytes, Peer], message: InitiationMessage, now: float
) -> tuple[Peer, Parties, Chain]:
    """Tells who sent an initiation for this key of ours, under which of theirs, with the chain up to there.

    Raises RejectedMessage with "hs_box_id" or "hs_unknown_peer".
    """
    chain, named = open_identity(own.identity, own.start(message.version), message)
    peer = peers_by_identity.get(named)
    if peer is not None and peer.options.enabled:
        for theirs in peer.keys(now):
            if theirs.identity_hash == named:
                return peer, Parties(own, theirs), chain
    raise RejectedMessage("hs_unknown_peer")


def consume_initiation(
    local: Local,
    peer: Peer,
    parties: Parties,
    chain: Chain,
    message: InitiationMessage,
    *,
    source: Endpoint,
    now: float,
) -> list[Action]:
    """Answers an initiation with a new session, unconfirmed; a refusal is counted with the peer."""
    try:
        opened = open_initiation(
            parties.theirs.public, parties.shared(), peer.preshared_keys(now), chain, message
        )
        offer, agreement = _judge(local, peer, opened, now)
        local_index = local.indices.draw()
    except RejectedMessage as refusal:
        local.refuse(refusal.reason, now, peer)
        return []
    peer.learn_keys(parties, local.key)
    return _answer(
        local,
        peer,
        opened,
        offer,
        agreement,
        parties=parties,
        local_index=local_index,
        source=source,
        now=now,
    )


def _judge(local: Local, peer: Peer, opened: OpenedInitiation, now: float) -> tuple[Parameters, Agreement]:
    if opened.parameters[:TIMESTAMP_SIZE] <= peer.greatest_timestamp:
        raise RejectedMessage("hs_stale")
    if now - peer.last_accepted_at < local.timers.peer_rate_s:
        raise RejectedMessage("hs_peer_rate")
    try:
        offer = decode_parameters_untrusted(opened.parameters[TIMESTAMP_SIZE:])
    except MalformedMessage:
        raise RejectedMessage("hs_param") from None
    return offer, accept_offer(offer, local.capabilities, opened.message.version)


def _answer(
    local: Local,
    peer: Peer,
    opened: OpenedInitiation,
    offer: Parameters,
    agreement: Agreement,
    *,
    parties: Parties,
    local_index: int,
    source: Endpoint,
    now: float,
) -> list[Action]:
    message = opened.message
    peer.greatest_timestamp = opened.parameters[:TIMESTAMP_SIZE]
    peer.last_accepted_at = now
    if offer.psk_next or opened.preshared_key is peer.options.preshared_key:
        peer.remote_has_next_psk = True
    session = create_session(
        local,
        local_index,
        message.sender_index,
        is_initiator=False,
        agreement=agreement,
        parameters=offer,
        now=now,
    )
    parameters = _choice(local, peer, agreement, now) + peer.options.push
    if len(parameters) <= _room(message):
        session.pushed = peer.options.pushed()
    else:
        parameters = _choice(local, peer, agreement, now, pushes_later=True)
    datagram, keys = create_response(
        opened,
        local_index=local_index,
        ephemeral=local.make_ephemeral(now),
        parameters=pad_parameters(parameters),
        suite=agreement.suite,
    )
    local.indices.claim(local_index, peer)
    evicted = peer.slots.add(session)
    actions: list[Action] = []
    if evicted is not None:
        local.indices.free(evicted.local_index)
        actions.append(RetireSession(peer.key, evicted.local_index))
    return [
        *actions,
        install(peer, session, keys, source, parties),
        SendDatagram(source, datagram, peer.key),
    ]


def _choice(
    local: Local, peer: Peer, agreement: Agreement, now: float, *, pushes_later: bool = False
) -> bytes:
    own = local.capabilities
    return encode_parameters(
        Parameters(
            versions=own.versions,
            suites=(agreement.suite,),
            mtu=own.mtu if peer.options.push_mtu is None else peer.options.push_mtu,
            features=int(agreement.features),
            keepalive_s=peer.options.keepalive_s or None,
            epoch=local.epoch,
            padding=agreement.padding,
            psk_next=peer.is_rolling(now),
            push_later=pushes_later,
        )
    )


def _room(message: InitiationMessage) -> int:
    """Bytes of parameters that the response may carry; what is left out goes by PARAMS later."""
    size = min(RESPONSE_RATIO_MAX * message.size, DATAGRAM_MAX) - RESPONSE_FIXED
    return min(size // PARAMETERS_STEP * PARAMETERS_STEP, PARAMETERS2_MAX)
