"""The daemon's clocks. Everything below this room is given `now`; here it comes from.

CLOCK_BOOTTIME goes on while the machine sleeps, so a session that slept through its age is
known to be old; the wall clock serves the handshake's timestamp alone.
"""

from __future__ import annotations

import time


def boottime() -> float:
    """Tells seconds of CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_clock_ns() -> int:
    """Tells nanoseconds since 1970, UTC."""
    return time.time_ns()
