"""What the protocol wants done: frozen values that the driver performs in order.

Owns the vocabulary from Device to driver. Refuses to know how a datagram is sent or where
a session is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.endpoint import Endpoint
from vpnd.keys import PublicKey, Secret
from vpnd.protocol.constants import EnrolAnswer, PaddingMode, Suite
from vpnd.protocol.parameters import Parameters


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """A handshake message or a cookie leaves for `endpoint`; `peer` is None for a stranger's cookie."""

    endpoint: Endpoint
    datagram: bytes
    peer: PublicKey | None


@dataclass(frozen=True, slots=True)
class InstallSession:
    """The plane takes the keys of a new session.

    `send_key` and `receive_key` are key (32 bytes) and salt (4) in one; whoever performs the
    action wipes them after. `endpoint` is the response's source (initiator) or where the
    response went (responder).
    """

    peer: PublicKey
    local_index: int
    remote_index: int
    suite: Suite
    is_initiator: bool
    preferred: bool
    padding: PaddingMode
    features: int
    endpoint: Endpoint
    send_key: Secret
    receive_key: Secret


@dataclass(frozen=True, slots=True)
class RetireSession:
    """The plane wipes a session, in whatever slot it is; one already gone is no error."""

    peer: PublicKey
    local_index: int


@dataclass(frozen=True, slots=True)
class SendKeepalive:
    """An empty message leaves on the current session."""

    peer: PublicKey


@dataclass(frozen=True, slots=True)
class SendControl:
    """A control message leaves; `payload` starts with its type byte.

    Index 0 is the current session; no endpoint is the peer's present one.
    """

    peer: PublicKey
    payload: bytes
    local_index: int = 0
    endpoint: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class FlushStaged:
    """Packets that wait for a session of this peer are dropped."""

    peer: PublicKey


@dataclass(frozen=True, slots=True)
class SetEndpoint:
    """The peer's endpoint changed by configuration or name resolution; the plane follows."""

    peer: PublicKey
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class SetPeerMtu:
    """The path to the peer carries inner packets of up to `mtu` bytes; 0: as large as the link's."""

    peer: PublicKey
    mtu: int


@dataclass(frozen=True, slots=True)
class PeerChanged:
    """A reader of snapshots should look again."""

    peer: PublicKey


@dataclass(frozen=True, slots=True)
class Pong:
    """A ping asked for by `Device.ping` came back."""

    peer: PublicKey
    opaque: int
    rtt_s: float


@dataclass(frozen=True, slots=True)
class ParametersReceived:
    """The peer told its parameters, in a response or a push, and with them all that it pushes.

    What of that to accept is policy.
    """

    peer: PublicKey
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class EnrolWanted:
    """The peer says that it has another key of its own; whether it was invited to is policy."""

    peer: PublicKey
    public_key: PublicKey


@dataclass(frozen=True, slots=True)
class EnrolAnswered:
    """What the peer made of the key that we told it."""

    peer: PublicKey
    answer: EnrolAnswer


Action = (
    SendDatagram
    | InstallSession
    | RetireSession
    | SendKeepalive
    | SendControl
    | FlushStaged
    | SetEndpoint
    | SetPeerMtu
    | PeerChanged
    | Pong
    | ParametersReceived
    | EnrolWanted
    | EnrolAnswered
)
