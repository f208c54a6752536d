"""Beyond one IPv4 socket and one queue: dual-stack, link-local, large sizes, both back ends."""

from __future__ import annotations

import os
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from tests.plane import far
from tests.plane.far import Session, endpoint_of, receive
from tests.plane.harness import Rig, plane_program, running_rig, wait_until
from tests.plane.namespace import Namespace
from tests.plane.packets import number_of, numbered
from vpnd.endpoint import Endpoint
from vpnd.plane.events import DatagramEvent

HERE, THERE = "10.1.0.1", "10.2.0.7"


@pytest.mark.parametrize("aead", ["ipsec-mb", "openssl"])
@pytest.mark.parametrize("suite", [far.AES_256_GCM, far.CHACHA20_POLY1305])
def test_each_back_end_speaks_each_suite(namespace: Namespace, aead: str, suite: int) -> None:
    """[J4] Sizes around every block boundary, both ways, and a forgery of each."""
    with running_rig(namespace, plane_program(), ["--aead", aead]) as rig:
        assert rig.client.hello.aead == aead
        rig.add_link()
        rig.add_sockets("127.0.0.1")
        peer = rig.add_peer(1)
        session = peer.install(suite=suite)
        sizes = [*range(24, 100), *range(120, 140), *range(250, 262), *range(505, 520), 1419, 1420]
        for number, size in enumerate(sizes):
            rig.link.send(numbered(HERE, THERE, number, size))
            assert session.open(peer.receive()).plaintext == numbered(HERE, THERE, number, size)
            datagram = session.seal(numbered(THERE, HERE, number, size))
            peer.send(datagram[:-1] + bytes([datagram[-1] ^ 1]))
            peer.send(datagram)
            assert rig.link.receive() == numbered(THERE, HERE, number, size)
        assert rig.drops() == {"data_auth": len(sizes)}


def test_a_dual_stack_socket_speaks_with_both_families(rig: Rig) -> None:
    """[C2] IPv4 peers appear under their IPv4 address, and answers leave by the address asked."""
    rig.add_link()
    both = rig.udp_socket("::", dual_stack=True)
    rig.client.set_sockets([both.fileno()])
    port = both.getsockname()[1]
    for number, (address, asked) in enumerate([("127.0.0.2", "127.0.1.9"), ("::1", "::1")], start=1):
        peer = rig.add_peer(number, [f"10.{number}.0.0/16"], address=address)
        session = peer.install()
        peer.socket.sendto(session.seal(b"\x25\0\0\0\0"), (asked, port))
        wait_until(lambda: peer.counters().last_received_ns, "heard")  # noqa: B023
        rig.no_event(DatagramEvent)
        rig.link.send(numbered(HERE, f"10.{number}.0.7", number))
        datagram, source = far.receive_from(peer.socket)
        assert number_of(session.open(datagram).plaintext) == number
        assert (str(source.address), source.port) == (asked, port)
        assert rig.inventory().peers[number - 1].endpoint == endpoint_of(peer.socket)
        peer.socket.sendto(b"\x08" + os.urandom(199), (asked, port))
        assert rig.wait_event(DatagramEvent).endpoint == endpoint_of(peer.socket)


def test_a_link_local_endpoint_keeps_its_scope(rig: Rig) -> None:
    """[C15] fe80:: on a certain interface: data, events and inventory carry the scope."""
    name = "pt-scope"
    rig.namespace.run("ip", "link", "add", name, "type", "veth", "peer", "name", "pt-scope2")
    try:
        with rig.namespace.entered():
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("0")
            Path(f"/proc/sys/net/ipv6/conf/{name}/accept_dad").write_text("0")
        for each in (name, "pt-scope2"):
            rig.namespace.run("ip", "link", "set", each, "up")
        rig.namespace.run("ip", "addr", "add", "fe80::77/64", "dev", name, "nodad")
        index = rig.namespace.index_of(name)
        rig.add_link()
        rig.add_sockets("::")
        away = rig.udp_socket("fe80::77", scope=index)
        endpoint = Endpoint(IPv6Address("fe80::77"), away.getsockname()[1], index)
        peer = rig.add_peer(1, endpoint=endpoint)
        session = peer.install(endpoint=endpoint)
        assert rig.inventory().peers[0].endpoint == endpoint
        rig.link.send(numbered(HERE, THERE, 1))
        assert number_of(session.open(receive(away)).plaintext) == 1
        port = rig.sockets[0].getsockname()[1]
        away.sendto(b"\x08" + os.urandom(199), ("fe80::77", port, 0, index))
        assert rig.wait_event(DatagramEvent).endpoint == endpoint
        away.sendto(session.seal(numbered(THERE, HERE, 2)), ("fe80::77", port, 0, index))
        assert number_of(rig.link.receive()) == 2
        rig.link.send(numbered(HERE, THERE, 3))
        assert number_of(session.open(receive(away)).plaintext) == 3
    finally:
        rig.namespace.run("ip", "link", "del", name)


