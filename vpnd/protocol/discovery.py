"""Path MTU discovery of a peer: when its path is asked, and what the plane is told of it (section 9.4).

Owns the step from outer datagrams to inner packets. What the answers mean is decided in path_mtu.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from vpnd.endpoint import Endpoint
from vpnd.protocol.actions import Action, SendControl, SetPeerMtu
from vpnd.protocol.constants import DATA_OVERHEAD, FRAME_OVERHEAD, Feature
from vpnd.protocol.control_messages import ProbeAck, encode_probe
from vpnd.protocol.local import Local
from vpnd.protocol.path_mtu import Ask, Pace
from vpnd.protocol.peer import Activity, Peer
from vpnd.protocol.sessions import Session

_UDP = 8
_IP = {4: 20, 6: 40}
_IPV4_MIN = 68  # RFC 791: the least a link may have


def around_plaintext(endpoint: Endpoint) -> int:
    """Bytes of the outer IP packet besides the plaintext of a data message."""
    return _IP[endpoint.address.version] + _UDP + DATA_OVERHEAD


def follow_session(local: Local, peer: Peer, session: Session, now: float) -> list[Action]:
    """A new session is there: asks its path, unless that was done under the session before."""
    if peer.slots.current is not session or peer.endpoint is None:
        return []
    if Feature.PMTU not in Feature(session.features):
        peer.path.sleep(forget=True)
        return remind(local, peer)
    if peer.path_to == peer.endpoint and peer.path.knows(_largest(local, peer.endpoint)):
        return []
    return _ask_anew(local, peer, peer.endpoint, now)


def follow_endpoint(local: Local, peer: Peer, now: float) -> None:
    """The peer is elsewhere: another path, asked as soon as the endpoint has had time to be proven."""
    session = peer.slots.current
    if session is not None and Feature.PMTU in Feature(session.features):
        is_first = peer.path_to is None
        peer.path.forget_at(now if is_first else now + local.timers.path_settle_s)


def consume_probe_ack(local: Local, peer: Peer, message: ProbeAck, now: float) -> list[Action]:
    """Takes the answer to a probe; one to no probe of ours is ignored."""
    if peer.endpoint is None:
        return []
    came = message.size + around_plaintext(peer.endpoint)
    asks = peer.path.answered(message.probe_id, came, now, _pace(local, peer))
    return _carry_out(local, peer, peer.endpoint, asks)


def run(local: Local, peer: Peer, now: float) -> list[Action]:
    """Does what is due on the path; without a session it waits for the next one."""
    if now < peer.path.due_at:
        return []
    if peer.slots.current is None or peer.endpoint is None:
        peer.path.sleep()
        return []
    if not peer.path.knows(_largest(local, peer.endpoint)):
        return _ask_anew(local, peer, peer.endpoint, now)
    asks = peer.path.run(now, _pace(local, peer))
    return _carry_out(local, peer, peer.endpoint, asks)


def watch(local: Local, peer: Peer, seen: Activity, now: float, actions: list[Action]) -> float:
    """Doubts the path where data stop being answered, and now and then where they flow.

    Gives the moment to look again if no stamp moves.
    """
    timers, checked_at = local.timers, peer.path.checked_at
    if peer.endpoint is None or checked_at == math.inf or seen.last_data_sent <= checked_at:
        return math.inf
    doubt_at = checked_at + timers.path_check_s
    # A control message of the peer ends the plane's stamp, but answers no data.
    silent_since = seen.unanswered_sent_since or seen.last_data_received
    if seen.last_data_received > checked_at and seen.last_data_sent >= silent_since + timers.path_insist_s:
        # Somebody always has the last word: only who says it again lacks an answer.
        soonest = peer.path.doubted_at + timers.path_doubt_gap_s
        doubt_at = min(doubt_at, max(silent_since + timers.path_doubt_s, soonest))
    if now < doubt_at:
        return doubt_at
    actions += _carry_out(local, peer, peer.endpoint, peer.path.doubt(now, _pace(local, peer)))
    return math.inf


def adopt(local: Local, peer: Peer, mtu: int) -> None:
    """The plane holds a peer to inner packets of `mtu` bytes since an earlier run; 0: to none."""
    peer.told_mtu = mtu
    if mtu and peer.endpoint is not None:
        peer.path.adopt_limit(mtu + _around_packet(local, peer.endpoint))


def remind(local: Local, peer: Peer) -> list[Action]:
    """Tells the plane what is known, where it does not have that yet."""
    return [] if peer.endpoint is None else _tell(local, peer, peer.endpoint)


def wanted_mtu(local: Local, peer: Peer, endpoint: Endpoint) -> int:
    """The largest inner packet for the peer, 0 where it may be as large as the link's MTU.

    A bridged network counts on every frame: where the path delivers large ones in pieces, so be it.
    """
    if peer.path.limit is None or (_is_tap(local) and peer.path.is_cut):
        return 0
    mtu = max(peer.path.limit - _around_packet(local, endpoint), _IPV4_MIN)
    return mtu if mtu < local.capabilities.mtu else 0


def _around_packet(local: Local, endpoint: Endpoint) -> int:
    return around_plaintext(endpoint) + (FRAME_OVERHEAD if _is_tap(local) else 0)


def _is_tap(local: Local) -> bool:
    return local.capabilities.link_type == Feature.TAP


def _largest(local: Local, endpoint: Endpoint) -> int:
    """The outer packet around the largest inner one."""
    return local.capabilities.mtu + _around_packet(local, endpoint)


def _pace(local: Local, peer: Peer) -> Pace:
    timers = local.timers
    return Pace(max(timers.path_try_s, 2 * (peer.rtt_s or 0.0)), timers.path_raise_s)


def _ask_anew(local: Local, peer: Peer, endpoint: Endpoint, now: float) -> list[Action]:
    peer.path_to, peer.told_mtu = endpoint, None
    asks = peer.path.begin(_largest(local, endpoint), now, _pace(local, peer))
    return _carry_out(local, peer, endpoint, asks)


def _carry_out(local: Local, peer: Peer, endpoint: Endpoint, asks: Iterable[Ask]) -> list[Action]:
    around = around_plaintext(endpoint)
    probes: list[Action] = [
        SendControl(peer.key, encode_probe(ask.probe_id, ask.size - around)) for ask in asks
    ]
    return _tell(local, peer, endpoint) + probes


def _tell(local: Local, peer: Peer, endpoint: Endpoint) -> list[Action]:
    """Leaves the plane what it has while the first search runs: nothing is known to be better."""
    mtu = wanted_mtu(local, peer, endpoint)
    is_open = peer.told_mtu is None and not (peer.path.is_settled or peer.path.is_asleep)
    if is_open or mtu == peer.told_mtu:
        return []
    peer.told_mtu = mtu
    return [SetPeerMtu(peer.key, mtu)]
