"""Noise_IKpsk2_25519_ChaChaPoly_BLAKE2b, small and for tests only.

Owns the token engine of the Noise Protocol Framework, revision 34, with one pattern. The
daemon speaks its own handshake; this shows that the primitives under it and the order of
its tokens are understood as others understand them.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
    crypto_scalarmult,
    crypto_scalarmult_base,
)

NAME = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2b"
FIRST = ("e", "es", "s", "ss")
SECOND = ("e", "ee", "se", "psk")


@dataclass(slots=True)
class Cipher:
    """CipherState: a key and its next nonce; without a key it passes plaintext."""

    key: bytes | None = None
    counter: int = 0

    def encrypt(self, ad: bytes, plain: bytes) -> bytes:
        if self.key is None:
            return plain
        return bytes(crypto_aead_chacha20poly1305_ietf_encrypt(plain, ad, self._nonce(), self.key))

    def decrypt(self, ad: bytes, sealed: bytes) -> bytes:
        if self.key is None:
            return sealed
        return bytes(crypto_aead_chacha20poly1305_ietf_decrypt(sealed, ad, self._nonce(), self.key))

    def _nonce(self) -> bytes:
        self.counter += 1
        return bytes(4) + (self.counter - 1).to_bytes(8, "little")


@dataclass(slots=True)
class Symmetric:
    """SymmetricState: chaining key, transcript hash, and the cipher in force."""

    chain: bytes = NAME.ljust(64, b"\0")
    transcript: bytes = NAME.ljust(64, b"\0")
    cipher: Cipher = field(default_factory=Cipher)

    def mix_hash(self, data: bytes) -> None:
        self.transcript = hashlib.blake2b(self.transcript + data).digest()

    def mix_key(self, material: bytes) -> None:
        self.chain, key = hkdf(self.chain, material, 2)
        self.cipher = Cipher(key[:32])

    def mix_key_and_hash(self, material: bytes) -> None:
        self.chain, middle, key = hkdf(self.chain, material, 3)
        self.mix_hash(middle)
        self.cipher = Cipher(key[:32])

    def encrypt_and_hash(self, plain: bytes) -> bytes:
        sealed = self.cipher.encrypt(self.transcript, plain)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        plain = self.cipher.decrypt(self.transcript, sealed)
        self.mix_hash(sealed)
        return plain

    def split(self) -> tuple[Cipher, Cipher]:
        first, second = hkdf(self.chain, b"", 2)
        return Cipher(first[:32]), Cipher(second[:32])


@dataclass(slots=True)
class Party:
    """HandshakeState of one side. `remote_static` is empty at the responder until message 1."""

    is_initiator: bool
    static: bytes
    ephemeral: bytes
    psk: bytes
    prologue: bytes
    remote_static: bytes = b""
    remote_ephemeral: bytes = b""
    symmetric: Symmetric = field(default_factory=Symmetric)

    def __post_init__(self) -> None:
        self.symmetric.mix_hash(self.prologue)
        responder = self.remote_static if self.is_initiator else crypto_scalarmult_base(self.static)
        self.symmetric.mix_hash(responder)

    def write(self, tokens: tuple[str, ...], payload: bytes) -> bytes:
        message = b""
        for token in tokens:
            if token == "e":
                public = crypto_scalarmult_base(self.ephemeral)
                self._take_ephemeral(public)
                message += public
            elif token == "s":
                message += self.symmetric.encrypt_and_hash(crypto_scalarmult_base(self.static))
            else:
                self._mix(token)
        return message + self.symmetric.encrypt_and_hash(payload)

    def read(self, tokens: tuple[str, ...], message: bytes) -> bytes:
        for token in tokens:
            if token == "e":
                self.remote_ephemeral, message = message[:32], message[32:]
                self._take_ephemeral(self.remote_ephemeral)
            elif token == "s":
                self.remote_static = self.symmetric.decrypt_and_hash(message[:48])
                message = message[48:]
            else:
                self._mix(token)
        return self.symmetric.decrypt_and_hash(message)

    def _take_ephemeral(self, public: bytes) -> None:
        self.symmetric.mix_hash(public)
        self.symmetric.mix_key(public)  # as every pattern with a psk does

    def _mix(self, token: str) -> None:
        if token == "psk":
            self.symmetric.mix_key_and_hash(self.psk)
            return
        first, second = token[0], token[1]  # the initiator's key, the responder's key
        ours, theirs = (first, second) if self.is_initiator else (second, first)
        private = self.ephemeral if ours == "e" else self.static
        public = self.remote_ephemeral if theirs == "e" else self.remote_static
        self.symmetric.mix_key(crypto_scalarmult(private, public))


def hkdf(chain: bytes, material: bytes, outputs: int) -> list[bytes]:
    """HKDF of the framework, section 4.3, with HMAC-BLAKE2b."""
    secret = hmac.digest(chain, material, "blake2b")
    result: list[bytes] = []
    for number in range(1, outputs + 1):
        before = result[-1] if result else b""
        result.append(hmac.digest(secret, before + bytes([number]), "blake2b"))
    return result
