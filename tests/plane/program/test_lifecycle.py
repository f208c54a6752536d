"""The process: its sandbox, its heartbeats, its end, and what it keeps when vpnd goes away."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.plane import far
from tests.plane.harness import Rig, is_sanitized, plane_program, public_key, wait_until
from tests.plane.namespace import Link, Namespace
from tests.plane.packets import number_of, numbered
from vpnd.errors import PlaneError
from vpnd.plane.client import PlaneClient
from vpnd.plane.events import LinkFailed, PlaneGone
from vpnd.plane.program import start_child

HERE, THERE = "10.1.0.1", "10.2.0.7"


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


# ---- sandbox ----


def test_every_thread_is_in_the_sandbox(tun: Rig) -> None:
    """[I13] Filter on, no capability in any set, no new privileges, in each thread."""
    threads = [int(each.name) for each in Path(f"/proc/{tun.pid}/task").iterdir()]
    assert len(threads) >= 3
    for thread in threads:
        status = status_of(thread)
        assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
        for each in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[each], 16) == 0, each


def test_the_process_leaves_no_core_dump(tun: Rig) -> None:
    limits = Path(f"/proc/{tun.pid}/limits").read_text()
    (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core.split()[4:6] == ["0", "0"]


# ---- heartbeats ----


def test_heartbeats_of_every_worker_advance_also_when_idle(tun: Rig) -> None:
    first = tun.client.counters.heartbeats()
    assert len(first) >= 2
    wait_until(
        lambda: all(now > then for now, then in zip(tun.client.counters.heartbeats(), first, strict=True)),
        "every worker turns",
    )


def test_an_idle_plane_costs_almost_no_time(tun: Rig) -> None:
    """[K5] Waiting is waiting: no busy loop, with a peer that wants nothing."""
    tun.add_peer(1).install()
    before = _cpu_s(tun.pid)
    time.sleep(1.0)
    assert _cpu_s(tun.pid) - before <= 0.05


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- the end ----


def test_a_child_ends_when_its_connection_ends() -> None:
    child, connection = start_child(plane_program())
    client = PlaneClient(connection)
    assert child.poll() is None
    client.close()
    assert child.wait(20) == 0


def test_a_child_ends_even_if_its_parent_was_killed(tun: Rig) -> None:
    """The far end of the socket pair closing is all it takes; the link's queue is let go too."""
    tun.add_peer(1).install()
    tun._raw.close()
    tun.client.close()
    assert tun.child.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_ends_it_cleanly(tun: Rig, number: int) -> None:
    tun.child.send_signal(number)
    assert tun.child.wait(20) == 0


def test_stop_under_traffic_is_quick_and_nothing_answers_afterwards(tun: Rig) -> None:
    """[I8] Stopped in a burst: ended within a second, later datagrams get no answer."""
    peer = tun.add_peer(1)
    session = peer.install()
    for number in range(500):
        peer.send(session.seal(numbered(THERE, HERE, number)))
        tun.link.send(numbered(HERE, THERE, number))
    began = time.monotonic()
    tun.client.stop()
    assert tun.child.wait(20) == 0
    assert time.monotonic() - began < (5.0 if is_sanitized() else 1.0)
    assert PlaneGone() in tun.client.read_events()


def test_wrong_arguments_are_told_and_end_with_a_usage_code() -> None:
    for arguments in (
        ["--nonsense"],
        ["--control-fd"],
        ["--control-fd", "x"],
        ["--control-fd", "-1"],
        ["extra"],
        ["--control-fd", "0", "--aead", "rot13"],
        ["--listen", "/nonexistent/plane.sock"],
    ):
        done = subprocess.run(
            [plane_program(), *arguments], capture_output=True, text=True, check=False, timeout=10
        )
        assert done.returncode != 0
        assert done.stderr.strip()


def test_killed_with_kill_it_leaves_no_lock_behind(namespace: Namespace) -> None:
    """[I1] Link, port and descriptors are free at once for the next one."""
    with contextlib.ExitStack() as stack:
        link = Link(namespace, "tun", f"pt-{os.getpid() % 10000}-k")
        stack.callback(link.close)
        udp = namespace.udp_socket("127.0.0.1")
        stack.callback(udp.close)
        for _ in range(3):
            child, connection = start_child(plane_program())
            client = PlaneClient(connection)
            client.set_link("tun", link.name, 1420, link.queues)
            client.set_sockets([udp.fileno()])
            client.set_peer(1, public_key(1), [], None)
            child.kill()
            child.wait()
            with pytest.raises(PlaneError):
                client.inventory()
            client.close()


