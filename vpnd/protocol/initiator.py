"""Our end as initiator: begins, retries, takes cookies and responses, gives up.

Owns the retry schedule and the acceptance of HS_RESP and COOKIE (sections 5.1, 5.3, 5.4).
Nothing of a peer changes before the last check of a message passed.

A cookie serves the attempts until one goes unanswered: then it may be stale (the responder
started anew, a NAT moved us), and a responder that still wants one sends another.
"""

from __future__ import annotations

import math

from vpnd.endpoint import Endpoint
from vpnd.errors import MalformedMessage, RejectedMessage
from vpnd.keys import Secret
from vpnd.protocol.actions import (
    Action,
    FlushStaged,
    ParametersReceived,
    PeerChanged,
    SendDatagram,
    SendKeepalive,
)
from vpnd.protocol.birth import create_session, install
from vpnd.protocol.constants import PENDING_MAX, RESPONSE_RATIO_MAX
from vpnd.protocol.cookies import Cookie, open_cookie, with_cookie
from vpnd.protocol.handshake import Initiation, OpenedResponse, create_initiation, open_response
from vpnd.protocol.local import Local
from vpnd.protocol.messages import CookieMessage, ResponseMessage
from vpnd.protocol.parameters import (
    Agreement,
    Parameters,
    accept_choice,
    decode_parameters_untrusted,
    encode_parameters,
    pad_parameters,
)
from vpnd.protocol.peer import Confirmation, GaveUp, Idle, Peer, Pending, Trying
from vpnd.protocol.sessions import Session
from vpnd.protocol.statics import Parties
from vpnd.protocol.timestamps import encode_timestamp

_ATTEMPTS_PER_VERSION = 2


def begin(local: Local, peer: Peer, now: float, *, stays_high: bool = False) -> list[Action]:
    """Starts trying anew, with a first attempt at once; without an endpoint there is nothing to try."""
    if not peer.options.enabled or peer.endpoint is None:
        return []
    peer.restart_at = math.inf
    peer.effort = trying = Trying(started_at=now, next_at=now, last_at=now, stays_high=stays_high)
    return [*attempt(local, peer, trying, now), PeerChanged(peer.key)]


def attempt(local: Local, peer: Peer, trying: Trying, now: float) -> list[Action]:
    """Sends a new initiation and sets the time of the next; a refusal costs one turn."""
    schedule = local.timers.hs_retry_s
    wait_s = schedule[min(trying.attempts, len(schedule) - 1)]
    trying.next_at = now + wait_s + local.jitter(local.timers.hs_retry_jitter_s)
    trying.attempts += 1
    trying.last_at = now
    try:
        return [_send_initiation(local, peer, trying, now)]
    except RejectedMessage as refusal:
        local.refuse(refusal.reason, now, peer)
        return []


def give_up(peer: Peer, trying: Trying, now: float) -> list[Action]:
    peer.effort = GaveUp(now, trying.attempts)
    return [FlushStaged(peer.key), PeerChanged(peer.key)]


def drop_pending(local: Local, peer: Peer, pending: Pending) -> None:
    """Forgets an initiation; its secrets are wiped."""
    pending.initiation.wipe()
    peer.pending.remove(pending)
    local.indices.free(pending.initiation.local_index)


def resend(peer: Peer, pending: Pending) -> SendDatagram:
    """Sends the same bytes once more, with the cookie that answered them."""
    assert peer.endpoint is not None
    pending.resend_at = math.inf
    return SendDatagram(peer.endpoint, pending.initiation.message, peer.key)


def find_pending(local: Local, local_index: int, reason: str) -> Pending:
    """The initiation in flight with this index. Raises RejectedMessage(reason) where there is none."""
    pending = local.indices.owner(local_index)
    if not isinstance(pending, Pending):
        raise RejectedMessage(reason)
    return pending


def consume_cookie(local: Local, pending: Pending, message: CookieMessage, now: float) -> None:
    """Stores the cookie that answers an initiation, which leaves once more a little later."""
    peer, initiation = pending.peer, pending.initiation
    cookie = None
    if not pending.is_answered_by_cookie and message.version == initiation.version:
        cookie = open_cookie(message, initiation.mac1, pending.parties.theirs.cookie_key, now)
    if cookie is None:
        local.refuse("cookie_bad", now, peer)
        return
    peer.cookie, peer.is_cookie_tried = cookie, False
    pending.is_answered_by_cookie = True
    initiation.message = with_cookie(initiation.message, cookie)
    pending.resend_at = now + local.jitter(local.timers.cookie_resend_jitter_s)


def consume_response(
    local: Local, pending: Pending, message: ResponseMessage, source: Endpoint, now: float
) -> list[Action]:
    """Takes the answer to an initiation: a new session. A refusal is counted with the peer."""
    peer, initiation = pending.peer, pending.initiation
    try:
        _check_frame(initiation, message)
        opened = open_response(pending.parties.own.identity, initiation, message)
        parameters, agreement = _judge(local, opened)
    except RejectedMessage as refusal:
        local.refuse(refusal.reason, now, peer)
        return []
    return _establish(
        local, pending, message, opened, parameters=parameters, agreement=agreement, source=source, now=now
    )


def _check_frame(initiation: Initiation, message: ResponseMessage) -> None:
    if message.version != initiation.version:
        raise RejectedMessage("hs_resp_noidx")
    if message.size > RESPONSE_RATIO_MAX * len(initiation.message):
        raise RejectedMessage("rx_malformed")


