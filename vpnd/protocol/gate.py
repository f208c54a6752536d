"""The gate before the first Diffie-Hellman: cheap checks of an initiation, cheapest first.

Owns steps 1 to 5 of section 5.2. Keeps nothing per stranger but a bounded table while under
load. Knows our own keys, no peers.
"""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.endpoint import Endpoint
from vpnd.errors import MalformedMessage, RejectedMessage
from vpnd.keys import Secret
from vpnd.protocol.boxes import is_mac
from vpnd.protocol.cookies import CookieMaker
from vpnd.protocol.local import Local
from vpnd.protocol.messages import NO_MAC2, InitiationMessage, parse_initiation_untrusted
from vpnd.protocol.ratelimit import LoadMeter, Mac1Cache, TokenBuckets, source_key
from vpnd.protocol.statics import OwnKey


@dataclass(frozen=True, slots=True)
class GateKeys:
    """What the steps 1, 2, 4 and 5 take, of each kind the newest first.

    A static key that holds has one of `mac1_keys` and one of `cookie_keys`; `secrets` are of cookies.
    """

    mac1_keys: tuple[Secret, ...]
    cookie_keys: tuple[Secret, ...]
    secrets: tuple[Secret, ...]
    versions: tuple[int, ...]


class Gate:
    """Lets an initiation through, answers it with a cookie, or refuses it by name."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._seen = Mac1Cache(local.timers)
        self._buckets = TokenBuckets()
        self._cookies = CookieMaker(local.random_bytes, local.timers)
        self.load = LoadMeter(local.timers)

    def keys(self, now: float) -> GateKeys:
        """The keys of now; they change with the cookies' secret and with our static keys."""
        held = self._local.keys(now)
        return GateKeys(
            tuple(key.mac1_key for key in held),
            tuple(key.cookie_key for key in held),
            self._cookies.secrets(now),
            self._local.capabilities.versions,
        )

    def pass_untrusted(
        self, datagram: bytes, source: Endpoint, now: float, queue_depth: int
    ) -> tuple[InitiationMessage, OwnKey] | bytes:
        """Gives the message and which of our keys it is for, or the COOKIE that is the answer to it.

        Raises MalformedMessage, or RejectedMessage with "rx_mac1", "hs_dup", "cookie_bad"
        or "hs_ratelimited".

        A mac2 that is neither zero nor ours is refused also without load, so that no bit
        of a message can be changed unnoticed; an initiator drops such a cookie by itself.
        """
        message = parse_initiation_untrusted(datagram)
        if message.version not in self._local.capabilities.versions:
            raise MalformedMessage(f"version {message.version}")
        own = self._addressed(message, now)
        if self._seen.has(message.mac1, now):
            raise RejectedMessage("hs_dup")
        if self.load.is_under_load(queue_depth, now):
            if not self._cookies.is_valid(message, source, now):
                return self._cookies.reply(message, source, now, own.cookie_key)
            if not self._buckets.take(source_key(source), now):
                raise RejectedMessage("hs_ratelimited")
        elif message.mac2 != NO_MAC2 and not self._cookies.is_valid(message, source, now):
            raise RejectedMessage("cookie_bad")
        self._seen.add(message.mac1, now)
        return message, own

    def _addressed(self, message: InitiationMessage, now: float) -> OwnKey:
        for key in self._local.keys(now):
            if is_mac(key.mac1_key, message.covered1, message.mac1):
                return key
        raise RejectedMessage("rx_mac1")
