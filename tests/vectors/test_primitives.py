"""The primitives as the protocol room calls them, against published vectors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from nacl._sodium import ffi, lib
from nacl.bindings import crypto_scalarmult

from vpnd.keys import Identity, PublicKey, Secret
from vpnd.protocol import boxes

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "primitives.json").read_text())


def multiply(scalar: str, point: str) -> str:
    return bytes(crypto_scalarmult(bytes.fromhex(scalar), bytes.fromhex(point))).hex()


@pytest.mark.parametrize("case", VECTORS["x25519"]["cases"], ids=["first", "second"])
def test_x25519_gives_the_published_point(case: dict[str, str]) -> None:
    """[J3] X25519 agrees with RFC 7748."""
    assert multiply(case["scalar"], case["point"]) == case["output"]


@pytest.mark.parametrize("times", [1, 1000])
def test_x25519_iterated_gives_the_published_point(times: int) -> None:
    """[J3] X25519 fed with its own output agrees with RFC 7748."""
    scalar = point = VECTORS["x25519"]["iterated"]["start"]
    for _ in range(times):
        scalar, point = multiply(scalar, point), scalar
    assert scalar == VECTORS["x25519"]["iterated"][str(times)]


def test_the_base_point_gives_the_identity_of_a_private_key() -> None:
    """[J3] A public key is the private one times the base point."""
    private = bytes.fromhex(VECTORS["x25519"]["iterated"]["start"])
    public = Identity.from_private(Secret.copy_of(private)).public
    assert public.raw.hex() == VECTORS["x25519"]["iterated"]["1"]


def test_the_box_key_of_nacl_is_computed_from_both_keys() -> None:
    """[J3] The pre-computation is HSalsa20 over X25519, as in NaCl's own test."""
    case = VECTORS["secretbox"]
    key = ffi.new("unsigned char[]", 32)
    private, public = bytes.fromhex(case["alice_private"]), bytes.fromhex(case["bob_public"])
    assert lib.crypto_box_beforenm(key, public, private) == 0
    assert bytes(ffi.buffer(key)).hex() == case["key"]


def test_secretbox_gives_the_published_ciphertext_with_the_tag_first() -> None:
    """[J3] XSalsa20-Poly1305 agrees with NaCl's test, both ways."""
    case = {name: bytes.fromhex(value) for name, value in VECTORS["secretbox"].items() if name != "source"}
    key = Secret.copy_of(case["key"])
    assert boxes.seal_box(key, case["nonce"], case["plain"]) == case["sealed"]
    assert boxes.open_box(key, case["nonce"], case["sealed"]) == case["plain"]


@pytest.mark.parametrize("changed", ["key", "nonce", "tag", "text"])
def test_secretbox_with_one_wrong_bit_does_not_open(changed: str) -> None:
    """[J4] Wrong key, wrong nonce, damaged tag, damaged text: nothing comes out."""
    case = {
        name: bytearray.fromhex(value) for name, value in VECTORS["secretbox"].items() if name != "source"
    }
    target = {"key": case["key"], "nonce": case["nonce"], "tag": case["sealed"], "text": case["sealed"]}
    target[changed][0 if changed == "tag" else -1] ^= 1
    assert boxes.open_box(Secret.copy_of(case["key"]), bytes(case["nonce"]), bytes(case["sealed"])) is None


@pytest.mark.parametrize("size", [0, 1, 64, 1024])
def test_a_box_opens_to_what_was_sealed_at_every_size(size: int) -> None:
    """[J4] Empty and longest plaintexts survive, and the box is 16 bytes longer."""
    key, nonce, plain = Secret.copy_of(bytes(range(32))), bytes(24), bytes(i % 251 for i in range(size))
    box = boxes.seal_box(key, nonce, plain)
    assert len(box) == size + 16
    assert boxes.open_box(key, nonce, box) == plain


@pytest.mark.parametrize("case", VECTORS["blake2b"]["cases"], ids=["plain", "keyed", "personalized"])
def test_blake2b_gives_the_published_digest(case: dict[str, str]) -> None:
    """[J3] BLAKE2b with and without key and personalization, by libsodium and by Python."""
    data, key, person = (bytes.fromhex(case[name]) for name in ("data", "key", "person"))
    size = len(case["output"]) // 2
    ours = ffi.new("unsigned char[]", size)
    lib.crypto_generichash_blake2b_salt_personal(
        ours, size, data, len(data), key, len(key), ffi.NULL, person.ljust(16, b"\0")
    )
    assert bytes(ffi.buffer(ours)).hex() == case["output"]
    assert hashlib.blake2b(data, digest_size=size, key=key, person=person).hexdigest() == case["output"]


def test_a_mac_is_blake2b_with_the_projects_label() -> None:
    """[J3] The label stands in front: "vpnd1." and the purpose, padded with zeros."""
    key, data = bytes(range(32)), b"some datagram"
    expected = hashlib.blake2b(data, digest_size=16, key=key, person=b"vpnd1.mac").digest()
    assert boxes.mac(Secret.copy_of(key), data) == expected
    assert boxes.is_mac(Secret.copy_of(key), data, expected)
    assert not boxes.is_mac(Secret.copy_of(key), data, expected[:-1] + bytes([expected[-1] ^ 1]))


def test_an_identity_is_named_by_its_labelled_hash() -> None:
    """[J3] ID(S) is an unkeyed, labelled BLAKE2b of the public key."""
    public = PublicKey(bytes(range(32)))
    assert boxes.identify(public) == hashlib.blake2b(public.raw, digest_size=32, person=b"vpnd1.id").digest()
