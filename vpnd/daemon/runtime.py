"""The folder in which an instance's sockets stand.

Owns making it, and the words for why it cannot be used.
"""

from __future__ import annotations

import os
from pathlib import Path

from vpnd.errors import HostError


def make_runtime_directory(directory: Path) -> None:
    """Makes the folder where it is missing and sees that sockets can be made in it. Raises HostError."""
    remedy = f"make it beforehand: install -d -o {os.geteuid()} {directory}"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    except FileExistsError:
        raise HostError(
            f"use the runtime directory {directory}", "something else has the name; move that away"
        ) from None
    except OSError as error:
        raise HostError(f"make the runtime directory {directory}", f"{error.strerror}; {remedy}") from error
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise HostError(f"use the runtime directory {directory}", _why_shut(directory))


def _why_shut(directory: Path) -> str:
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        return f"it is read-only here; a unit may write there with ReadWritePaths={directory}"
    user = os.geteuid()
    return f"user {user} may not write there; give it to that user: chown {user} {directory}"
