"""A vpnd of the lab: its files, its processes, and what an operator would type.

Owns one instance on one host. The programs are the installed ones; nothing is faked. Time
constants of the protocol can be shortened by a launcher of the tests, never by an option that ships.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.namespaces import CommandError, Host, eventually
from tests.listening import is_listening
from vpnd.keys import Identity, Secret, write_key_file

BIN = Path(sys.executable).parent
LAUNCHER = Path(__file__).with_name("launcher.py")
_ANSWER_S = 30.0


@dataclass(frozen=True)
class KeyPair:
    file: Path
    public: str


class Vpnd:
    """One instance, as an operator sees it."""

    def __init__(
        self,
        host: Host,
        instance: str = "site",
        *,
        own_plane: bool = False,
        private_key: bytes | None = None,
    ) -> None:
        """With `own_plane` the plane is started on its own before the daemon, as its unit does it.

        A `private_key` of 32 bytes is written down in place of vpnctl making one, which takes longer.
        """
        self.host = host
        self.instance = instance
        self.own_plane = own_plane
        self.folder = host.folder / instance
        self.config_dir = self.folder / "etc"
        self.runtime_root = self.folder / "run"
        self.runtime_dir = self.runtime_root / instance
        self.state_dir = self.folder / "lib"
        self.log_file = host.folder / f"{instance}.log"
        for directory in (self.config_dir, self.runtime_dir, self.state_dir):
            directory.mkdir(parents=True)
        self.key = self.new_key("private") if private_key is None else self._key_of(private_key)
        self.timers: Mapping[str, object] = {}
        self.clock_shift_s = 0.0
        self.environment: dict[str, str] = {}  # added to that of daemon and plane
        self.daemon: subprocess.Popen[bytes] | None = None
        self.plane: subprocess.Popen[bytes] | None = None

    # -- files --

    def new_key(self, name: str) -> KeyPair:
        """Makes a private key by vpnctl and gives its public half."""
        file = self.config_dir / f"{name}.key"
        self.host.run(f"{BIN}/vpnctl key gen {file}")
        return KeyPair(file, self.host.output(f"{BIN}/vpnctl key pub {file}").strip())

    def _key_of(self, private_key: bytes) -> KeyPair:
        file = self.config_dir / "private.key"
        write_key_file(file, Secret.copy_of(private_key))
        return KeyPair(file, str(Identity.from_private(Secret.copy_of(private_key)).public))

    def new_psk(self, name: str) -> Path:
        file = self.config_dir / f"{name}.psk"
        self.host.run(f"{BIN}/vpnctl key psk {file}")
        return file

    @property
    def config_file(self) -> Path:
        return self.config_dir / f"{self.instance}.toml"

    def configure(self, text: str) -> None:
        """Writes the configuration; a private_key is added to [local] where the text has none."""
        text = textwrap.dedent(text)
        if "private_key" not in text:
            text = text.replace("[local]", f'[local]\nprivate_key = "{self.key.file}"')
        self.config_file.write_text(text)

    # -- processes --

    def start(self, *, wait: bool = True) -> None:
        if self.own_plane and (self.plane is None or self.plane.poll() is not None):
            self.start_plane()
        program: tuple[str | Path, ...] = (BIN / "vpnd",)
        if self.timers or self.clock_shift_s:
            program = (sys.executable, "-P", LAUNCHER, json.dumps(self.timers), str(self.clock_shift_s))
        self.daemon = self.host.start(
            *program,
            *("--instance", self.instance, "--config", self.config_file),
            *("--runtime-dir", self.runtime_dir, "--state-dir", self.state_dir),
            log=self.log_file.name,
            env=os.environ | self.environment,
        )
        if wait:
            self.wait_ready()

    def start_plane(self) -> None:
        path = self.runtime_dir / "plane.sock"
        self.plane = plane = self.host.start(
            BIN / "vpnd-plane", "--listen", path, log="plane.log", env=os.environ | self.environment
        )
        eventually(lambda: is_listening(path, plane.pid), what="plane.sock")

    def wait_ready(self) -> None:
        def answers() -> bool:
            assert self.daemon is not None
            if self.daemon.poll() is not None:
                raise CommandError(f"vpnd on {self.host} ended with {self.daemon.returncode}:\n{self.log()}")
            return self.ctl("status", check=False).returncode in (0, 1)

        eventually(answers, within_s=15, what=f"vpnd on {self.host} being ready")

    def wait_up(self, *, timeout_s: float = 15.0) -> None:
        self.ctl(f"wait --timeout {timeout_s}")

    def stop(self) -> int:
        """Ends the daemon as its service manager would and gives its exit status."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)
        return self.daemon.wait(10)

    def kill(self) -> None:
        """Kills the daemon; a plane that is its child ends by itself, which is waited for."""
        assert self.daemon is not None
        child = self._child_plane()
        self.daemon.kill()
        self.daemon.wait(10)
        if child is not None:
            eventually(lambda: not Path(f"/proc/{child}").exists(), what="the plane's end")

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The daemon stands still while the body runs; its plane goes on."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.daemon.send_signal(signal.SIGCONT)

    def plane_pid(self) -> int:
        """Finds the plane, whether it is the daemon's child or was started on its own."""
        if self.plane is not None and self.plane.poll() is None:
            return self.plane.pid
        child = self._child_plane()
        assert child is not None, f"vpnd on {self.host} has no plane"
        return child

    def _child_plane(self) -> int | None:
        assert self.daemon is not None
        children = Path(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/children").read_text().split()
        named = (int(each) for each in children if Path(f"/proc/{each}/comm").read_text() == "vpnd-plane\n")
        return next(named, None)

    def kill_plane(self) -> None:
        os.kill(self.plane_pid(), signal.SIGKILL)
        if self.plane is not None:
            self.plane.wait(10)

    def cpu_s(self) -> float:
        """Tells how much processor time daemon and plane have used so far."""
        assert self.daemon is not None
        total = 0
        for pid in (self.daemon.pid, self.plane_pid()):
            # The name may hold blanks; user and system time are fields 14 and 15.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def teardown(self) -> None:
        self.host.run(
            f"{BIN}/vpnd --instance {self.instance} --config {self.config_file} "
            f"--runtime-dir {self.runtime_dir} --state-dir {self.state_dir} --teardown"
        )

    # -- what an operator types --

    def ctl(
        self, words: str, *, check: bool = True, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        return self.host.run(
            f"{BIN}/vpnctl -i {self.instance} --runtime-dir {self.runtime_root}"
            f" --config-dir {self.config_dir} --no-color {words}",
            check=check,
            timeout_s=timeout_s,
        )

    def ask(self, do: str, **options: object) -> dict[str, Any]:
        """Asks over the control socket itself: a vpnctl would take a hundred times as long.

        Gives what stands under "ok"; CommandError where the daemon refuses.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(_ANSWER_S)
            asking.connect(str(self.runtime_dir / "control.sock"))
            asking.sendall(json.dumps({"do": do} | options).encode() + b"\n")
            answer = json.loads(asking.makefile("rb").readline())
        if "ok" not in answer:
            raise CommandError(f"{self.instance} on {self.host}: {do}: {answer['error']}")
        reply: dict[str, Any] = answer["ok"]
        return reply

    def peer_now(self, name: str) -> dict[str, Any]:
        """As `peer`, and what `show peers` tells of it, without starting a vpnctl."""
        shown = next(peer for peer in self.ask("show", topic="peers")["peers"] if peer["name"] == name)
        report = self.ask("status", peer=name)["instances"][0]["peers"][0]
        return dict(shown) | dict(report)

    def drops_now(self) -> dict[str, int]:
        drops: dict[str, int] = self.ask("status")["instances"][0]["drops"]
        return drops

    def status(self) -> dict[str, Any]:
        """The instance's part of `vpnctl --json status`."""
        done = self.ctl("--json status", check=False)
        report: dict[str, Any] = json.loads(done.stdout)["instances"][0]
        return report

    def peer(self, name: str) -> dict[str, Any]:
        return next(peer for peer in self.status()["peers"] if peer["name"] == name)

    def endpoint(self, name: str) -> str:
        """Where a peer is, as `status` tells."""
        endpoint: str = self.peer(name)["endpoint"] or ""
        return endpoint

    def drops(self) -> dict[str, int]:
        drops: dict[str, int] = self.status()["drops"]
        return drops

    def why(self, peer: str) -> str:
        return self.ctl(f"why {peer}", check=False).stdout

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def assert_no_error(self) -> None:
        """A daemon of the lab may warn, but never break."""
        for line in self.log().splitlines():
            assert "Traceback" not in line, self.log()
            assert " ERROR: " not in line, line
