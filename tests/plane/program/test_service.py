"""The plane as systemd runs it: a listening socket, a descriptor store, daemons that come and go."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.plane import far
from tests.plane.harness import descriptors_of, public_key, wait_until
from tests.plane.namespace import Namespace
from tests.plane.packets import number_of, numbered
from tests.plane.refusing_kernel import RefusingKernel
from tests.plane.service_manager import ServiceManager, install, set_up
from vpnd.errors import PlaneError
from vpnd.plane.client import PlaneClient
from vpnd.plane.events import SessionWanted

HERE, THERE = "10.1.0.1", "10.2.0.7"


def test_the_status_line_and_the_end_are_told(service: ServiceManager) -> None:
    service.connect().close()
    service.child.terminate()
    assert service.child.wait(20) == 0
    service.collect()
    assert any("STOPPING=1" in each for each in service.messages)
    service.start()
    service.connect().close()


def test_traffic_flows_while_no_daemon_is_connected_and_the_next_one_finds_all(
    namespace: Namespace, service: ServiceManager
) -> None:
    """[G4, I13] The daemon's end costs no packet; inventory and session are the same afterwards."""
    with contextlib.ExitStack() as stack:
        client = service.connect()
        link, udp, away = set_up(namespace, client, stack)
        session = far.new_session()
        install(client, session, away)
        before, descriptors = client.inventory(), descriptors_of(service.child.pid)
        client.close()
        wait_until(lambda: descriptors_of(service.child.pid) < descriptors, "the connection's end")
        away.sendto(b"\x08" + bytes(199), udp.getsockname())
        for number in range(200):
            link.send(numbered(HERE, THERE, number))
            assert number_of(session.open(far.receive(away)).plaintext) == number
            packet = numbered(THERE, HERE, number)
            away.sendto(session.seal(packet), udp.getsockname())
            assert link.receive() == packet
        again = service.connect()
        stack.callback(again.close)
        assert again.inventory() == before
        assert again.counters.peer(1).rx_packets == 200
        assert again.counters.drops() == {"hs_no_daemon": 1}
        assert again.hello.started_at == client.hello.started_at


def test_a_session_wanted_while_nobody_listened_is_told_to_the_next_daemon(
    namespace: Namespace, service: ServiceManager
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


def test_a_second_daemon_takes_over_from_one_that_hangs(service: ServiceManager) -> None:
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


def test_systemd_is_told_that_it_is_ready_and_gets_the_memory_to_keep(service: ServiceManager) -> None:
    service.connect().close()
    service.collect()
    assert any("READY=1" in each for each in service.messages)
    assert service.store


def test_a_killed_plane_goes_on_where_it_was_when_started_again(
    namespace: Namespace, service: ServiceManager
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
        service.kill()
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


def test_a_plane_started_again_knows_the_peers_newest_key(
    namespace: Namespace, service: ServiceManager
) -> None:
    """[A17, B5] The key was replaced while the session lived: the session is the same peer's afterwards."""
    with contextlib.ExitStack() as stack:
        client = service.connect()
        _, _, away = set_up(namespace, client, stack)
        session = far.new_session()
        install(client, session, away)
        client.set_peer(1, public_key(9), [], None, rename=True)
        service.kill()
        client.close()
        service.start()
        again = service.connect()
        stack.callback(again.close)
        again.set_peer(1, public_key(9), [], None)
        inventory = again.inventory()
        assert [each.public_key for each in inventory.peers] == [public_key(9)]
        assert [each.local_index for each in inventory.sessions] == [session.local_index]


def test_two_planes_never_use_the_same_session_memory(
    namespace: Namespace, service: ServiceManager, tmp_path: Path
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
        second = ServiceManager(tmp_path / "second")
        second.store = {name: [os.dup(each) for each in stored] for name, stored in service.store.items()}
        second.start()
        stack.callback(second.close)
        other = second.connect(20)  # the lock is waited for
        assert other.inventory().sessions == ()
        other.stop()
        other.close()
        assert second.child.wait(20) == 0
        link.send(numbered(HERE, THERE, 1))
        assert number_of(session.open(far.receive(away)).plaintext) == 1


@pytest.mark.parametrize("offset", [0, 4, 8, 16, 20])
def test_memory_of_another_layout_is_discarded(
    namespace: Namespace, service: ServiceManager, offset: int
) -> None:
    """[I3] A changed head: the plane starts with none of the sessions, and says so."""
    with contextlib.ExitStack() as stack:
        client = service.connect()
        _, _, away = set_up(namespace, client, stack)
        install(client, far.new_session(), away)
        service.kill()
        client.close()
        (memory,) = service.store["sessions"]
        discarded = os.fstat(memory).st_ino
        head = os.pread(memory, 1, offset)
        os.pwrite(memory, bytes([head[0] ^ 1]), offset)
        service.start()
        again = service.connect()
        stack.callback(again.close)
        assert again.inventory().sessions == ()
        assert "stored sessions discarded: it is of another version, or damaged\n" in service.said()
        service.collect()
        assert [os.fstat(each).st_ino != discarded for each in service.store["sessions"]] == [True]


def test_a_stop_asked_by_vpnd_leaves_no_key_in_the_store(
    namespace: Namespace, service: ServiceManager
) -> None:
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
        assert service.child.wait(20) == 0
        assert os.pread(memory, 1 << 20, 0).count(session.from_plane[:32]) == 1
        service.start()
        again = service.connect()
        assert len(again.inventory().sessions) == 1
        again.stop()
        again.close()
        assert service.child.wait(20) == 0
        content = os.pread(memory, 1 << 20, 0)
        assert content.count(session.from_plane[:32]) == content.count(session.to_plane[:32]) == 0


WATCHDOG_S = 4.0


def watched(service: ServiceManager, seconds: float) -> float:
    """How long the watchdog went unheard, at most, within so many seconds from a message on."""
    service.heard_watchdog_at = 0.0
    wait_until(lambda: service.heard_watchdog_at, "a watchdog message")
    longest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end and longest < WATCHDOG_S:
        time.sleep(0.01)
        longest = max(longest, time.monotonic() - service.heard_watchdog_at)
    return longest


def test_a_worker_that_does_not_come_back_is_seen_and_an_idle_one_is_not_blamed(
    namespace: Namespace, service: ServiceManager, tmp_path: Path
) -> None:
    """[G7] The other threads go on all the time; the next process takes over what the stuck one had."""
    kernel = RefusingKernel(tmp_path)
    service.stop()
    service.environment = kernel.environment() | {"WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
    service.start()
    with contextlib.ExitStack() as stack:
        with contextlib.closing(service.connect()) as client:
            link, udp, away = set_up(namespace, client, stack)
            session = far.new_session()
            install(client, session, away)
        assert watched(service, 3 * WATCHDOG_S) < WATCHDOG_S
        kernel.hold(is_stuck=True)
        away.sendto(session.seal(numbered(THERE, HERE, 1)), udp.getsockname())
        assert watched(service, 3 * WATCHDOG_S) >= WATCHDOG_S
        client = service.connect()
        assert client.inventory().link_name == link.name, "the main thread lives"
        client.close()
        kernel.hold(is_stuck=False)
        service.kill(signal.SIGABRT)  # as systemd does
        service.start()
        link.send(numbered(HERE, THERE, 2))
        assert number_of(session.open(far.receive(away)).plaintext) == 2
