"""A systemd-resolved of a test's own, with a bus of its own, in the caller's network namespace.

The package is unpacked, never installed: that would take over this machine's names. It is fetched once
and kept in /var/cache/vpnd-test, in the version of the systemd whose library it shares.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

CACHE = Path("/var/cache/vpnd-test")
_RULES = "".join(
    f"<allow {rule}/>"
    for rule in (
        'user="*"',
        'own="*"',
        'send_destination="*"',
        *(f'{way}_type="{kind}"' for way in ("send", "receive") for kind in ("method_call", "method_return")),
        *(f'{way}_type="{kind}"' for way in ("send", "receive") for kind in ("error", "signal")),
    )
)
# It drops its rights to a user that only its package makes, and keeps its state in /run.
_SCRIPT = """\
set -e
mount --bind {folder}/passwd /etc/passwd
mount --bind {folder}/group /etc/group
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
dbus-daemon --config-file={folder}/bus.conf --nofork &
while [ ! -S {folder}/bus ]; do sleep 0.02; done
chmod 666 {folder}/bus
{program} &
wait
"""


def unpacked() -> Path:
    """Gives the folder with the package's files."""
    version = _output("dpkg-query", "-W", "-f", "${Version}", "systemd")
    root = CACHE / f"systemd-resolved-{version}"
    if not root.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f"{root.name}.", dir=CACHE))
        draft.chmod(0o755)
        words = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", f"systemd-resolved={version}"]
        subprocess.run(words, cwd=draft, check=True, timeout=120, stdin=subprocess.DEVNULL)
        (package,) = draft.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, draft], check=True, timeout=60)
        try:
            draft.rename(root)
        except OSError:
            if not root.exists():
                raise
            shutil.rmtree(draft)  # another test was first
    return root


@contextlib.contextmanager
def running(folder: Path, *, has_resolved: bool = True, within: Sequence[str] = ()) -> Iterator[Path]:
    """Runs it while the body does, and gives its resolvectl; DBUS_SYSTEM_BUS_ADDRESS leads to it meanwhile.

    To be called in namespaces of the test's own, unless the words of `within` start it in some. Without
    `has_resolved` there is no more than the bus.
    """
    root = unpacked()
    folder.mkdir(mode=0o755)
    # pytest's folders are closed to others, and it is another user soon.
    bus = Path(f"/run/vpnd-test-{os.getpid()}")
    bus.mkdir(mode=0o755)
    for name, line in (
        ("passwd", "systemd-resolve:x:991:991::/:/bin/false"),
        ("group", "systemd-resolve:x:991:"),
    ):
        (bus / name).write_text(Path("/etc", name).read_text() + line + "\n")
    (bus / "bus.conf").write_text(
        f"<busconfig><type>system</type><listen>unix:path={bus}/bus</listen><auth>EXTERNAL</auth>"
        f'<policy context="default">{_RULES}</policy></busconfig>'
    )
    script = _SCRIPT.format(
        folder=bus, program=root / "lib/systemd/systemd-resolved" if has_resolved else "true"
    )
    address = f"unix:path={bus}/bus"
    before = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS")
    os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = address
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*within, "unshare", "-m", "--pid", "--fork", "--kill-child", "sh", "-c", script],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        control = root / "usr/bin/resolvectl"
        _wait([*within, control, "status"] if has_resolved else ["test", "-S", bus / "bus"], folder / "log")
        yield control
    finally:
        process.kill()
        process.wait(10)
        if before is None:
            del os.environ["DBUS_SYSTEM_BUS_ADDRESS"]
        else:
            os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = before
        for file in bus.iterdir():
            file.unlink()
        bus.rmdir()


def _wait(question: Sequence[str | Path], log: Path) -> None:
    deadline = time.monotonic() + 20
    while subprocess.run(question, capture_output=True, timeout=30, check=False).returncode:
        if time.monotonic() > deadline:
            raise AssertionError(f"systemd-resolved does not come up:\n{log.read_text()}")
        time.sleep(0.1)


def _output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
