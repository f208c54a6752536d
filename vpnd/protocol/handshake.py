"""The handshake, token by token: both messages made and checked, keys derived.

Owns the key schedule of section 4, which is frozen for version 1. Every `consume_` and
`open_` works on a copy of the chain, so a forged message leaves nothing behind. Knows no
peers, timers, indices in use or parameters' meaning.

    -> e, es, [s], ss, psk, {parameters}        HS_INIT
    <- e, ee, se, psk, {parameters}             HS_RESP
"""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.errors import RejectedMessage
from vpnd.keys import Identity, PublicKey, Secret
from vpnd.protocol.boxes import (
    TRANSPORT_KEY_SIZE,
    Chain,
    Field,
    derive_from,
    identify,
    is_mac,
    label,
    mac,
    public_of,
)
from vpnd.protocol.constants import Suite
from vpnd.protocol.messages import (
    NO_MAC2,
    InitiationMessage,
    ResponseMessage,
    initiation_head,
    response_head,
)

_SR, _E1, _ES, _S, _SS, _PSK1, _P1 = (
    label(f"a.{tag}") for tag in ("sr", "e1", "es", "s", "ss", "psk1", "p1")
)
_E2, _EE, _SE, _PSK2, _P2 = (label(f"a.{tag}") for tag in ("e2", "ee", "se", "psk2", "p2"))
_RESPONSE_MAC = label("k.mr")
_TO_RESPONDER, _TO_INITIATOR = label("k.i2r"), label("k.r2i")
_FIELD_ID, _FIELD_P1, _FIELD_P2 = Field.of("id"), Field.of("p1"), Field.of("p2")
_MAC1_KEY = label("mac1")


@dataclass(frozen=True, slots=True)
class TransportKeys:
    """Key and salt of each direction, as one end sees them."""

    send: Secret
    receive: Secret


@dataclass(slots=True)
class Initiation:
    """A first message in flight: what the initiator needs to take the response."""

    version: int
    local_index: int
    chain: Chain
    ephemeral: Secret
    preshared_key: Secret
    mac1: bytes
    message: bytes

    def wipe(self) -> None:
        self.chain.wipe()
        self.ephemeral.wipe()


@dataclass(slots=True)
class OpenedInitiation:
    """A first message whose boxes opened: what the responder needs to answer."""

    message: InitiationMessage
    initiator: PublicKey
    chain: Chain
    preshared_key: Secret
    parameters: bytes

    def wipe(self) -> None:
        self.chain.wipe()


def start_chain(version: int, responder: PublicKey) -> Chain:
    """C after "sr": the same for every handshake with this responder."""
    name = f"vpnd/{version} IKpsk1+2 X25519-HSalsa20 XSalsa20Poly1305 BLAKE2b"
    chain = Chain.begin(name.encode())
    chain.absorb(_SR, responder.raw)
    return chain


def mac1_key(responder: PublicKey, knock: Secret) -> Secret:
    return derive_from(_MAC1_KEY, responder.raw, knock)


def create_initiation(
    identity: Identity,
    responder: PublicKey,
    *,
    version: int,
    local_index: int,
    ephemeral: Secret,
    preshared_key: Secret,
    parameters: bytes,
    responder_mac1_key: Secret,
    start: Chain,
    shared: Secret | None,
) -> Initiation:
    """Makes HS_INIT with mac2 zero. `parameters` are padded; `start` is of `start_chain`.

    `shared` is of both static keys. Takes ownership of `ephemeral`. Raises RejectedMessage("hs_box_id")
    where the responder's key is a low-order point.
    """
    head = initiation_head(version, local_index, public_of(ephemeral))
    chain = start.copy()
    chain.absorb(_E1, head)
    if shared is None or not chain.absorb_shared(_ES, ephemeral, responder.raw):
        raise RejectedMessage("hs_box_id")
    box_id = chain.seal(_FIELD_ID, identify(identity.public))
    chain.absorb(_S, identity.public.raw)
    chain.absorb_secret(_SS, shared)
    chain.absorb_secret(_PSK1, preshared_key)
    box_parameters = chain.seal(_FIELD_P1, parameters)
    chain.absorb(_P1, parameters)
    covered = head + box_id + box_parameters
    mac1 = mac(responder_mac1_key, covered)
    return Initiation(
        version=version,
        local_index=local_index,
        chain=chain,
        ephemeral=ephemeral,
        preshared_key=preshared_key,
        mac1=mac1,
        message=covered + mac1 + NO_MAC2,
    )


