"""A vpnd alone on its machine: the real program, whose start is watched, in the test's own namespaces.

Owns the files of one instance and the users that daemon and plane run as. To be used inside
`in_namespace`, so that mounts and links made around it vanish with the test.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.host.namespace import sh

# Numbers without a name will do for users of the kernel.
DAEMON_USER, PLANE_USER = 64101, 64102
_END_S = 20.0

CONFIG = """\
[interface]
name = "vpn-site"
addresses = ["10.255.0.1/30", "fd00::1/64"]
[local]
private_key = "{key}"
listen = ["0.0.0.0:5180"]
[peer.berlin]
public_key = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
networks = ["10.255.0.2/32"]
"""
FORWARDING = """\
[routing]
forward = true
masquerade = ["10.255.0.0/30"]
"""


class Lone:
    """The instance "site": `command` can be run by any user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.etc, self.run, self.lib = folder / "etc", folder / "run" / "site", folder / "lib" / "site"
        for directory in (self.etc, self.run, self.lib):
            directory.mkdir(parents=True)
        self.key = self.etc / "site.key"
        self.key.touch(mode=0o600)
        self.key.write_text("YAwKKFkZLbAAvMKQBpUOQbVKMTa8OBbi4mUaF6Q4c3E=\n")
        self.config = self.etc / "site.toml"
        self.configure()
        # Where others may not enter the way to our programs, they find them here.
        self.programs = folder / "programs"
        self.programs.mkdir()
        sh(f"mount --bind {sys.prefix} {self.programs}")

    def configure(self, more: str = "") -> None:
        self.config.write_text(CONFIG.format(key=self.key) + more)

    def command(self, *more: str) -> list[str]:
        return [
            *(str(self.programs / "bin/python"), "-P", "-m", "vpnd.daemon.main", "--instance", "site"),
            *("--config-dir", str(self.etc), "--runtime-dir", str(self.run), "--state-dir", str(self.lib)),
            *more,
        ]

    def start_fails(
        self, *more: str, before: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> tuple[int, list[str]]:
        """Starts vpnd, which ends by itself; gives its status and what it wrote of errors."""
        done = subprocess.run(
            [*before, *self.command(*more)],
            env={"PATH": "/usr/bin:/bin"} | dict(env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_END_S,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, [line for line in done.stderr.splitlines() if " ERROR: " in line]

    @contextmanager
    def running(
        self, *, before: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> Iterator[RunningVpnd]:
        """Starts vpnd, waits until it is ready, and ends it in order."""
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = self.folder / "notify"
        name.unlink(missing_ok=True)
        notify.bind(str(name))
        name.chmod(0o666)
        notify.settimeout(_END_S)
        log = self.folder / "log"
        with log.open("w") as sink, notify:
            process = subprocess.Popen(
                [*before, *self.command()],
                env={"PATH": "/usr/bin:/bin", "NOTIFY_SOCKET": str(name)} | dict(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
            try:
                _wait_ready(process, notify, log)
                yield RunningVpnd(process, log)
            finally:
                process.terminate()
                try:
                    process.wait(_END_S)
                finally:
                    process.kill()

    @contextmanager
    def plane_of_its_own(self, owner: int, user: int) -> Iterator[subprocess.Popen[bytes]]:
        """Starts a plane as `user`, without any capability, on a socket that belongs to `owner`."""
        path = self.run / "plane.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(path))
            listener.listen()
            os.chown(path, owner, owner)
            path.chmod(0o600)
            words = [*as_user(user), str(self.programs / "bin/vpnd-plane")]
            # A service manager's number for the first socket is 3 (sd_listen_fds(3)).
            script = 'exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
            plane = subprocess.Popen(["sh", "-c", script, "sh", *words], stdin=listener.fileno())
        try:
            yield plane
        finally:
            plane.terminate()
            try:
                plane.wait(_END_S)
            finally:
                plane.kill()


class RunningVpnd:
    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    def lines(self, level: str) -> list[str]:
        """What it wrote at one level."""
        mark = f"vpnd@site {level}: "
        return [
            line.removeprefix(mark) for line in self._log.read_text().splitlines() if line.startswith(mark)
        ]


@contextmanager
def lone() -> Iterator[Lone]:
    """Makes the files of an instance in a folder that any user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="vpnd-lone-"))
    folder.chmod(0o755)
    try:
        yield Lone(folder)
    finally:
        subprocess.run(["umount", str(folder / "programs")], check=False)
        # Never through a mount that stayed: what lies behind it is not ours to delete.
        assert not any((folder / "programs").iterdir())
        shutil.rmtree(folder, ignore_errors=True)


def as_user(user: int, *capabilities: str) -> list[str]:
    """The words before a command that runs it as a service manager would: that user, these capabilities."""
    some = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    return [
        *("setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups", "--no-new-privs"),
        *("--inh-caps", some, "--ambient-caps", some, "--bounding-set", some),
    ]


def _wait_ready(process: subprocess.Popen[bytes], notify: socket.socket, log: Path) -> None:
    deadline = time.monotonic() + _END_S
    notify.settimeout(0.1)
    while True:
        try:
            if b"READY=1" in notify.recv(4096):
                return
        except TimeoutError:
            assert process.poll() is None, f"vpnd ended with {process.returncode}: {log.read_text()}"
            assert time.monotonic() < deadline, f"vpnd is not ready: {log.read_text()}"
