"""Who knows what we push, remembered over restarts of the daemon.

Owns that memory. Sessions outlive the daemon, and what a session's peer was told with it may have changed
before the next start: such a peer is called, so that it need not wait for its next handshake.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from vpnd.daemon.clock import boottime
from vpnd.keys import PublicKey

if TYPE_CHECKING:
    from vpnd.daemon.instance import Instance

CALLS_AT_ONCE = 50  # handshakes begun in one turn of the loop
CALLS_EVERY_S = 0.05
_UNSURE = "unsure"  # no digest is like it


class Pushed:
    """What each peer of one instance was told last, by a digest. Who was told nothing is not listed."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._digests = instance.state.pushed.load()
        self._noted: dict[PublicKey, bytes] = {}  # what the digests of this life were made of

    async def tell(self) -> None:
        """Calls the peers that were told otherwise by an earlier life of ours, or nobody knows what."""
        driver = self._instance.driver
        unsure = [key for key, told in driver.device.told().items() if told is None]
        called = [key for key in unsure if self._digests.get(key, "") != digest(driver.device.pushed(key))]
        for first in range(0, len(called), CALLS_AT_ONCE):
            for key in called[first : first + CALLS_AT_ONCE]:
                if driver.device.endpoint(key) is not None:  # it may have left by now
                    driver.act(driver.device.reconnect(key, boottime()))
            await asyncio.sleep(CALLS_EVERY_S)

    def store(self) -> None:
        """Writes down what peers were told, if that changed."""
        for key, told in self._instance.driver.device.told().items():
            if told and told != self._noted.get(key):
                self._noted[key], self._digests[key] = told, digest(told)
            elif told == b"":
                self._noted.pop(key, None)
                self._digests.pop(key, None)
            elif told is None and self._noted.pop(key, None) is not None:
                self._digests[key] = _UNSURE  # something was sent since, and not acknowledged
        wanted = {peer.public_key for peer in self._instance.config.peers}
        self._digests = {key: each for key, each in self._digests.items() if key in wanted}
        self._instance.state.pushed.store(self._digests)


def digest(pushed: bytes) -> str:
    """Gives a short text that stands for what is pushed; the empty one for nothing."""
    return hashlib.blake2b(pushed, digest_size=16).hexdigest() if pushed else ""
