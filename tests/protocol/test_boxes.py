"""The handshake's few operations: what they refuse, what they leave behind."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from vpnd.keys import Secret, generate_secret
from vpnd.protocol import boxes
from vpnd.protocol.boxes import Chain, Field

FIELD = Field.of("id")
ABSORB = boxes.label("a.s")


def chain() -> Chain:
    return Chain.begin(b"a protocol")


def test_a_label_is_filled_with_zeros_to_sixteen_bytes() -> None:
    assert boxes.label("k.mr") == b"vpnd1.k.mr\0\0\0\0\0\0"


def test_absorbing_is_keyed_blake2b_of_the_state() -> None:
    """[J3] The chain agrees with Python's own BLAKE2b, label as personalization."""
    ours = chain()
    ours.absorb(ABSORB, b"input")
    state = hashlib.blake2b(b"a protocol", digest_size=64, person=b"vpnd1.a.init").digest()
    state = hashlib.blake2b(b"input", digest_size=64, key=state, person=b"vpnd1.a.s").digest()
    key = hashlib.blake2b(b"bound", digest_size=36, key=state, person=b"vpnd1.k.i2r").digest()
    assert ours.derive(boxes.label("k.i2r"), b"bound", 36).expose() == key


def test_absorbing_a_secret_equals_absorbing_its_bytes() -> None:
    one, other = chain(), chain()
    one.absorb(ABSORB, b"0123456789abcdef")
    other.absorb_secret(ABSORB, Secret.copy_of(b"0123456789abcdef"))
    assert one.equals(other)


def test_deriving_leaves_the_state_alone() -> None:
    one, other = chain(), chain()
    one.derive(boxes.label("k.id"))
    assert one.equals(other)


def test_a_copy_goes_its_own_way() -> None:
    original = chain()
    copy = original.copy()
    assert copy.equals(original)
    copy.absorb(ABSORB, b"x")
    assert not copy.equals(original)


def test_both_ends_absorb_the_same_shared_key() -> None:
    """[A2] B(x, Y) = B(y, X)."""
    left, right = generate_secret(), generate_secret()
    one, other = chain(), chain()
    assert one.absorb_shared(ABSORB, left, boxes.public_of(right))
    assert other.absorb_shared(ABSORB, right, boxes.public_of(left))
    assert one.equals(other)


def test_a_low_order_point_is_refused_and_changes_nothing() -> None:
    """[A14] The zero point would make every shared key the same."""
    one, other = chain(), chain()
    assert not one.absorb_shared(ABSORB, generate_secret(), bytes(32))
    assert one.equals(other)


@pytest.mark.parametrize("size", [0, 1, 16, 64, 1024])
def test_a_field_opens_only_under_the_same_state(size: int) -> None:
    """[J4] Sealed and opened under equal states; one more absorbed byte and it does not open."""
    plaintext = bytes(range(256)) * 4
    sealer = chain()
    box = sealer.seal(FIELD, plaintext[:size])
    assert len(box) == size + boxes.BOX_OVERHEAD
    assert chain().open(FIELD, box) == plaintext[:size]
    other = chain()
    other.absorb(ABSORB, b"\0")
    assert other.open(FIELD, box) is None


def test_a_field_does_not_open_as_another_field() -> None:
    """[J4] Key and nonce of a field come from its own label."""
    box = chain().seal(FIELD, b"who I am")
    assert chain().open(Field.of("p1"), box) is None


@pytest.mark.parametrize("cut", [1, 8, 15])
def test_a_shortened_box_does_not_open(cut: int) -> None:
    """[J4] A tag that lost bytes is no tag."""
    key, nonce = generate_secret(), bytes(24)
    box = boxes.seal_box(key, nonce, b"")
    assert boxes.open_box(key, nonce, box) == b""
    assert boxes.open_box(key, nonce, box[:-cut]) is None


def test_a_mac_is_right_for_its_key_and_data_only() -> None:
    """[J4, H15] Another key, other data, another claim: each refused."""
    key, other = generate_secret(), generate_secret()
    right = boxes.mac(key, b"data")
    assert boxes.is_mac(key, b"data", right)
    assert not boxes.is_mac(other, b"data", right)
    assert not boxes.is_mac(key, b"Data", right)
    assert not boxes.is_mac(key, b"data", right[:-1] + bytes([right[-1] ^ 1]))


def test_an_ephemeral_differs_by_static_key_randomness_and_time() -> None:
    """[J3] A cloned machine with the same randomness still makes its own ephemerals."""
    first, second = Secret.copy_of(b"s" * 32), Secret.copy_of(b"S" * 32)

    def make(static: Secret, byte: int, time_ns: int) -> bytes:
        return boxes.make_ephemeral(static, bytes([byte]) * 32, time_ns).expose()

    one = make(first, 1, 1)
    assert one == make(first, 1, 1)
    assert len({one, make(second, 1, 1), make(first, 2, 1), make(first, 1, 2)}) == 4


def test_the_randomness_of_an_ephemeral_is_wiped() -> None:
    """[G6] With the static key it would give the ephemeral back."""
    random = bytes([7]) * 32
    boxes.make_ephemeral(generate_secret(), random, 0)
    assert random == bytes(32)


def test_a_wiped_chain_holds_zeros() -> None:
    """[G6] Nothing of a handshake is left in the buffer that held it."""
    spent = chain()
    spent.wipe()
    assert spent.equals(Chain(Secret(boxes.CHAIN_SIZE)))


def test_no_mac_or_secret_is_compared_by_an_operator() -> None:
    """[H15] The protocol's sources compare MACs by sodium_memcmp, and nothing else uses `==` on one."""
    room = Path(boxes.__file__).parent
    for source in room.glob("*.py"):
        text = source.read_text()
        for word in ("mac1 ==", "mac ==", "== message.mac\n", "compare_digest", "mac1 !="):
            assert word not in text, f"{source.name}: {word}"
    assert "sodium_memcmp" in (room / "boxes.py").read_text()