# ---- link and sockets that die ----


def test_a_deleted_link_is_told_once_and_a_new_one_works(tun: Rig) -> None:
    """[I9] EBADFD: LinkFailed, inventory says so, no busy loop, and set_link repairs it."""
    peer = tun.add_peer(1)
    session = peer.install()
    tun.link.delete()
    tun.wait_event(LinkFailed)
    inventory = tun.inventory()
    assert (inventory.link_type, inventory.link_works) == ("tun", False)
    peer.send(session.seal(numbered(THERE, HERE, 1)))
    wait_until(lambda: tun.drops().get("link_write", 0) == 1, "counted")
    before = _cpu_s(tun.pid)
    time.sleep(0.5)
    assert _cpu_s(tun.pid) - before <= 0.05
    tun.no_event(LinkFailed)
    tun.add_link()
    assert tun.inventory().link_works
    packet = numbered(THERE, HERE, 2)
    peer.send(session.seal(packet))
    assert tun.link.receive() == packet
    tun.link.send(numbered(HERE, THERE, 3))
    assert number_of(session.open(peer.receive()).plaintext) == 3


def test_the_mtu_changes_without_the_link_being_handed_over_again(tun: Rig) -> None:
    """No descriptor means the present link; of another link there must be descriptors."""
    peer = tun.add_peer(1)
    session = peer.install()
    tun.client.set_link("tun", tun.link.name, 1300, ())
    assert (tun.inventory().mtu, tun.inventory().queues, tun.inventory().link_works) == (1300, 1, True)
    packet = numbered(THERE, HERE, 1)
    peer.send(session.seal(packet))
    assert tun.link.receive() == packet
    tun.client.set_link("tun", tun.link.name, 1300, (), padding_mtu=1299)
    assert (tun.inventory().mtu, tun.inventory().padding_mtu) == (1300, 1299)
    before = tun.inventory()
    for link_type, name in (("tap", tun.link.name), ("tun", "another")):
        with pytest.raises(PlaneError) as refusal:
            tun.client.set_link(link_type, name, 1400, ())
        assert refusal.value.code == "no_link"
    assert tun.inventory() == before


def test_a_link_that_goes_down_and_up_again_is_not_lost(tun: Rig) -> None:
    """[I9] EIO while down is not the end of the link."""
    peer = tun.add_peer(1)
    session = peer.install()
    tun.namespace.run("ip", "link", "set", tun.link.name, "down")
    peer.send(session.seal(numbered(THERE, HERE, 1)))
    wait_until(lambda: tun.received() == 1, "in")
    tun.namespace.run("ip", "link", "set", tun.link.name, "up")
    time.sleep(0.05)
    with contextlib.suppress(OSError):
        tun.link.receive_all()
    packet = numbered(THERE, HERE, 2)
    peer.send(session.seal(packet))
    assert tun.link.receive() == packet
    assert tun.inventory().link_works
    tun.no_event(LinkFailed)


def test_a_full_send_buffer_is_counted_and_the_rest_still_goes(rig: Rig) -> None:
    """[I9] ENOBUFS or EAGAIN from the socket: nothing hangs."""
    rig.add_link()
    rig.add_sockets("127.0.0.1")
    rig.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    peer = rig.add_peer(1)
    session = peer.install()
    for number in range(500):
        rig.link.send(numbered(HERE, THERE, number, 1400))

    def explained() -> bool:
        sent, drops = rig.client.counters.totals().tx_datagrams, rig.drops()
        return sent + drops.get("send_full", 0) + drops.get("send_error", 0) == 500

    wait_until(explained, f"each packet sent or counted, but {rig.drops()}")
    numbers = [number_of(session.open(each).plaintext) for each in far.receive_waiting(peer.socket)]
    assert numbers == sorted(numbers)
    assert rig.client.counters.totals().tx_datagrams == len(numbers)
