"""The token that invites a peer: everything a machine needs to know of a hub, on one line of text.

    "vpnd1-", then in base64url: 1 byte version, 32 bytes hub's public key, 32 bytes one-time private key,
    1 byte 0 or 1, with 1: 32 bytes knock, then JSON, then 8 bytes BLAKE2b of all before

The sum is against slips of the finger. Against forgers stands the one-time key, which the hub has to know.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from vpnd.errors import ControlError
from vpnd.keys import KEY_SIZE, PublicKey, Secret

PREFIX = "vpnd1-"
_VERSION = 1
_SUM_SIZE = 8
_SIZE_MAX = 8192  # characters; one with a hundred routes has some 3000
_HEAD_SIZE = 2 + 2 * KEY_SIZE


@dataclass(frozen=True, slots=True)
class Terms:
    """What the hub wrote for the joining machine; texts as they stand in a configuration.

    `expires` is in seconds since 1970. `name` is the hub's instance, and its name on the other end.
    `is_assigned`: the hub's pool gives the address, and what it pushes is to be taken. `route`: routes
    lead to all of `networks`; else they only bound what is pushed.
    """

    name: str
    endpoint: str
    expires: float
    link_type: str
    mtu: int
    addresses: tuple[str, ...]
    networks: tuple[str, ...]
    is_assigned: bool = False
    route: bool = True


@dataclass(frozen=True, slots=True)
class Token:
    hub: PublicKey
    once: Secret
    knock: Secret | None
    terms: Terms

    def encode(self) -> str:
        """Gives the text. It is a secret until it was used."""
        knock = b"\0" if self.knock is None else b"\1" + self.knock.expose()
        head = bytes((_VERSION,)) + self.hub.raw + self.once.expose() + knock
        content = head + json.dumps(asdict(self.terms), separators=(",", ":")).encode()
        return PREFIX + base64.urlsafe_b64encode(content + _sum(content)).decode().rstrip("=")


def decode_token(text: str) -> Token:
    """Reads a token, whatever blanks are in it. Raises ControlError, whose text holds none of it."""
    bare = "".join(text.split())
    if not bare.startswith(PREFIX) or len(bare) > _SIZE_MAX:
        raise ControlError("usage", f"this is no token; one begins with {PREFIX}")
    body = bare.removeprefix(PREFIX)
    if not re.fullmatch(r"[A-Za-z0-9_-]*", body):
        raise _damaged()
    try:
        raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    except binascii.Error:
        raise _damaged() from None
    content, found = raw[:-_SUM_SIZE], raw[-_SUM_SIZE:]
    if len(content) <= _HEAD_SIZE or found != _sum(content):
        raise _damaged()
    if content[0] != _VERSION:
        raise ControlError("usage", "the token is of another version of vpnd; upgrade this machine")
    has_knock = content[_HEAD_SIZE - 1] == 1
    end = _HEAD_SIZE + (KEY_SIZE if has_knock else 0)
    return Token(
        hub=PublicKey(content[1 : 1 + KEY_SIZE]),
        once=Secret.copy_of(content[1 + KEY_SIZE : 1 + 2 * KEY_SIZE]),
        knock=Secret.copy_of(content[_HEAD_SIZE:end]) if has_knock else None,
        terms=_read_terms(content[end:]),
    )


def _read_terms(content: bytes) -> Terms:
    try:
        found: dict[str, Any] = json.loads(content)
        terms = Terms(**{field.name: found[field.name] for field in fields(Terms) if field.name in found})
        lists = {name: tuple(map(str, getattr(terms, name))) for name in ("addresses", "networks")}
        return Terms(
            str(terms.name),
            str(terms.endpoint),
            float(terms.expires),
            str(terms.link_type),
            int(terms.mtu),
            **lists,
            is_assigned=bool(terms.is_assigned),
            route=bool(terms.route),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _damaged() from None


def _damaged() -> ControlError:
    return ControlError("usage", "the token is damaged; copy the whole line once more")


def _sum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_SUM_SIZE, person=b"vpnd token").digest()