def test_every_queue_of_a_link_is_read(rig: Rig) -> None:
    """Many flows, spread over four queues by the kernel: all arrive."""
    rig.add_link(queues=4)
    assert rig.inventory().queues == 4
    rig.add_sockets("127.0.0.1")
    peer = rig.add_peer(1)
    session = peer.install()
    for number in range(200):
        rig.link.send(numbered(f"10.1.0.{number}", f"10.2.{number}.7", number))
    numbers = [number_of(session.open(peer.receive()).plaintext) for _ in range(200)]
    assert sorted(numbers) == list(range(200))
    assert rig.drops() == {}


@pytest.mark.parametrize("mtu", [9000, 60000, 65475])
def test_large_packets_travel_whole_where_the_outside_carries_them(rig: Rig, mtu: int) -> None:
    """[D2] Up to the largest that fits a UDP datagram."""
    rig.add_link(mtu=mtu)
    rig.add_sockets("127.0.0.1")
    peer = rig.add_peer(1)
    session = peer.install()
    for size in (mtu, mtu - 1, 1420):
        rig.link.send(numbered(HERE, THERE, size, size))
        assert session.open(peer.receive()).plaintext == numbered(HERE, THERE, size, size)
        peer.send(session.seal(numbered(THERE, HERE, size, size)))
        assert rig.link.receive() == numbered(THERE, HERE, size, size)
    assert rig.drops() == {}


def test_a_packet_that_fits_no_datagram_is_counted(rig: Rig) -> None:
    rig.add_link(mtu=65535)
    rig.add_sockets("127.0.0.1")
    peer = rig.add_peer(1)
    peer.install()
    rig.link.send(numbered(HERE, THERE, 1, 65476))
    rig.wait_drops("link_too_large", 1)


def test_a_mebibyte_is_staged_per_peer_and_no_more(rig: Rig) -> None:
    """[A22] 128 packets or 1 MiB, whichever comes first."""
    rig.add_link(mtu=30000)
    rig.add_sockets("127.0.0.1")
    peer = rig.add_peer(1)
    for number in range(60):
        rig.link.send(numbered(HERE, THERE, number, 30000))
    kept = (1 << 20) // 30000
    wait_until(lambda: rig.drops().get("staged_overflow") == 60 - kept, "the oldest dropped")
    assert peer.counters().staged == kept
    session = peer.install()
    numbers = [number_of(session.open(peer.receive()).plaintext) for _ in range(kept)]
    assert numbers == list(range(60 - kept, 60))


def test_without_sockets_nothing_is_received_and_packets_are_counted(rig: Rig) -> None:
    rig.add_link()
    rig.add_sockets("127.0.0.1")
    peer = rig.add_peer(1)
    session = peer.install()
    rig.client.set_sockets([])
    assert rig.inventory().sockets == ()
    rig.link.send(numbered(HERE, THERE, 1))
    rig.wait_drops("no_socket", 1)
    rig.client.set_sockets([each.fileno() for each in rig.sockets])
    rig.link.send(numbered(HERE, THERE, 2))
    assert number_of(session.open(peer.receive()).plaintext) == 2


def test_a_link_given_again_changes_its_mtu_in_use(rig: Rig) -> None:
    """[I6] The same queue, another MTU: no packet lost."""
    link = rig.add_link(mtu=1300, link_mtu=1500)
    rig.add_sockets("127.0.0.1")
    peer = rig.add_peer(1)
    session: Session = peer.install()
    for mtu in (1300, 1400, 1280):
        rig.client.set_link("tun", link.name, mtu, link.queues)
        assert rig.inventory().mtu == mtu
        link.send(numbered(HERE, THERE, mtu, mtu))
        assert number_of(session.open(peer.receive()).plaintext) == mtu
        before = rig.drops().get("link_too_large", 0)
        link.send(numbered(HERE, THERE, 1, mtu + 1))
        rig.wait_drops("link_too_large", before + 1)
        link.receive_all()
        peer.send(session.seal(numbered(THERE, HERE, 7)))
        assert number_of(link.receive()) == 7
