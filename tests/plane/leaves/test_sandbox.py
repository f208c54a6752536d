"""The sandbox, entered by a child that then tries one thing."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plane import building
from tests.plane.leaves.library import Leaves

# Everything is prepared outside; Python itself needs no file once its modules are loaded.
PREPARE = """
import ctypes, fcntl, mmap, os, select, signal, socket, sys, threading, time
library = ctypes.CDLL(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
status = open("/proc/self/status")
left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))
assert library.sandbox_enter() == 0
"""

SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}[platform.machine()]

ALLOWED = {
    "datagrams are sent and received": "udp.sendto(b'x', udp.getsockname()); assert udp.recv(9) == b'x'",
    "descriptors are received": "socket.send_fds(left, [b'x'], [0]); assert socket.recv_fds(right, 9, 1)[1]",
    "waiting works": "assert select.poll().poll(1) == []; e = select.epoll(); e.register(udp); e.poll(0)",
    "threads are made": "t = threading.Thread(target=print); t.start(); t.join()",
    "time and randomness": "time.clock_gettime(time.CLOCK_BOOTTIME); os.getrandom(8)",
    "memory is mapped": "m = mmap.mmap(-1, 1 << 20); m[0] = 1",
    "shared memory is made": "fd = os.memfd_create('x'); os.ftruncate(fd, 4096); mmap.mmap(fd, 4096)",
    "a link's queue is asked for its features": "assert fails(lambda: fcntl.ioctl(0, 0x800454CF, bytes(4)))",
    "a thread asks for its slices": "library.slice_ask(ctypes.c_uint64(100_000))",
    "the service manager is told": "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.close()",
}

KILLED = {
    "opening a file": "os.open('/dev/null', os.O_RDONLY)",
    "making a network socket": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "making a netlink socket": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "making a UNIX stream socket": "socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
    "connecting": "udp.connect(('127.0.0.1', 9))",
    "binding": "libc.bind(udp.fileno(), bytes(16), 16)",
    "listening": "left.listen(1)",
    "starting a program": "libc.execve(b'/bin/true', None, None)",
    "making a process": "os.fork()",
    "memory that can be run": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "making memory runnable": "libc.mprotect(ctypes.c_void_p(id(libc) & ~4095), 4096, 5)",
    "attaching to a link": "fcntl.ioctl(0, 0x400454CA, bytes(40))",
    "an unknown ioctl": "fcntl.ioctl(0, 0x5401, bytes(64))",
    "signals to others": "os.kill(1, 0)",
    "deleting": "os.unlink('/nonexistent')",
    "looking at a path": "os.stat('/etc/passwd')",
    "tracing": "libc.ptrace(0, 0, 0, 0)",
    "new privileges' way round": "libc.prctl(22, 0, 0, 0, 0)",
    "changing identity": "libc.setuid(0)",
    "scheduling another": "libc.sched_setscheduler(0, 0, bytes(4))",
    "slices of another": f"libc.syscall({SCHED_SETATTR}, 1, bytes(48), 0)",
    "loading a kernel filter": "libc.syscall(321, 0, 0, 0)",
}


@pytest.fixture(autouse=True)
def _no_sanitizer() -> None:
    if building.sanitizer():
        pytest.skip("a sanitizer needs calls that the real filter kills")


def run(leaves: Leaves, script: str) -> subprocess.CompletedProcess[str]:
    body = textwrap.dedent("""
        def fails(call):
            try:
                call()
            except OSError:
                return True
            return False
    """)
    code = f"{PREPARE}\n{body}\n{script}\nsys.stdout.flush(); os._exit(0)"
    command = [sys.executable, "-S", "-c", code, str(leaves.path)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=20, check=False, stdin=subprocess.DEVNULL
    )


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may read, wherever the source tree lies."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("name", ALLOWED)
def test_the_planes_own_work_goes_on(leaves: Leaves, name: str) -> None:
    done = run(leaves, ALLOWED[name])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", KILLED)
def test_anything_else_kills_the_process(leaves: Leaves, name: str) -> None:
    done = run(leaves, KILLED[name])
    assert done.returncode == -signal.SIGSYS, done.stderr


def test_no_capability_no_new_privilege_and_no_core_remain(leaves: Leaves) -> None:
    done = run(leaves, "print(status.read())")
    fields = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)
    for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert int(fields[name], 16) == 0
    assert os.geteuid() != 0 or int(fields["CapBnd"], 16) == 0
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


def test_its_memory_is_hidden_from_its_own_user_and_from_core_dumps(
    leaves: Leaves, open_folder: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to start a child as another user")
    code = f"{PREPARE}\nprint('ready', flush=True); sys.stdin.read(); os._exit(0)"
    library = shutil.copy(leaves.path, open_folder)
    command = [f"{sys.base_prefix}/bin/python3", "-S", "-c", code, str(library)]
    nobody = 65_534
    with subprocess.Popen(command, user=nobody, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        process = Path("/proc") / str(child.pid)
        # The kernel gives the files of a process that may not be dumped to root.
        assert (process / "environ").stat().st_uid == 0
        core = next(line for line in (process / "limits").read_text().splitlines() if "core" in line)
        assert core.split()[4:6] == ["0", "0"]
        child.stdin.close()
        assert child.wait(10) == 0
