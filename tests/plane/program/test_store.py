"""What outlives the plane in the service manager's store, and what of it the next one trusts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from ipaddress import ip_address, ip_network

import pytest

from tests.plane import far
from tests.plane.harness import public_key, wait_until
from tests.plane.namespace import Link, Namespace
from tests.plane.packets import number_of, numbered
from tests.plane.service_manager import ServiceManager, install
from tests.plane.tunnel import HERE, THERE, Tunnel
from vpnd.endpoint import Endpoint
from vpnd.errors import PlaneError

AWAY = Endpoint(ip_address("192.0.2.7"), 4500)
CHALLENGE, RESPONSE = 0x23, 0x24
STARTS_OFFSET = 16  # of store_head.starts
PORTS_OFFSET = 32 + 32  # in the first place of stored_ports, the link's name


# ---- what comes back ----


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
def test_what_waited_while_no_plane_lived_is_forwarded_by_the_next_one_alone(
    tunnel: Tunnel, how: signal.Signals
) -> None:
    """[B5, G4, G7] No daemon connects; the queues held every packet, no counter is used twice."""
    counters = []
    for number in range(20):
        tunnel.send_out(number)
        counters.append(tunnel.arrived_out().counter)
    wait_until(tunnel.is_written_down, "the peers' list")
    tunnel.service.kill(how)
    for number in range(20, 320):
        tunnel.send_out(number)
        tunnel.send_in(number)
    tunnel.service.start()
    arrived = [tunnel.arrived_out() for _ in range(300)]
    assert [number_of(each.plaintext) for each in arrived] == list(range(20, 320))
    assert [tunnel.arrived_in() for _ in range(300)] == list(range(20, 320))
    counters += [each.counter for each in arrived]
    assert len(set(counters)) == 320
    assert counters == sorted(counters)
    assert f"took back {tunnel.link.name}, 1 sockets, 1 peers, 1 sessions\n" in tunnel.service.said()


def test_a_daemon_finds_everything_as_it_was(tunnel: Tunnel) -> None:
    """[G7] Inventory, age and counters go on, so that it has nothing to do."""
    for number in range(5):
        tunnel.check(number)
    tunnel.revive()
    tunnel.check()
    with contextlib.closing(tunnel.service.connect()) as client:
        assert client.inventory() == tunnel.before
        assert client.hello.started_at == tunnel.born
        counters = client.counters.peer(1)
        assert (counters.tx_packets, counters.rx_packets) == (6, 6)
        assert counters.current_index == tunnel.session.local_index


def test_many_lives_leave_one_of_each_in_the_store(tunnel: Tunnel) -> None:
    tunnel.service.collect()
    first = {name: len(stored) for name, stored in tunnel.service.store.items()}
    for number in range(5):
        tunnel.revive()
        tunnel.check(number)
    tunnel.service.collect()
    assert {name: len(stored) for name, stored in tunnel.service.store.items()} == first
    assert set(first.values()) == {1}
    assert sorted(first) == ["counters", "queue-1-0", "sessions", "socket-1-0", "store"]


def test_a_life_that_moved_a_packet_has_got_to_work(tunnel: Tunnel) -> None:
    """However soon after it the process ends: three that did not would lose what is stored."""
    for _ in range(10):
        tunnel.revive()
        tunnel.send_out(1)
        tunnel.arrived_out()
        assert os.pread(tunnel.memory("store"), 4, STARTS_OFFSET) == bytes(4)


def test_a_socket_is_kept_through_an_icmp_error_and_a_deleted_link_is_not(tunnel: Tunnel) -> None:
    """systemd watches stored descriptors for POLLERR, which a UDP socket shows after an ICMP error."""
    assert "socket-1-0" in tunnel.service.unpolled
    assert "queue-1-0" not in tunnel.service.unpolled


def test_queues_workers_options_and_path_come_back(namespace: Namespace, service: ServiceManager) -> None:
    with contextlib.ExitStack() as stack:
        link = Link(namespace, "tap", f"pt-{os.getpid() % 10000}-m", queues=3)
        stack.callback(link.close)
        sockets = [namespace.udp_socket(each) for each in ("127.0.0.1", "127.0.0.3", "::1")]
        for each in sockets:
            stack.callback(each.close)
        client = service.connect()
        client.set_options(77, 99)
        client.set_link("tap", link.name, 1400, link.queues, padding_mtu=1300)
        client.set_sockets([each.fileno() for each in sockets], workers=2)
        networks = [ip_network("10.2.0.0/16"), ip_network("fd00::/48"), ip_network("10.2.3.4/32")]
        client.set_peer(5, public_key(5), networks, AWAY)
        client.set_peer(9, public_key(9), [], None)
        client.set_peer_mtu(5, 1234)
        before = client.inventory()
        client.close()
        service.terminate()
        service.start()
        client = service.connect()
        stack.callback(client.close)
        after = client.inventory()
        assert sorted(after.peers, key=lambda peer: peer.peer_id) == sorted(
            before.peers, key=lambda peer: peer.peer_id
        )
        assert after.queues == 3
        assert (after.mtu, after.padding_mtu, after.offloads.wanted) == (
            before.mtu,
            before.padding_mtu,
            before.offloads.wanted,
        )
        assert after.sockets == before.sockets
        # Two workers and three queues: six heartbeats are looked at.
        assert len(client.counters.heartbeats()) == 6


def test_a_replaced_socket_does_not_come_back(tunnel: Tunnel, namespace: Namespace) -> None:
    other = namespace.udp_socket("127.0.0.1")
    with contextlib.closing(tunnel.service.connect()) as client:
        client.set_sockets([other.fileno()])
    tunnel.address = other.getsockname()
    other.close()
    tunnel.service.collect()
    assert "socket-1-0" not in tunnel.service.store
    tunnel.revive()
    tunnel.check()


def test_a_peer_that_was_removed_and_a_network_that_moved_stay_so(tunnel: Tunnel) -> None:
    """Killed right behind the answer: what is in doubt waits for vpnd rather than going astray."""
    with contextlib.closing(tunnel.service.connect()) as client:
        client.set_peer(2, public_key(2), [ip_network("10.2.0.0/24")], None)
        client.remove_peer(1)
        tunnel.kill()
    tunnel.service.start()
    with contextlib.closing(tunnel.service.connect()) as client:
        inventory = client.inventory()
        assert inventory.sessions == ()
        assert 1 not in {peer.peer_id for peer in inventory.peers}
        assert inventory.link_name == tunnel.link.name


@pytest.mark.parametrize("is_proven", [True, False])
def test_a_peer_is_where_it_was_proven_to_be(tunnel: Tunnel, namespace: Namespace, is_proven: bool) -> None:
    """[C1] It moved shortly before the plane was killed; a place that it did not prove is forgotten."""
    with contextlib.closing(namespace.udp_socket("127.0.0.3")) as moved:
        moved.sendto(tunnel.session.seal(numbered(THERE, HERE, 1)), tunnel.address)
        assert tunnel.arrived_in() == 1
        challenge = tunnel.session.open(far.receive(moved)).plaintext
        assert challenge[0] == CHALLENGE
        if is_proven:
            answer = bytes([RESPONSE]) + challenge[1:]
            moved.sendto(tunnel.session.seal(answer), tunnel.address)
            with contextlib.closing(tunnel.service.connect()) as client:
                place = far.endpoint_of(moved)
                wait_until(lambda: client.inventory().peers[0].endpoint == place, "the peer's new place")
            before = tunnel.roster_place()
            wait_until(lambda: tunnel.roster_place() != before, "that it is written down")
        tunnel.revive()
        tunnel.send_out(2)
        arrived = far.receive(moved if is_proven else tunnel.away)
        assert number_of(tunnel.session.open(arrived).plaintext) == 2


def test_ten_thousand_peers_come_back(namespace: Namespace, service: ServiceManager) -> None:
    with contextlib.closing(service.connect()) as client:
        for number in range(10_000):
            network = ip_network((0x0A000000 + number * 256, 24))
            client.set_peer(number, public_key(number), [network], AWAY)
        before = client.inventory()
    service.terminate()
    service.start()
    with contextlib.closing(service.connect()) as client:
        assert client.inventory() == before


# ---- what is not trusted ----


def damage(memory: int, offset: int) -> None:
    before = os.pread(memory, 1, offset)
    os.pwrite(memory, bytes([before[0] ^ 1]), offset)


@pytest.mark.parametrize("name", ["store", "counters", "sessions"])
def test_a_damaged_head_is_discarded_and_the_next_life_begins_anew(tunnel: Tunnel, name: str) -> None:
    """[I3] Said in one line; what is not of that memory comes back all the same."""
    tunnel.kill()
    damage(tunnel.memory(name), 4)
    tunnel.service.start()
    with contextlib.closing(tunnel.service.connect()) as client:
        assert f"stored {name} discarded: it is of another version, or damaged\n" in tunnel.service.said()
        inventory = client.inventory()
        assert (inventory.sessions == ()) == (name == "sessions")
        assert (inventory.link_type == "none") == (name == "store")
        tunnel.service.collect()
        assert tunnel.memory(name) >= 0


def test_a_damaged_description_of_link_and_sockets_is_discarded(tunnel: Tunnel) -> None:
    tunnel.kill()
    for place in range(2):
        damage(tunnel.memory("store"), PORTS_OFFSET + place * (72 + 64 * 24))
    tunnel.service.start()
    with contextlib.closing(tunnel.service.connect()) as client:
        assert client.inventory().link_type == "none"
        assert client.inventory().sockets == ()
    assert "stored link and sockets discarded: their description is damaged\n" in tunnel.service.said()
    tunnel.service.collect()
    assert sorted(tunnel.service.store) == ["counters", "sessions", "store"]


def test_a_damaged_list_of_peers_is_discarded(tunnel: Tunnel) -> None:
    tunnel.service.terminate()  # which writes it once more
    content = os.pread(tunnel.memory("store"), 128 << 20, 0)
    at = content.index(public_key(1).raw)
    while at >= 0:
        damage(tunnel.memory("store"), at)
        at = content.find(public_key(1).raw, at + 1)
    tunnel.service.start()
    with contextlib.closing(tunnel.service.connect()) as client:
        (bare,) = client.inventory().peers
        assert (bare.network_count, bare.endpoint) == (0, None)
    assert "stored peers discarded: their list is damaged\n" in tunnel.service.said()


def test_a_link_that_was_deleted_meanwhile_is_discarded(tunnel: Tunnel) -> None:
    tunnel.kill()
    tunnel.link.delete()
    tunnel.service.start()
    with contextlib.closing(tunnel.service.connect()) as client:
        assert client.inventory().link_type == "none"
        assert client.inventory().sockets == tunnel.before.sockets
    assert "stored link discarded: it was deleted or is another\n" in tunnel.service.said()
    tunnel.service.collect()
    assert "queue-1-0" not in tunnel.service.store


def test_sockets_of_which_one_is_missing_or_another_are_discarded(
    tunnel: Tunnel, namespace: Namespace
) -> None:
    tunnel.kill()
    (stored,) = tunnel.service.store.pop("socket-1-0")
    tunnel.service.start()
    with contextlib.closing(tunnel.service.connect()) as client:
        assert client.inventory().sockets == ()
        assert client.inventory().link_name == tunnel.link.name
        assert "stored sockets discarded: one is missing\n" in tunnel.service.said()
        client.set_sockets([stored])
    os.close(stored)
    tunnel.kill()
    (stored,) = tunnel.service.store["socket-2-0"]
    other = namespace.udp_socket("127.0.0.1")
    os.dup2(other.fileno(), stored)
    other.close()
    tunnel.service.start()
    with contextlib.closing(tunnel.service.connect()) as client:
        assert client.inventory().sockets == ()
    assert "stored sockets discarded: they are not what was stored\n" in tunnel.service.said()


def test_names_nobody_knows_leave_the_store(tunnel: Tunnel) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stray:
        for name in ("of-another-version", "queue-0-0", "socket-7-7"):
            tunnel.service.store[name] = [os.dup(stray.fileno())]
        # Of two by the same name none can be told to be the right one.
        tunnel.service.store["counters"].append(os.dup(tunnel.memory("counters")))
    tunnel.revive()
    tunnel.check()
    tunnel.service.collect()
    assert sorted(tunnel.service.store) == ["counters", "queue-1-0", "sessions", "socket-1-0", "store"]
    assert tunnel.memory("counters") >= 0


def test_what_no_process_gets_to_work_with_is_thrown_away(tunnel: Tunnel) -> None:
    """A content that kills whoever takes it must not do so for ever."""
    tunnel.kill()
    os.pwrite(tunnel.memory("store"), (3).to_bytes(4, "little"), STARTS_OFFSET)
    tunnel.service.start()
    with contextlib.closing(tunnel.service.connect()) as client:
        assert (client.inventory().sessions, client.inventory().peers) == ((), ())
        assert client.inventory().link_type == "none"
    assert "stored store discarded: no process got to work with it\n" in tunnel.service.said()
    tunnel.service.collect()
    assert {name: len(stored) for name, stored in tunnel.service.store.items()} == {
        "counters": 1,
        "sessions": 1,
        "store": 1,
    }


# ---- a session that was being changed when the process ended ----

USED, SLOT, HEARD, ENDS_AT = 0, 17, 21, 48  # of session_record
UNCONFIRMED, CURRENT, PREVIOUS = 1, 2, 3


def record_of(memory: int, session: far.Session) -> int:
    """Where the session's record stands in the memory."""
    return os.pread(memory, 1 << 20, 0).index(session.local_index.to_bytes(4, "little")) - 8


