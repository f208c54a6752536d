"""Both AEAD back ends: published vectors, edges, the twin's bytes, and what they must refuse."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.plane.leaves import reference
from tests.plane.leaves.library import AeadKey, Backend, Leaves

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "aead"
SUITES = (reference.AES_256_GCM, reference.CHACHA20_POLY1305)
KEY, NONCE, AAD = bytes(range(32)), bytes(range(100, 112)), bytes(range(200, 216))
BACKENDS = ("openssl", "ipsec-mb")


def read_vectors() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in ("published.json", "edges.json"):
        found += json.loads((VECTORS / name).read_text())["vectors"]
    return found


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, leaves: Leaves) -> Backend:
    found = leaves.choose(request.param)
    if found is None:
        pytest.skip(f"{request.param} does not work on this processor")
    return found


@pytest.mark.parametrize("vector", read_vectors(), ids=lambda vector: vector["source"].split(": ")[-1])
def test_a_vector_is_sealed_and_opened_to_its_bytes(backend: Backend, vector: dict[str, Any]) -> None:
    """[J3]"""
    fields = ("key", "nonce", "aad", "plaintext", "ciphertext", "tag")
    key, nonce, aad, plain, cipher, tag = (bytes.fromhex(vector[field]) for field in fields)
    made = AeadKey(backend, vector["suite"], key)
    assert made.seal(nonce, aad, plain) == (cipher, tag)
    assert made.open(nonce, aad, cipher, tag) == (True, plain)


@pytest.mark.parametrize("vector", read_vectors(), ids=lambda vector: vector["source"].split(": ")[-1])
def test_the_plain_python_twin_gives_the_vectors_bytes(vector: dict[str, Any]) -> None:
    """[J3]"""
    fields = ("key", "nonce", "aad", "plaintext", "ciphertext", "tag")
    key, nonce, aad, plain, cipher, tag = (bytes.fromhex(vector[field]) for field in fields)
    assert reference.seal(vector["suite"], key, nonce, aad, plain) == (cipher, tag)


@pytest.mark.parametrize("suite", SUITES)
def test_both_back_ends_and_the_twin_give_the_same_bytes(leaves: Leaves, suite: int) -> None:
    """[J3]"""
    dice = random.Random(suite)
    backends = leaves.backends()
    assert "openssl" in backends
    for size in [*range(70), 127, 128, 129, 255, 256, 257, 500]:
        key, nonce = dice.randbytes(32), dice.randbytes(12)
        aad, plain = dice.randbytes(dice.choice((16, 16, 0, 1, 15, 33))), dice.randbytes(size)
        expected = reference.seal(suite, key, nonce, aad, plain)
        for backend in backends.values():
            assert AeadKey(backend, suite, key).seal(nonce, aad, plain) == expected


@pytest.mark.parametrize("suite", SUITES)
def test_the_back_ends_open_each_others_messages_of_every_length(leaves: Leaves, suite: int) -> None:
    """[J3, J4]"""
    keys = [AeadKey(backend, suite, KEY) for backend in leaves.backends().values()]
    dice = random.Random(suite)
    for size in [*range(0, 1600, 7), 8999, 9000, 16_384, 65_475, 65_535]:
        nonce, plain = dice.randbytes(12), dice.randbytes(size)
        sealed = [key.seal(nonce, AAD, plain) for key in keys]
        assert all(message == sealed[0] for message in sealed)
        assert all(key.open(nonce, AAD, *sealed[0]) == (True, plain) for key in keys)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("size", [0, 1, 16, 40, 100])
def test_every_flipped_bit_is_refused_and_leaves_no_plaintext(
    backend: Backend, suite: int, size: int
) -> None:
    """[J4]"""
    key = AeadKey(backend, suite, KEY)
    plain = bytes(range(1, size + 1))
    cipher, tag = key.seal(NONCE, AAD, plain)
    parts = (NONCE, AAD, cipher, tag)
    for part in range(4):
        for bit in range(8 * len(parts[part])):
            changed = [bytearray(value) for value in parts]
            changed[part][bit // 8] ^= 1 << bit % 8
            nonce, aad, text, wrong_tag = (bytes(value) for value in changed)
            assert key.open(nonce, aad, text, wrong_tag) == (False, bytes(size))
    assert key.open(*parts) == (True, plain)


@pytest.mark.parametrize("suite", SUITES)
def test_a_wrong_key_or_suite_is_refused(backend: Backend, suite: int) -> None:
    """[J4]"""
    cipher, tag = AeadKey(backend, suite, KEY).seal(NONCE, AAD, b"inner packet")
    for bit in range(256):
        other = bytearray(KEY)
        other[bit // 8] ^= 1 << bit % 8
        opened, plain = AeadKey(backend, suite, bytes(other)).open(NONCE, AAD, cipher, tag)
        assert (opened, plain) == (False, bytes(12))
    opened, plain = AeadKey(backend, 3 - suite, KEY).open(NONCE, AAD, cipher, tag)
    assert (opened, plain) == (False, bytes(12))


@pytest.mark.parametrize("suite", SUITES)
def test_a_message_cut_short_or_made_longer_is_refused(backend: Backend, suite: int) -> None:
    """[J4] A tag is what stands in the last 16 bytes; right bytes in another place are no tag."""
    key = AeadKey(backend, suite, KEY)
    cipher, tag = key.seal(NONCE, AAD, bytes(64))
    message = cipher + tag
    for size in range(16, len(message)):
        assert not key.open(NONCE, AAD, message[: size - 16], message[size - 16 : size])[0]
    for extra in (b"\0", bytes(16)):
        longer = message + extra
        assert not key.open(NONCE, AAD, longer[:-16], longer[-16:])[0]
    for right in range(16):
        assert not key.open(NONCE, AAD, cipher, tag[:right] + bytes(b ^ 0xFF for b in tag[right:]))[0]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 63, 64, 65, 1400])
def test_in_place_gives_the_same_bytes_at_every_alignment_and_touches_no_neighbour(
    backend: Backend, suite: int, size: int
) -> None:
    """[J4]"""
    key = AeadKey(backend, suite, KEY)
    plain = random.Random(size).randbytes(size)
    cipher, tag = key.seal(NONCE, AAD, plain)
    for at in range(64):
        buffer = bytearray(b"\xee" * (at + size + 16 + 64))
        buffer[at : at + size] = plain
        key.seal_in_place(NONCE, AAD, buffer, at, size)
        assert bytes(buffer) == b"\xee" * at + cipher + tag + b"\xee" * 64
        assert key.open_in_place(NONCE, AAD, buffer, at, size)
        assert bytes(buffer) == b"\xee" * at + plain + tag + b"\xee" * 64


@pytest.mark.parametrize("suite", SUITES)
def test_a_refused_message_is_wiped_where_it_stood(backend: Backend, suite: int) -> None:
    """[J4]"""
    key = AeadKey(backend, suite, KEY)
    buffer = bytearray(b"secret packet" + bytes(16) + b"\xee" * 8)
    key.seal_in_place(NONCE, AAD, buffer, 0, 13)
    buffer[28] ^= 1
    tag = bytes(buffer[13:29])
    assert not key.open_in_place(NONCE, AAD, buffer, 0, 13)
    assert bytes(buffer) == bytes(13) + tag + b"\xee" * 8


@pytest.mark.parametrize("suite", SUITES)
def test_a_refusal_does_not_spoil_the_key(backend: Backend, suite: int) -> None:
    key = AeadKey(backend, suite, KEY)
    for number in range(50):
        nonce = number.to_bytes(12, "little")
        cipher, tag = key.seal(nonce, AAD, b"packet %d" % number)
        assert not key.open(nonce, AAD, cipher, bytes(16))[0]
        assert key.open(nonce, AAD, cipher, tag) == (True, b"packet %d" % number)


def test_an_unknown_suite_is_not_offered_and_makes_no_key(backend: Backend) -> None:
    for suite in (0, 3, 255):
        assert not backend.offers(suite)
        with pytest.raises(OSError, match="key_new"):
            AeadKey(backend, suite, KEY)
    assert all(backend.offers(suite) for suite in SUITES)


def test_a_back_end_is_chosen_by_name_and_the_best_one_without(leaves: Leaves) -> None:
    assert leaves.choose("rot13") is None
    names = {name: backend.name.decode() for name, backend in leaves.backends().items()}
    assert all(name == own for name, own in names.items())
    best = leaves.choose(None)
    assert best is not None
    assert best.name.decode() == ("ipsec-mb" if "ipsec-mb" in names else "openssl")


def test_hardware_aes_is_what_the_kernel_lists(leaves: Leaves) -> None:
    flags = next(
        (
            line
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith(("flags", "Features"))
        ),
        "",
    ).split()
    assert leaves.has_aes() == ("aes" in flags and ("pclmulqdq" in flags or "pmull" in flags))
