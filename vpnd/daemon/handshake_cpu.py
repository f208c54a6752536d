"""What handshake messages cost of the processor, for the protocol's sense of load.

Owns when the thread's clock is read: a system call, which for every message would be a cost of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from vpnd.daemon.clock import boottime

MESSAGES_PER_NOTE = 16  # how often a flood is looked at for the time it takes


class HandshakeCpu:
    """Measures what handshake messages cost, a run of them at once: the clock is not read for each."""

    def __init__(self, note: Callable[[float, float], None]) -> None:
        self._note = note
        self._began: float | None = None
        self._count = 0

    def before(self, *, is_handshake: bool) -> None:
        """Another event is about to be taken."""
        if not is_handshake or self._count == MESSAGES_PER_NOTE:
            self.note()
        if is_handshake:
            self._count += 1
            if self._began is None:
                self._began = time.thread_time()

    def note(self) -> None:
        """The run ends here."""
        if self._began is not None:
            self._note(time.thread_time() - self._began, boottime())
            self._began, self._count = None, 0
