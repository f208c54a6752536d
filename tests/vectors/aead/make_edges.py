"""Makes edges.json: messages that lead the two AEADs' arithmetic to its edges.

Run as `python -m tests.vectors.aead.make_edges`. Each text is solved for, so that the hash before
it is hidden takes the value wanted: zero, all ones, a carry at a word's end, the prime itself. The
expected bytes come from the plain Python of tests/plane/leaves/reference.py.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.plane.leaves import reference
from tests.plane.leaves.reference import AES_256_GCM, CHACHA20_POLY1305, P1305

SOURCE = "made by tests/vectors/aead/make_edges.py: "
ONES = 2**128 - 1
GCM_HASHES = {
    "zero": 0,
    "all ones": ONES,
    "only the coefficient of 1": 1 << 127,
    "only the highest power": 1,
    "low half ones": 2**64 - 1,
    "high half ones": ONES ^ (2**64 - 1),
    "a byte's border": 0x80 << 56,
}
POLY_HASHES = {
    "zero": 0,
    "one": 1,
    "the prime less one": P1305 - 1,
    "the prime less two": P1305 - 2,
    "all ones in 128 bits": ONES,
    "2^128, above the tag": 2**128,
    "2^128 plus one": 2**128 + 1,
    "2^129": 2**129,
    "2^130 less 6, the largest": 2**130 - 6,
    "a carry out of 32 bits": 2**32 - 1,
    "a carry out of 64 bits": 2**64 - 1,
    "a carry into 64 bits": 2**64,
    "a carry out of 96 bits": 2**96 - 1,
    "limbs of 26 bits full": 2**104 - 1,
    "limbs of 44 bits full": 2**88 - 1,
}
LENGTHS = (0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257)


def filler(label: str, size: int) -> bytes:
    """Bytes that look random and are the same for everyone."""
    return hashlib.shake_256(label.encode()).digest(size)


def exclusive(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def vector(about: str, suite: int, key: bytes, nonce: bytes, aad: bytes, plain: bytes) -> dict[str, Any]:
    cipher, tag = reference.seal(suite, key, nonce, aad, plain)
    texts = {"key": key, "nonce": nonce, "aad": aad, "plaintext": plain, "ciphertext": cipher, "tag": tag}
    return {
        "source": SOURCE + about,
        "suite": suite,
        **{name: value.hex() for name, value in texts.items()},
    }


def gcm_edge(about: str, wanted: int) -> dict[str, Any]:
    """One block of ciphertext whose hash, with the lengths, is `wanted`."""
    key, nonce = filler("gcm key " + about, 32), filler("gcm nonce " + about, 12)
    h = int.from_bytes(reference.aes_256(key, bytes(16)), "big")
    inverse = reference.gf_inverse(h)
    before = reference.gf_multiply(wanted, inverse) ^ reference.gcm_lengths(b"", bytes(16))
    cipher = reference.gf_multiply(before, inverse).to_bytes(16, "big")
    plain = exclusive(cipher, reference.gcm_keystream(key, nonce, 16))
    return vector(f"GCM hash is {about}", AES_256_GCM, key, nonce, b"", plain)


def poly_edge(about: str, wanted: int) -> dict[str, Any]:
    """One block of ciphertext whose Poly1305 state is `wanted` at the end. A block is 2^128 and 128
    bits of text, so about one nonce in four has a solution."""
    key = filler("poly key " + about, 32)
    for attempt in range(1000):
        nonce = filler(f"poly nonce {about} {attempt}", 12)
        r, _ = reference.poly1305_key(key, nonce)
        inverse = pow(r, -1, P1305)
        before = wanted * inverse - reference.poly1305_lengths(b"", bytes(16)) - 2**128
        block = before * inverse % P1305 - 2**128
        if 0 <= block <= ONES:
            cipher = block.to_bytes(16, "little")
            plain = exclusive(cipher, reference.chacha_keystream(key, nonce, 16))
            return vector(f"Poly1305 state is {about}", CHACHA20_POLY1305, key, nonce, b"", plain)
    raise ValueError(f"no nonce leads to {about}")


def length_edge(suite: int, size: int) -> dict[str, Any]:
    key, nonce = filler(f"length key {suite} {size}", 32), filler(f"length nonce {suite} {size}", 12)
    aad = filler(f"length aad {size}", 16)
    return vector(f"text of {size} bytes", suite, key, nonce, aad, filler(f"length text {size}", size))


def constant_edge(suite: int, byte: int) -> dict[str, Any]:
    fill = bytes([byte])
    about = f"key, nonce, aad and text are all {byte:#04x}"
    return vector(about, suite, fill * 32, fill * 12, fill * 16, fill * 128)


def make() -> dict[str, Any]:
    both = (AES_256_GCM, CHACHA20_POLY1305)
    vectors = [gcm_edge(about, wanted) for about, wanted in GCM_HASHES.items()]
    vectors += [poly_edge(about, wanted) for about, wanted in POLY_HASHES.items()]
    vectors += [length_edge(suite, size) for suite in both for size in LENGTHS]
    vectors += [constant_edge(suite, byte) for suite in both for byte in (0x00, 0x7F, 0x80, 0xFF)]
    for suite in both:
        key, nonce = filler(f"aad key {suite}", 32), filler(f"aad nonce {suite}", 12)
        vectors.append(vector("aad alone, 33 bytes", suite, key, nonce, filler("aad", 33), b""))
    about = "Messages that lead the arithmetic to its edges. suite: 1 AES-256-GCM, 2 ChaCha20-Poly1305."
    return {"about": about, "vectors": vectors}


if __name__ == "__main__":
    Path(__file__).with_name("edges.json").write_text(json.dumps(make(), indent=1) + "\n")
