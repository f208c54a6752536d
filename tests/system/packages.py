"""Packages that the machines of one test take beside what is in their root.

Fetched once for a root, with all they need, and kept: a machine of the lab has no mirror. In the root itself
they would change what every other test boots.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.packaging.roots import CACHE, run_in, scratch
from tests.system.machine import Machine

_FETCH = "apt-get update -q && apt-get install -y -q --no-install-recommends --download-only $PACKAGE"


def install(machine: Machine, package: str) -> None:
    """Installs a package of the machine's release, as an operator without its recommendations would."""
    paths = [machine.bring(file) for file in _fetched(machine.lower, package)]
    # apt reads as another user, to whom /root is closed.
    command = (
        "DEBIAN_FRONTEND=noninteractive apt-get -y -q -o APT::Sandbox::User=root --no-install-recommends"
    )
    machine.run(f"{command} install {' '.join(paths)}", timeout_s=120)


def _fetched(root: Path, package: str) -> list[Path]:
    # Of one source with systemd, some must be of the very version that is in the root.
    words = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Version}", "systemd"]
    version = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    release = root.name.partition("-")[0]
    folder = CACHE / f"packages-{release}-{package}-{version}"
    if not folder.exists():
        draft = folder.with_name(f"{folder.name}.{os.getpid()}")
        with scratch() as changes:
            run_in(root, changes, ["sh", "-c", _FETCH], environment={"PACKAGE": package})
            shutil.copytree(changes / "upper/var/cache/apt/archives", draft)
        with contextlib.suppress(OSError):  # somebody else was quicker
            draft.rename(folder)
        shutil.rmtree(draft, ignore_errors=True)
    return sorted(folder.glob("*.deb"))