def _judge(local: Local, opened: OpenedResponse) -> tuple[Parameters, Agreement]:
    try:
        parameters = decode_parameters_untrusted(opened.parameters)
    except MalformedMessage:
        raise RejectedMessage("hs_param") from None
    return parameters, accept_choice(parameters, local.capabilities, opened.version)


def _establish(
    local: Local,
    pending: Pending,
    message: ResponseMessage,
    opened: OpenedResponse,
    *,
    parameters: Parameters,
    agreement: Agreement,
    source: Endpoint,
    now: float,
) -> list[Action]:
    peer, initiation = pending.peer, pending.initiation
    if initiation.preshared_key is peer.options.preshared_key or parameters.psk_next:
        peer.remote_has_next_psk = True
    peer.learn_keys(pending.parties, local.key)
    for older in peer.pending[: peer.pending.index(pending) + 1]:
        drop_pending(local, peer, older)
    session = create_session(
        local,
        initiation.local_index,
        message.sender_index,
        is_initiator=True,
        agreement=agreement,
        parameters=parameters,
        now=now,
    )
    had_session = peer.slots.is_usable()
    local.indices.claim(session.local_index, peer)
    peer.slots.add(session)
    peer.endpoint = source
    peer.is_cookie_tried = False
    peer.confirmation = Confirmation(
        session, [now + wait_s for wait_s in local.timers.confirm_s], stops_on_receipt=not had_session
    )
    # What is pushed is told whole: a response that says it comes later says nothing of it.
    told = () if parameters.push_later else (ParametersReceived(peer.key, parameters),)
    return [
        install(peer, session, opened.derive_keys(agreement.suite), source, pending.parties),
        SendKeepalive(peer.key),
        *told,
        *finish(local, peer, session, now),
    ]


def finish(local: Local, peer: Peer, session: Session, now: float) -> list[Action]:
    """Ends the effort with a session, in either role; one of a lower version than both know does not."""
    peer.handshakes += 1
    peer.last_handshake_at = now
    if not session.is_downgraded:
        peer.effort = Idle()
        return [PeerChanged(peer.key)]
    local.refuse("downgrade_seen", now, peer)
    if isinstance(peer.effort, Trying) and peer.effort.stays_high:
        return [PeerChanged(peer.key)]
    return begin(local, peer, now, stays_high=True)


def _send_initiation(local: Local, peer: Peer, trying: Trying, now: float) -> SendDatagram:
    assert peer.endpoint is not None
    version = _version(local, trying)
    parties, preshared_key = _keys(local, peer, trying, now)
    local_index = local.indices.draw()
    peer.last_timestamp_ns = local.timestamps.next(peer.last_timestamp_ns)
    initiation = create_initiation(
        parties.own.identity,
        parties.theirs.public,
        version=version,
        local_index=local_index,
        ephemeral=local.make_ephemeral(now),
        preshared_key=preshared_key,
        parameters=_offer(local, peer, now),
        responder_mac1_key=parties.theirs.mac1_key,
        start=parties.theirs.start(version),
        shared=parties.shared(),
    )
    cookie = _take_cookie(local, peer, now)
    if cookie is not None:
        initiation.message = with_cookie(initiation.message, cookie)
    if len(peer.pending) >= PENDING_MAX:
        drop_pending(local, peer, peer.pending[0])
    pending = Pending(initiation, peer, parties, now)
    peer.pending.append(pending)
    local.indices.claim(local_index, pending)
    return SendDatagram(peer.endpoint, initiation.message, peer.key)


def _take_cookie(local: Local, peer: Peer, now: float) -> Cookie | None:
    if peer.cookie is not None and (
        peer.is_cookie_tried or now - peer.cookie.received_at >= local.timers.cookie_use_s
    ):
        peer.cookie = None
    peer.is_cookie_tried = peer.cookie is not None
    return peer.cookie


def _version(local: Local, trying: Trying) -> int:
    versions = sorted(local.capabilities.versions, reverse=True)
    steps_down = 0 if trying.stays_high else (trying.attempts - 1) // _ATTEMPTS_PER_VERSION
    return versions[min(steps_down, len(versions) - 1)]


def _keys(local: Local, peer: Peer, trying: Trying, now: float) -> tuple[Parties, Secret]:
    """Chooses the static keys of both and the preshared one of this attempt.

    The newest of each; while one is replaced, in turns with the previous, until the peer has shown
    that it has the newest. Of several that are replaced at once every combination has its turn.
    """
    ours = local.keys(now)[: 1 if peer.remote_knows_our_key else None]
    theirs = peer.keys(now)[: 1 if peer.remote_has_next_key else None]
    shared = peer.preshared_keys(now)[: 1 if peer.remote_has_next_psk else None]
    turn = trying.attempts - 1
    own, turn = ours[turn % len(ours)], turn // len(ours)
    their, turn = theirs[turn % len(theirs)], turn // len(theirs)
    return Parties(own, their), shared[turn % len(shared)]


def _offer(local: Local, peer: Peer, now: float) -> bytes:
    own = local.capabilities
    offer = Parameters(
        versions=own.versions,
        suites=own.suites,
        mtu=own.mtu,
        features=int(own.features),
        keepalive_s=peer.options.keepalive_s or None,
        epoch=local.epoch,
        padding=own.padding,
        psk_next=peer.is_rolling(now),
    )
    return pad_parameters(encode_timestamp(peer.last_timestamp_ns) + encode_parameters(offer))
