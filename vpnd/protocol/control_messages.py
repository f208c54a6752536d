"""Control messages inside DATA: their bytes, section 9.3.

Owns encoding and checked decoding. What a message makes us do is decided in dialogue.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from vpnd.errors import MalformedMessage
from vpnd.keys import KEY_SIZE, PublicKey
from vpnd.protocol.constants import Control, EnrolAnswer, NoticeReason

_U32, _U64 = struct.Struct("<BI"), struct.Struct("<BQ")
_PROBE_ACK = struct.Struct("<BIH")
_NOTICE = struct.Struct("<BBI")


@dataclass(frozen=True, slots=True)
class Goodbye:
    reason: int


@dataclass(frozen=True, slots=True)
class ProbeAck:
    """A PROBE of ours came: `size` is its own, or what one piece of it held if it came in pieces."""

    probe_id: int
    size: int


@dataclass(frozen=True, slots=True)
class Params:
    sequence: int
    tlvs: bytes


@dataclass(frozen=True, slots=True)
class ParamsAck:
    sequence: int


@dataclass(frozen=True, slots=True)
class Echo:
    """PONG: what we sent by PING comes back."""

    opaque: int


@dataclass(frozen=True, slots=True)
class Notice:
    """The peer drops what we send: why, and how many of our packets so far. Advice, no command."""

    reason: NoticeReason
    count: int


@dataclass(frozen=True, slots=True)
class Enrol:
    """A peer that was invited under a key made for it tells its own."""

    public_key: PublicKey


@dataclass(frozen=True, slots=True)
class EnrolAck:
    answer: EnrolAnswer


@dataclass(frozen=True, slots=True)
class Unhandled:
    """Known, but not for the decider: the plane answers PING, PROBE and the path messages itself."""


ControlMessage = Goodbye | ProbeAck | Params | ParamsAck | Echo | Notice | Enrol | EnrolAck | Unhandled


def encode_goodbye(reason: int) -> bytes:
    return bytes((Control.GOODBYE, reason))


def encode_probe(probe_id: int, size: int) -> bytes:
    """A PROBE, filled with zeros to `size` bytes."""
    return _U32.pack(Control.PROBE, probe_id).ljust(size, b"\0")


def encode_params(sequence: int, tlvs: bytes) -> bytes:
    return _U32.pack(Control.PARAMS, sequence) + tlvs


def encode_params_ack(sequence: int) -> bytes:
    return _U32.pack(Control.PARAMS_ACK, sequence)


def encode_ping(opaque: int, size: int = 0) -> bytes:
    """A PING, filled with zeros to `size` bytes where that is more than it needs."""
    return _U64.pack(Control.PING, opaque).ljust(size, b"\0")


def encode_notice(reason: NoticeReason, count: int) -> bytes:
    """A NOTICE; a count above what 32 bits hold stays at the highest."""
    return _NOTICE.pack(Control.NOTICE, reason, min(count, 0xFFFFFFFF))


def encode_enrol(public_key: PublicKey) -> bytes:
    return bytes((Control.ENROL,)) + public_key.raw


def encode_enrol_ack(answer: EnrolAnswer) -> bytes:
    return bytes((Control.ENROL_ACK, answer))


def decode_control_untrusted(payload: bytes) -> ControlMessage:
    """Reads an authenticated peer's control message; raises MalformedMessage.

    Bytes beyond a message's own are padding.
    """
    try:
        return _READERS.get(Control(payload[0]), _read_nothing)(payload)
    except (IndexError, ValueError, struct.error) as error:
        raise MalformedMessage(f"control message: {error}") from None


def _read_probe_ack(payload: bytes) -> ProbeAck:
    _, probe_id, size = _PROBE_ACK.unpack_from(payload)
    return ProbeAck(probe_id, size)


def _read_notice(payload: bytes) -> Notice:
    _, reason, count = _NOTICE.unpack_from(payload)
    return Notice(NoticeReason(reason), count)


def _read_nothing(_: bytes) -> Unhandled:
    return Unhandled()


_READERS: dict[Control, Callable[[bytes], ControlMessage]] = {
    Control.GOODBYE: lambda payload: Goodbye(payload[1]),
    Control.PROBE_ACK: _read_probe_ack,
    Control.PARAMS: lambda payload: Params(_U32.unpack_from(payload)[1], payload[_U32.size :]),
    Control.PARAMS_ACK: lambda payload: ParamsAck(_U32.unpack_from(payload)[1]),
    Control.PONG: lambda payload: Echo(_U64.unpack_from(payload)[1]),
    Control.NOTICE: _read_notice,
    Control.ENROL: lambda payload: Enrol(PublicKey(payload[1 : 1 + KEY_SIZE])),
    Control.ENROL_ACK: lambda payload: EnrolAck(EnrolAnswer(payload[1])),
}
