"""A hub and the line to it, in one process: a real Device, and the data messages by another library's cipher.

Time passes while a caller waits, and at no other moment.
"""

from __future__ import annotations

import random
import struct
from collections import deque
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tests.fakes.clock import Clock, WallClock
from vpnd.endpoint import Endpoint
from vpnd.keys import Identity, PublicKey, Secret
from vpnd.protocol.actions import (
    Action,
    EnrolWanted,
    InstallSession,
    SendControl,
    SendDatagram,
    SendKeepalive,
)
from vpnd.protocol.constants import EnrolAnswer, Feature, PaddingMode, Slot
from vpnd.protocol.device import Device, DeviceOptions
from vpnd.protocol.peer import PeerOptions

HUB, CALLER = Endpoint(ip_address("192.0.2.1"), 5180), Endpoint(ip_address("192.0.2.2"), 40000)
DATA = 0x0C
_HEADER = struct.Struct("<B3xIQ")


def identity(number: int) -> Identity:
    return Identity.from_private(Secret.copy_of(random.Random(f"identity {number}").randbytes(32)))


class Hub:
    """Lets those in that it knows, and answers with `answer` whoever enrols; None is no answer.

    `load` is how many handshake messages it believes to wait.
    """

    def __init__(self, *known: PublicKey, knock: Secret | None = None, is_tap: bool = False) -> None:
        self.clock = Clock()
        self.identity = identity(1)
        self.answer: EnrolAnswer | None = EnrolAnswer.DONE
        self.is_away = False
        self.load = 0
        self.told: list[PublicKey] = []
        self.wall = WallClock(self.clock)
        self.device = Device(
            self.identity,
            knock=Secret.zero() if knock is None else knock,
            options=DeviceOptions(
                has_aes=True,
                link_type=Feature.TAP if is_tap else Feature.TUN,
                mtu=1420,
                padding=PaddingMode.NONE,
            ),
            wall_clock_ns=self.wall.now_ns,
            random_bytes=random.Random("hub").randbytes,
        )
        self._sessions: dict[int, InstallSession] = {}
        self._current: dict[PublicKey, int] = {}
        self._counter = 0
        self._sent: list[bytes] = []
        self.know(*known)

    def know(self, *keys: PublicKey) -> None:
        """Has these peers and no others."""
        peers = [
            PeerOptions(public_key=key, name=f"peer {number}", preshared_key=Secret.zero(), endpoint=None)
            for number, key in enumerate(keys)
        ]
        self._perform(self.device.configure(peers, self.clock.now))

    def receive(self, datagram: bytes) -> list[bytes]:
        """Gives what it sends at once."""
        if self.is_away:
            return []
        if datagram[0] == DATA:
            self._open(datagram)
        else:
            now = self.clock.now
            self._perform(self.device.receive(datagram, CALLER, now, queue_depth=self.load))
        return self.pending()

    def pending(self) -> list[bytes]:
        """Gives what it has sent meanwhile."""
        self._perform(self.device.tick(self.clock.now, {}))
        sent, self._sent = self._sent, []
        return sent

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case SendDatagram(_, datagram):
                    self._sent.append(datagram)
                case InstallSession():
                    self._sessions[action.local_index] = action
                case SendControl(peer, payload) if peer in self._current:
                    self._seal(peer, payload)
                case SendKeepalive(peer) if peer in self._current:
                    self._seal(peer, b"")
                case EnrolWanted(once, own):
                    self.told.append(own)
                    if self.answer is not None:
                        self._perform(self.device.answer_enrolment(once, self.answer))

    def _open(self, datagram: bytes) -> None:
        _, index, _ = _HEADER.unpack_from(datagram)
        session = self._sessions[index]
        key = session.receive_key.expose()
        try:
            content = ChaCha20Poly1305(key[:32]).decrypt(
                key[32:] + datagram[8:16], datagram[16:], datagram[:16]
            )
        except InvalidTag:
            return
        if self._current.get(session.peer) != index:
            self._current[session.peer] = index
            placed = self.device.session_placed(session.peer, index, Slot.CURRENT, self.clock.now)
            self._perform(placed)
        if content:
            told = self.device.receive_control(session.peer, index, CALLER, content, self.clock.now)
            self._perform(told)

    def _seal(self, peer: PublicKey, content: bytes) -> None:
        session = self._sessions[self._current[peer]]
        header = _HEADER.pack(DATA, session.remote_index, self._counter)
        self._counter += 1
        key = session.send_key.expose()
        sealed = ChaCha20Poly1305(key[:32]).encrypt(key[32:] + header[8:], content, header)
        self._sent.append(header + sealed)


class WireLine:
    """The way to a hub. `on_way` gives what arrives of each datagram that the hub sends; on the way
    there what `is_lost` names gets lost.
    """

    def __init__(self, hub: Hub) -> None:
        self.on_way: Callable[[bytes], Sequence[bytes]] = lambda datagram: [datagram]
        self.is_lost: Callable[[bytes], bool] = lambda _: False
        self.is_closed = False
        self._hub = hub
        self._arrived: deque[bytes] = deque()

    def send(self, datagram: bytes) -> None:
        if not self.is_lost(datagram):
            self._take(self._hub.receive(datagram))

    def receive(self, within_s: float) -> bytes | None:
        if not self._arrived:
            self._hub.clock.advance(within_s)
            self._take(self._hub.pending())
        return self._arrived.popleft() if self._arrived else None

    def now(self) -> float:
        return self._hub.clock.now

    def wall_ns(self) -> int:
        return self._hub.wall.now_ns()

    def close(self) -> None:
        self.is_closed = True

    def _take(self, sent: Sequence[bytes]) -> None:
        for datagram in sent:
            self._arrived.extend(self.on_way(datagram))