@pytest.mark.parametrize(("field", "value"), [(USED, bytes(4)), (SLOT, b"\0"), (ENDS_AT, bytes(8))])
def test_a_session_that_was_not_there_yet_or_no_more_is_wiped(
    tunnel: Tunnel, field: int, value: bytes
) -> None:
    """[I3] Not marked as used, in no slot yet, or ended and not yet freed."""
    tunnel.kill()
    memory = tunnel.memory("sessions")
    os.pwrite(memory, value, record_of(memory, tunnel.session) + field)
    tunnel.service.start()
    with contextlib.closing(tunnel.service.connect()) as client:
        assert client.inventory().sessions == ()
        content = os.pread(memory, 1 << 20, 0)
        assert tunnel.session.from_plane[:32] not in content
        assert tunnel.session.to_plane[:32] not in content


def test_a_session_that_was_being_confirmed_is_confirmed_by_the_next_message(tunnel: Tunnel) -> None:
    tunnel.kill()
    memory = tunnel.memory("sessions")
    at = record_of(memory, tunnel.session)
    os.pwrite(memory, bytes([UNCONFIRMED]), at + SLOT)
    os.pwrite(memory, b"\1", at + HEARD)
    tunnel.service.start()
    tunnel.send_in(1)
    assert tunnel.arrived_in() == 1
    with contextlib.closing(tunnel.service.connect()) as client:
        assert [each.slot for each in client.inventory().sessions] == [CURRENT]
    assert tunnel.arrived_out().plaintext == b""  # which tells the peer so
    tunnel.check()


