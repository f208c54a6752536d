"""Cookies: the proof of a source address that an initiator brings while we are under load.

Owns the rotating secret of the responder and both halves of the COOKIE message (sections
3.3, 4, 5.3). Keeps nothing per stranger. Does not know when we are under load.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vpnd.endpoint import Endpoint
from vpnd.keys import KEY_SIZE, PublicKey, Secret
from vpnd.protocol.boxes import (
    MAC_SIZE,
    NONCE_SIZE,
    derive_from,
    derive_keyed,
    is_mac,
    label,
    mac,
    open_box,
    seal_box,
)
from vpnd.protocol.constants import Timers
from vpnd.protocol.messages import NO_MAC2, CookieMessage, InitiationMessage, cookie_message

_COOKIE_KEY, _COOKIE, _BOX_KEY = label("cookie"), label("ck"), label("ckbox")


@dataclass(frozen=True, slots=True)
class Cookie:
    """A responder's cookie, as its initiator keeps it."""

    key: Secret
    received_at: float


def cookie_key(responder: PublicKey, knock: Secret) -> Secret:
    """Keys the boxes in which this responder sends its cookies."""
    return derive_from(_COOKIE_KEY, responder.raw, knock)


class CookieMaker:
    """The responder's half: makes cookies and knows its own again, for two secrets' lives."""

    def __init__(self, random_bytes: Callable[[int], bytes], timers: Timers) -> None:
        self._random_bytes = random_bytes
        self._life_s = timers.cookie_secret_s
        self._current: Secret | None = None
        self._previous: Secret | None = None
        self._previous_until = 0.0
        self._born_at = 0.0

    def is_valid(self, message: InitiationMessage, source: Endpoint, now: float) -> bool:
        """Tells whether mac2 was made with a cookie of ours for this very address and port."""
        if message.mac2 == NO_MAC2:
            return False
        self._rotate(now)
        place = _place(source)
        for secret in (self._current, self._previous):
            if secret is None:
                continue
            cookie = derive_keyed(_COOKIE, secret, place, MAC_SIZE)
            if is_mac(cookie, message.covered2, message.mac2):
                return True
        return False

    def reply(self, message: InitiationMessage, source: Endpoint, now: float, box_key: Secret) -> bytes:
        """The COOKIE message that answers an initiation; `box_key` is `cookie_key` of the key it is for."""
        self._rotate(now)
        assert self._current is not None
        cookie = derive_keyed(_COOKIE, self._current, _place(source), MAC_SIZE)
        nonce = self._random_bytes(NONCE_SIZE)
        key = derive_keyed(_BOX_KEY, box_key, message.mac1)
        box = seal_box(key, nonce, cookie.expose())
        return cookie_message(message.version, message.sender_index, nonce, box)

    def secrets(self, now: float) -> tuple[Secret, ...]:
        """What cookies are made with and known by, the newest first."""
        self._rotate(now)
        return tuple(secret for secret in (self._current, self._previous) if secret is not None)

    def _rotate(self, now: float) -> None:
        if now >= self._previous_until:
            self._previous = None
        if self._current is not None and now - self._born_at < self._life_s:
            return
        # Counted from its own end: a quiet time before the change does not prolong its life.
        self._previous_until = self._born_at + 2 * self._life_s
        self._previous = self._current if now < self._previous_until else None
        self._current = Secret.copy_of(self._random_bytes(KEY_SIZE))
        self._born_at = now


def open_cookie(message: CookieMessage, mac1: bytes, box_key: Secret, now: float) -> Cookie | None:
    """The initiator's half: takes the cookie that answers our mac1, or None for a forgery."""
    key = derive_keyed(_BOX_KEY, box_key, mac1)
    cookie = open_box(key, message.nonce, message.box)
    return None if cookie is None else Cookie(Secret.copy_of(cookie), now)


def with_cookie(initiation: bytes, cookie: Cookie) -> bytes:
    """The same initiation with mac2 filled in."""
    covered = initiation[:-MAC_SIZE]
    return covered + mac(cookie.key, covered)


def _place(source: Endpoint) -> bytes:
    return source.ip16 + source.port.to_bytes(2, "big")
