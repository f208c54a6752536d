"""Debian machines that boot: systemd as process 1 in a namespace of the lab, on a throw-away root.

Owns booting, commands inside, power-off and the mount of the root. The root is an overlay: what a
machine does to its disk outlives a reboot and goes with the machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.lab.namespaces import Host, eventually, run_words
from tests.packaging.roots import furnished_root, keep_changes, run_in, scratch
from tests.system.cgroup import ControlGroup

PACKAGES = (
    "systemd systemd-sysv dbus procps iproute2 iputils-ping iperf3 openssh-server openssh-client"
    " autopkgtest dpkg-dev"
)
# Machines of the lab have no mirror: apt finds there what the package depends on.
_INSTALL = """
set -e
apt-get update -q
apt-get install -y -q --no-install-recommends $PACKAGES
apt-get satisfy -y -q --no-install-recommends "$DEPENDS" "$RECOMMENDS"
apt-get clean
"""
_BOOT_S, _END_S, _COMMAND_S = 30.0, 15.0, 60.0
_POWER_OFF = signal.SIGRTMIN + 4
_TUN = os.makedev(10, 200)
_ENVIRONMENT = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8")


def machine_root(release: str, package: Path) -> Path:
    """Gives the cached root that machines of a release boot from; all is in it but the package itself."""
    # What is recommended is installed too, unless an operator says otherwise.
    variables = {
        "PACKAGES": PACKAGES,
        "DEPENDS": _field(package, "Depends"),
        "RECOMMENDS": _field(package, "Recommends"),
    }

    def furnish(root: Path) -> None:
        with scratch() as changes:
            run_in(root, changes, ["sh", "-c", _INSTALL], environment=variables)
            keep_changes(root, changes)

    return furnished_root(release, "machine", f"{variables}{_INSTALL}", furnish)


def _field(package: Path, name: str) -> str:
    asked = ["dpkg-deb", "--field", str(package), name]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


class Machine:
    """One Debian machine whose network is that of a host of the lab."""

    def __init__(self, host: Host, root: Path) -> None:
        """`root` is of `machine_root`; nothing is booted yet."""
        self.host = host
        self.lower = root
        self._folder = Path(tempfile.mkdtemp(prefix=f"vpnd-{host.name}-", dir="/var/tmp"))
        self.root = self._folder / "root"
        for name in ("root", "upper", "work"):
            (self._folder / name).mkdir()
        layers = f"lowerdir={root},upperdir={self._folder}/upper,workdir={self._folder}/work"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(self.root)], check=True)
        # One of its own, as udev would make it: on the host it may be open to root alone.
        self._tun = self._folder / "tun"
        os.mknod(self._tun, stat.S_IFCHR, _TUN)
        self._tun.chmod(0o666)
        self._group = ControlGroup(self._folder.name)
        self._container: subprocess.Popen[bytes] | None = None
        self._first = 0  # process 1, as we see it

    def boot(self) -> None:
        """Starts systemd and waits until it has started everything."""
        words = ["systemd-nspawn", "--directory", str(self.root), "--boot", "--register=no", "--keep-unit"]
        words += [f"--network-namespace-path=/run/netns/{self.host.namespace}", "--capability=CAP_NET_ADMIN"]
        words += [f"--bind={self._tun}:/dev/net/tun", "--console=pipe", f"--hostname={self.host.name}"]
        with (self.host.folder / "console").open("ab") as console:
            self._container = subprocess.Popen(
                self._group.entered_by(words),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        eventually(self._has_booted, within_s=_BOOT_S, what=f"the boot of {self.host.name}")

    def run(
        self, command: str, *, check: bool = True, timeout_s: float = _COMMAND_S, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs a shell command as root inside; `text` is its standard input."""
        words = [*self._inside(), "sh", "-c", command]
        return run_words(words, f"{self.host}# {command}", check=check, timeout_s=timeout_s, text=text)

    def output(self, command: str, *, timeout_s: float = _COMMAND_S) -> str:
        return self.run(command, timeout_s=timeout_s).stdout.strip()

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Starts a command inside that ends with the lab; its output is read from the process."""
        process = subprocess.Popen(
            [*self._inside(), *shlex.split(command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.host.lab.processes.append(process)
        return process

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Writes a file of the machine."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode)
        file.chmod(mode)
        file.write_text(text)

    def bring(self, file: Path) -> str:
        """Copies a file to /root of the machine and gives its path there."""
        shutil.copy(file, self.root / "root" / file.name)
        return f"/root/{file.name}"

    def pid(self, unit: str) -> int:
        """The main process of a unit, as the machine numbers it; 0 without one."""
        return int(self.output(f"systemctl show -P MainPID {unit}"))

    def outer_pid(self, process: int) -> int:
        """What we call a process that the machine calls `process`."""
        spaces = Path(f"/proc/{self._first}/ns/pid").readlink()
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                names = re.search(r"^NSpid:\s.*\b(\d+)$", status.read_text(), re.MULTILINE)
                if names is None or int(names[1]) != process:
                    continue
                if (status.with_name("ns") / "pid").readlink() == spaces:
                    return int(status.parent.name)
        raise AssertionError(f"{self.host} has no process {process}")

    @contextlib.contextmanager
    def drop_in(self, unit: str, lines: str) -> Iterator[None]:
        """Adds lines to [Service] of a unit; its next start knows them."""
        file = f"/etc/systemd/system/{unit}.service.d/test.conf"
        self.write(file, f"[Service]\n{lines}\n")
        self.run("systemctl daemon-reload")
        try:
            yield
        finally:
            self.run(f"rm -r {Path(file).parent}; systemctl daemon-reload")

    def journal(self, unit: str, options: str = "") -> str:
        return self.output(f"journalctl --sync; journalctl --no-pager -o cat -u {unit} {options}")

    def reboot(self) -> None:
        """Powers off and boots again; the disk stays, /run does not."""
        self.power_off()
        self.boot()

    def power_off(self) -> None:
        """Shuts down as at a press of the power button; what does not end within a while is killed."""
        if self._container is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._first, _POWER_OFF)
        try:
            self._container.wait(_END_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._first, signal.SIGKILL)
            os.killpg(self._container.pid, signal.SIGKILL)
            self._container.wait(_END_S)
        self._container, self._first = None, 0

    def close(self) -> None:
        """Powers off and forgets the disk."""
        self.power_off()
        self._group.remove()
        subprocess.run(["umount", "--lazy", str(self.root)], check=False, capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _inside(self) -> list[str]:
        # Its root as well: where we are in a chroot ourselves, that is not the root of its mounts.
        spaces = ("-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w")
        return ["nsenter", "-t", str(self._first), *spaces, *_ENVIRONMENT]

    def _has_booted(self) -> bool:
        assert self._container is not None
        if self._container.poll() is not None:
            console = (self.host.folder / "console").read_text(errors="replace")
            raise AssertionError(f"{self.host.name} did not boot: {console[-2000:]}")
        children = Path(f"/proc/{self._container.pid}/task/{self._container.pid}/children").read_text()
        if not children.split():
            return False
        self._first = int(children.split()[0])
        state = self.run("systemctl is-system-running", check=False).stdout.strip()
        return state in {"running", "degraded"}


@contextlib.contextmanager
def booted(*machines: Machine) -> Iterator[None]:
    """Boots machines, and takes them away at the end whatever happened."""
    try:
        for machine in machines:
            machine.boot()
        yield
    finally:
        for machine in machines:
            machine.close()
