"""Has the instance look at its nftables table when somebody touches it.

Owns the monitor and its place in the loop; what is wrong with the table, and its repair, is the instance's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

from vpnd.daemon.journal import Event, about
from vpnd.host.table_monitor import TableMonitor

_log = logging.getLogger(__name__)


class TableWatch:
    """`spawn` runs `look`, never twice at the same time for want of looking: changes come in bursts."""

    def __init__(
        self,
        instance: str,
        spawn: Callable[[Coroutine[object, object, None]], None],
        look: Callable[[], Coroutine[object, object, None]],
    ) -> None:
        self._instance = instance
        self._spawn = spawn
        self._look = look
        self._is_asked = False
        self._monitor: TableMonitor | None = None

    def start(self) -> None:
        """Begins to watch; content, after a warning, where the kernel does not let us."""
        try:
            self._monitor = TableMonitor(self._instance)
        except OSError as error:
            what = "the nftables table is not watched: %s"
            _log.warning(what, error.strerror, extra=about(Event.MACHINE_ODD))
        else:
            asyncio.get_running_loop().add_reader(self._monitor.fileno(), self._read)

    def looking(self) -> None:
        """Is told when the look begins: what comes from now on needs another."""
        self._is_asked = False

    def close(self) -> None:
        """Ends the watch."""
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor.close()

    def _read(self) -> None:
        assert self._monitor is not None
        if self._monitor.read() and not self._is_asked:
            self._is_asked = True
            self._spawn(self._look())
