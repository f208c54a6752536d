"""Where the plane sends to: endpoints that move, lie, vanish, and our own address towards them."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_network

import pytest

from tests.plane import far
from tests.plane.far import Session, endpoint_of, receive, receive_from, receive_waiting
from tests.plane.harness import Far, Rig, wait_until
from tests.plane.packets import number_of, numbered
from vpnd.endpoint import Endpoint
from vpnd.plane.events import PeerRoamed
from vpnd.plane.wire import RoamState

HERE, THERE = "10.1.0.1", "10.2.0.7"
CHALLENGE, RESPONSE = 0x23, 0x24
BUDGET = 16 << 10


@pytest.fixture
def peer(tun: Rig) -> Far:
    return tun.add_peer(1)


@pytest.fixture
def session(peer: Far) -> Session:
    return peer.install()


def endpoint(rig: Rig) -> Endpoint | None:
    return rig.inventory().peers[0].endpoint


def challenge_at(session: Session, sock: socket.socket) -> bytes:
    """The token of the challenge that arrives at this socket."""
    while True:
        plaintext = session.open(receive(sock)).plaintext
        if plaintext[:1] == bytes([CHALLENGE]):
            assert len(plaintext) == 9
            return plaintext[1:]


def packet_at(session: Session, sock: socket.socket) -> bytes:
    """The first packet that arrives at this socket; control messages before it do not count."""
    while True:
        plaintext = session.open(receive(sock)).plaintext
        if plaintext[0] >> 4 == 4:
            return plaintext


def test_the_endpoint_follows_the_next_packet_and_is_proven_by_a_challenge(
    tun: Rig, peer: Far, session: Session
) -> None:
    """[C1] Another port and another address: followed at once, nothing lost."""
    for address in ("127.0.0.2", "127.0.0.3"):
        moved = tun.udp_socket(address)
        packet = numbered(THERE, HERE, 1)
        peer.send(session.seal(packet), via=moved)
        assert tun.link.receive() == packet
        assert tun.wait_event(PeerRoamed) == PeerRoamed(1, endpoint_of(moved), RoamState.PROBATION)
        token = challenge_at(session, moved)
        tun.link.send(numbered(HERE, THERE, 2))
        assert number_of(session.open(receive(moved)).plaintext) == 2
        peer.send(session.seal(bytes([RESPONSE]) + token), via=moved)
        assert tun.wait_event(PeerRoamed) == PeerRoamed(1, endpoint_of(moved), RoamState.VALIDATED)
        assert endpoint(tun) == endpoint_of(moved)
    assert receive_waiting(peer.socket) == []
    assert tun.drops() == {}


def test_the_endpoint_follows_between_ipv4_and_ipv6(rig: Rig) -> None:
    """[C2] IPv4, IPv6 and back; each next packet goes to where the last came from."""
    rig.add_link()
    rig.add_sockets("127.0.0.1", "::1")
    peer = rig.add_peer(1)
    session = peer.install()
    for number, address in enumerate(("::1", "127.0.0.5", "::1", "127.0.0.6")):
        moved = rig.udp_socket(address)
        peer.send(session.seal(b""), via=moved)
        token = challenge_at(session, moved)
        peer.send(session.seal(bytes([RESPONSE]) + token), via=moved)
        wait_until(lambda: endpoint(rig) == endpoint_of(moved), "moved")  # noqa: B023
        rig.link.send(numbered(HERE, THERE, number))
        assert number_of(session.open(receive(moved)).plaintext) == number


def test_an_old_packet_that_arrives_last_does_not_move_the_endpoint_back(
    tun: Rig, peer: Far, session: Session
) -> None:
    """[C3] Only the highest counter moves it; the late packet itself is delivered."""
    delayed = session.seal(numbered(THERE, HERE, 1))
    moved = tun.udp_socket("127.0.0.3")
    peer.send(session.seal(numbered(THERE, HERE, 2)), via=moved)
    tun.link.receive()
    peer.send(session.seal(bytes([RESPONSE]) + challenge_at(session, moved)), via=moved)
    wait_until(lambda: endpoint(tun) == endpoint_of(moved), "moved")
    peer.send(delayed)
    assert number_of(tun.link.receive()) == 1
    assert endpoint(tun) == endpoint_of(moved)


def test_a_packet_of_the_previous_session_does_not_move_the_endpoint(
    tun: Rig, peer: Far, session: Session
) -> None:
    """[C3] The rule speaks of the newest session."""
    newer = peer.install()
    peer.send(newer.seal(b""))
    moved = tun.udp_socket("127.0.0.3")
    peer.send(session.seal(numbered(THERE, HERE, 1), 500), via=moved)
    assert number_of(tun.link.receive()) == 1
    assert endpoint(tun) == peer.endpoint
    tun.no_event(PeerRoamed)


def test_an_unproven_address_gets_a_bounded_number_of_bytes_and_is_left_after_3_s(
    tun: Rig, peer: Far, session: Session
) -> None:
    """[C4] A relayed first copy from a forged source: at most 16 KiB there, back within 3 s, path_failed."""
    forged = tun.udp_socket("127.0.0.66")
    peer.send(session.seal(b""), via=forged)
    assert tun.wait_event(PeerRoamed).state == RoamState.PROBATION
    for number in range(100):
        tun.link.send(numbered(HERE, THERE, number, 1400))
    wait_until(lambda: tun.client.counters.totals().link_rx_packets == 100, "all read")
    back = tun.wait_event(PeerRoamed, timeout_s=4)
    assert back == PeerRoamed(1, peer.endpoint, RoamState.FAILED)
    at_forged = receive_waiting(forged)
    assert 0 < sum(map(len, at_forged)) <= BUDGET
    drops = tun.drops()
    data = [each for each in at_forged if len(each) > 1000]
    assert drops == {"path_budget": 100 - len(data), "path_failed": 1}
    tun.link.send(numbered(HERE, THERE, 100))
    assert number_of(session.open(peer.receive()).plaintext) == 100


def test_a_wrong_or_foreign_response_proves_nothing(tun: Rig, peer: Far, session: Session) -> None:
    """[C4] Neither a guessed token nor the right one of an earlier challenge."""
    moved = tun.udp_socket("127.0.0.3")
    peer.send(session.seal(b""), via=moved)
    tun.wait_event(PeerRoamed)
    first = challenge_at(session, moved)
    peer.send(session.seal(bytes([RESPONSE]) + bytes(8)), via=moved)
    again = tun.udp_socket("127.0.0.4")
    peer.send(session.seal(b""), via=again)
    assert tun.wait_event(PeerRoamed) == PeerRoamed(1, endpoint_of(again), RoamState.PROBATION)
    peer.send(session.seal(bytes([RESPONSE]) + first), via=again)
    second = challenge_at(session, again)
    tun.no_event(PeerRoamed)
    peer.send(session.seal(bytes([RESPONSE]) + second), via=again)
    assert tun.wait_event(PeerRoamed).state == RoamState.VALIDATED


def test_returning_to_the_proven_address_ends_the_probation(tun: Rig, peer: Far, session: Session) -> None:
    moved = tun.udp_socket("127.0.0.3")
    peer.send(session.seal(b""), via=moved)
    tun.wait_event(PeerRoamed)
    peer.send(session.seal(b""))
    event = tun.wait_event(PeerRoamed)
    assert (event.endpoint, event.state) == (peer.endpoint, RoamState.VALIDATED)
    for number in range(30):
        tun.link.send(numbered(HERE, THERE, number, 1400))
    for number in range(30):
        assert number_of(session.open(peer.receive()).plaintext) == number


def test_a_challenge_is_answered_where_it_came_from_once_a_second(
    tun: Rig, peer: Far, session: Session
) -> None:
    """[C1] Also when its counter is not the highest, and never to another address."""
    early = session.seal(bytes([CHALLENGE]) + b"12345678")
    peer.send(session.seal(b""))
    elsewhere = tun.udp_socket("127.0.0.3")
    peer.send(early, via=elsewhere)
    assert session.open(receive(elsewhere)).plaintext == bytes([RESPONSE]) + b"12345678"
    assert endpoint(tun) == peer.endpoint
    for _ in range(20):
        peer.send(session.seal(bytes([CHALLENGE]) + b"abcdefgh"))
    assert session.open(peer.receive()).plaintext == bytes([RESPONSE]) + b"abcdefgh"
    wait_until(lambda: tun.received() == 22, "all in")
    wait_until(lambda: tun.drops().get("control_rate", 0) == 19, "the others counted")
    assert receive_waiting(peer.socket) == []


def test_the_confirmation_from_where_the_response_went_needs_no_challenge(tun: Rig, peer: Far) -> None:
    away = tun.udp_socket("127.0.0.3")
    session = peer.install(is_initiator=False, endpoint=endpoint_of(away))
    assert endpoint(tun) == peer.endpoint
    peer.send(session.seal(b""), via=away)
    assert session.open(receive(away)).plaintext == b""
    assert tun.wait_event(PeerRoamed) == PeerRoamed(1, endpoint_of(away), RoamState.VALIDATED)
    assert endpoint(tun) == endpoint_of(away)


def test_the_confirmation_from_elsewhere_goes_on_probation(tun: Rig, peer: Far) -> None:
    away, elsewhere = tun.udp_socket("127.0.0.3"), tun.udp_socket("127.0.0.4")
    session = peer.install(is_initiator=False, endpoint=endpoint_of(away))
    peer.send(session.seal(b""), via=elsewhere)
    event = tun.wait_event(PeerRoamed)
    assert event == PeerRoamed(1, endpoint_of(elsewhere), RoamState.PROBATION)


def test_a_response_from_another_address_of_the_responder_is_followed(tun: Rig, peer: Far) -> None:
    """[C11] The handshake's answer came from elsewhere: data goes there at once."""
    other_address = tun.udp_socket("127.0.0.7")
    session = peer.install(endpoint=endpoint_of(other_address))
    assert tun.wait_event(PeerRoamed).state == RoamState.PROBATION
    tun.link.send(numbered(HERE, THERE, 1))
    assert number_of(packet_at(session, other_address)) == 1
    packet = numbered(THERE, HERE, 2)
    peer.send(session.seal(packet), via=other_address)
    assert tun.link.receive() == packet


