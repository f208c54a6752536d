"""The few operations of the handshake: absorb, derive, seal, open, MAC, Diffie-Hellman.

Owns every call into libsodium. Secrets go in and out as `Secret` (C memory); `bytes` are
what an observer of the wire or the holder of the message may see anyway. Knows nothing of
messages or of the order of the operations.

Every label is a BLAKE2b personalization "vpnd1.…", zero padded to 16 bytes (section 2).
crypto_secretbox with its zero-byte margins is used because PyNaCl 1.5 has no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nacl._sodium import ffi, lib

from vpnd.keys import KEY_SIZE, PublicKey, Secret

CHAIN_SIZE = 64
MAC_SIZE = 16
BOX_OVERHEAD = 16
NONCE_SIZE = 24
TRANSPORT_KEY_SIZE = 36  # key and salt

_PERSON_SIZE = 16
_PLAIN_MARGIN = bytes(32)  # crypto_secretbox_ZEROBYTES
_BOX_MARGIN = bytes(16)  # crypto_secretbox_BOXZEROBYTES

_blake2b = lib.crypto_generichash_blake2b_salt_personal
_beforenm = lib.crypto_box_beforenm
_memzero = lib.sodium_memzero
_memmove = ffi.memmove
_new = ffi.new
_buffer = ffi.buffer
_BYTES = ffi.typeof("unsigned char[]")
_NO_SALT = ffi.NULL


def label(text: str) -> bytes:
    """The personalization of `text`; at most 10 characters."""
    person = f"vpnd1.{text}".encode()
    assert len(person) <= _PERSON_SIZE
    return person.ljust(_PERSON_SIZE, b"\0")


@dataclass(frozen=True, slots=True)
class Field:
    """Labels of one encrypted field: of its key, and the nonce that serves this key once."""

    key: bytes
    nonce: bytes

    @classmethod
    def of(cls, tag: str) -> Field:
        return cls(label(f"k.{tag}"), f"vpnd1.n.{tag}".encode().ljust(NONCE_SIZE, b"\0"))


class Chain:
    """The running state C of one handshake: absorbs what both ends know, gives keys.

    `wipe` ends its life early; dropping it wipes too. Shared secrets and the keys of fields come into being
    in one buffer beside the state; the call that makes one wipes it.
    """

    __slots__ = ("_key", "_state")

    def __init__(self, state: Secret) -> None:
        self._state = state
        self._key = Secret(KEY_SIZE)

    @classmethod
    def begin(cls, protocol_name: bytes) -> Chain:
        return cls(_hash_into(CHAIN_SIZE, _BEGIN, protocol_name))

    def copy(self) -> Chain:
        state = Secret(CHAIN_SIZE)
        _memmove(state.pointer, self._state.pointer, CHAIN_SIZE)
        return Chain(state)

    def absorb(self, person: bytes, data: bytes) -> None:
        state = self._state.pointer
        # libsodium reads the key before it writes the digest, so both may be one buffer.
        _blake2b(state, CHAIN_SIZE, data, len(data), state, CHAIN_SIZE, _NO_SALT, person)

    def absorb_secret(self, person: bytes, secret: Secret) -> None:
        state = self._state.pointer
        _blake2b(state, CHAIN_SIZE, secret.pointer, secret.size, state, CHAIN_SIZE, _NO_SALT, person)

    def absorb_shared(self, person: bytes, private: Secret, public: bytes) -> bool:
        """Absorbs the box pre-computation of both keys; False, and no change, for a low-order point."""
        state, shared = self._state.pointer, self._key.pointer
        if _beforenm(shared, public, private.pointer) != 0:
            return False
        _blake2b(state, CHAIN_SIZE, shared, KEY_SIZE, state, CHAIN_SIZE, _NO_SALT, person)
        _memzero(shared, KEY_SIZE)
        return True

    def derive(self, person: bytes, data: bytes = b"", size: int = KEY_SIZE) -> Secret:
        """A key of its own; the state stays."""
        key = Secret(size)
        _blake2b(key.pointer, size, data, len(data), self._state.pointer, CHAIN_SIZE, _NO_SALT, person)
        return key

    def seal(self, field: Field, plaintext: bytes) -> bytes:
        """The field's tag and ciphertext: 16 bytes more than `plaintext`."""
        key = self._derive_inside(field.key)
        box = _seal(key, field.nonce, plaintext)
        _memzero(key, KEY_SIZE)
        return box

    def open(self, field: Field, box: bytes) -> bytes | None:
        """The field's plaintext, or None for a forgery."""
        key = self._derive_inside(field.key)
        plaintext = _open(key, field.nonce, box)
        _memzero(key, KEY_SIZE)
        return plaintext

    def equals(self, other: Chain) -> bool:
        return self._state.equals(other._state)

    def wipe(self) -> None:
        self._state.wipe()

    def _derive_inside(self, person: bytes) -> Any:
        key = self._key.pointer
        _blake2b(key, KEY_SIZE, b"", 0, self._state.pointer, CHAIN_SIZE, _NO_SALT, person)
        return key


