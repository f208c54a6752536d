"""The process: its sandbox, its heartbeats, its end, and what it keeps when vpnd goes away."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.plane import far
from tests.plane.harness import Rig, plane_program, public_key, wait_until
from tests.plane.namespace import Link, Namespace
from tests.plane.packets import number_of, numbered
from vpnd.errors import PlaneError
from vpnd.plane.client import PlaneClient
from vpnd.plane.events import LinkFailed, PlaneGone, SessionWanted
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
    assert child.wait(5) == 0


def test_a_child_ends_even_if_its_parent_was_killed(tun: Rig) -> None:
    """The far end of the socket pair closing is all it takes; the link's queue is let go too."""
    tun.add_peer(1).install()
    tun._raw.close()
    tun.client.close()
    assert tun.child.wait(5) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_ends_it_cleanly(tun: Rig, number: int) -> None:
    tun.child.send_signal(number)
    assert tun.child.wait(2) == 0


def test_stop_under_traffic_is_quick_and_nothing_answers_afterwards(tun: Rig) -> None:
    """[I8] Stopped in a burst: ended within a second, later datagrams get no answer."""
    peer = tun.add_peer(1)
    session = peer.install()
    for number in range(500):
        peer.send(session.seal(numbered(THERE, HERE, number)))
        tun.link.send(numbered(HERE, THERE, number))
    began = time.monotonic()
    tun.client.stop()
    assert tun.child.wait(2) == 0
    assert time.monotonic() - began < 1.0
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


# ---- listening, as under systemd ----


class Service:
    """The plane as systemd starts it: with a listening socket, and a descriptor store that we play."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "plane.sock"
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(directory / "notify"))
        self.notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.notify.setblocking(False)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(self.path))
        self.listener.listen(4)
        self.store: dict[str, list[int]] = {}
        self.messages: list[str] = []

    def start(self) -> None:
        names, descriptors = ["plane"], [self.listener.fileno()]
        for name, stored in self.store.items():
            names += [name] * len(stored)
            descriptors += stored
        environment = os.environ | {
            "NOTIFY_SOCKET": str(self.notify.getsockname()),
            "LISTEN_FDS": str(len(descriptors)),
            "LISTEN_FDNAMES": ":".join(names),
        }
        # LISTEN_PID must be the program's own number, known only to the process that becomes it.
        moves = " ".join(f"{20 + at}<&{number}" for at, number in enumerate(descriptors))
        closes = " ".join(f"{3 + at}<&{20 + at}" for at in range(len(descriptors)))
        script = f"exec {moves}; exec {closes}; LISTEN_PID=$$ exec {plane_program()}"
        self.child = subprocess.Popen(
            ["bash", "-c", script], env=environment, pass_fds=descriptors, stdin=subprocess.DEVNULL
        )

    def collect(self) -> None:
        """Takes what was notified so far into the store, as systemd would."""
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self.notify, 4096, 64)
            except BlockingIOError:
                return
            text = message.decode()
            self.messages.append(text)
            fields = dict(line.partition("=")[::2] for line in text.splitlines())
            if "FDSTOREREMOVE" in fields:
                for each in self.store.pop(fields["FDNAME"], []):
                    os.close(each)
            elif "FDSTORE" in fields:
                self.store.setdefault(fields["FDNAME"], []).extend(descriptors)
            else:
                for each in descriptors:
                    os.close(each)

    def connect(self) -> PlaneClient:
        return PlaneClient.connect(self.path)

    def close(self) -> None:
        self.child.terminate()
        status = self.child.wait(5)
        self.collect()
        for stored in self.store.values():
            for each in stored:
                os.close(each)
        self.listener.close()
        self.notify.close()
        assert status == 0


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    service.start()
    yield service
    service.close()


def test_the_status_line_and_the_end_are_told(service: Service) -> None:
    service.connect().close()
    service.child.terminate()
    assert service.child.wait(5) == 0
    service.collect()
    assert any("STOPPING=1" in each for each in service.messages)
    service.start()
    service.connect().close()


def set_up(
    namespace: Namespace, client: PlaneClient, closing: contextlib.ExitStack
) -> tuple[Link, socket.socket, socket.socket]:
    """A link, the plane's socket and the far end's."""
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


def install(client: PlaneClient, session: far.Session, away: socket.socket) -> None:
    client.install_session(
        peer_id=1,
        local_index=session.local_index,
        remote_index=session.remote_index,
        suite=session.suite,
        is_initiator=True,
        preferred=False,
        padding=0,
        features=1,
        endpoint=far.endpoint_of(away),
        send_key=session.send_key,
        receive_key=session.receive_key,
    )


def test_traffic_flows_while_no_daemon_is_connected_and_the_next_one_finds_all(
    namespace: Namespace, service: Service
) -> None:
    """[G4, I13] The daemon's end costs no packet; inventory and session are the same afterwards."""
    with contextlib.ExitStack() as stack:
        client = service.connect()
        link, udp, away = set_up(namespace, client, stack)
        session = far.new_session()
        install(client, session, away)
        before = client.inventory()
        client.close()
        for number in range(200):
            link.send(numbered(HERE, THERE, number))
            assert number_of(session.open(far.receive(away)).plaintext) == number
            packet = numbered(THERE, HERE, number)
            away.sendto(session.seal(packet), udp.getsockname())
            assert link.receive() == packet
        away.sendto(b"\x08" + bytes(199), udp.getsockname())
        again = service.connect()
        stack.callback(again.close)
        assert again.inventory() == before
        assert again.counters.peer(1).rx_packets == 200
        assert again.counters.drops() == {"hs_no_daemon": 1}
        assert again.hello.started_at == client.hello.started_at


