"""What is no packet: control messages inside sessions, and handshake messages beside them."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from tests.plane import far
from tests.plane.harness import Far, Rig, wait_until
from tests.plane.packets import numbered
from vpnd.errors import PlaneError
from vpnd.plane import events

HERE, THERE = "10.1.0.1", "10.2.0.7"
_IP_MTU_DISCOVER = 10  # linux/in.h


@pytest.fixture
def peer(tun: Rig) -> Far:
    return tun.add_peer(1)


def test_control_messages_go_up_with_their_session_and_source(tun: Rig, peer: Far) -> None:
    session = peer.install()
    for body in (b"\x20\x01", b"\x25" + bytes(4), b"\x28" + bytes(8)):
        peer.send(session.seal(body))
        event = tun.wait_event(events.ControlEvent)
        assert (event.peer_id, event.local_index) == (1, session.local_index)
        assert event.endpoint == peer.endpoint
        assert event.data == body
    assert tun.link.receive_all() == []


def test_control_goes_down_on_the_session_and_to_the_address_named(tun: Rig, peer: Far) -> None:
    old = peer.install()
    new = peer.install()
    elsewhere = tun.udp_socket("127.0.0.9")
    tun.client.send_control(1, b"\x20\x01")
    assert new.open(peer.receive()).plaintext == b"\x20\x01"
    tun.client.send_control(1, b"\x20\x02", old.local_index)
    assert old.open(peer.receive()).plaintext == b"\x20\x02"
    tun.client.send_control(1, b"\x20\x03", 0, far.endpoint_of(elsewhere))
    assert new.open(far.receive(elsewhere)).plaintext == b"\x20\x03"
    assert tun.inventory().peers[0].endpoint == peer.endpoint


def answers_to(storm: int, tun: Rig, peer: Far) -> list[bytes]:
    """The datagrams that answered so many control messages; all others were counted."""
    answers: list[bytes] = []

    def is_all_told() -> bool:
        answers.extend(far.receive_waiting(peer.socket))
        return len(answers) + tun.drops().get("control_rate", 0) == storm

    wait_until(is_all_told, "each answered or counted")
    return answers


def test_a_ping_is_answered_by_the_plane_itself_ten_times_a_second(tun: Rig, peer: Far) -> None:
    """[H13] A storm of PINGs gets at most ten PONGs at once; the rest is counted."""
    session = peer.install()
    storm = 200
    for number in range(storm):
        peer.send(session.seal(b"\x27" + struct.pack("<Q", number)))
    answers = [session.open(each).plaintext for each in answers_to(storm, tun, peer)]
    assert answers[0] == b"\x28" + struct.pack("<Q", 0)
    assert 1 <= len(answers) <= 20
    tun.no_event(events.ControlEvent)


@pytest.mark.parametrize("size", [5, 1220, 1440, 8940])
def test_a_probe_is_answered_by_the_plane_itself_with_the_size_that_came(
    tun: Rig, peer: Far, size: int
) -> None:
    """[D4] While vpnd restarts the path shall not look smaller than it is."""
    session = peer.install()
    peer.send(session.seal(b"\x21\x04\x03\x02\x01".ljust(size, b"\0")))
    assert session.open(peer.receive()).plaintext == b"\x22\x04\x03\x02\x01" + struct.pack("<H", size)
    tun.no_event(events.ControlEvent)


@pytest.mark.parametrize(("mtu", "piece"), [(1400, 1396 - 60), (1280, 1276 - 60)])
def test_a_probe_that_came_in_pieces_is_answered_with_what_one_of_them_held(
    tun: Rig, peer: Far, mtu: int, piece: int
) -> None:
    """[D4] The loopback cuts it, as a router on the way would; pieces are multiples of 8 bytes."""
    session = peer.install()
    tun.namespace.run("ip", "link", "set", "lo", "mtu", str(mtu))
    try:
        peer.socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, 0)
        peer.send(session.seal(b"\x21".ljust(1440, b"\0")))
        answer = session.open(peer.receive()).plaintext
    finally:
        tun.namespace.run("ip", "link", "set", "lo", "mtu", "65536")
    assert answer == b"\x22" + bytes(4) + struct.pack("<H", piece)


def test_probes_leave_as_large_as_asked_and_are_answered_twenty_times_a_second(tun: Rig, peer: Far) -> None:
    """[H13] More of them are counted."""
    session = peer.install()
    for size in (1220, 8940):
        tun.client.send_control(1, b"\x21".ljust(size, b"\0"))
        assert session.open(peer.receive()).plaintext == b"\x21".ljust(size, b"\0")
    with pytest.raises(PlaneError, match="bad_length"):
        tun.client.send_control(1, b"\x21".ljust(9001, b"\0"))
    storm = 200
    for _ in range(storm):
        peer.send(session.seal(b"\x21" + bytes(99)))
    assert 1 <= len(answers_to(storm, tun, peer)) <= 40


def test_a_storm_of_control_messages_does_not_reach_the_daemon_whole(tun: Rig, peer: Far) -> None:
    """[H13] Control messages beyond a peer's rate are counted; data goes on."""
    session = peer.install()
    storm = 2000
    for _ in range(storm):
        peer.send(session.seal(b"\x25" + bytes(4)))
    tun.wait_event(events.ControlEvent)
    packet = numbered(THERE, HERE, 1)
    peer.send(session.seal(packet))
    assert tun.link.receive() == packet
    handed_up = 1

    def is_all_told() -> bool:
        nonlocal handed_up
        handed_up += sum(isinstance(each, events.ControlEvent) for each in tun.events())
        return handed_up + tun.drops()["control_rate"] == storm

    wait_until(is_all_told, "each handed up or counted")
    assert handed_up < storm // 2


@pytest.mark.parametrize(
    "body", [b"\x21" + bytes(3), b"\x27", b"\x27" + bytes(7), b"\x23" + bytes(7), b"\x24", b"\x24" + bytes(9)]
)
def test_a_control_message_of_a_wrong_size_is_no_message(tun: Rig, peer: Far, body: bytes) -> None:
    """[H13] What the plane itself should read and cannot: data_inner."""
    session = peer.install()
    peer.send(session.seal(body))
    tun.wait_drops("data_inner", 1)


# ---- handshake messages ----


@pytest.mark.parametrize("kind", [0x08, 0x09, 0x0A])
def test_handshake_messages_go_up_as_they_came(tun: Rig, kind: int) -> None:
    stranger = tun.udp_socket("127.0.0.8")
    host, port = tun.sockets[0].getsockname()
    message = bytes([kind]) + os.urandom(199)
    stranger.sendto(message, (host, port))
    event = tun.wait_event(events.DatagramEvent)
    assert (event.data, event.endpoint) == (message, far.endpoint_of(stranger))
    assert event.received_at > 0
    assert tun.client.counters.totals().handshakes_queued == 1


def test_a_datagram_goes_down_as_it_is(tun: Rig) -> None:
    stranger = tun.udp_socket("127.0.0.8")
    tun.client.send_datagram(far.endpoint_of(stranger), b"\x08" + b"x" * 199)
    datagram, source = far.receive_from(stranger)
    assert datagram == b"\x08" + b"x" * 199
    assert source == far.endpoint_of(tun.sockets[0])
