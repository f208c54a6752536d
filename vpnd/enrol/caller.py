"""One handshake without a daemon: a Device, a line to the hub, and what of a plane control messages take.

Owns the loop until something is answered or the time is over. Sends no packet of a link.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from nacl._sodium import ffi, lib

from vpnd.endpoint import Endpoint
from vpnd.enrol.line import Line
from vpnd.keys import Identity, PublicKey, Secret
from vpnd.protocol.actions import Action, EnrolAnswered, InstallSession, SendDatagram
from vpnd.protocol.constants import EnrolAnswer, Feature, PacketType, PaddingMode
from vpnd.protocol.control_messages import encode_enrol
from vpnd.protocol.device import Device, DeviceOptions
from vpnd.protocol.peer import PeerOptions

AGAIN_S = 0.5  # between two copies of what is unanswered
_TURN_S = 0.05
_HEADER = struct.Struct("<B3xIQ")  # type, the receiver's index, counter; section 3.4 of the protocol
_TAG_SIZE = 16
_CIPHER_KEY_SIZE = 32  # of the session's key; the salt of its nonces follows


class Caller:
    """Calls one hub under one identity, on a line that leads to `endpoint` and is closed with this."""

    def __init__(
        self,
        line: Line,
        identity: Identity,
        hub: PublicKey,
        endpoint: Endpoint,
        *,
        knock: Secret,
        is_tap: bool,
    ) -> None:
        self._line = line
        self._hub = hub
        self._endpoint = endpoint
        self._session: InstallSession | None = None
        self._counter = 0
        self._answer: EnrolAnswer | None = None
        self._is_heard = False
        self._device = Device(
            identity,
            knock=knock,
            options=DeviceOptions(
                has_aes=False,  # ChaCha20 is what the binding has on every machine
                link_type=Feature.TAP if is_tap else Feature.TUN,
                mtu=1280,
                padding=PaddingMode.NONE,
                features=Feature(0),
            ),
            wall_clock_ns=line.wall_ns,
            random_bytes=os.urandom,
        )
        peer = PeerOptions(public_key=hub, name="hub", preshared_key=Secret.zero(), endpoint=endpoint)
        self._device.configure([peer], line.now())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.close()

    def connects(self, within_s: float) -> bool:
        """Makes a handshake; tells whether a message of the hub came on its session."""
        return self._talk(b"", within_s)

    def enrol(self, own: PublicKey, within_s: float) -> EnrolAnswer | None:
        """Tells the hub the key that is to be ours, until it answers; None where it does not."""
        self._talk(encode_enrol(own), within_s)
        return self._answer

    def _talk(self, message: bytes, within_s: float) -> bool:
        """Repeats `message`, an empty one being a keepalive, until it was answered."""
        now = self._line.now
        ends_at, again_at = now() + within_s, 0.0
        self._perform(self._device.reconnect(self._hub, now()))
        while now() < ends_at:
            if self._session is not None and now() >= again_at:
                again_at = now() + AGAIN_S
                self._seal(message)
            datagram = self._line.receive(_TURN_S)
            if datagram is not None:
                self._read_untrusted(datagram)
            if self._answer is not None or (not message and self._is_heard):
                return True
            self._perform(self._device.tick(now(), {}))
        return False

    def _read_untrusted(self, datagram: bytes) -> None:
        if datagram[:1] == bytes((PacketType.DATA,)):
            self._open_untrusted(datagram)
        else:
            self._perform(self._device.receive(datagram, self._endpoint, self._line.now()))

    def _perform(self, wanted: Sequence[Action]) -> None:
        for action in wanted:
            match action:
                case SendDatagram(_, datagram):
                    self._line.send(datagram)
                case InstallSession():
                    self._session, self._counter = action, 0
                case EnrolAnswered(_, answer):
                    self._answer = answer

    def _seal(self, content: bytes) -> None:
        session = self._session
        assert session is not None
        header = _HEADER.pack(PacketType.DATA, session.remote_index, self._counter)
        self._counter += 1
        sealed = ffi.new("unsigned char[]", len(content) + _TAG_SIZE)
        key, nonce = session.send_key.pointer, _nonce(session.send_key, header)
        lib.crypto_aead_chacha20poly1305_ietf_encrypt(
            sealed, ffi.NULL, content, len(content), header, len(header), ffi.NULL, nonce, key
        )
        self._line.send(header + bytes(ffi.buffer(sealed)))

    def _open_untrusted(self, datagram: bytes) -> None:
        session, header, sealed = self._session, datagram[: _HEADER.size], datagram[_HEADER.size :]
        if session is None or len(sealed) < _TAG_SIZE or _HEADER.unpack(header)[1] != session.local_index:
            return
        content = ffi.new("unsigned char[]", max(len(sealed) - _TAG_SIZE, 1))
        key, nonce = session.receive_key.pointer, _nonce(session.receive_key, header)
        refused = lib.crypto_aead_chacha20poly1305_ietf_decrypt(
            content, ffi.NULL, ffi.NULL, sealed, len(sealed), header, len(header), nonce, key
        )
        if refused:
            return
        self._is_heard = True
        opened = bytes(ffi.buffer(content, len(sealed) - _TAG_SIZE))
        if opened and opened[0] >> 4 == 2:  # control; an answer that comes twice says the same twice
            wanted = self._device.receive_control(
                self._hub, session.local_index, self._endpoint, opened, self._line.now()
            )
            self._perform(wanted)


def _nonce(key: Secret, header: bytes) -> bytes:
    return bytes(key.buffer()[_CIPHER_KEY_SIZE:]) + header[8:]