def test_a_session_wanted_while_nobody_listened_is_told_to_the_next_daemon(
    namespace: Namespace, service: Service
) -> None:
    with contextlib.ExitStack() as stack:
        client = service.connect()
        link, _, _ = set_up(namespace, client, stack)
        client.close()
        link.send(numbered(HERE, THERE, 1))
        again = service.connect()
        stack.callback(again.close)
        seen: list[object] = []

        def told() -> bool:
            seen.extend(again.read_events())
            return SessionWanted(1) in seen

        wait_until(told, "the waiting packet told")


def test_a_second_daemon_takes_over_from_one_that_hangs(service: Service) -> None:
    """A daemon is served at a time; the one that came last, or the first alone, never both at once."""
    first = service.connect()
    try:
        second = PlaneClient.connect(service.path, timeout_s=0.5)
    except PlaneError:
        assert first.inventory().peers == ()
    else:
        assert second.inventory().peers == ()
        with pytest.raises(PlaneError) as caught:
            first.inventory()
        assert caught.value.code == "gone"
        second.close()
    first.close()


def test_systemd_is_told_that_it_is_ready_and_gets_the_memory_to_keep(service: Service) -> None:
    service.connect().close()
    service.collect()
    assert any("READY=1" in each for each in service.messages)
    assert service.store


