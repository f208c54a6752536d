"""The process that stands by: what it goes on with, and when it gives way."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.plane import far
from tests.plane.harness import plane_program, public_key, wait_until
from tests.plane.packets import number_of
from tests.plane.service_manager import ServiceManager, install
from tests.plane.tunnel import Tunnel

PATIENCE_S = 20
TOLD_PUT = 1  # of keep.c
PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207  # linux/ptrace.h
WALL = 0x40000000  # linux/wait.h
RENEWED = 75  # EX_TEMPFAIL, on which its unit starts the next one


@pytest.fixture
def standby(tunnel: Tunnel) -> Iterator[subprocess.Popen[bytes]]:
    with started(tunnel.service) as standby:
        yield standby


@contextlib.contextmanager
def started(service: ServiceManager) -> Iterator[subprocess.Popen[bytes]]:
    standby = service.start_standby()
    try:
        yield standby
    finally:
        standby.kill()
        standby.wait(PATIENCE_S)


@contextlib.contextmanager
def held_by_a_debugger(pid: int) -> Iterator[None]:
    """All its threads; ptrace(2) wants them let go by the thread that took hold of them."""
    threads = [int(each.name) for each in Path(f"/proc/{pid}/task").iterdir()]
    library = ctypes.CDLL(None, use_errno=True)
    for thread in threads:
        assert library.ptrace(PTRACE_SEIZE, thread, None, None) == 0, os.strerror(ctypes.get_errno())
        assert library.ptrace(PTRACE_INTERRUPT, thread, None, None) == 0
        os.waitpid(thread, WALL)
    try:
        yield
    finally:
        for thread in threads:
            library.ptrace(PTRACE_DETACH, thread, None, None)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
def test_it_goes_on_where_the_plane_ended_and_gives_way_to_the_next(
    tunnel: Tunnel, standby: subprocess.Popen[bytes], how: signal.Signals
) -> None:
    tunnel.check(1)
    wait_until(tunnel.is_written_down, "the peers' list")
    tunnel.service.kill(how)
    tunnel.check(2)
    assert standby.poll() is None
    tunnel.service.start()
    assert standby.wait(PATIENCE_S) == RENEWED
    tunnel.check(3)
    with contextlib.closing(tunnel.service.connect()) as client:
        assert client.inventory() == tunnel.before
    assert "discarded" not in tunnel.service.said()


def test_a_plane_that_a_signal_stopped_is_ended_as_soon_as_something_waits_for_it(
    tunnel: Tunnel, standby: subprocess.Popen[bytes]
) -> None:
    tunnel.check(1)
    wait_until(tunnel.is_written_down, "the peers' list")
    threads = list(Path(f"/proc/{tunnel.service.child.pid}/task").glob("*/stat"))
    tunnel.service.child.send_signal(signal.SIGSTOP)
    wait_until(lambda: all(") T " in each.read_text() for each in threads), "every thread stopped")
    tunnel.check(2)
    assert tunnel.service.child.wait(PATIENCE_S) == -signal.SIGKILL
    tunnel.service.start()
    assert standby.wait(PATIENCE_S) == RENEWED
    tunnel.check(3)
    assert "was stopped by a signal" in tunnel.service.said()


def test_a_plane_that_a_debugger_holds_is_left_alone(
    tunnel: Tunnel, standby: subprocess.Popen[bytes]
) -> None:
    with held_by_a_debugger(tunnel.service.child.pid):
        tunnel.send_out(1)
        time.sleep(1)
        assert tunnel.service.child.poll() is None
    assert number_of(tunnel.arrived_out().plaintext) == 1
    assert standby.poll() is None


def test_what_waits_in_the_queues_is_forwarded_in_its_order(
    tunnel: Tunnel, standby: subprocess.Popen[bytes]
) -> None:
    """No packet is lost or comes twice, through the end of one process and the beginning of two.

    One that is killed loses what it has in its hands, so this one is asked to end.
    """
    wait_until(tunnel.is_written_down, "the peers' list")
    for number in range(90):
        if number == 30:
            tunnel.service.kill(signal.SIGTERM)
        if number == 60:
            tunnel.service.start()
        tunnel.send_out(number)
        tunnel.send_in(number)
    assert [number_of(tunnel.arrived_out().plaintext) for _ in range(90)] == list(range(90))
    assert [tunnel.arrived_in() for _ in range(90)] == list(range(90))
    assert standby.wait(PATIENCE_S) == RENEWED


def test_it_follows_what_the_plane_is_given_later(tunnel: Tunnel, standby: subprocess.Popen[bytes]) -> None:
    """Another socket, another place of the peer and another session."""
    with tunnel.namespace.udp_socket("127.0.0.1") as udp, tunnel.namespace.udp_socket("127.0.0.3") as away:
        with contextlib.closing(tunnel.service.connect()) as client:
            client.set_sockets([udp.fileno()])
            client.set_peer(1, public_key(1), [ip_network("10.2.0.0/16")], far.endpoint_of(away))
            tunnel.session, tunnel.away, tunnel.address = far.new_session(), away, udp.getsockname()
            install(client, tunnel.session, away)
            tunnel.check(1)
        wait_until(tunnel.is_written_down, "the peers' list")
        tunnel.service.kill()
        tunnel.check(2)
        assert standby.poll() is None
        tunnel.service.start()
        assert standby.wait(PATIENCE_S) == RENEWED
        tunnel.check(3)


def test_one_after_the_other_relieves_and_is_relieved(tunnel: Tunnel) -> None:
    for life in range(5):
        with started(tunnel.service) as standby:
            wait_until(tunnel.is_written_down, "the peers' list")
            tunnel.service.kill()
            tunnel.check(life)
            tunnel.service.start()
            assert standby.wait(PATIENCE_S) == RENEWED
            tunnel.check(100 + life)
    assert "discarded" not in tunnel.service.said()


def test_after_a_real_stop_there_is_nothing_to_go_on_with(
    tunnel: Tunnel, standby: subprocess.Popen[bytes]
) -> None:
    with contextlib.closing(tunnel.service.connect()) as client:
        client.stop()
        assert tunnel.service.child.wait(PATIENCE_S) == 0
    assert standby.wait(PATIENCE_S) == 0


def test_asked_to_end_it_ends_and_the_plane_goes_on(tunnel: Tunnel, standby: subprocess.Popen[bytes]) -> None:
    standby.terminate()
    assert standby.wait(PATIENCE_S) == 0
    tunnel.check(1)
    with started(tunnel.service):
        tunnel.check(2)


def test_one_that_hangs_costs_the_next_plane_its_patience_and_what_was_kept(
    tunnel: Tunnel, standby: subprocess.Popen[bytes]
) -> None:
    """Two must never use one session: the next plane begins anew, and says why."""
    wait_until(tunnel.is_written_down, "the peers' list")
    tunnel.service.kill()
    tunnel.check(1)
    standby.send_signal(signal.SIGSTOP)
    tunnel.service.start()
    with contextlib.closing(tunnel.service.connect(PATIENCE_S)) as client:
        assert client.inventory().sessions == ()
    assert "the standby does not give way" in tunnel.service.said()
    assert "another process uses it" in tunnel.service.said()
    standby.send_signal(signal.SIGCONT)
    assert standby.wait(PATIENCE_S) == RENEWED


def test_what_an_ending_process_is_slow_to_let_go_of_is_waited_for(tunnel: Tunnel) -> None:
    """A busy machine may hold it up between the end of its connection and that of its locks."""
    tunnel.kill()
    memory = tunnel.memory("store")
    holding = f"import fcntl, time; fcntl.lockf({memory}, fcntl.LOCK_EX); print(flush=True); time.sleep(0.1)"
    with subprocess.Popen(
        [sys.executable, "-c", holding], pass_fds=[memory], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.read(1) == b"\n"
        tunnel.service.start()
    tunnel.check(1)
    assert "discarded" not in tunnel.service.said()


def test_one_that_the_plane_does_not_know_goes_away_and_moves_nothing(tunnel: Tunnel) -> None:
    """As when the plane's words found no room: its connection ends, the plane does not."""
    with started(tunnel.service) as first, started(tunnel.service) as second:
        assert first.wait(PATIENCE_S) == RENEWED
        tunnel.check(1)
        assert second.poll() is None
    assert "discarded" not in tunnel.service.said(), "it tried to take what the plane has"


