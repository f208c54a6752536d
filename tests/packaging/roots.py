"""Roots of Debian releases, kept outside the checkout, and commands run in throw-away copies of them.

Owns the cache. A command sees the root through an overlay in a mount and process namespace of its
own: nothing it does reaches the cached root, and everything it mounts or starts ends with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

CACHE = Path("/var/cache/vpnd-test")
MIRROR = "http://deb.debian.org/debian"
_UNUSED_S = 7 * 24 * 3600
RELEASES = {"bookworm": "12", "trixie": "13"}

_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}

# Makes the root of its two layers, with the few devices a build takes; then the command.
_ENTER = """
set -e
# Nothing that is mounted here may be seen outside; in a chroot / is no mount that could be told so.
mount --make-rprivate / 2>/dev/null || {
    mount --bind "$SCRATCH" "$SCRATCH"
    mount --make-private "$SCRATCH"
}
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work" "$SCRATCH/root"
cp /etc/resolv.conf "$SCRATCH/root/etc/resolv.conf"
mount -t proc proc "$SCRATCH/root/proc"
mount -t sysfs -o ro sysfs "$SCRATCH/root/sys"
mount -t tmpfs -o mode=755 tmpfs "$SCRATCH/root/dev"
for node in null zero full random urandom tty; do
    touch "$SCRATCH/root/dev/$node"
    mount --bind "/dev/$node" "$SCRATCH/root/dev/$node"
done
mkdir -m 1777 "$SCRATCH/root/dev/shm"
ln -s /proc/self/fd "$SCRATCH/root/dev/fd"
exec env -i "$@"
"""


class RootError(Exception):
    """A command in a root ended badly; the text is what it printed."""


def bare_root(release: str) -> Path:
    """Gives the cached minimal root of a release, made by debootstrap where it is missing."""
    root = CACHE / release
    with _alone(release):
        if not (root / "usr/bin/dpkg").exists():
            _bootstrap(release, root)
    return root


def furnished_root(release: str, name: str, wanted: str, furnish: Callable[[Path], None]) -> Path:
    """Gives a cached root of a release with more in it: `furnish` is called on a copy to add that.

    `wanted` describes what is added; each description has a root of its own, so that two checkouts do not
    take each other's away. One that nobody used for a week goes.
    """
    lower = bare_root(release)
    root = CACHE / f"{release}-{name}-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"
    with _alone(f"{release}-{name}"):
        if not _stamp(root).exists():
            shutil.rmtree(root, ignore_errors=True)
            _run(["cp", "-a", str(lower), str(root)])
            furnish(root)
        _stamp(root).touch()
        for other in CACHE.glob(f"{release}-{name}-*.stamp"):
            if other.stat().st_mtime < time.time() - _UNUSED_S:
                shutil.rmtree(other.with_suffix(""), ignore_errors=True)
                other.unlink()
    return root


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Gives a folder for the changes of commands in a root; it goes at the end."""
    with tempfile.TemporaryDirectory(prefix="vpnd-root-", dir="/var/tmp") as folder:
        for name in ("upper", "work", "root"):
            (Path(folder) / name).mkdir()
        yield Path(folder)


def run_in(
    root: Path,
    changes: Path,
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    has_network: bool = True,
) -> str:
    """Runs a command in a root as one sees it with the changes of `changes`, and gives what it printed.

    The changes stay in `changes`/upper. RootError if it does not end with 0.
    """
    variables = _ENVIRONMENT | dict(environment or {})
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "unchanged"]
    words += [] if has_network else ["--net"]
    words += ["sh", "-c", _ENTER, "sh", *(f"{name}={value}" for name, value in variables.items())]
    words += ["chroot", str(changes / "root"), *command]
    return _run(words, os.environ | {"LOWER": str(root), "SCRATCH": str(changes)})


def keep_changes(root: Path, changes: Path) -> None:
    """Copies what commands added in `changes` into the root itself; removals are not carried over."""
    _run(["cp", "-a", "--remove-destination", f"{changes}/upper/.", str(root)])


def _stamp(root: Path) -> Path:
    """Stands for a root that is whole; its time is that of the last use."""
    return root.with_suffix(".stamp")


def _bootstrap(release: str, root: Path) -> None:
    draft = root.with_name(f"{release}.part")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)
    if shutil.which("debootstrap") is None:
        _run(["apt-get", "install", "-y", "-q", "--no-install-recommends", "debootstrap"])
    _run(["debootstrap", "--variant=minbase", "--include=python3", release, str(draft), MIRROR])
    draft.rename(root)


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Holds off another process that makes the same root."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        words,
        env=None if environment is None else dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        raise RootError(f"{words[0]} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout
