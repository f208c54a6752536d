"""Where log lines go: to the journal with fields when systemd reads our stderr, else to stderr as text.

Owns the format. Every line carries VPND_INSTANCE; one about a peer carries VPND_PEER, and one that
tells of an event its MESSAGE_ID (journal.py).
"""

from __future__ import annotations

import logging
import os
import sys

from systemd import journal

LEVELS = ("debug", "info", "warning", "error")


def start_logging(instance: str, level: str) -> None:
    """Sets the process's log up; call once, before the first line."""
    handler: logging.Handler
    if _stderr_is_journal():
        handler = journal.JournalHandler(
            sender_function=_send, SYSLOG_IDENTIFIER="vpnd", VPND_INSTANCE=instance
        )
        handler.setFormatter(_PeerFormatter("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_PeerFormatter(f"vpnd@{instance} %(levelname)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # asyncio and pyroute2 speak of their own insides below this level.
    for library in ("asyncio", "pyroute2"):
        logging.getLogger(library).setLevel(logging.WARNING)


class _PeerFormatter(logging.Formatter):
    """Puts the peer's name before the text where a line has one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        peer = getattr(record, "VPND_PEER", None)
        if peer is not None:
            record.message = f"{peer}: {record.message}"
        return super().formatMessage(record)


def _send(message: str, /, **fields: object) -> None:
    # The handler adds the record's own attributes, whose names are none that the journal takes.
    journal.send(message, **{name: value for name, value in fields.items() if name.isupper()})


def _stderr_is_journal() -> bool:
    """Compares $JOURNAL_STREAM, "device:inode", with the stderr we have (systemd.exec(5))."""
    stream = os.environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"
