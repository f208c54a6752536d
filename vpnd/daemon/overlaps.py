"""Until when keys that are being replaced hold: `local.key_overlap` from when we first read them as previous.

Owns that reckoning, over restarts too: an old key does not live longer because the daemon is
started anew. Knows nothing of what a key is good for.
"""

from __future__ import annotations

from collections.abc import Mapping

from vpnd.config import Config, Secrets
from vpnd.daemon.state import StateDirectory
from vpnd.keys import PublicKey


class Overlaps:
    """The previous keys of a configuration, our own and those of peers."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._began = state.previous_keys.load()  # seconds since 1970, which alone last over a restart
        self._began_at: dict[PublicKey, float] = {}  # by the clock that nobody sets

    def until(self, config: Config, secrets: Secrets, now: float, wall_s: float) -> Mapping[PublicKey, float]:
        """Tells when each previous key ends, by the clock of `now`; others are forgotten.

        A clock that was set back since an earlier run gives a key its whole time again.
        """
        previous = [peer.previous_public_key for peer in config.peers if peer.previous_public_key is not None]
        if secrets.previous is not None:
            previous.append(secrets.previous.public)
        self._began = {key: self._began.get(key, wall_s) for key in previous}
        self._began_at = {
            key: self._began_at.get(key, now - max(0.0, wall_s - self._began[key])) for key in previous
        }
        self._state.previous_keys.store(self._began)
        return {key: began_at + config.local.key_overlap for key, began_at in self._began_at.items()}
