"""One peer at one moment, as the checks of `vpnctl why` look at it.

Owns what several of them ask for. Changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.config import PeerConfig
from vpnd.daemon.instance import Instance
from vpnd.plane.counters import PeerCounters
from vpnd.protocol.peer import PeerSnapshot

RECENT_S = 300.0  # refusals, drops and notices older than this explain nothing present
_SILENT_AFTER_ATTEMPTS = 2  # one may be a rekey that is under way


@dataclass(frozen=True, slots=True)
class Case:
    """Everything the checks look at."""

    instance: Instance
    peer: PeerConfig
    snapshot: PeerSnapshot
    counters: PeerCounters | None
    now: float

    @property
    def is_up(self) -> bool:
        return self.snapshot.current_index is not None

    @property
    def is_silent(self) -> bool:
        """Tells whether a session stands that the peer does not answer on any more."""
        return self.is_up and self.snapshot.attempts >= _SILENT_AFTER_ATTEMPTS

    @property
    def link(self) -> str:
        return self.instance.config.interface.name

    @property
    def refusals_since(self) -> float:
        """From when on refused handshakes explain anything: one that succeeded ends what was before."""
        return max(self.now - RECENT_S, self.snapshot.last_handshake_at or 0.0)