def test_a_killed_plane_goes_on_where_it_was_when_started_again(
    namespace: Namespace, service: Service
) -> None:
    """[B5, G4, G7] kill -9, start: the session still works, no counter used twice, replays refused."""
    with contextlib.ExitStack() as stack:
        client = service.connect()
        link, udp, away = set_up(namespace, client, stack)
        session = far.new_session()
        install(client, session, away)
        counters = []
        captured = []
        for number in range(50):
            link.send(numbered(HERE, THERE, number))
            counters.append(session.open(far.receive(away)).counter)
            captured.append(session.seal(numbered(THERE, HERE, number)))
            away.sendto(captured[-1], udp.getsockname())
            link.receive()
        service.collect()
        service.child.kill()
        service.child.wait()
        client.close()
        service.start()
        again = service.connect()
        stack.callback(again.close)
        # Descriptors come back from the store or, as after a change of them, from vpnd.
        if again.inventory().link_type == "none":
            again.set_link("tun", link.name, 1420, link.queues)
        if not again.inventory().sockets:
            again.set_sockets([udp.fileno()])
        networks = ip_network("10.2.0.0/16")
        again.set_peer(1, public_key(1), [networks], far.endpoint_of(away))
        listed = again.inventory().sessions
        assert [(each.local_index, each.slot) for each in listed] == [(session.local_index, 2)]
        for datagram in captured:
            away.sendto(datagram, udp.getsockname())
        wait_until(lambda: again.counters.drops().get("data_replay", 0) == 50, "replays refused")
        for number in range(50):
            link.send(numbered(HERE, THERE, number))
            counters.append(session.open(far.receive(away)).counter)
        assert len(set(counters)) == 100
        assert counters == sorted(counters)
        packet = numbered(THERE, HERE, 77)
        away.sendto(session.seal(packet), udp.getsockname())
        assert link.receive() == packet


def test_two_planes_never_use_the_same_session_memory(
    namespace: Namespace, service: Service, tmp_path: Path
) -> None:
    """[I1] The lock refuses the second; it begins with empty memory and the first goes on."""
    with contextlib.ExitStack() as stack:
        client = service.connect()
        stack.callback(client.close)
        link, _, away = set_up(namespace, client, stack)
        session = far.new_session()
        install(client, session, away)
        service.collect()
        (tmp_path / "second").mkdir()
        second = Service(tmp_path / "second")
        second.store = {name: [os.dup(each) for each in stored] for name, stored in service.store.items()}
        second.start()
        stack.callback(second.close)
        other = second.connect()
        assert other.inventory().sessions == ()
        other.stop()
        other.close()
        assert second.child.wait(5) == 0
        link.send(numbered(HERE, THERE, 1))
        assert number_of(session.open(far.receive(away)).plaintext) == 1


@pytest.mark.parametrize("offset", [0, 4, 8, 16, 20])
def test_memory_of_another_layout_is_discarded(namespace: Namespace, service: Service, offset: int) -> None:
    """[I3] A changed head, or memory of another size: the plane starts with none of it."""
    with contextlib.ExitStack() as stack:
        client = service.connect()
        _, _, away = set_up(namespace, client, stack)
        install(client, far.new_session(), away)
        service.collect()
        service.child.kill()
        service.child.wait()
        client.close()
        (memory,) = service.store["sessions"]
        head = os.pread(memory, 1, offset)
        os.pwrite(memory, bytes([head[0] ^ 1]), offset)
        service.start()
        again = service.connect()
        stack.callback(again.close)
        assert again.inventory().sessions == ()
        assert again.inventory().peers == ()
        service.collect()
        assert len(service.store["sessions"]) == 1
        assert service.store["sessions"] != [memory]


def test_a_stop_asked_by_vpnd_leaves_no_key_in_the_store(namespace: Namespace, service: Service) -> None:
    """[G6] The memory that systemd holds is wiped; a mere end for a restart keeps it."""
    with contextlib.ExitStack() as stack:
        client = service.connect()
        _, _, away = set_up(namespace, client, stack)
        session = far.new_session()
        install(client, session, away)
        service.collect()
        (memory,) = [os.dup(each) for each in service.store["sessions"]]
        stack.callback(os.close, memory)
        client.close()
        service.child.terminate()
        assert service.child.wait(5) == 0
        assert os.pread(memory, 1 << 20, 0).count(session.from_plane[:32]) == 1
        service.start()
        again = service.connect()
        assert len(again.inventory().sessions) == 1
        again.stop()
        again.close()
        assert service.child.wait(5) == 0
        content = os.pread(memory, 1 << 20, 0)
        assert content.count(session.from_plane[:32]) == content.count(session.to_plane[:32]) == 0