def test_an_endpoint_set_by_the_daemon_is_used_without_a_challenge(
    tun: Rig, peer: Far, session: Session
) -> None:
    other = tun.udp_socket("127.0.0.7")
    tun.client.set_peer(1, peer.public_key, [ip_network("10.2.0.0/16")], endpoint_of(other))
    tun.link.send(numbered(HERE, THERE, 1))
    assert number_of(session.open(receive(other)).plaintext) == 1
    assert receive_waiting(other) == []


def test_what_is_under_way_from_the_endpoint_before_does_not_undo_the_one_that_was_set(
    tun: Rig, peer: Far, session: Session
) -> None:
    """[C2] The peer learns of the new endpoint by our next packet; until then it sends from the old one."""
    other = tun.udp_socket("127.0.0.7")
    tun.client.set_peer(1, peer.public_key, [ip_network("10.2.0.0/16")], endpoint_of(other))
    peer.send(session.seal(numbered(THERE, HERE, 1)))
    assert number_of(tun.link.receive()) == 1
    assert endpoint(tun) == endpoint_of(other)
    tun.no_event(PeerRoamed)
    peer.send(session.seal(numbered(THERE, HERE, 2)), via=other)
    assert number_of(tun.link.receive()) == 2
    peer.send(session.seal(numbered(THERE, HERE, 3)))
    assert tun.wait_event(PeerRoamed) == PeerRoamed(1, peer.endpoint, RoamState.PROBATION)


