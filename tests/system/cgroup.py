"""The control group a machine boots in.

systemd-nspawn without a manager around it makes the machine's groups below its own. Machines that were
started from one group would have one tree for all their units: each would see the other's processes as
its own, and take away the group in which the other is about to start something.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

_MOUNTS, _OURS = Path("/proc/self/mountinfo"), Path("/proc/self/cgroup")
_HIERARCHIES = {"": "cgroup2", "name=systemd": "cgroup"}  # those by which systemd tells units apart


class ControlGroup:
    """A group below ours in each hierarchy of systemd, for one machine."""

    def __init__(self, name: str) -> None:
        """`name` is nobody else's."""
        self._folders = [folder / name for folder in _our_folders()]
        for folder in self._folders:
            folder.mkdir()

    def entered_by(self, command: Sequence[str]) -> list[str]:
        """Gives the command that enters it first."""
        files = shlex.join(str(folder / "cgroup.procs") for folder in self._folders)
        return ["sh", "-c", f'echo $$ | tee {files} >/dev/null && exec "$@"', "sh", *command]

    def remove(self) -> None:
        """Takes it away with all below; those in it have ended."""
        for folder in self._folders:
            for below, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    Path(below).rmdir()


def _our_folders() -> list[Path]:
    folders = []
    for line in _OURS.read_text().splitlines():
        _, hierarchy, group = line.split(":", 2)
        if hierarchy in _HIERARCHIES and (mounted := _mounted(hierarchy)) is not None:
            folders.append(mounted / group.lstrip("/"))
    return folders


def _mounted(hierarchy: str) -> Path | None:
    for line in _MOUNTS.read_text().splitlines():
        mount, _, kind = line.partition(" - ")
        name, _, options = kind.split(" ", 2)
        if name == _HIERARCHIES[hierarchy] and (not hierarchy or hierarchy in options.split(",")):
            return Path(mount.split()[4])
    return None
