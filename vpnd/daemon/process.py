"""The daemon's own process, made hard to look into before the first secret is read.

Knows nothing of configuration. Every step that a lesser kernel or a tighter limit refuses is
skipped: these are second walls, and the log says which one is missing.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource

from vpnd.daemon.journal import Event, about

_log = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def harden() -> None:
    """Forbids core dumps and tracing by others, and keeps memory out of swap."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        cause = os.strerror(ctypes.get_errno())
        _log.warning("prctl PR_SET_DUMPABLE: %s", cause, extra=about(Event.NOT_HARDENED))
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if os.geteuid() != 0 and limit != resource.RLIM_INFINITY:
        # Locking future memory under a limit would turn growth into failure.
        what = "memory is not locked: RLIMIT_MEMLOCK is %d; secrets may reach swap"
        _log.info(what, limit, extra=about(Event.NOT_HARDENED))
    elif libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        cause = os.strerror(ctypes.get_errno())
        _log.info("mlockall: %s; secrets may reach swap", cause, extra=about(Event.NOT_HARDENED))
