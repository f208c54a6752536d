"""Keys and secrets: their buffers, their text form and their files."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl._sodium import lib

from vpnd import keys
from vpnd.errors import KeyFileError
from vpnd.keys import (
    Identity,
    PublicKey,
    Secret,
    decode_secret,
    derived_mac,
    generate_secret,
    read_key_file,
    write_key_file,
)

RAW = bytes(range(32))
P = 2**255 - 19  # the field of Curve25519

LOW_ORDER = [
    value.to_bytes(32, "little")
    for value in (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        P - 1,
        P,
        P + 1,
    )
]


def test_a_copied_secret_is_independent_of_its_source() -> None:
    source = bytearray(RAW)
    secret = Secret.copy_of(source)
    source[:] = bytes(32)
    assert secret.expose() == RAW


def test_a_wiped_secret_holds_zeros() -> None:
    secret = Secret.copy_of(RAW)
    memory = secret.buffer()
    secret.wipe()
    assert bytes(memory) == bytes(32)
    assert secret.is_zero()


def test_a_dropped_secret_is_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    wiped: list[int] = []
    monkeypatch.setattr(Secret, "wipe", lambda self: wiped.append(self.size))
    secret = Secret(48)
    del secret
    assert wiped == [48]


def test_a_secret_outliving_the_binding_goes_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = Secret(32)
    monkeypatch.setattr(keys, "lib", None)
    del secret


def test_the_buffer_of_a_secret_writes_into_it() -> None:
    secret = Secret(32)
    secret.buffer()[:] = RAW
    assert secret.expose() == RAW


def test_secrets_are_equal_by_content_and_size() -> None:
    assert Secret.copy_of(RAW).equals(Secret.copy_of(RAW))
    assert not Secret.copy_of(RAW).equals(Secret.copy_of(RAW[:31] + b"\0"))
    assert not Secret(31).equals(Secret(32))


def test_secrets_compare_with_the_equals_sign_and_have_no_hash() -> None:
    assert Secret.copy_of(RAW) == Secret.copy_of(RAW)
    assert Secret.copy_of(RAW) != Secret.zero()
    assert Secret.copy_of(RAW) != RAW
    with pytest.raises(TypeError):
        hash(Secret.zero())


def test_the_absent_secret_is_zero_and_others_are_not() -> None:
    assert Secret.zero().is_zero()
    assert Secret.zero().size == 32
    assert not Secret.copy_of(RAW).is_zero()


def test_printing_a_secret_or_an_identity_tells_nothing() -> None:
    assert repr(Secret.copy_of(RAW)) == "<Secret of 32 bytes>"
    assert str(Secret.copy_of(RAW)) == "<Secret of 32 bytes>"
    assert "<Secret of 32 bytes>" in repr(Identity.from_private(Secret.copy_of(RAW)))


def test_generated_secrets_differ_and_have_the_size_of_keys() -> None:
    first, second = generate_secret(), generate_secret()
    assert first.size == second.size == 32
    assert not first.equals(second)


def test_a_generator_that_falls_short_gives_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(bytes(31))
    monkeypatch.setattr(keys, "Path", lambda _: tmp_path / "short")
    with pytest.raises(KeyFileError, match="fewer bytes"):
        generate_secret()


@pytest.mark.parametrize(
    ("private", "public"),
    [
        (
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        ),
        (
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        ),
    ],
)
def test_the_public_half_is_that_of_rfc_7748(private: str, public: str) -> None:
    """[J3] The key pairs of section 6.1."""
    identity = Identity.from_private(Secret.copy_of(bytes.fromhex(private)))
    assert identity.public.raw.hex() == public


@settings(max_examples=50, deadline=None)
@given(raw=st.binary(min_size=32, max_size=32))
def test_a_public_key_survives_its_text(raw: bytes) -> None:
    key = PublicKey(raw)
    assert PublicKey.from_base64(str(key)) == key
    assert repr(key) == f"PublicKey('{base64.b64encode(raw).decode()}')"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "0 bytes after base64, a key has 32"),
        (base64.b64encode(bytes(31)).decode(), "31 bytes after base64, a key has 32"),
        (base64.b64encode(bytes(33)).decode(), "33 bytes after base64, a key has 32"),
        ("A" * 43, "not base64: Incorrect padding"),
        ("A" * 43 + "=\n", "not base64: Excess data after padding"),
        (" " + "A" * 43 + "=", "not base64: Only base64 data is allowed"),
    ],
)
def test_a_wrong_public_key_is_explained(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as raised:
        PublicKey.from_base64(text)
    assert str(raised.value) == problem


def test_a_public_key_with_letters_beyond_ascii_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^not base64: "):
        PublicKey.from_base64("é" * 44)


def test_a_public_key_of_a_wrong_size_is_never_made() -> None:
    with pytest.raises(ValueError) as raised:
        PublicKey(bytes(33))
    assert str(raised.value) == "33 bytes, a key has 32"


@pytest.mark.parametrize("raw", LOW_ORDER, ids=lambda raw: raw[:4].hex())
def test_all_seven_points_of_low_order_are_known(raw: bytes) -> None:
    """[A14] None of the seven encodings may be a peer's key."""
    assert PublicKey(raw).is_low_order()


@pytest.mark.parametrize("raw", LOW_ORDER, ids=lambda raw: raw[:4].hex())
def test_a_set_top_bit_does_not_hide_a_point_of_low_order(raw: bytes) -> None:
    """[A14, A15] The top bit is no part of the point."""
    assert PublicKey(raw[:31] + bytes([raw[31] | 0x80])).is_low_order()