def seal_box(key: Secret, nonce: bytes, plaintext: bytes) -> bytes:
    """NaCl's secretbox: tag first, then ciphertext."""
    return _seal(key.pointer, nonce, plaintext)


def _seal(key: Any, nonce: bytes, plaintext: bytes) -> bytes:
    padded = _PLAIN_MARGIN + plaintext
    size = len(padded)
    box = _new(_BYTES, size)
    lib.crypto_secretbox(box, padded, size, nonce, key)
    return bytes(_buffer(box, size)[16:])


def open_box(key: Secret, nonce: bytes, box: bytes) -> bytes | None:
    """The plaintext of a secretbox of at least 16 bytes, or None for a forgery."""
    return _open(key.pointer, nonce, box)


def _open(key: Any, nonce: bytes, box: bytes) -> bytes | None:
    padded = _BOX_MARGIN + box
    size = len(padded)
    plaintext = _new(_BYTES, size)
    if lib.crypto_secretbox_open(plaintext, padded, size, nonce, key) != 0:
        return None
    return bytes(_buffer(plaintext, size)[32:])


def mac(key: Secret, data: bytes) -> bytes:
    return bytes(_buffer(_mac(key, data), MAC_SIZE))


def is_mac(key: Secret, data: bytes, claimed: bytes) -> bool:
    """Compares in constant time; `claimed` has 16 bytes."""
    return bool(lib.sodium_memcmp(_mac(key, data), claimed, MAC_SIZE) == 0)


def share(private: Secret, public: bytes) -> Secret | None:
    """The box pre-computation of both keys, for who keeps it; None for a low-order point."""
    shared = Secret(KEY_SIZE)
    return shared if _beforenm(shared.pointer, public, private.pointer) == 0 else None


def derive_from(person: bytes, public: bytes, secret: Secret, size: int = KEY_SIZE) -> Secret:
    """An unkeyed hash of public bytes and a secret, itself a secret."""
    joined = Secret(len(public) + secret.size)
    ffi.memmove(joined.pointer, public, len(public))
    ffi.memmove(joined.pointer + len(public), secret.pointer, secret.size)
    key = Secret(size)
    _blake2b(key.pointer, size, joined.pointer, joined.size, _NO_SALT, 0, _NO_SALT, person)
    joined.wipe()
    return key


def derive_keyed(person: bytes, key: Secret, data: bytes, size: int = KEY_SIZE) -> Secret:
    derived = Secret(size)
    _blake2b(derived.pointer, size, data, len(data), key.pointer, key.size, _NO_SALT, person)
    return derived


def identify(public: PublicKey) -> bytes:
    """The hash by which message 1 names its sender (deviation D4)."""
    return _hash_into(KEY_SIZE, _ID, public.raw).expose()


def make_ephemeral(identity: Secret, random: bytes, monotonic_ns: int) -> Secret:
    """A fresh private key, unknown to others even where `random` is weak or was cloned.

    `random` has 32 bytes of a fresh object that nobody else holds: it is wiped here, since
    together with the static key it would give the ephemeral back later.
    """
    material = Secret(len(random) + 8)
    ffi.memmove(material.pointer, random, len(random))
    ffi.memmove(material.pointer + len(random), monotonic_ns.to_bytes(8, "little"), 8)
    ephemeral = Secret(KEY_SIZE)
    _blake2b(
        ephemeral.pointer,
        KEY_SIZE,
        material.pointer,
        material.size,
        identity.pointer,
        KEY_SIZE,
        _NO_SALT,
        _EPH,
    )
    material.wipe()
    lib.sodium_memzero(ffi.from_buffer(random), len(random))
    return ephemeral


def public_of(private: Secret) -> bytes:
    public = _new(_BYTES, KEY_SIZE)
    lib.crypto_scalarmult_base(public, private.pointer)
    return bytes(_buffer(public, KEY_SIZE))


def _mac(key: Secret, data: bytes) -> Any:
    digest = _new(_BYTES, MAC_SIZE)
    _blake2b(digest, MAC_SIZE, data, len(data), key.pointer, key.size, _NO_SALT, _MAC)
    return digest


def _hash_into(size: int, person: bytes, data: bytes) -> Secret:
    digest = Secret(size)
    _blake2b(digest.pointer, size, data, len(data), _NO_SALT, 0, _NO_SALT, person)
    return digest


_BEGIN = label("a.init")
_ID = label("id")
_MAC = label("mac")
_EPH = label("eph")
