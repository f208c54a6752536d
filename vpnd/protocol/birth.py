"""A session's birth, the same for both roles: the record here, the keys to the plane.

Owns how an agreement becomes a `Session` and an `InstallSession`. Decides nothing.
"""

from __future__ import annotations

from vpnd.endpoint import Endpoint
from vpnd.protocol.actions import InstallSession
from vpnd.protocol.handshake import TransportKeys
from vpnd.protocol.local import Local
from vpnd.protocol.parameters import Agreement, Parameters
from vpnd.protocol.peer import Peer
from vpnd.protocol.sessions import Session
from vpnd.protocol.statics import Parties


def rekey_time(local: Local, created_at: float, *, is_initiator: bool) -> float:
    """When this end replaces a session that is in use; the initiator does it first."""
    timers = local.timers
    if is_initiator:
        return created_at + timers.rekey_after_s - local.jitter(timers.rekey_jitter_s)
    return created_at + timers.rekey_responder_s


def create_session(
    local: Local,
    local_index: int,
    remote_index: int,
    *,
    is_initiator: bool,
    agreement: Agreement,
    parameters: Parameters,
    now: float,
) -> Session:
    return Session(
        local_index=local_index,
        remote_index=remote_index,
        suite=agreement.suite,
        is_initiator=is_initiator,
        created_at=now,
        rekey_at=rekey_time(local, now, is_initiator=is_initiator),
        features=int(agreement.features),
        padding=agreement.padding,
        remote_mtu=parameters.mtu,
        remote_epoch=parameters.epoch,
        is_downgraded=agreement.downgraded,
    )


def install(
    peer: Peer, session: Session, keys: TransportKeys, endpoint: Endpoint, parties: Parties
) -> InstallSession:
    """Hands the keys over; no copy stays here."""
    assert session.padding is not None
    return InstallSession(
        peer=peer.key,
        local_index=session.local_index,
        remote_index=session.remote_index,
        suite=session.suite,
        is_initiator=session.is_initiator,
        preferred=parties.prefers_initiator(is_ours=session.is_initiator),
        padding=session.padding,
        features=session.features,
        endpoint=endpoint,
        send_key=keys.send,
        receive_key=keys.receive,
    )
