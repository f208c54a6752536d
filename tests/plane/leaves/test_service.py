"""What the service manager hears and hands in, with a socket in its place."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.plane import building
from tests.plane.leaves.library import Leaves

PREPARE = """
import ctypes, os, sys
library = ctypes.CDLL(sys.argv[1])
if "LISTEN_FDS" in os.environ:
    os.environ["LISTEN_PID"] = str(os.getpid())
"""


@pytest.fixture(autouse=True)
def _no_thread_sanitizer() -> None:
    if building.sanitizer() == "thread":
        pytest.skip("Python does not run under ThreadSanitizer")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        yield listening


def call(
    leaves: Leaves, script: str, *, fds: Sequence[int] = (), names: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs the script in a child; `fds` become its descriptors from 3 on, as systemd passes them."""
    passed = {"LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": names} if fds else {}
    kept = {name: os.environ[name] for name in ("LD_PRELOAD", "ASAN_OPTIONS") if name in os.environ}
    command = [sys.executable, "-S", "-c", f"{PREPARE}\n{script}", str(leaves.path)]
    if fds:
        moves = "; ".join(f"exec {3 + i}<&{fd} {fd}<&-" for i, fd in enumerate(fds))
        command = ["bash", "-c", f'{moves}; exec "$@"', "bash", *command]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
        pass_fds=tuple(fds),
        env={**kept, **passed, **environment},
    )


def heard(manager: socket.socket) -> str:
    return manager.recv(4096).decode()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("library.service_ready()", "READY=1"),
        ("library.service_stopping()", "STOPPING=1"),
        ("library.service_watchdog()", "WATCHDOG=1"),
        ("library.service_status(b'%d of %d peers up', 2, 3)", "STATUS=2 of 3 peers up"),
        ("library.service_status(b'%s', b'x' * 1000)", "STATUS=" + "x" * 255),
        ("library.service_status(b'fine\\nMAINPID=1')", "STATUS=fine"),
        ("library.service_unstore(b'udp')", "FDSTOREREMOVE=1\nFDNAME=udp"),
    ],
)
def test_each_notice_is_one_message(
    leaves: Leaves, manager: socket.socket, script: str, message: str
) -> None:
    call(leaves, script, NOTIFY_SOCKET=str(manager.getsockname()))
    assert heard(manager) == message


@pytest.mark.parametrize(("poll", "tail"), [(True, ""), (False, "\nFDPOLL=0")])
def test_a_stored_descriptor_travels_with_its_name(
    leaves: Leaves, manager: socket.socket, tmp_path: Path, poll: bool, tail: str
) -> None:
    kept = tmp_path / "kept"
    kept.write_text("session memory")
    script = f"assert library.service_store(b'memory', os.open({str(kept)!r}, os.O_RDONLY), {poll}) == 0"
    call(leaves, script, NOTIFY_SOCKET=str(manager.getsockname()))
    message, control, _, _ = manager.recvmsg(4096, 1024)
    assert message.decode() == f"FDSTORE=1\nFDNAME=memory{tail}"
    fds = array.array("i")
    # Behind the descriptor libsystemd may send its credentials.
    rights = next(
        data for level, kind, data in control if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    )
    fds.frombytes(rights)
    with os.fdopen(fds[0]) as received:
        assert received.read() == "session memory"


def test_without_a_manager_every_notice_is_a_harmless_no(leaves: Leaves) -> None:
    call(
        leaves,
        """
library.service_ready(); library.service_stopping(); library.service_watchdog(); library.service_unstore(b'x')
library.service_status(b'nobody hears this')
assert library.service_store(b'x', 0, False) == 0
library.service_watchdog_every_ns.restype = ctypes.c_uint64
assert library.service_watchdog_every_ns() == 0
assert library.service_listen_fd() == -1
assert library.service_take(b'x') == -1
library.service_is_managed.restype = ctypes.c_bool
assert not library.service_is_managed()
library.service_drop_rest()
""",
    )


def test_what_is_never_taken_leaves_the_store(leaves: Leaves, manager: socket.socket, tmp_path: Path) -> None:
    with (tmp_path / "memory").open("w") as memory:
        lifted = [fcntl.fcntl(memory.fileno(), fcntl.F_DUPFD, 20) for _ in range(3)]
        script = """
library.service_is_managed.restype = ctypes.c_bool
assert library.service_is_managed()
assert library.service_take(b'ours') == 4
library.service_drop_rest()
for closed in (3, 5):
    try:
        os.fstat(closed)
    except OSError:
        continue
    raise AssertionError(closed)
os.fstat(4)
"""
        try:
            call(leaves, script, fds=lifted, names="old:ours:older", NOTIFY_SOCKET=str(manager.getsockname()))
        finally:
            for fd in lifted:
                os.close(fd)
    assert heard(manager) == "FDSTOREREMOVE=1\nFDNAME=old"
    assert heard(manager) == "FDSTOREREMOVE=1\nFDNAME=older"


def test_a_name_too_long_for_the_store_is_refused(leaves: Leaves, manager: socket.socket) -> None:
    script = "assert library.service_store(b'x' * 300, 0, False) < 0"
    call(leaves, script, NOTIFY_SOCKET=str(manager.getsockname()))
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1)


def test_a_sign_of_life_is_due_three_times_while_the_manager_waits_for_one(leaves: Leaves) -> None:
    script = """
class Watchdog(ctypes.Structure):
    _fields_ = [("every_ns", ctypes.c_uint64), ("was_due_at_ns", ctypes.c_uint64)]

every_ns = library.service_watchdog_every_ns
every_ns.restype = ctypes.c_uint64
assert every_ns() == 500_000_000
comes_due = library.watchdog_comes_due
comes_due.argtypes, comes_due.restype = [ctypes.POINTER(Watchdog), ctypes.c_uint64], ctypes.c_bool
watchdog, began = Watchdog(every_ns()), 10**12
assert [comes_due(watchdog, began + 250_000_000 * quarter) for quarter in range(6)] == [1, 0, 1, 0, 1, 0]
assert not comes_due(Watchdog(0), began)
"""
    call(leaves, script, WATCHDOG_USEC="1500000")


def test_the_listening_socket_is_told_from_what_the_store_gave_back(leaves: Leaves, tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        (tmp_path / "memory").open("w") as memory,
    ):
        listening.bind(str(tmp_path / "plane.sock"))
        listening.listen(1)
        script = """
assert library.service_take(b'tun') == -1
assert [library.service_take(b'udp') for _ in range(3)] == [3, 6, -1]
assert library.service_listen_fd() == 4
assert library.service_listen_fd() == -1
assert library.service_take(b'memory') == 5
assert library.service_take(b'plane') == -1
"""
        # Well above 3 to 6, where the child wants them.
        lifted = [fcntl.fcntl(opened.fileno(), fcntl.F_DUPFD, 20) for opened in (udp, listening, memory, udp)]
        try:
            call(leaves, script, fds=lifted, names="udp:plane:memory:udp")
        finally:
            for fd in lifted:
                os.close(fd)
