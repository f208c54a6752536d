"""The clear layout of the handshake datagrams: where each field lies and how long it may be.

Owns sizes and offsets of HS_INIT, HS_RESP and COOKIE (section 3). What the boxes hold and
whether a MAC is right is not known here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vpnd.errors import MalformedMessage
from vpnd.protocol.constants import (
    DATAGRAM_MAX,
    PARAMETERS1_MAX,
    PARAMETERS2_MAX,
    PARAMETERS_STEP,
    PacketType,
)

INITIATION_FIXED = 136  # without parameters and extension
RESPONSE_FIXED = 76
COOKIE_SIZE = 64
NO_MAC2 = bytes(16)

_INITIATION_HEAD = struct.Struct("<BBHI32s")
_RESPONSE_HEAD = struct.Struct("<BBHII32s")
_COOKIE = struct.Struct("<BBHI24s32s")


@dataclass(frozen=True, slots=True)
class InitiationMessage:
    """HS_INIT, cut into its fields. `covered1` and `covered2` are what mac1 and mac2 cover."""

    version: int
    sender_index: int
    ephemeral: bytes
    head: bytes
    box_id: bytes
    box_parameters: bytes
    covered1: bytes
    mac1: bytes
    covered2: bytes
    mac2: bytes
    size: int


@dataclass(frozen=True, slots=True)
class ResponseMessage:
    """HS_RESP, cut into its fields. `covered` is what mac_r covers."""

    version: int
    receiver_index: int
    sender_index: int
    ephemeral: bytes
    head: bytes
    box_parameters: bytes
    covered: bytes
    mac: bytes
    size: int


@dataclass(frozen=True, slots=True)
class CookieMessage:
    """COOKIE, cut into its fields."""

    version: int
    receiver_index: int
    nonce: bytes
    box: bytes


def initiation_head(version: int, sender_index: int, ephemeral: bytes) -> bytes:
    return _INITIATION_HEAD.pack(PacketType.HS_INIT, version, 0, sender_index, ephemeral)


def response_head(version: int, receiver_index: int, sender_index: int, ephemeral: bytes) -> bytes:
    return _RESPONSE_HEAD.pack(PacketType.HS_RESP, version, 0, receiver_index, sender_index, ephemeral)


def cookie_message(version: int, receiver_index: int, nonce: bytes, box: bytes) -> bytes:
    return _COOKIE.pack(PacketType.COOKIE, version, 0, receiver_index, nonce, box)


def parse_initiation_untrusted(datagram: bytes) -> InitiationMessage:
    """Raises MalformedMessage; the version is the caller's to judge."""
    size = len(datagram)
    _check_size(size, INITIATION_FIXED, PARAMETERS1_MAX)
    _, version, extension, sender_index, ephemeral = _INITIATION_HEAD.unpack_from(datagram)
    if extension:
        raise MalformedMessage(f"a clear extension of {extension} bytes")
    return InitiationMessage(
        version=version,
        sender_index=sender_index,
        ephemeral=ephemeral,
        head=datagram[:40],
        box_id=datagram[40:88],
        box_parameters=datagram[88:-32],
        covered1=datagram[:-32],
        mac1=datagram[-32:-16],
        covered2=datagram[:-16],
        mac2=datagram[-16:],
        size=size,
    )


def parse_response_untrusted(datagram: bytes) -> ResponseMessage:
    """Raises MalformedMessage."""
    size = len(datagram)
    _check_size(size, RESPONSE_FIXED, PARAMETERS2_MAX)
    _, version, extension, receiver_index, sender_index, ephemeral = _RESPONSE_HEAD.unpack_from(datagram)
    if extension:
        raise MalformedMessage(f"a clear extension of {extension} bytes")
    return ResponseMessage(
        version=version,
        receiver_index=receiver_index,
        sender_index=sender_index,
        ephemeral=ephemeral,
        head=datagram[:44],
        box_parameters=datagram[44:-16],
        covered=datagram[:-16],
        mac=datagram[-16:],
        size=size,
    )


def parse_cookie_untrusted(datagram: bytes) -> CookieMessage:
    """Raises MalformedMessage."""
    if len(datagram) != COOKIE_SIZE:
        raise MalformedMessage(f"{len(datagram)} bytes, a cookie has {COOKIE_SIZE}")
    _, version, zero, receiver_index, nonce, box = _COOKIE.unpack(datagram)
    if zero:
        raise MalformedMessage("reserved bytes are not zero")
    return CookieMessage(version, receiver_index, nonce, box)


def _check_size(size: int, fixed: int, parameters_max: int) -> None:
    parameters = size - fixed
    if (
        parameters % PARAMETERS_STEP
        or not PARAMETERS_STEP <= parameters <= parameters_max
        or size > DATAGRAM_MAX
    ):
        raise MalformedMessage(f"a length of {size} bytes")