def test_one_that_was_not_told_all_touches_nothing(tunnel: Tunnel) -> None:
    """The plane ended while it told: what would be missing is not missing for the next one."""
    tunnel.kill()
    service = tunnel.service
    command = [str(plane_program()), "--standby", str(service.standby_path)]
    with service.log.open("ab") as log:
        standby = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
    connection, _ = service.standby_listener.accept()
    with connection:
        _, relief, _, _ = socket.recv_fds(connection, 1, 1)
        for name in ("store", "sessions", "counters"):
            socket.send_fds(connection, [struct.pack("I40s", TOLD_PUT, name.encode())], [tunnel.memory(name)])
    assert standby.wait(PATIENCE_S) == RENEWED
    os.close(*relief)
    service.start()
    tunnel.check(1)


def test_who_says_something_else_is_hung_up_on(tunnel: Tunnel) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(str(tunnel.service.standby_path))
        stranger.settimeout(5)
        stranger.send(b"hello, with nothing in the hand")
        assert stranger.recv(1) == b""
    tunnel.check(1)


def test_another_user_is_hung_up_on(tunnel: Tunnel) -> None:
    folder = tunnel.service.standby_path.parent
    folder.chmod(0o711)
    tunnel.service.standby_path.chmod(0o666)
    script = """
import os, socket
one, other = socket.socketpair()
os.setuid(65534)
asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
asking.connect("standby.sock")
asking.settimeout(5)
try:
    socket.send_fds(asking, [bytes(1)], [one.fileno()])
    print(asking.recv(100))
except (BrokenPipeError, ConnectionResetError):
    print(b"")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "b''\n"
    tunnel.check(1)


def test_without_a_plane_to_stand_by_for_it_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("nobody") / "standby.sock"
    done = subprocess.run(
        [plane_program(), "--standby", path], capture_output=True, text=True, timeout=10, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"vpnd-plane: {path}: No such file or directory\n"
