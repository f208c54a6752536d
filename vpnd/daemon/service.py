"""What systemd hears of us: sd_notify and the watchdog, silent where no NOTIFY_SOCKET is set.

Knows nothing of peers or links; it is handed lines of text.
"""

from __future__ import annotations

import logging
import os
import time

from systemd import daemon

from vpnd.daemon.journal import Event, about

_log = logging.getLogger(__name__)


class Service:
    """Speaks to the service manager that started us, if one did."""

    def __init__(self) -> None:
        self._last_status = ""
        self._is_deaf = False
        watchdog_us = os.environ.get("WATCHDOG_USEC", "")
        is_ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        # Half of the limit, so that one late turn is no death.
        self.watchdog_interval_s = int(watchdog_us) / 2e6 if watchdog_us.isdigit() and is_ours else None

    def ready(self) -> None:
        self._notify("READY=1")

    def reloading(self) -> None:
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._notify("STOPPING=1")

    def status(self, line: str) -> None:
        """Shows one human line in `systemctl status`; the same line twice is told once."""
        if line != self._last_status:
            self._last_status = line
            self._notify(f"STATUS={line}")

    def watchdog(self) -> None:
        """Says that the loop turned."""
        self._notify("WATCHDOG=1")

    def _notify(self, state: str) -> None:
        try:
            daemon.notify(state)
        except OSError as error:
            # No reason to end: a manager that minds tells so by its watchdog.
            if not self._is_deaf:
                what = "the service manager does not hear"
                _log.warning("%s: %s", what, error.strerror, extra=about(Event.MANAGER_DEAF))
            self._is_deaf = True
        else:
            self._is_deaf = False
