"""Where the plane's program lies, and how it is started as a child.

Owns the places searched and the child's start. Knows nothing of what is said on the socket.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vpnd.errors import PlaneError

NAME = "vpnd-plane"
PACKAGED = Path("/usr/lib/vpnd")

# What a service manager says to one process: READY of a child would be taken for ours.
_MANAGERS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def find_program() -> Path:
    """Finds the program that belongs to this installation: beside the interpreter's scripts,
    then where the package puts it, then on PATH. Raises PlaneError.
    """
    places = (Path(sys.executable).parent, Path(sys.prefix) / "bin", PACKAGED)
    for place in places:
        candidate = place / NAME
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    found = shutil.which(NAME)
    if found is None:
        looked = ", ".join(dict.fromkeys(map(str, places)))
        raise PlaneError("no_program", f"{NAME} lies neither in {looked} nor on PATH; install vpnd again")
    return Path(found)


def start_child(
    program: Path, arguments: Sequence[str] = ()
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Starts the plane over a socket pair; it ends by itself when the socket given back closes.

    The child has a process group of its own, so that Ctrl-C reaches vpnd first. Raises PlaneError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [str(program), "--control-fd", str(theirs.fileno()), *arguments]
        environment = {name: value for name, value in os.environ.items() if name not in _MANAGERS}
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                process_group=0,
                env=environment,
            )
        except OSError as error:
            ours.close()
            raise PlaneError("no_program", f"{program}: {error.strerror}") from error
    return child, ours
