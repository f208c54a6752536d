"""The two AEADs in plain Python, as FIPS 197, SP 800-38D and RFC 8439 write them down.

Slow and simple: the twin that the plane's back ends are compared with, and the arithmetic from
which edge cases are made.
"""

from __future__ import annotations

AES_256_GCM = 1
CHACHA20_POLY1305 = 2
P1305 = 2**130 - 5


def _xtime(a: int) -> int:
    return (a << 1) ^ (0x11B if a & 0x80 else 0)


def _make_sbox() -> bytes:
    box = [0x63] * 256
    p = q = 1
    while True:
        p ^= _xtime(p)  # times 3, a generator
        for shift in (1, 2, 4):
            q ^= q << shift
        q &= 0xFF
        q ^= 0x09 if q & 0x80 else 0  # divided by 3
        turned = q * 0x101
        box[p] = 0x63 ^ (q ^ turned >> 7 ^ turned >> 6 ^ turned >> 5 ^ turned >> 4) & 0xFF
        if p == 1:
            return bytes(box)


SBOX = _make_sbox()


def _expand(key: bytes) -> list[bytes]:
    words = [key[i : i + 4] for i in range(0, 32, 4)]
    rcon = 1
    for i in range(8, 60):
        word = words[-1]
        if i % 8 == 0:
            word = bytes(SBOX[b] for b in word[1:] + word[:1])
            word = bytes([word[0] ^ rcon]) + word[1:]
            rcon = _xtime(rcon)
        elif i % 8 == 4:
            word = bytes(SBOX[b] for b in word)
        words.append(bytes(a ^ b for a, b in zip(words[-8], word, strict=True)))
    return [b"".join(words[i : i + 4]) for i in range(0, 60, 4)]


def _mix(column: bytes) -> bytes:
    everything = column[0] ^ column[1] ^ column[2] ^ column[3]
    return bytes(column[i] ^ everything ^ _xtime(column[i] ^ column[(i + 1) % 4]) for i in range(4))


def aes_256(key: bytes, block: bytes) -> bytes:
    """Encrypts one block."""
    keys = _expand(key)
    state = bytes(a ^ b for a, b in zip(block, keys[0], strict=True))
    for number in range(1, 15):
        shifted = bytes(SBOX[state[(4 * (i % 4) + i) % 16]] for i in range(16))
        if number < 14:
            shifted = b"".join(_mix(shifted[i : i + 4]) for i in range(0, 16, 4))
        state = bytes(a ^ b for a, b in zip(shifted, keys[number], strict=True))
    return state


def gf_multiply(x: int, y: int) -> int:
    """Multiplies in GCM's field; the highest bit of a number is the coefficient of 1."""
    product = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            product ^= y
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return product


def gf_inverse(x: int) -> int:
    """Returns x to the power 2**128 - 2."""
    inverse = 1 << 127
    for _ in range(127):
        x = gf_multiply(x, x)
        inverse = gf_multiply(inverse, x)
    return inverse


def _blocks(data: bytes) -> list[bytes]:
    return [data[i : i + 16].ljust(16, b"\0") for i in range(0, len(data), 16)]


def gcm_lengths(aad: bytes, cipher: bytes) -> int:
    """The last block that goes into the hash."""
    return len(aad) * 8 << 64 | len(cipher) * 8


def _ghash(h: int, aad: bytes, cipher: bytes) -> int:
    state = 0
    for block in _blocks(aad) + _blocks(cipher):
        state = gf_multiply(state ^ int.from_bytes(block, "big"), h)
    return gf_multiply(state ^ gcm_lengths(aad, cipher), h)


def gcm_keystream(key: bytes, nonce: bytes, size: int) -> bytes:
    """The bytes that hide the text; block 1 hides the hash."""
    count = (size + 15) // 16
    return b"".join(aes_256(key, nonce + (2 + i).to_bytes(4, "big")) for i in range(count))[:size]


def _seal_gcm(key: bytes, nonce: bytes, aad: bytes, plain: bytes) -> tuple[bytes, bytes]:
    stream = gcm_keystream(key, nonce, len(plain))
    cipher = bytes(a ^ b for a, b in zip(plain, stream, strict=True))
    h = int.from_bytes(aes_256(key, bytes(16)), "big")
    hidden = int.from_bytes(aes_256(key, nonce + b"\0\0\0\1"), "big")
    return cipher, (_ghash(h, aad, cipher) ^ hidden).to_bytes(16, "big")


def _turn(state: list[int], a: int, b: int, c: int, d: int) -> None:
    for x, y, z, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[x] = (state[x] + state[y]) & 0xFFFF_FFFF
        mixed = state[z] ^ state[x]
        state[z] = (mixed << bits | mixed >> (32 - bits)) & 0xFFFF_FFFF


def chacha20(key: bytes, nonce: bytes, number: int) -> bytes:
    """Returns one block of keystream."""
    seed = b"expand 32-byte k" + key + number.to_bytes(4, "little") + nonce
    start = [int.from_bytes(seed[i : i + 4], "little") for i in range(0, 64, 4)]
    state = list(start)
    for _ in range(10):
        for i in range(4):
            _turn(state, i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            _turn(state, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return b"".join(((a + b) & 0xFFFF_FFFF).to_bytes(4, "little") for a, b in zip(start, state, strict=True))


def chacha_keystream(key: bytes, nonce: bytes, size: int) -> bytes:
    """The bytes that hide the text; block 0 gives the one-time key."""
    return b"".join(chacha20(key, nonce, 1 + i) for i in range((size + 63) // 64))[:size]


def poly1305_key(key: bytes, nonce: bytes) -> tuple[int, int]:
    """Returns r, clamped, and s."""
    block = chacha20(key, nonce, 0)
    r = int.from_bytes(block[:16], "little") & 0x0FFFFFFC_0FFFFFFC_0FFFFFFC_0FFFFFFF
    return r, int.from_bytes(block[16:32], "little")


def poly1305_lengths(aad: bytes, cipher: bytes) -> int:
    """The last block that goes into the hash."""
    return len(aad) | len(cipher) << 64


def _poly1305(r: int, aad: bytes, cipher: bytes) -> int:
    numbers = [int.from_bytes(block, "little") for block in _blocks(aad) + _blocks(cipher)]
    state = 0
    for number in [*numbers, poly1305_lengths(aad, cipher)]:
        state = (state + number + 2**128) * r % P1305
    return state


def _seal_chacha(key: bytes, nonce: bytes, aad: bytes, plain: bytes) -> tuple[bytes, bytes]:
    stream = chacha_keystream(key, nonce, len(plain))
    cipher = bytes(a ^ b for a, b in zip(plain, stream, strict=True))
    r, s = poly1305_key(key, nonce)
    return cipher, ((_poly1305(r, aad, cipher) + s) % 2**128).to_bytes(16, "little")


def seal(suite: int, key: bytes, nonce: bytes, aad: bytes, plain: bytes) -> tuple[bytes, bytes]:
    """Returns ciphertext and tag."""
    return (_seal_gcm if suite == AES_256_GCM else _seal_chacha)(key, nonce, aad, plain)
