"""Keys and secrets: values everyone uses, and the files they live in.

Owns the buffers in which secrets live: C memory from libsodium's binding, wiped when
dropped, never a Python `bytes`. Knows nothing of handshakes or of where files are configured.

A key file is one line of base64 (32 bytes), mode 0600 or stricter.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacl._sodium import ffi, lib

from vpnd.durable import sync
from vpnd.errors import KeyFileError

KEY_SIZE = 32
_P = 2**255 - 19
_U_MASK = 2**255 - 1  # the highest bit of a key is ignored (RFC 7748, section 5)
# The u-coordinates of order 1, 2, 4 and 8, on the curve and on its twist.
_LOW_ORDER = frozenset(
    {
        0,
        1,
        _P - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)
_BYTES = ffi.typeof("unsigned char[]")
_KEY_FILE_LIMIT = 4096  # bytes read of a key file; a key line has 45


class Secret:
    """A fixed number of secret bytes in C memory, zeroed by `wipe` and at the end of its life.

    `pointer` is a cffi `unsigned char[size]`, valid while the object lives. There is no
    conversion to `bytes` but `expose`, which says by its name what it costs.
    """

    __slots__ = ("pointer", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.pointer: Any = ffi.new(_BYTES, size)

    @classmethod
    def copy_of(cls, data: bytes | bytearray | memoryview) -> Secret:
        """Copies `data`; the caller's own copy is the caller's to wipe."""
        secret = cls(len(data))
        ffi.memmove(secret.pointer, data, len(data))
        return secret

    @classmethod
    def zero(cls, size: int = KEY_SIZE) -> Secret:
        """All zero bytes: the value of an absent preshared key or knock."""
        return cls(size)

    def buffer(self) -> memoryview:
        """A writable view of the C memory, for calls that take a buffer."""
        return memoryview(ffi.buffer(self.pointer, self.size))

    def expose(self) -> bytes:
        """Copies the secret into Python memory, where it stays until the process ends."""
        return bytes(ffi.buffer(self.pointer, self.size))

    def equals(self, other: Secret) -> bool:
        """Compares in constant time; different sizes are different secrets."""
        if self.size != other.size:
            return False
        return bool(lib.sodium_memcmp(self.pointer, other.pointer, self.size) == 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.equals(other)

    __hash__ = None  # type: ignore[assignment]  # a hash would tell of the secret

    def is_zero(self) -> bool:
        return self.equals(Secret(self.size))

    def wipe(self) -> None:
        lib.sodium_memzero(self.pointer, self.size)

    def __del__(self) -> None:
        # At interpreter exit the binding may be gone already.
        if lib is not None:
            self.wipe()

    def __repr__(self) -> str:
        return f"<Secret of {self.size} bytes>"


@dataclass(frozen=True, slots=True, order=True)
class PublicKey:
    """A peer's static X25519 public key, the 32 bytes exactly as written."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != KEY_SIZE:
            raise ValueError(f"{len(self.raw)} bytes, a key has {KEY_SIZE}")

    @classmethod
    def from_base64(cls, text: str) -> PublicKey:
        """Raises ValueError that tells what is wrong with the text."""
        return cls(_decode_base64(text))

    def is_low_order(self) -> bool:
        """Whether every shared secret with this key is zero, known to everybody (RFC 7748, section 6.1)."""
        return (int.from_bytes(self.raw, "little") & _U_MASK) % _P in _LOW_ORDER

    def __str__(self) -> str:
        return base64.b64encode(self.raw).decode()

    def __repr__(self) -> str:
        return f"PublicKey({str(self)!r})"


@dataclass(frozen=True, slots=True)
class Identity:
    """A static key pair: who we are. The private half is clamped by libsodium when used."""

    private: Secret
    public: PublicKey

    @classmethod
    def from_private(cls, private: Secret) -> Identity:
        public = ffi.new("unsigned char[]", KEY_SIZE)
        lib.crypto_scalarmult_base(public, private.pointer)
        return cls(private, PublicKey(bytes(ffi.buffer(public, KEY_SIZE))))


