"""The encrypted parameters of the handshake: encoding, decoding and what both ends agree on.

Owns the TLV format and the accept/refuse rules of section 10. Knows nothing of boxes,
peers or of what the daemon does with addresses and routes it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Any

from vpnd.endpoint import is_domain
from vpnd.errors import MalformedMessage, RejectedMessage
from vpnd.protocol.constants import EPOCH_SIZE, PARAMETERS_STEP, Feature, PaddingMode, Suite

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_CRITICAL = 0x80
_VERSIONS, _SUITES, _MTU, _FEATURES, _KEEPALIVE = 1, 2, 3, 4, 5
_ADDR4, _ADDR6, _ROUTE4, _ROUTE6, _DNS = 6, 7, 8, 9, 10
_EPOCH, _PADDING, _PSK_NEXT, _DOMAIN, _PUSH_LATER = 11, 12, 13, 14, 15
_MTU_MIN = 68  # RFC 791: the least an IPv4 link may have
_LINK_TYPES = Feature.TUN | Feature.TAP


@dataclass(frozen=True, slots=True)
class Parameters:
    """What one end says of itself; None or empty is "not said".

    `push_later`: what is pushed did not fit and follows by PARAMS.
    """

    versions: tuple[int, ...] = ()
    suites: tuple[int, ...] = ()
    mtu: int | None = None
    features: int | None = None
    keepalive_s: int | None = None
    addresses: tuple[Interface, ...] = ()
    routes: tuple[Network, ...] = ()
    dns: tuple[Address, ...] = ()
    epoch: bytes | None = None
    padding: PaddingMode | None = None
    psk_next: bool = False
    domains: tuple[str, ...] = ()
    push_later: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What our end offers and accepts."""

    versions: tuple[int, ...]
    suites: tuple[Suite, ...]
    mtu: int
    features: Feature
    padding: PaddingMode

    @property
    def link_type(self) -> Feature:
        return self.features & _LINK_TYPES


@dataclass(frozen=True, slots=True)
class Agreement:
    """What holds for a session, the same on both ends."""

    suite: Suite
    features: Feature
    padding: PaddingMode
    downgraded: bool  # both ends list a higher version than the one spoken


@lru_cache(maxsize=64)
def encode_parameters(parameters: Parameters) -> bytes:
    """Writes the TLVs in the order of their types, without padding.

    An end says the same to nearly all of its peers: the last few texts are kept.
    """
    parts = [
        _tlv_unless_empty(_VERSIONS | _CRITICAL, bytes(parameters.versions)),
        _tlv_unless_empty(_SUITES | _CRITICAL, bytes(parameters.suites)),
    ]
    if parameters.mtu is not None:
        parts.append(_tlv(_MTU, parameters.mtu.to_bytes(2, "little")))
    if parameters.features is not None:
        parts.append(_tlv(_FEATURES | _CRITICAL, int(parameters.features).to_bytes(4, "little")))
    if parameters.keepalive_s is not None:
        parts.append(_tlv(_KEEPALIVE, parameters.keepalive_s.to_bytes(2, "little")))
    parts.append(encode_push(parameters.addresses, parameters.routes, parameters.dns, parameters.domains))
    if parameters.epoch is not None:
        parts.append(_tlv(_EPOCH, parameters.epoch))
    if parameters.padding is not None:
        parts.append(_tlv(_PADDING, bytes((parameters.padding,))))
    if parameters.psk_next:
        parts.append(_tlv(_PSK_NEXT, b"\x01"))
    if parameters.push_later:
        parts.append(_tlv(_PUSH_LATER, b"\x01"))
    return b"".join(parts)


def encode_push(
    addresses: Iterable[Interface],
    routes: Iterable[Network],
    dns: Iterable[Address],
    domains: Iterable[str] = (),
) -> bytes:
    """Writes the TLVs that an end may push to a peer that accepts them, but for the MTU."""
    parts = [
        _tlv(
            _ADDR4 if interface.version == 4 else _ADDR6,
            interface.ip.packed + bytes((interface.network.prefixlen,)),
        )
        for interface in addresses
    ]
    parts += [
        _tlv(
            _ROUTE4 if route.version == 4 else _ROUTE6,
            bytes((route.prefixlen,)) + route.network_address.packed,
        )
        for route in routes
    ]
    parts += [_tlv(_DNS, server.packed) for server in dns]
    parts += [_tlv(_DOMAIN, domain.encode("ascii")) for domain in domains]
    return b"".join(parts)


