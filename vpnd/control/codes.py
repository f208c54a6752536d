"""Error codes of the control language and what a shell sees of them.

Owns the one table from ControlError codes to vpnctl's exit statuses. The codes are
stable words that scripts may compare; the texts beside them are not.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_NOT_RUNNING = 3
EXIT_NOT_FOUND = 4
EXIT_NOT_PERMITTED = 5
EXIT_TIMED_OUT = 6
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h; the units do not restart on it

EXIT_CODES = {
    "refused": EXIT_REFUSED,
    "unhealthy": EXIT_REFUSED,
    "usage": EXIT_USAGE,
    "not-running": EXIT_NOT_RUNNING,
    "no-such-peer": EXIT_NOT_FOUND,
    "no-such-instance": EXIT_NOT_FOUND,
    "not-permitted": EXIT_NOT_PERMITTED,
    "timed-out": EXIT_TIMED_OUT,
    "config": EXIT_CONFIG,
}


def exit_code_of(code: str) -> int:
    """Gives the exit status for a ControlError's code; a code of a newer daemon counts as refused."""
    return EXIT_CODES.get(code, EXIT_REFUSED)
