"""The plane as systemd runs it: a listening socket, a notify socket, a descriptor store.

Owns what systemd does with notices and with stored descriptors from one life of the plane to the
next. Knows nothing of what is stored.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from functools import cache
from ipaddress import ip_network
from pathlib import Path

from tests.plane import building, far
from tests.plane.harness import plane_program, public_key
from tests.plane.namespace import Link, Namespace
from vpnd.plane.client import PlaneClient

_LAUNCHER = Path(__file__).with_name("launcher.c")
_ENDS_S = 20  # a process that is asked to, also where it is a sanitizer's and the machine is busy
_ABOVE = 200  # where descriptors stand that are moved down to their places


@cache
def _launcher() -> Path:
    """LISTEN_PID must be the program's own number, known only to the process that becomes it."""
    program = building.SOURCE / "build" / "launcher"
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        made = Path(folder) / program.name
        building.run(
            "gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(made), str(_LAUNCHER)
        )
        made.replace(program)
    return program


class ServiceManager:
    """One unit: starts its process again with what the process stored."""

    def __init__(self, directory: Path, program: Path | None = None) -> None:
        self.path = directory / "plane.sock"
        self.log = directory / "stderr"
        self.program = program
        self.environment: dict[str, str] = {}
        self.store: dict[str, list[int]] = {}
        self.unpolled: set[str] = set()  # names stored with FDPOLL=0
        self.messages: list[str] = []
        self.child: subprocess.Popen[bytes]
        self.heard_watchdog_at = 0.0
        self._synced = threading.Semaphore(0)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(directory / "notify"))
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(self.path))
        self.listener.listen(4)
        self.standby_path = directory / "standby.sock"
        self.standby_listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.standby_listener.bind(str(self.standby_path))
        self.standby_listener.listen(4)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    # -- the process --

    def start(self) -> None:
        names = ["plane", "standby"]
        descriptors = [self.listener.fileno(), self.standby_listener.fileno()]
        for name, stored in self.store.items():
            names += [name] * len(stored)
            descriptors += stored
        lifted = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for each in descriptors]
        command = [str(each) for each in (_launcher(), self.program or plane_program(), *lifted)]
        passed = {
            "NOTIFY_SOCKET": str(self.notify.getsockname()),
            "LISTEN_FDS": str(len(descriptors)),
            "LISTEN_FDNAMES": ":".join(names),
        }
        try:
            with self.log.open("ab") as log:
                self.child = subprocess.Popen(
                    command,
                    env=os.environ | passed | self.environment,
                    pass_fds=lifted,
                    stdin=subprocess.DEVNULL,
                    stderr=log,
                )
        finally:
            for each in lifted:
                os.close(each)

    def start_standby(self) -> subprocess.Popen[bytes]:
        """Another process of another unit; returns once it has everything that the plane has."""
        command = [str(self.program or plane_program()), "--standby", str(self.standby_path)]
        with (
            tempfile.TemporaryDirectory() as folder,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
            self.log.open("ab") as log,
        ):
            notify.bind(f"{folder}/notify")
            notify.settimeout(_ENDS_S)
            environment = os.environ | {"NOTIFY_SOCKET": f"{folder}/notify"}
            standby = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=log)
            try:
                while notify.recv(4096) != b"STATUS=stands by":
                    pass
            except TimeoutError:
                standby.kill()
                standby.wait(_ENDS_S)
                raise AssertionError(f"no plane took the standby: {self.said()[-500:]}") from None
        return standby

    def kill(self, number: int = signal.SIGKILL) -> None:
        """The process ends at once, and what it said until then is heard."""
        self.child.send_signal(number)
        self.child.wait(_ENDS_S)
        self.collect()

    def terminate(self) -> int:
        """The process ends as it likes to; its exit status."""
        self.child.terminate()
        status = self.child.wait(_ENDS_S)
        self.collect()
        return status

    def connect(self, timeout_s: float = 5.0) -> PlaneClient:
        return PlaneClient.connect(self.path, timeout_s=timeout_s)

    def said(self) -> str:
        """What the process and those before it wrote for the journal."""
        return self.log.read_text()

    # -- notices --

    def collect(self) -> None:
        """Returns once everything that was notified so far is heard."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"SYNC=1", self.notify.getsockname())
        assert self._synced.acquire(timeout=10)

    def _read(self) -> None:
        while True:
            message, descriptors, _, _ = socket.recv_fds(self.notify, 4096, 64)
            if message == b"END=1":
                return
            if message == b"SYNC=1":
                self._synced.release()
            else:
                self._take(message.decode(), descriptors)

    def _take(self, text: str, descriptors: list[int]) -> None:
        self.messages.append(text)
        fields: Mapping[str, str] = dict(line.partition("=")[::2] for line in text.splitlines())
        if "WATCHDOG" in fields:
            self.heard_watchdog_at = time.monotonic()
        if "FDSTOREREMOVE" in fields:
            self._close(self.store.pop(fields["FDNAME"], []))
            self.unpolled.discard(fields["FDNAME"])
        elif "FDSTORE" in fields:
            self.store.setdefault(fields["FDNAME"], []).extend(descriptors)
            if fields.get("FDPOLL") == "0":
                self.unpolled.add(fields["FDNAME"])
        else:
            self._close(descriptors)

    @staticmethod
    def _close(descriptors: list[int]) -> None:
        for each in descriptors:
            os.close(each)

    # -- the end --

    def stop(self) -> None:
        """The unit is really stopped: systemd drops what it stored."""
        self.terminate()
        for stored in self.store.values():
            self._close(stored)
        self.store.clear()

    def close(self) -> None:
        """Nothing stays behind; the process that lives ends well when it is asked to."""
        try:
            status = self.child.poll()
            if status is None:
                status = self.terminate()
        finally:
            self.abandon()
        assert status == 0, f"the plane ended with {status}: {self.said()}"

    def abandon(self) -> None:
        """Nothing stays behind, whatever state the process is in."""
        self.child.kill()
        self.child.wait(_ENDS_S)
        self._hear_no_more()
        for stored in self.store.values():
            self._close(stored)

    def _hear_no_more(self) -> None:
        """What was notified before is heard: some of it may close what is stored."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"END=1", self.notify.getsockname())
        self._reader.join(5)
        self.listener.close()
        self.standby_listener.close()
        self.notify.close()


def set_up(
    namespace: Namespace, client: PlaneClient, closing: contextlib.ExitStack
) -> tuple[Link, socket.socket, socket.socket]:
    """Gives the plane a link, a socket and a peer: the link, the plane's socket and the far end's."""
    link = Link(namespace, "tun", f"pt-{os.getpid() % 10000}-s")
    closing.callback(link.close)
    udp, away = namespace.udp_socket("127.0.0.1"), namespace.udp_socket("127.0.0.2")
    closing.callback(udp.close)
    closing.callback(away.close)
    client.set_link("tun", link.name, 1420, link.queues)
    client.set_sockets([udp.fileno()])
    networks = ip_network("10.2.0.0/16")
    client.set_peer(1, public_key(1), [networks], far.endpoint_of(away))
    return link, udp, away


def install(
    client: PlaneClient, session: far.Session, away: socket.socket, *, is_initiator: bool = True
) -> None:
    client.install_session(
        peer_id=1,
        local_index=session.local_index,
        remote_index=session.remote_index,
        suite=session.suite,
        is_initiator=is_initiator,
        preferred=False,
        padding=0,
        features=1,
        endpoint=far.endpoint_of(away),
        send_key=session.send_key,
        receive_key=session.receive_key,
    )