def test_waiting_sessions_come_back_in_the_order_of_their_age(tunnel: Tunnel) -> None:
    """A third one takes the place of the oldest, whatever order the records stand in."""
    sessions = [far.new_session() for _ in range(4)]
    with contextlib.closing(tunnel.service.connect()) as client:
        install(client, sessions[0], tunnel.away, is_initiator=False)
        install(client, sessions[1], tunnel.away, is_initiator=False)
        client.retire_session(1, sessions[0].local_index)
        install(client, sessions[2], tunnel.away, is_initiator=False)  # where the first one stood
    tunnel.revive()
    with contextlib.closing(tunnel.service.connect()) as client:
        install(client, sessions[3], tunnel.away, is_initiator=False)
        waiting = {each.local_index for each in client.inventory().sessions if each.slot == UNCONFIRMED}
        assert waiting == {sessions[2].local_index, sessions[3].local_index}


# ---- the end ----


def test_a_stop_empties_the_store_and_wipes_what_was_in_it(tunnel: Tunnel) -> None:
    """[G6] Whoever still has a copy of the memory finds neither keys nor peers."""
    tunnel.check()
    with contextlib.ExitStack() as stack:
        memories = {name: os.dup(tunnel.memory(name)) for name in ("sessions", "store")}
        for each in memories.values():
            stack.callback(os.close, each)
        client = tunnel.service.connect()
        client.stop()
        client.close()
        assert tunnel.service.child.wait(20) == 0
        tunnel.service.collect()
        assert tunnel.service.store == {}
        for memory in memories.values():
            content = os.pread(memory, 1 << 20, 0)
            assert public_key(1).raw not in content
            assert tunnel.session.from_plane[:32] not in content
            assert tunnel.session.to_plane[:32] not in content
        with pytest.raises(OSError):
            tunnel.link.send(numbered(HERE, THERE, 1))  # nobody holds the link any more


def test_a_start_after_a_real_stop_begins_anew(tunnel: Tunnel) -> None:
    tunnel.service.stop()
    tunnel.service.start()
    with contextlib.closing(tunnel.service.connect()) as client:
        assert (client.inventory().sessions, client.inventory().peers) == ((), ())
        assert client.hello.started_at > tunnel.born
        with pytest.raises(PlaneError):
            client.send_keepalive(1)
    wait_until(lambda: "READY=1" in tunnel.service.messages, "ready")
