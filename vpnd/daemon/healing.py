"""What is broken now, by part, and the tries to bring it back.

Owns when it is tried again. How a part is brought back, who knows the part says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

from vpnd.daemon.journal import Event, about
from vpnd.errors import HostError, PlaneError

_log = logging.getLogger(__name__)

REVIVE_S = (0.0, 0.2, 1.0, 5.0)  # between tries; the last repeats

Work = Coroutine[object, object, None]


class Healing:
    """`failures` tells what is broken, in words for the operator."""

    def __init__(self, spawn: Callable[[Work], None]) -> None:
        self.failures: dict[str, str] = {}
        self._spawn = spawn
        self._broke_again: set[str] = set()  # while they were brought back

    def heal(self, part: str, what: str, revive: Callable[[], Work]) -> None:
        """Notes that a part is broken, and tries to bring it back until that succeeds.

        `revive` raises HostError or PlaneError where it does not.
        """
        if part in self.failures:
            self._broke_again.add(part)
        else:
            _log.warning("%s; bringing it back", what, extra=about(Event.PART_LOST))
            self.failures[part] = what
            self._spawn(self._revive(part, revive))

    async def _revive(self, part: str, revive: Callable[[], Work]) -> None:
        tries = 0
        while True:
            await asyncio.sleep(REVIVE_S[min(tries, len(REVIVE_S) - 1)])
            tries += 1
            try:
                await revive()
            except (HostError, PlaneError) as error:
                if str(error) != self.failures[part]:
                    _log.warning("%s", error, extra=about(Event.PART_WAITS))
                self.failures[part] = str(error)
            else:
                if part not in self._broke_again:
                    break
                self._broke_again.discard(part)
                tries = 0
        del self.failures[part]
        _log.info("the %s is back", part, extra=about(Event.PART_BACK))
