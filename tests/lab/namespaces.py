"""Hosts in network namespaces, joined by cables; everything made here is gone when the lab closes.

Owns names, processes and cleaning up, also after a failure or Ctrl-C. Only processes that a lab
started are ended, only namespaces it made are deleted.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

_COMMAND_TIMEOUT_S = 60.0
_END_S = 5.0
_HOSTS = Path("/etc/hosts")
_NETNS_FILES = Path("/etc/netns")  # ip netns exec mounts NAME/hosts over /etc/hosts
_FIRST = -10  # nice: ten times the share of another process
_ECHO_NUMBER = re.compile(r"bytes from .* icmp_seq=(\d+)")
_numbers = itertools.count(1)


def _put_first(pid: int) -> None:
    """Sets the nice value of a session, which counts before that of its processes (sched(7), autogroup)."""
    with contextlib.suppress(OSError):  # it has ended, or the kernel does not group by session
        Path(f"/proc/{pid}/autogroup").write_text(str(_FIRST))


class CommandError(AssertionError):
    """A command in the lab ended with an error; the text holds what it printed."""


def run_words(
    words: list[str], shown: str, *, check: bool, timeout_s: float, text: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; where that is an error, CommandError has it as it is `shown`."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, input=text, check=False)
    if check and done.returncode != 0:
        raise CommandError(f"{shown}\n[{done.returncode}] {done.stdout}{done.stderr}")
    return done


class Host:
    """One machine of the lab: a network namespace, a folder of its own, and its processes."""

    def __init__(self, lab: Lab, name: str, namespace: str) -> None:
        self.lab = lab
        self.name = name
        self.namespace = namespace
        self.folder = lab.folder / name
        self.folder.mkdir()
        self.comes_first = False  # a machine of its own would not wait for what the others compute

    def __str__(self) -> str:
        return self.name

    def run(
        self, command: str, *, check: bool = True, timeout_s: float = _COMMAND_TIMEOUT_S, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command line (no shell) to its end; `text` is its standard input."""
        words = ["ip", "netns", "exec", self.namespace, *shlex.split(command)]
        return run_words(words, f"{self.name}$ {command}", check=check, timeout_s=timeout_s, text=text)

    def output(self, command: str, *, timeout_s: float = _COMMAND_TIMEOUT_S) -> str:
        return self.run(command, timeout_s=timeout_s).stdout

    def start(self, *words: str | Path, log: str | None = None, **options: object) -> subprocess.Popen[bytes]:
        """Starts a process that the lab ends when it closes; `log` names a file in the host's folder.

        On a host that `comes_first` it is served before what others run.
        """
        sink: object = subprocess.DEVNULL
        if log is not None:
            sink = (self.folder / log).open("ab")
        streams = {"stdin": subprocess.DEVNULL, "stdout": sink, "stderr": sink} | options
        first = ["nice", "-n", str(_FIRST)] if self.comes_first else []
        command = [*first, "ip", "netns", "exec", self.namespace, *map(str, words)]
        process: subprocess.Popen[bytes] = subprocess.Popen(command, start_new_session=True, **streams)  # type: ignore[call-overload]
        self.lab.processes.append(process)
        if self.comes_first:
            _put_first(process.pid)
        if log is not None:
            sink.close()  # type: ignore[attr-defined]
        return process

    def sysctl(self, key: str, value: object) -> None:
        self.run(f"sysctl -qw {key}={value}")

    def nft(self, rules: str) -> None:
        """Adds tables, chains and rules, as `nft -f` reads them."""
        self.run("nft -f -", text=rules)

    def names(self, addresses: dict[str, str]) -> None:
        """Lets these names resolve on this machine, and no others by its hosts file.

        Programs started before the first call do not see it; later calls reach all.
        """
        folder = _NETNS_FILES / self.namespace
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{address} {name}\n" for name, address in addresses.items()]
        _HOSTS.touch()  # a minimal machine has none, and nothing is mounted over what is not there
        # Written in place: it is mounted over /etc/hosts of every program in the namespace.
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(lines))

    def index_of(self, link: str) -> int:
        """Gives the number that the kernel has for a link."""
        return int(self.output(f"cat /sys/class/net/{link}/ifindex"))

    def pings(self, address: str, *, count: int = 1, wait_s: float = 1.0, options: str = "") -> bool:
        """Tells whether all of `count` echoes come back; where one is late or lost, some more are sent.

        For the answer to its last echo ping itself waits no longer than for two round trips.
        """
        if count == 1:
            return not self.is_silent(address, wait_s=wait_s, options=options)
        patience_s = count + math.ceil(wait_s)  # where an interval among the options is a second, too
        done = self._ping(f"-c {count} -w {patience_s} -i 0.05 {options} {address}")
        answered = {int(number) for number in _ECHO_NUMBER.findall(done.stdout)}
        return answered >= set(range(1, count + 1))

    def pings_singly(self, address: str, *, count: int, options: str = "") -> bool:
        """As `pings`, each after the answer to the one before: so many are sent, no two leave together."""
        return all(self.pings(address, options=options) for _ in range(count))

    def is_silent(self, address: str, *, count: int = 1, wait_s: float = 1.0, options: str = "") -> bool:
        """Tells whether none of `count` echoes comes back."""
        interval = "-i 0.05" if count > 1 else ""
        return self._ping(f"-c {count} -W {wait_s} {interval} {options} {address}").returncode != 0

    def _ping(self, words: str) -> subprocess.CompletedProcess[str]:
        return self.run(f"ping -n {words}", check=False, timeout_s=2 * _COMMAND_TIMEOUT_S)


