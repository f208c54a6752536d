"""The far end of a tunnel, played by the test: keys, sealing and opening of DATA messages.

Owns an AEAD independent of the plane's and the wire format of protocol section 3.4.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import struct
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from vpnd.endpoint import Endpoint
from vpnd.keys import Secret

AES_256_GCM = 1
CHACHA20_POLY1305 = 2
DATA = 0x0C
OVERHEAD = 32


class _Aead(Protocol):
    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...
    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...


def aead(suite: int, key: bytes) -> _Aead:
    return AESGCM(key) if suite == AES_256_GCM else ChaCha20Poly1305(key)


@dataclass(frozen=True, slots=True)
class Message:
    """One opened DATA message."""

    counter: int
    plaintext: bytes


@dataclass(slots=True)
class Session:
    """Both directions of one session, seen from the far end. `local_index` is the plane's."""

    local_index: int
    remote_index: int
    suite: int = CHACHA20_POLY1305
    from_plane: bytes = field(default_factory=lambda: os.urandom(36))
    to_plane: bytes = field(default_factory=lambda: os.urandom(36))
    counter: int = 0

    def seal(self, plaintext: bytes, counter: int | None = None) -> bytes:
        """A DATA message for the plane, under the next counter or the one given."""
        if counter is None:
            counter = self.counter
            self.counter += 1
        header = struct.pack("<B3xIQ", DATA, self.local_index, counter)
        nonce = self.to_plane[32:] + header[8:16]
        return header + aead(self.suite, self.to_plane[:32]).encrypt(nonce, plaintext, header)

    def open(self, datagram: bytes) -> Message:
        """Opens what the plane sent; raises InvalidTag, or ValueError on another format or index."""
        kind, zero, index, counter = struct.unpack_from("<B3sIQ", datagram)
        if kind != DATA or zero != bytes(3) or index != self.remote_index:
            raise ValueError(f"no DATA message of session {self.remote_index:#x}: {datagram[:16].hex()}")
        nonce = self.from_plane[32:] + datagram[8:16]
        plain = aead(self.suite, self.from_plane[:32]).decrypt(nonce, datagram[16:], datagram[:16])
        return Message(counter, plain)

    def opens(self, datagram: bytes) -> bool:
        try:
            self.open(datagram)
        except (InvalidTag, ValueError, struct.error):
            return False
        return True

    @property
    def send_key(self) -> Secret:
        return Secret.copy_of(self.from_plane)

    @property
    def receive_key(self) -> Secret:
        return Secret.copy_of(self.to_plane)


_indices = itertools.count(0x1000_0001, 0x0001_0101)


def new_session(suite: int = CHACHA20_POLY1305) -> Session:
    """A session with random keys and indices that no other session of this run has."""
    return Session(next(_indices) & 0xFFFFFFFF, next(_indices) & 0xFFFFFFFF, suite)


def endpoint_of(sock: socket.socket) -> Endpoint:
    return Endpoint.from_sockaddr(sock.getsockname())


def receive(sock: socket.socket, timeout_s: float = 20.0) -> bytes:
    """The next datagram; TimeoutError if none comes."""
    return receive_from(sock, timeout_s)[0]


def receive_from(sock: socket.socket, timeout_s: float = 20.0) -> tuple[bytes, Endpoint]:
    ready, _, _ = select.select([sock], [], [], timeout_s)
    if not ready:
        raise TimeoutError(f"no datagram within {timeout_s} s")
    datagram, source = sock.recvfrom(65536)
    return datagram, Endpoint.from_sockaddr(source)


def receive_waiting(sock: socket.socket) -> list[bytes]:
    """Everything that waits now."""
    received = []
    while select.select([sock], [], [], 0)[0]:
        received.append(sock.recv(65536))
    return received
