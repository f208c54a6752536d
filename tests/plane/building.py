"""Builds the plane once per test run and says where its parts are.

Owns the choice of the build directory and of the sanitizer. VPND_BUILD names a directory that is
built already and is used as it stands; otherwise build/test of the source tree is made or brought
up to date. VPND_SANITIZE=address or =thread takes a build of its own, with the undefined-behaviour
sanitizer beside the address one.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
SANITIZERS = {"": "none", "address": "address,undefined", "thread": "thread"}
PLANE = "vpnd/plane/c"


class BuildError(Exception):
    """The plane does not build; the text is what the build tool said."""


def sanitizer() -> str:
    """Returns "", "address" or "thread", as VPND_SANITIZE asks."""
    wanted = os.environ.get("VPND_SANITIZE", "")
    if wanted not in SANITIZERS:
        raise BuildError(f"VPND_SANITIZE is {wanted!r}, not address or thread")
    return wanted


def tool(name: str) -> str:
    """Returns the path of a build tool, that of the running interpreter's environment first."""
    beside = Path(sys.executable).parent
    found = shutil.which(name, path=f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if found is None:
        raise BuildError(f"{name} is not installed")
    return found


def run(*command: str, **variables: str) -> None:
    # A sanitizer's library that was loaded before Python must not get into the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"} | variables
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def bring_up_to_date(
    directory: Path, options: Sequence[str], targets: Sequence[str], **variables: str
) -> None:
    """Sets the build directory up if need be and builds the targets, one process at a time."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "build.ninja").exists():
            run(
                tool("meson"), "setup", str(directory), str(SOURCE), "-Db_lundef=false", *options, **variables
            )
        run(tool("ninja"), "-C", str(directory), *targets)


@functools.cache
def build_directory(*targets: str) -> Path:
    """Brings the named ninja targets (none: everything) up to date and returns the build directory."""
    ready = os.environ.get("VPND_BUILD")
    if ready:
        return Path(ready).resolve()
    kind = sanitizer()
    directory = SOURCE / "build" / (f"test-{kind}" if kind else "test")
    bring_up_to_date(directory, [f"-Db_sanitize={SANITIZERS[kind]}"], targets)
    return directory


def plane_part(name: str) -> Path:
    """Builds one program or library of the plane and returns its path."""
    target = f"{PLANE}/{name}"
    path = build_directory(target) / target
    if not path.exists():
        raise BuildError(f"{path} does not exist")
    return path


def fuzz_target(name: str) -> Path:
    """Builds one libFuzzer target with clang, in build/fuzz, and returns its path."""
    directory = SOURCE / "build" / "fuzz"
    target = f"{PLANE}/fuzz-{name.replace('_', '-')}"
    bring_up_to_date(directory, ["-Dfuzz=true"], [target], CC=tool("clang"))
    return directory / target


def plane_program() -> Path:
    """Builds vpnd-plane and returns its path."""
    return plane_part("vpnd-plane")