def open_identity(identity: Identity, start: Chain, message: InitiationMessage) -> tuple[Chain, bytes]:
    """Opens box_id: gives the chain and the identity hash it names. Raises RejectedMessage("hs_box_id").

    `start` is `start_chain` of our own key.
    """
    chain = start.copy()
    chain.absorb(_E1, message.head)
    if not chain.absorb_shared(_ES, identity.private, message.ephemeral):
        raise RejectedMessage("hs_box_id")
    named = chain.open(_FIELD_ID, message.box_id)
    if named is None:
        raise RejectedMessage("hs_box_id")
    return chain, named


def open_initiation(
    initiator: PublicKey,
    shared: Secret | None,
    preshared_keys: tuple[Secret, ...],
    chain: Chain,
    message: InitiationMessage,
) -> OpenedInitiation:
    """Opens box_p1 under the first key that fits. Raises RejectedMessage("hs_box_params").

    `shared` is of both static keys, None for a low-order point. `chain` is of `open_identity`, and
    spent by this.
    """
    if shared is None:
        raise RejectedMessage("hs_box_params")
    chain.absorb(_S, initiator.raw)
    chain.absorb_secret(_SS, shared)
    last = preshared_keys[-1]
    for preshared_key in preshared_keys:
        attempt = chain if preshared_key is last else chain.copy()
        attempt.absorb_secret(_PSK1, preshared_key)
        parameters = attempt.open(_FIELD_P1, message.box_parameters)
        if parameters is not None:
            if attempt is not chain:
                chain.wipe()
            attempt.absorb(_P1, parameters)
            return OpenedInitiation(message, initiator, attempt, preshared_key, parameters)
        attempt.wipe()
    raise RejectedMessage("hs_box_params")


def create_response(
    opened: OpenedInitiation, *, local_index: int, ephemeral: Secret, parameters: bytes, suite: Suite
) -> tuple[bytes, TransportKeys]:
    """Makes HS_RESP and the responder's keys; `opened` and `ephemeral` are spent and wiped.

    `parameters` are padded. No point here is of low order: `open_identity` and
    `open_initiation` used both.
    """
    chain = opened.chain
    message = opened.message
    response_key = chain.derive(_RESPONSE_MAC)
    head = response_head(message.version, message.sender_index, local_index, public_of(ephemeral))
    chain.absorb(_E2, head)
    chain.absorb_shared(_EE, ephemeral, message.ephemeral)
    chain.absorb_shared(_SE, ephemeral, opened.initiator.raw)
    chain.absorb_secret(_PSK2, opened.preshared_key)
    covered = head + chain.seal(_FIELD_P2, parameters)
    chain.absorb(_P2, parameters)
    datagram = covered + mac(response_key, covered)
    to_initiator, to_responder = _transport_keys(chain, message.version, suite)
    response_key.wipe()
    ephemeral.wipe()
    opened.wipe()
    return datagram, TransportKeys(send=to_initiator, receive=to_responder)


@dataclass(slots=True)
class OpenedResponse:
    """A response whose box opened: parameters to judge, keys once the suite is known."""

    version: int
    chain: Chain
    parameters: bytes

    def derive_keys(self, suite: Suite) -> TransportKeys:
        """The initiator's keys; wipes the chain."""
        to_initiator, to_responder = _transport_keys(self.chain, self.version, suite)
        self.chain.wipe()
        return TransportKeys(send=to_responder, receive=to_initiator)


def open_response(identity: Identity, initiation: Initiation, message: ResponseMessage) -> OpenedResponse:
    """Checks HS_RESP against our initiation, which stays as it is.

    Raises RejectedMessage with "hs_resp_mac" or "hs_resp_box".
    """
    response_key = initiation.chain.derive(_RESPONSE_MAC)
    if not is_mac(response_key, message.covered, message.mac):
        raise RejectedMessage("hs_resp_mac")
    chain = initiation.chain.copy()
    chain.absorb(_E2, message.head)
    if not chain.absorb_shared(_EE, initiation.ephemeral, message.ephemeral):
        raise RejectedMessage("hs_resp_box")
    chain.absorb_shared(_SE, identity.private, message.ephemeral)
    chain.absorb_secret(_PSK2, initiation.preshared_key)
    parameters = chain.open(_FIELD_P2, message.box_parameters)
    if parameters is None:
        raise RejectedMessage("hs_resp_box")
    chain.absorb(_P2, parameters)
    return OpenedResponse(message.version, chain, parameters)


def _transport_keys(chain: Chain, version: int, suite: Suite) -> tuple[Secret, Secret]:
    bound = bytes((version, suite))
    to_initiator = chain.derive(_TO_INITIATOR, bound, TRANSPORT_KEY_SIZE)
    to_responder = chain.derive(_TO_RESPONDER, bound, TRANSPORT_KEY_SIZE)
    return to_initiator, to_responder
