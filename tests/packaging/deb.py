"""Builds the Debian package in a clean root: ./run deb.

Owns the way from the checkout to build/deb/: the upstream archive, a root with nothing but the build
dependencies, dpkg-buildpackage as an ordinary user, lintian. Needs nothing but python3, root and a mirror.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from tests.packaging.roots import (
    RELEASES,
    RootError,
    furnished_root,
    keep_changes,
    run_in,
    scratch,
)

ROOT = Path(__file__).resolve().parent.parent.parent
OUT = ROOT / "build/deb"
BUILDER = "1000"  # no account is needed for it
LINTIAN = "lintian -EvIL +pedantic --fail-on error,warning,info,pedantic,experimental"
# What a later release's lintian asks for and Debian 12's knows nothing of: its own version of the policy,
# and pip's way to build, which the package does not go.
LATER_TAGS = "out-of-date-standards-version,missing-prerequisite-for-pyproject-backend"
# Beside the sources where git is not there to tell them apart.
_NOT_SOURCES = {
    "build",
    ".venv",
    ".git",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
}

_INSTALL = """
set -e
apt-get update -q
apt-get install -y -q --no-install-recommends dpkg-dev lintian
cd /build/source && apt-get build-dep -y -q --no-install-recommends ./
apt-get clean
rm -rf /build
"""
# As a user without rights or network. $1, $2 and $3: folder, time zone and umask, none of which may show.
_BUILD = """
set -e
umask "$3"
mkdir -p "/build/$1"
cd "/build/$1"
cp /build/*.orig.tar.xz .
mkdir source && tar xf *.orig.tar.xz -C source --strip-components=1 && cp -a /build/debian source/
cd source && TZ="$2" dpkg-buildpackage -us -uc
"""


@dataclass(frozen=True)
class Surroundings:
    """What of a build's surroundings may not show in its result."""

    folder: str
    zone: str
    umask: str


USUAL = Surroundings("here", "UTC", "022")
OTHER = Surroundings("another/place/altogether", "Pacific/Chatham", "002")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    began = time.monotonic()
    try:
        files = build(options.release, USUAL, lint=options.lint)
        if options.check_reproducible:
            compare(files, build(options.release, OTHER))
    except RootError as error:
        print(str(error).splitlines()[0], file=sys.stderr)
        return 1
    folder = folder_of(options.release)
    folder.mkdir(parents=True, exist_ok=True)
    for former in folder.iterdir():
        if former.is_file():
            former.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (package,) = (name for name in files if name.endswith(".deb") and "dbgsym" not in name)
    print(f"{folder.relative_to(ROOT)}/{package}: built in {time.monotonic() - began:.0f} s")
    return 0


def folder_of(release: str) -> Path:
    """Gives the folder of the results: build/deb for the release we develop on, one inside it for others."""
    return OUT if release == "bookworm" else OUT / release


def build(release: str, surroundings: Surroundings, *, lint: bool = False) -> dict[str, bytes]:
    """Builds the package of this checkout and gives every file that makes it up. RootError if that fails."""
    root = furnished_root(release, "build", _dependencies(), _furnish)
    with scratch() as changes:
        _bring_sources(changes)
        words = [surroundings.folder, surroundings.zone, surroundings.umask]
        as_user = ["setpriv", "--reuid", BUILDER, "--regid", BUILDER, "--clear-groups"]
        command = [*as_user, "sh", "-c", _BUILD, "sh", *words]
        run_in(root, changes, command, environment={"HOME": "/build"}, has_network=False)
        if lint:
            later = "" if release == "bookworm" else f"--suppress-tags {LATER_TAGS}"
            script = f"cd /build/{surroundings.folder} && {LINTIAN} {later} *.changes"
            print(run_in(root, changes, [*as_user, "sh", "-c", script]))
        results = changes / "upper/build" / surroundings.folder
        return {file.name: file.read_bytes() for file in sorted(results.iterdir()) if file.is_file()}


def _furnish(root: Path) -> None:
    print(f"making {root} with what the build depends on; this is kept", flush=True)
    with scratch() as changes:
        _bring_sources(changes)
        source = changes / "upper/build/source"
        source.mkdir()
        shutil.copytree(ROOT / "debian", source / "debian")
        run_in(root, changes, ["sh", "-c", _INSTALL])
        keep_changes(root, changes)


def _dependencies() -> str:
    """Tells one set of build dependencies from another."""
    control = (ROOT / "debian/control").read_text()
    wanted = re.search(r"^Build-Depends:\n(?: .*\n)+", control, re.MULTILINE)
    assert wanted is not None
    return hashlib.sha256((wanted[0] + _INSTALL).encode()).hexdigest()


def _bring_sources(changes: Path) -> None:
    """Lays the upstream archive and debian/ where the build finds them, as its user's own."""
    place = changes / "upper/build"
    place.mkdir()
    (place / f"vpnd_{upstream_version()}.orig.tar.xz").write_bytes(_archive())
    shutil.copytree(ROOT / "debian", place / "debian")
    for file in [place, *place.rglob("*")]:
        shutil.chown(file, int(BUILDER), int(BUILDER))


def upstream_version() -> str:
    """Gives the version that the changelog packages, without Debian's revision."""
    first = (ROOT / "debian/changelog").read_text().splitlines()[0]
    found = re.fullmatch(r"vpnd \((.+)-[^-]+\) .*", first)
    assert found is not None, first
    return found[1]


def _archive() -> bytes:
    """Packs the checkout as it stands, without debian/ and what git ignores.

    The same files give the same bytes.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        for name in _sources():
            path = ROOT / name
            if path.is_file() and not name.startswith("debian/"):
                _pack(archive, path, f"vpnd-{upstream_version()}/{name}")
    return packed.getvalue()


def _sources() -> list[str]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        paths = [path.relative_to(ROOT) for path in ROOT.rglob("*")]
        return sorted(str(path) for path in paths if not _NOT_SOURCES.intersection(path.parts))
    command = ["git", "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted({name for name in listed.stdout.split("\0") if name})


def _pack(archive: tarfile.TarFile, path: Path, name: str) -> None:
    content = path.read_bytes()
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mtime = _released_at()
    entry.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
    archive.addfile(entry, io.BytesIO(content))


def _released_at() -> int:
    """Gives the time of the changelog's newest entry, the one time that all builds of it share."""
    trailer = re.search(r"^ -- .*>  (.*)$", (ROOT / "debian/changelog").read_text(), re.MULTILINE)
    assert trailer is not None
    return int(parsedate_to_datetime(trailer[1]).timestamp())


def compare(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    """RootError naming every package that two builds made differently."""
    packages = {name for name in one if name.endswith(".deb")}
    different = sorted(name for name in packages if one[name] != other.get(name))
    if different or not packages:
        raise RootError(f"two builds differ: {', '.join(different) or 'nothing was built'}")
    print(f"two builds gave the same bytes: {', '.join(sorted(packages))}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run deb", description="Builds the Debian package.")
    parser.add_argument("--release", choices=RELEASES, default="bookworm", help="default: bookworm")
    parser.add_argument(
        "--check-reproducible", action="store_true", help="build twice, in other surroundings, and compare"
    )
    parser.add_argument("--lint", action="store_true", help="let lintian look at it; nothing may be found")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
