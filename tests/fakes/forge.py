"""What an attacker with a hash function can make: datagrams whose outer MACs are right.

Owns its own few lines of the protocol, by hashlib, so that a mistake in ours is not
repeated. Refuses to hold a private key.
"""

from __future__ import annotations

import hashlib

from nacl.secret import SecretBox

from vpnd.keys import PublicKey


def hash_of(person: str, data: bytes, key: bytes = b"", size: int = 32) -> bytes:
    return hashlib.blake2b(data, digest_size=size, key=key, person=f"vpnd1.{person}".encode()).digest()


def mac1(responder: PublicKey, covered: bytes, knock: bytes = bytes(32)) -> bytes:
    """The first MAC of HS_INIT, which whoever knows the responder's public key can make."""
    key = hash_of("mac1", responder.raw + knock)
    return hash_of("mac", covered, key, 16)


def with_mac1(initiation: bytes, responder: PublicKey, knock: bytes = bytes(32)) -> bytes:
    """The same HS_INIT with its mac1 made right again and no mac2."""
    covered = initiation[:-32]
    return covered + mac1(responder, covered, knock) + bytes(16)


def mac2(initiation: bytes, cookie: bytes) -> bytes:
    return hash_of("mac", initiation[:-16], cookie, 16)


def cookie_in(reply: bytes, initiation: bytes, responder: PublicKey, knock: bytes = bytes(32)) -> bytes:
    """The cookie in a COOKIE message that answered this HS_INIT."""
    box_key = hash_of("ckbox", initiation[-32:-16], hash_of("cookie", responder.raw + knock))
    return bytes(SecretBox(box_key).decrypt(reply[32:], reply[8:32]))


def flipped(data: bytes, bit: int) -> bytes:
    """The same bytes but for one bit."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