class Lab:
    """Namespaces, cables and switches, made on demand."""

    def __init__(self) -> None:
        self._tag = f"vl{os.getpid()}x{next(_numbers)}"
        self._directory = tempfile.TemporaryDirectory(prefix="vpnd-lab-", ignore_cleanup_errors=True)
        self.folder = Path(self._directory.name)
        self.hosts: dict[str, Host] = {}
        self.processes: list[subprocess.Popen[bytes]] = []
        self._switch_ports = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def host(self, name: str) -> Host:
        """Makes a machine with loopback up and nothing else."""
        namespace = f"{self._tag}-{name}"
        _ip("netns", "add", namespace)
        host = Host(self, name, namespace)
        self.hosts[name] = host
        host.run("ip link set lo up")
        # Addresses are usable at once; the lab has no duplicates to look for.
        for scope in ("all", "default"):
            host.sysctl(f"net.ipv6.conf.{scope}.accept_dad", 0)
        return host

    def cable(self, one: Host, one_link: str, other: Host, other_link: str, *, mtu: int = 1500) -> None:
        """Joins two machines by a veth pair; a link's name is its name in the machine."""
        _ip(
            *("link", "add", one_link, "mtu", str(mtu), "netns", one.namespace, "type", "veth"),
            *("peer", "name", other_link, "mtu", str(mtu), "netns", other.namespace),
        )
        one.run(f"ip link set {one_link} up")
        other.run(f"ip link set {other_link} up")

    def switch(self, name: str) -> Switch:
        """Makes an Ethernet switch, to which hosts are joined."""
        return Switch(self, self.host(name))

    def close(self) -> None:
        """Ends every process and removes every namespace; nothing in it stops the rest."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self.processes:
                if process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, number)
            deadline = time.monotonic() + _END_S
            for process in self.processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        for process in self.processes:
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        for host in self.hosts.values():
            with contextlib.suppress(CommandError):
                _ip("netns", "del", host.namespace)
            if (_NETNS_FILES / host.namespace).exists():
                shutil.rmtree(_NETNS_FILES / host.namespace, ignore_errors=True)
                with contextlib.suppress(OSError):
                    _NETNS_FILES.rmdir()  # fails while others use it
        self._directory.cleanup()


class Switch:
    """A bridge in a namespace of its own."""

    def __init__(self, lab: Lab, host: Host) -> None:
        self._lab = lab
        self._host = host
        self._ports = 0
        host.run("ip link add name switch type bridge stp_state 0 mcast_snooping 0")
        host.run("ip link set switch up")

    def join(self, host: Host, link: str) -> None:
        port = f"port{self._ports}"
        self._ports += 1
        self._lab.cable(self._host, port, host, link)
        self._host.run(f"ip link set {port} master switch")


def eventually(
    question: Callable[[], bool], *, within_s: float = 20.0, every_s: float = 0.05, what: str = "it"
) -> float:
    """Waits until `question` answers yes and tells how long that took; fails by name when it never does."""
    began = time.monotonic()
    while True:
        if question():
            return time.monotonic() - began
        if time.monotonic() - began > within_s:
            raise AssertionError(f"{what} did not come true within {within_s:g} s")
        time.sleep(every_s)


@contextlib.contextmanager
def laboratory() -> Iterator[Lab]:
    """Opens a lab that closes also on SIGTERM."""
    previous = signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        with Lab() as lab:
            yield lab
    finally:
        signal.signal(signal.SIGTERM, previous)


def _ip(*words: str) -> None:
    done = subprocess.run(
        ["ip", *words], capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise CommandError(f"ip {' '.join(words)}: {done.stderr.strip()}")
