"""Changes one file of an instance and has the daemon follow: both, or neither.

Owns the order of writing, reload and the way back. The daemon itself writes nothing below /etc.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from vpnd.control import Reload
from vpnd.control.reports import ReloadReport
from vpnd.ctl.client import Client
from vpnd.durable import sync
from vpnd.errors import ControlError

RELOAD_TIMEOUT_S = 120.0  # a thousand routes through netlink and a rollback of them
# The daemon has said that all is as before. After any other error nobody knows, and the files stand.
_UNCHANGED = ("config", "refused", "usage")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lets one vpnctl at a time change what stands below: no way back undoes another's change."""
    with _refusals_told():
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def change_file(client: Client, path: Path, text: str | None) -> ReloadReport:
    """Gives the file this text, or with None removes it, and reloads. Raises ControlError.

    The caller holds `locked`. Where the reload is refused, the file is again what it was, its owner and
    mode included.
    """
    with _refusals_told():
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir()
            path.parent.chmod(0o755)  # whatever the umask: the daemon is another user than we are
        # Names that begin with a dot are no peers': what a crash leaves is never read.
        backup = path.with_name(f".{path.name}.before")
        backup.unlink(missing_ok=True)
        if path.exists():
            os.link(path, backup)
        try:
            _replace(path, text)
            report = client.ask(Reload(), ReloadReport, timeout_s=RELOAD_TIMEOUT_S)
        except ControlError as error:
            if error.code in _UNCHANGED:
                _put_back(path, backup)
            raise
        finally:
            backup.unlink(missing_ok=True)
        return report


def rename_file(client: Client, path: Path, new: Path) -> ReloadReport:
    """Gives the file another name, where nothing is yet, and reloads. Raises ControlError.

    The caller holds `locked`. Where the reload is refused, the file has its name again.
    """
    with _refusals_told():
        path.rename(new)
        sync(path.parent)
        try:
            return client.ask(Reload(), ReloadReport, timeout_s=RELOAD_TIMEOUT_S)
        except ControlError as error:
            if error.code in _UNCHANGED:
                new.rename(path)
                sync(path.parent)
            raise


def _put_back(path: Path, backup: Path) -> None:
    if backup.exists():
        backup.replace(path)
    else:
        path.unlink(missing_ok=True)
    sync(path.parent)


def _replace(path: Path, text: str | None) -> None:
    """Puts a whole new file in the place of the old one; a reader sees the one or the other."""
    if text is None:
        path.unlink()
        sync(path.parent)
        return
    draft = path.with_name(f".{path.name}.new")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            # Configurations hold no secrets, and the daemon has to read them.
            os.fchmod(file.fileno(), path.stat().st_mode & 0o777 if path.exists() else 0o644)
        sync(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync(path.parent)


@contextlib.contextmanager
def _refusals_told() -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise ControlError("not-permitted", f"{error.filename}: permission denied; be root") from None
    except OSError as error:
        raise ControlError("refused", f"{error.filename}: {error.strerror}") from None
