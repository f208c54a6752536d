"""Handshake messages that were turned away before anybody knew whose they were.

Owns a short memory of them, so that `vpnctl why` can tell of a caller that has the wrong key.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from vpnd.endpoint import Endpoint

REMEMBERED = 32  # a flood pushes out what came before it; the counters stay


@dataclass(frozen=True, slots=True)
class Stranger:
    """Who called, why it was turned away, and when (seconds of CLOCK_BOOTTIME)."""

    source: Endpoint
    reason: str
    at: float


class Strangers:
    """The last callers that were turned away."""

    def __init__(self) -> None:
        self._calls: deque[Stranger] = deque(maxlen=REMEMBERED)

    def note(self, source: Endpoint, reason: str, at: float) -> None:
        self._calls.append(Stranger(source, reason, at))

    def latest(self, since: float, endpoint: Endpoint | None) -> Stranger | None:
        """Gives the latest caller since then; from `endpoint`'s address where one is expected."""
        for call in reversed(self._calls):
            if call.at < since:
                return None
            if endpoint is None or call.source.address == endpoint.address:
                return call
        return None