def test_a_peer_that_stays_where_it_was_is_followed_back_after_3_s(
    tun: Rig, peer: Far, session: Session
) -> None:
    """An endpoint that was set wrongly does not cut off a peer that goes on sending."""
    other = tun.udp_socket("127.0.0.7")
    tun.client.set_peer(1, peer.public_key, [ip_network("10.2.0.0/16")], endpoint_of(other))

    def is_followed() -> bool:
        peer.send(session.seal(b""))
        return endpoint(tun) == peer.endpoint

    wait_until(is_followed, "the way back", timeout_s=5)


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_an_answer_leaves_from_the_address_it_was_asked_at(rig: Rig, family: str) -> None:
    """[C9] One wildcard socket, four local addresses: the source is the one the peer knows."""
    locals_ = ["127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4"]
    any_address, peer_address = "0.0.0.0", "127.0.0.2"
    if family == "IPv6":
        locals_ = [f"fd00:77::{number}" for number in range(1, 5)]
        any_address, peer_address = "::", "::1"
        for each in locals_:
            rig.namespace.run("ip", "addr", "replace", f"{each}/128", "dev", "lo", "nodad")
    rig.add_link()
    rig.add_sockets(any_address)
    port = rig.sockets[0].getsockname()[1]
    peer = rig.add_peer(1, address=peer_address)
    session = peer.install()
    for local in (*locals_, locals_[0]):
        peer.socket.sendto(session.seal(numbered(THERE, HERE, 1)), (local, port))
        rig.link.receive()
        rig.link.send(numbered(HERE, THERE, 2))
        datagram, source = receive_from(peer.socket)
        assert str(source.address) == local
        assert number_of(session.open(datagram).plaintext) == 2


# ---- an endpoint that cannot be reached ----


def _unreachable(kind: str) -> list[str]:
    return ["ip", "route", "replace", kind, "127.77.0.0/16", "table", "local"]