def pad_parameters(data: bytes) -> bytes:
    """Fills with zeros to a multiple of 64 bytes, and to 64 at least."""
    size = max(PARAMETERS_STEP, -(-len(data) // PARAMETERS_STEP) * PARAMETERS_STEP)
    return data.ljust(size, b"\0")


def decode_parameters_untrusted(data: bytes) -> Parameters:
    """Reads TLVs up to type 0 or the end; raises MalformedMessage.

    A known type means the same with and without its critical bit; the bit only decides
    what an end does with a type it does not know.
    """
    fields: dict[str, Any] = {}
    offset, size = 0, len(data)
    while offset < size:
        kind = data[offset]
        if kind == 0:
            if data.count(0, offset) != size - offset:
                raise MalformedMessage("padding is not zero")
            break
        if offset + 2 > size or offset + 2 + data[offset + 1] > size:
            raise MalformedMessage(f"parameter 0x{kind:02x} runs over the end")
        end = offset + 2 + data[offset + 1]
        _take(fields, kind, data[offset + 2 : end])
        offset = end
    return Parameters(**fields)


def accept_offer(offer: Parameters, own: Capabilities, version: int) -> Agreement:
    """Chooses for an initiator's offer; raises RejectedMessage("hs_param") where nothing fits."""
    _require(not offer.versions or version in offer.versions)
    suite = next((suite for suite in sorted(own.suites) if suite in offer.suites), None)
    features = (offer.features or 0) & int(own.features)
    link_type = int(own.features) & int(_LINK_TYPES)
    if suite is None or features & link_type != link_type:
        raise RejectedMessage("hs_param")
    return _agree(offer, own, suite, Feature(features), version)


def accept_choice(choice: Parameters, own: Capabilities, version: int) -> Agreement:
    """Checks a responder's choice against our offer; raises RejectedMessage("hs_param")."""
    _require(not choice.versions or version in choice.versions)
    _require(len(choice.suites) == 1 and choice.suites[0] in own.suites)
    features = choice.features or 0
    _require(features & ~int(own.features) == 0)
    _require(own.link_type in Feature(features))
    return _agree(choice, own, Suite(choice.suites[0]), Feature(features), version)


def _agree(remote: Parameters, own: Capabilities, suite: Suite, features: Feature, version: int) -> Agreement:
    return Agreement(
        suite=suite,
        features=features,
        padding=max(own.padding, remote.padding or PaddingMode.NONE),
        downgraded=any(other > version and other in own.versions for other in remote.versions),
    )


def _require(holds: bool) -> None:
    if not holds:
        raise RejectedMessage("hs_param")


def _take(fields: dict[str, Any], kind: int, value: bytes) -> None:
    known = _READERS.get(kind & ~_CRITICAL)
    if known is None:
        if kind & _CRITICAL:
            raise MalformedMessage(f"parameter 0x{kind:02x} is unknown and critical")
        return
    name, repeats, read = known
    try:
        content = read(value)
    except ValueError as error:
        raise MalformedMessage(f"parameter 0x{kind:02x}: {error}") from None
    if repeats:
        fields[name] = (*fields.get(name, ()), content)
    elif name in fields:
        raise MalformedMessage(f"parameter 0x{kind:02x} stands twice")
    else:
        fields[name] = content


def _tlv(kind: int, value: bytes) -> bytes:
    return bytes((kind, len(value))) + value


def _tlv_unless_empty(kind: int, value: bytes) -> bytes:
    return _tlv(kind, value) if value else b""


def _sized(value: bytes, *sizes: int) -> bytes:
    if len(value) not in sizes:
        raise ValueError(f"{len(value)} bytes")
    return value


def _read_list(value: bytes) -> tuple[int, ...]:
    if not value:
        raise ValueError("an empty list")
    return tuple(value)


def _read_mtu(value: bytes) -> int:
    mtu = int.from_bytes(_sized(value, 2), "little")
    if mtu < _MTU_MIN:
        raise ValueError(f"{mtu} is less than {_MTU_MIN}")
    return mtu


def _read_address4(value: bytes) -> IPv4Interface:
    return IPv4Interface((_sized(value, 5)[:4], value[4]))


def _read_address6(value: bytes) -> IPv6Interface:
    return IPv6Interface((_sized(value, 17)[:16], value[16]))


def _read_route4(value: bytes) -> IPv4Network:
    return IPv4Network((_sized(value, 5)[1:], value[0]))


def _read_route6(value: bytes) -> IPv6Network:
    return IPv6Network((_sized(value, 17)[1:], value[0]))


def _read_dns(value: bytes) -> Address:
    return IPv4Address(value) if len(_sized(value, 4, 16)) == 4 else IPv6Address(value)


def _read_domain(value: bytes) -> str:
    domain = value.decode("ascii")  # UnicodeDecodeError is a ValueError
    if not is_domain(domain):
        raise ValueError("no domain")
    return domain


# number without the critical bit: field, may repeat, reader that raises ValueError
_READERS: dict[int, tuple[str, bool, Callable[[bytes], Any]]] = {
    _VERSIONS: ("versions", False, _read_list),
    _SUITES: ("suites", False, _read_list),
    _MTU: ("mtu", False, _read_mtu),
    _FEATURES: ("features", False, lambda value: int.from_bytes(_sized(value, 4), "little")),
    _KEEPALIVE: ("keepalive_s", False, lambda value: int.from_bytes(_sized(value, 2), "little")),
    _ADDR4: ("addresses", True, _read_address4),
    _ADDR6: ("addresses", True, _read_address6),
    _ROUTE4: ("routes", True, _read_route4),
    _ROUTE6: ("routes", True, _read_route6),
    _DNS: ("dns", True, _read_dns),
    _EPOCH: ("epoch", False, lambda value: _sized(value, EPOCH_SIZE)),
    _PADDING: ("padding", False, lambda value: PaddingMode(_sized(value, 1)[0])),
    _PSK_NEXT: ("psk_next", False, lambda value: _sized(value, 1) != b"\0"),
    _DOMAIN: ("domains", True, _read_domain),
    _PUSH_LATER: ("push_later", False, lambda value: _sized(value, 1) != b"\0"),
}