@settings(max_examples=200)
@given(st.binary(min_size=32, max_size=32) | st.sampled_from(LOW_ORDER))
def test_low_order_is_what_libsodium_refuses(raw: bytes) -> None:
    """[A14] It compares the same way before every Diffie-Hellman."""
    scalar, shared = Secret.copy_of(bytes([1]) * 32), Secret(32)
    refused = lib.crypto_scalarmult(shared.pointer, scalar.pointer, raw) != 0
    assert PublicKey(raw).is_low_order() == refused


def test_a_generated_key_is_not_of_low_order() -> None:
    assert not Identity.from_private(generate_secret()).public.is_low_order()


@settings(max_examples=50, deadline=None)
@given(raw=st.binary(min_size=32, max_size=32))
def test_a_derived_mac_is_unicast_and_locally_administered(raw: bytes) -> None:
    mac = derived_mac(PublicKey(raw))
    assert len(mac) == 6
    assert mac[0] & 3 == 2


def test_a_derived_mac_is_stable_and_differs_from_key_to_key() -> None:
    assert derived_mac(PublicKey(RAW)).hex(":") == "9a:f3:0c:fd:0a:41"
    macs = {derived_mac(PublicKey(bytes([number]) * 32)) for number in range(256)}
    assert len(macs) == 256


def put(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_written_key_is_read_back(tmp_path: Path) -> None:
    write_key_file(tmp_path / "key", Secret.copy_of(RAW))
    assert (tmp_path / "key").read_bytes() == base64.b64encode(RAW) + b"\n"
    assert read_key_file(tmp_path / "key").expose() == RAW


def test_a_key_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        write_key_file(tmp_path / "key", Secret.copy_of(RAW))
    finally:
        os.umask(old)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    put(tmp_path / "key", b"old")
    with pytest.raises(KeyFileError) as raised:
        write_key_file(tmp_path / "key", Secret.copy_of(RAW))
    assert str(raised.value) == f"{tmp_path}/key: exists already; a key is never overwritten"
    assert (tmp_path / "key").read_bytes() == b"old"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError) as raised:
        write_key_file(tmp_path / "none" / "key", Secret.copy_of(RAW))
    assert str(raised.value) == f"{tmp_path}/none/key: No such file or directory"


def test_a_disk_that_is_full_leaves_no_half_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyFileError) as raised:
        write_key_file(tmp_path / "key", Secret.copy_of(RAW))
    assert str(raised.value) == f"{tmp_path}/key: No space left on device"
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_file_of_its_owner_alone_is_read(tmp_path: Path, mode: int) -> None:
    assert read_key_file(put(tmp_path / "key", base64.b64encode(RAW), mode)).expose() == RAW


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o601, 0o620, 0o666])
def test_a_key_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = put(tmp_path / "key", base64.b64encode(RAW), mode)
    with pytest.raises(KeyFileError) as raised:
        read_key_file(path)
    assert str(raised.value) == f"{path}: mode {mode:04o} lets others read it; run chmod 600 {path}"


def test_a_guarded_key_file_may_have_any_mode(tmp_path: Path) -> None:
    assert read_key_file(put(tmp_path / "key", base64.b64encode(RAW), 0o440), guarded=True).expose() == RAW


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "0 bytes after base64, a key has 32"),
        (base64.b64encode(bytes(31)), "31 bytes after base64, a key has 32"),
        (b"private key", "not base64: Only base64 data is allowed"),
        (RAW, "not base64: Only base64 data is allowed"),
        (base64.b64encode(bytes(32)), "all bytes are zero, which is no secret"),
        (base64.b64encode(RAW) + b"\n" + base64.b64encode(RAW), "not base64: Excess data after padding"),
        (b" " * 4096, "longer than any key file"),
    ],
)
def test_a_file_without_a_key_is_explained(tmp_path: Path, content: bytes, problem: str) -> None:
    path = put(tmp_path / "key", content)
    with pytest.raises(KeyFileError) as raised:
        read_key_file(path)
    assert str(raised.value) == f"{path}: {problem}"


def test_a_line_from_elsewhere_is_decoded_and_wiped() -> None:
    content = bytearray(base64.b64encode(RAW) + b"\n")
    assert decode_secret(content, Path("standard input")).expose() == RAW
    assert content == bytes(45)


def test_a_line_without_a_key_is_wiped_and_refused_in_its_sources_name() -> None:
    content = bytearray(b"no key")
    with pytest.raises(KeyFileError, match=r"^standard input: not base64: "):
        decode_secret(content, Path("standard input"))
    assert content == bytes(6)


def test_a_missing_key_file_tells_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError) as raised:
        read_key_file(tmp_path / "key")
    assert str(raised.value) == (
        f"{tmp_path}/key: no such file; vpnctl key gen makes a private key, vpnctl key psk a shared one"
    )


def test_a_path_through_a_file_is_explained(tmp_path: Path) -> None:
    put(tmp_path / "file", b"")
    with pytest.raises(KeyFileError) as raised:
        read_key_file(tmp_path / "file" / "key")
    assert str(raised.value) == f"{tmp_path}/file/key: Not a directory"


def test_a_pipe_is_no_key_file_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    with pytest.raises(KeyFileError) as raised:
        read_key_file(tmp_path / "key")
    assert str(raised.value) == f"{tmp_path}/key: not a regular file"


@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=100) | st.from_regex(rb"[A-Za-z0-9+/]{43}=\n?", fullmatch=True))
def test_any_content_is_a_key_or_an_error_that_does_not_repeat_it(content: bytes) -> None:
    path = Path(f"/tmp/vpnd-test-key-{os.getpid()}")
    put(path, content)
    try:
        secret = read_key_file(path)
    except KeyFileError as error:
        text = str(error)
    else:
        assert secret.size == 32
        text = ""
    finally:
        path.unlink()
    shown = content.strip().decode("latin-1")
    assert len(shown) < 8 or shown not in text
