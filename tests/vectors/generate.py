"""Writes handshake-2.json and following from fixed seeds, by the second implementation.

Run as `python -m tests.vectors.generate` after a change of the inputs below; every value
comes from SHA-256 of its name, so nobody chose it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from tests.vectors.second_program import Vector, ask, compile_second

HERE = Path(__file__).parent
IPV4_HEADER = "450000140000000040010000c0a80001c0a80002"
OFFER = "810101" + "82020102" + "03028c05" + "84043f000000" + "0b08" + "a1a2a3a4a5a6a7a8"
CHOICE = "810101" + "820101" + "03028c05" + "840405000000" + "0b08" + "b1b2b3b4b5b6b7b8"
PSK_NEXT = "0d0101"
MANY_ROUTES = "".join(f"080518{10 + i:02x}010200" for i in range(12))


def timestamp(seconds: int, nanoseconds: int) -> str:
    """TAI64N as the protocol writes it: seconds + 2^62 in 8 bytes, nanoseconds in 4, big-endian."""
    return f"{seconds + 2**62:016x}{nanoseconds:08x}"


def padded(text: str, size: int) -> str:
    """Fills a hexadecimal text with zero bytes to `size` bytes."""
    return text.ljust(2 * size, "0")


def seeded(number: int, name: str, size: int = 32) -> str:
    return hashlib.sha256(f"vpnd handshake {number} {name}".encode()).hexdigest()[: 2 * size]


def base(number: int, comment: str) -> Vector:
    vector: Vector = {"comment": comment}
    vector |= {name: seeded(number, name) for name in ("s_i", "s_r", "e_i", "e_r", "psk", "urandom")}
    return vector | {
        "monotonic_ns": seeded(number, "monotonic_ns", 8),
        "P1": padded(timestamp(1_800_000_000 + number, 16_777_216 * number) + OFFER, 64),
        "P2": padded(CHOICE, 64),
        "idx_i": int(seeded(number, "idx_i", 4), 16),
        "idx_r": int(seeded(number, "idx_r", 4), 16),
        "data": IPV4_HEADER,
    }


def vectors() -> dict[str, Vector]:
    """All inputs of our own vectors by file name."""
    no_psk = base(2, "no preshared key, which is 32 zero bytes")
    no_psk["psk"] = "00" * 32
    knock = base(3, "with a knock, which keys mac1")
    knock["knock"] = seeded(3, "knock")
    rollover = base(4, "a preshared key about to be replaced, announced by PSK_NEXT on both sides")
    rollover["P1"] = padded(timestamp(1_800_000_004, 999_999_999) + OFFER + PSK_NEXT, 64)
    rollover["P2"] = padded(CHOICE + PSK_NEXT, 64)
    cookie = base(5, "a cookie for 192.0.2.7:5180 with a knock, and the first message sent again with mac2")
    cookie |= {
        "knock": seeded(5, "knock"),
        "cookie_secret": seeded(5, "cookie_secret"),
        "cookie_nonce": seeded(5, "cookie_nonce", 24),
        "source": "00" * 10 + "ffff" + "c0000207" + f"{5180:04x}",
    }
    large = base(6, "parameters of 128 bytes both ways, extreme indices")
    large |= {
        "P1": padded(timestamp(1_800_000_006, 0) + OFFER + "05020019" + "0c0102", 128),
        "P2": padded(CHOICE + MANY_ROUTES, 128),
        "idx_i": 0xFFFFFFFF,
        "idx_r": 1,
        "data": seeded(6, "data", 16) + seeded(6, "more data", 32) * 3,
    }
    ipv6 = base(7, "a cookie for [2001:db8::7]:65535 without a knock")
    ipv6 |= {
        "cookie_secret": seeded(7, "cookie_secret"),
        "cookie_nonce": seeded(7, "cookie_nonce", 24),
        "source": "20010db8" + "00" * 11 + "07" + "ffff",
    }
    all_of_them = [no_psk, knock, rollover, cookie, large, ipv6]
    return {f"handshake-{number}.json": vector for number, vector in enumerate(all_of_them, start=2)}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = compile_second(Path(folder))
        for name, vector in vectors().items():
            outputs = ask(program, {key: value for key, value in vector.items() if key != "comment"})
            (HERE / name).write_text(json.dumps(vector | outputs, indent=1) + "\n")


if __name__ == "__main__":
    main()