def derived_mac(public_key: PublicKey) -> bytes:
    """A MAC address for the link of this key's owner: always the same one, unicast, locally administered."""
    digest = hashlib.blake2b(public_key.raw, digest_size=6, person=b"vpnd link mac").digest()
    return bytes([digest[0] & 0xFC | 0x02]) + digest[1:]


def generate_secret() -> Secret:
    """32 bytes from the kernel's generator: a private key, a preshared key or a knock."""
    secret = Secret(KEY_SIZE)
    with Path("/dev/urandom").open("rb", buffering=0) as random:
        if random.readinto(secret.buffer()) != KEY_SIZE:
            raise KeyFileError("/dev/urandom gave fewer bytes than asked for")
    return secret


def read_key_file(path: Path, *, guarded: bool = False) -> Secret:
    """Reads a secret key; refuses a file that others may read. Raises KeyFileError.

    A `guarded` file lies in a folder only we may enter, as systemd's credentials do; its own
    mode, where an access list shows up as the group's bits, is not looked at.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyFileError(
            f"{path}: no such file; vpnctl key gen makes a private key, vpnctl key psk a shared one"
        ) from None
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise KeyFileError(f"{path}: not a regular file")
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not guarded:
            _refuse_exposed(path, status)
        content = bytearray(_KEY_FILE_LIMIT)
        length = file.readinto(content) or 0
    try:
        if length == len(content):
            raise KeyFileError(f"{path}: longer than any key file")
        return _decode_secret(content, length, path)
    finally:
        content[:] = bytes(len(content))


def check_unexposed(path: Path) -> None:
    """Raises KeyFileError if others may read the file; one that is out of our own reach is well kept."""
    try:
        status = path.stat()
    except OSError:
        return
    _refuse_exposed(path, status)


def _refuse_exposed(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise KeyFileError(f"{path}: mode {mode:04o} lets others read it; run chmod 600 {path}")


def decode_secret(content: bytearray, source: Path) -> Secret:
    """Reads the one line of base64 in `content`, then wipes it; `source` names it in a KeyFileError."""
    try:
        return _decode_secret(content, len(content), source)
    finally:
        content[:] = bytes(len(content))


def write_key_file(path: Path, secret: Secret) -> None:
    """Writes one line of base64 to a new file of mode 0600; never replaces a file. Raises KeyFileError."""
    write_new_file(path, binascii.b2a_base64(secret.buffer()))


def write_new_file(path: Path, content: bytes) -> None:
    """Writes a key, or one that is sealed, as `write_key_file` does."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise KeyFileError(f"{path}: exists already; a key is never overwritten") from None
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        sync(path)
        sync(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)  # half a key is worse than none: the next try would refuse to replace it
        raise KeyFileError(f"{path}: {error.strerror}") from error


def _decode_secret(content: bytearray, length: int, path: Path) -> Secret:
    line = content[:length]
    text = line.strip()
    try:
        raw = bytearray(binascii.a2b_base64(text, strict_mode=True))
    except binascii.Error as error:
        raise KeyFileError(f"{path}: not base64: {error}") from None
    finally:
        line[:], text[:] = bytes(len(line)), bytes(len(text))
    try:
        if len(raw) != KEY_SIZE:
            raise KeyFileError(f"{path}: {len(raw)} bytes after base64, a key has {KEY_SIZE}")
        if not any(raw):
            raise KeyFileError(f"{path}: all bytes are zero, which is no secret")
        return Secret.copy_of(raw)
    finally:
        raw[:] = bytes(len(raw))


def _decode_base64(text: str) -> bytes:
    try:
        raw = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"not base64: {error}") from None
    if len(raw) != KEY_SIZE:
        raise ValueError(f"{len(raw)} bytes after base64, a key has {KEY_SIZE}")
    return raw