@pytest.fixture
def nft_table(rig: Rig) -> Iterator[str]:
    yield "ptplane"
    with rig.namespace.entered():
        subprocess.run(["nft", "delete", "table", "ip", "ptplane"], capture_output=True, check=False)


@pytest.mark.parametrize("kind", ["unreachable", "prohibit", "blackhole", "throw"])
def test_what_the_kernel_will_not_route_is_counted_and_recovers_with_the_route(rig: Rig, kind: str) -> None:
    """[C12] EHOSTUNREACH, EACCES, EINVAL, ENETUNREACH: no crash, the next packet after the repair goes."""
    rig.add_link()
    rig.add_sockets("0.0.0.0")
    rig.namespace.run(*_unreachable(kind))
    away = Endpoint(IPv4Address("127.77.0.1"), 5180)
    peer = rig.add_peer(1, endpoint=away)
    session = peer.install(endpoint=away)
    try:
        for number in range(5):
            rig.link.send(numbered(HERE, THERE, number))
        wait_until(lambda: rig.drops().get("send_error", 0) == 5, f"counted, but {rig.drops()}")
    finally:
        rig.namespace.run("ip", "route", "del", "127.77.0.0/16", "table", "local")
    listener = rig.namespace.udp_socket("127.77.0.1", 5180)
    rig.link.send(numbered(HERE, THERE, 6))
    assert number_of(session.open(receive(listener)).plaintext) == 6
    assert rig.drops() == {"send_error": 5}
    listener.close()


def test_what_the_firewall_forbids_is_counted_and_recovers(rig: Rig, nft_table: str) -> None:
    """[C12] EPERM from nft."""
    rig.add_link()
    rig.add_sockets("127.0.0.1")
    peer = rig.add_peer(1)
    session = peer.install()
    chain = f"chain out {{ type filter hook output priority 0; udp dport {peer.endpoint.port} drop; }};"
    rules = f"table ip {nft_table} {{ {chain} }}"
    rig.namespace.run("nft", rules)
    for number in range(5):
        rig.link.send(numbered(HERE, THERE, number))
    rig.wait_drops("send_error", 5)
    rig.namespace.run("nft", "delete", "table", "ip", nft_table)
    rig.link.send(numbered(HERE, THERE, 6))
    assert number_of(session.open(peer.receive()).plaintext) == 6


def test_a_closed_port_is_no_error_of_ours(tun: Rig) -> None:
    """[C12] ECONNREFUSED of one peer must not lose another's packets."""
    closed = tun.namespace.udp_socket("127.0.0.9")
    away = endpoint_of(closed)
    closed.close()
    peer, other = tun.add_peer(1, endpoint=away), tun.add_peer(2, ["10.3.0.0/16"], address="127.0.0.3")
    peer.install(endpoint=away)
    session = other.install()
    for number in range(50):
        tun.link.send(numbered(HERE, THERE, number))
        tun.link.send(numbered(HERE, "10.3.0.1", number))
    numbers = [number_of(session.open(other.receive()).plaintext) for _ in range(50)]
    assert numbers == list(range(50))
    assert set(tun.drops()) <= {"send_error"}


def test_without_a_socket_of_the_family_packets_are_counted(tun: Rig) -> None:
    peer = tun.add_peer(1, address="::1")
    peer.install()
    tun.link.send(numbered(HERE, THERE, 1))
    tun.wait_drops("no_socket", 1)


def test_new_sockets_take_over_without_a_loss(tun: Rig, peer: Far, session: Session) -> None:
    """[I6] Sockets exchanged in use: the peer is reached from the new one and follows by itself."""
    old_port = tun.sockets[0].getsockname()[1]
    tun.add_sockets("127.0.0.1")
    assert tun.inventory().sockets == (endpoint_of(tun.sockets[0]),)
    tun.link.send(numbered(HERE, THERE, 1))
    datagram, source = receive_from(peer.socket)
    assert number_of(session.open(datagram).plaintext) == 1
    assert source.port == endpoint_of(tun.sockets[0]).port != old_port
    packet = numbered(THERE, HERE, 2)
    peer.send(session.seal(packet))
    assert tun.link.receive() == packet


def test_far_module_tells_one_session_from_another() -> None:
    """The test's own opener refuses what was not sealed for it."""
    one, other = far.new_session(), far.new_session()
    mirror = Session(one.remote_index, one.local_index, one.suite, one.to_plane, one.from_plane)
    assert one.opens(mirror.seal(b"x"))
    assert not other.opens(mirror.seal(b"x"))
