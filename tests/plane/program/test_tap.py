"""Ethernet through the tunnel: learning, flooding, limits, and frames of every size."""

from __future__ import annotations

import struct
import time

import pytest

from tests.plane.far import Session, receive_waiting
from tests.plane.harness import Far, Rig, wait_until
from tests.plane.packets import BROADCAST, frame, ipv4, mac

HOST = mac(0x1001)  # a machine on our side of the link
STP = b"\x01\x80\xc2\x00\x00\x00"
MULTICAST6 = b"\x33\x33\x00\x00\x00\x01"


@pytest.fixture
def peers(tap: Rig) -> list[tuple[Far, Session]]:
    """Three peers with a session each."""
    made = [tap.add_peer(number, [], address=f"127.0.0.{number + 1}") for number in (1, 2, 3)]
    return [(peer, peer.install()) for peer in made]


def arrived(peers: list[tuple[Far, Session]], tap: Rig, sent: int) -> list[list[bytes]]:
    """The frames at each peer, once `sent` datagrams left in all."""
    wait_until(lambda: tap.client.counters.totals().tx_datagrams >= sent, f"{sent} datagrams sent")
    return [
        [session.open(each).plaintext for each in receive_waiting(peer.socket)] for peer, session in peers
    ]


def inner(content: bytes) -> bytes:
    """A frame as it stands in a DATA message."""
    return b"\x10" + content


def learn(tap: Rig, far_end: tuple[Far, Session], source: bytes, *, vlan: int | None = None) -> None:
    peer, session = far_end
    hello = frame(BROADCAST, source, b"hello", vlan=vlan)
    peer.send(session.seal(inner(hello)))
    assert tap.link.receive() == hello


def test_broadcast_multicast_and_unknown_go_to_every_peer(tap: Rig, peers: list[tuple[Far, Session]]) -> None:
    """[E9] ARP, neighbour discovery, spanning tree and unknown unicast flood; known unicast does not."""
    arp = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + HOST + bytes(14)
    frames = [
        frame(BROADCAST, HOST, arp, kind=0x0806),
        frame(MULTICAST6, HOST, bytes(64), kind=0x86DD),
        frame(STP, HOST, bytes(38), kind=0x0026),
        frame(mac(99), HOST, b"unknown"),
    ]
    for each in frames:
        tap.link.send(each)
    expected = [inner(each) for each in frames]
    assert arrived(peers, tap, 12) == [expected, expected, expected]


def test_a_learned_address_gets_its_frames_alone(tap: Rig, peers: list[tuple[Far, Session]]) -> None:
    """[E9] Unicast goes where its source was seen, and nowhere else."""
    learn(tap, peers[1], mac(2))
    answer = frame(mac(2), HOST, b"for you alone")
    tap.link.send(answer)
    assert arrived(peers, tap, 1) == [[], [inner(answer)], []]
    (listed,) = tap.client.list_macs()
    assert (listed.mac, listed.vlan, listed.peer_id) == (mac(2), 0, 2)
    assert listed.seen_at > 0


def test_an_address_that_moves_is_followed(tap: Rig, peers: list[tuple[Far, Session]]) -> None:
    """[E9] MAC move: a machine that went to another site is reached there by its next frame."""
    learn(tap, peers[0], mac(7))
    learn(tap, peers[2], mac(7))
    answer = frame(mac(7), HOST, b"moved")
    tap.link.send(answer)
    assert arrived(peers, tap, 1) == [[], [], [inner(answer)]]
    assert [(each.mac, each.peer_id) for each in tap.client.list_macs()] == [(mac(7), 3)]


def test_vlans_are_learned_apart_and_tags_travel(tap: Rig, peers: list[tuple[Far, Session]]) -> None:
    """[E9] The same address in two VLANs behind two peers; 1518 bytes with the tag pass."""
    learn(tap, peers[0], mac(7), vlan=10)
    learn(tap, peers[1], mac(7), vlan=20)
    to_first = frame(mac(7), HOST, b"x" * 1420, vlan=10)
    to_second = frame(mac(7), HOST, b"x" * 1420, vlan=20)
    tap.link.send(to_first)
    tap.link.send(to_second)
    assert arrived(peers, tap, 2) == [[inner(to_first)], [inner(to_second)], []]
    assert sorted((each.vlan, each.peer_id) for each in tap.client.list_macs()) == [(10, 1), (20, 2)]


def test_frames_are_not_relayed_from_one_peer_to_another(tap: Rig, peers: list[tuple[Far, Session]]) -> None:
    """Unless both may: what is for another peer is refused, the rest is for the link alone."""
    learn(tap, peers[0], mac(1))
    learn(tap, peers[1], mac(2))
    peer, session = peers[0]
    peer.send(session.seal(inner(frame(mac(2), mac(1), b"bridge me"))))
    tap.wait_drops("frame_isolated", 1)
    assert tap.link.receive_all() == []
    assert arrived(peers, tap, 0) == [[], [], []]


@pytest.mark.parametrize("size", [14, 60, 64, 1434])
def test_frames_of_every_size_travel_both_ways(tap: Rig, peers: list[tuple[Far, Session]], size: int) -> None:
    """[E9] From a bare header to the MTU with its header."""
    peer, session = peers[0]
    learn(tap, peers[0], mac(1))
    out = frame(mac(1), HOST, bytes(size - 14))
    tap.link.send(out)
    assert session.open(peer.receive()).plaintext == inner(out)
    back = frame(HOST, mac(1), bytes(size - 14))
    peer.send(session.seal(inner(back)))
    assert tap.link.receive() == back


def test_padded_frames_carry_their_length(tap: Rig) -> None:
    """[D14] 0x12, u16 length, frame, zeros: both ways."""
    peer = tap.add_peer(1, [])
    session = peer.install(padding=2)
    out = frame(BROADCAST, HOST, b"short")
    tap.link.send(out)
    plaintext = session.open(peer.receive()).plaintext
    assert plaintext[:3] == b"\x12" + struct.pack("<H", len(out))
    assert plaintext[3:].rstrip(b"\0") == out
    assert len(plaintext) == 128
    back = frame(HOST, mac(1), b"also short")
    peer.send(session.seal(b"\x12" + struct.pack("<H", len(back)) + back + bytes(100)))
    assert tap.link.receive() == back


BAD = {
    "thirteen bytes": b"\x10" + bytes(13),
    "nothing": b"\x10",
    "padded without length": b"\x12\x20",
    "padded beyond the end": b"\x12" + struct.pack("<H", 200) + frame(BROADCAST, mac(1), bytes(40)),
    "padded with length 13": b"\x12" + struct.pack("<H", 13) + frame(BROADCAST, mac(1), bytes(40)),
    "partial checksum of no IP": b"\x11" + frame(BROADCAST, mac(1), bytes(40)),
    "partial checksum of no TCP": b"\x11" + frame(HOST, mac(1), ipv4("10.0.0.1", "10.0.0.2"), kind=0x0800),
    "an IP packet on a TAP": ipv4("10.0.0.1", "10.0.0.2"),
    "another type": b"\x13" + frame(BROADCAST, mac(1), bytes(40)),
}


@pytest.mark.parametrize("name", BAD)
def test_a_plaintext_that_is_no_frame_is_dropped(
    tap: Rig, peers: list[tuple[Far, Session]], name: str
) -> None:
    """[H13] An authentic peer's nonsense: data_inner, nothing learned, nothing on the link."""
    peer, session = peers[0]
    peer.send(session.seal(BAD[name]))
    tap.wait_drops("data_inner", 1)
    assert tap.link.receive_all() == []
    assert tap.client.list_macs() == ()


@pytest.mark.parametrize("source", [BROADCAST, STP, bytes(6)])
def test_a_group_or_zero_source_is_never_learned(
    tap: Rig, peers: list[tuple[Far, Session]], source: bytes
) -> None:
    peer, session = peers[0]
    peer.send(session.seal(inner(frame(HOST, source, b"x"))))
    wait_until(lambda: peer.counters().rx_packets + tap.dropped() == 1, "dealt with")
    assert tap.client.list_macs() == ()


def test_a_peer_may_show_only_so_many_addresses(tap: Rig, peers: list[tuple[Far, Session]]) -> None:
    """[E9] Beyond the limit: mac_limit, the known ones stay, other peers are not touched."""
    tap.client.set_options(5, 300)
    peer, session = peers[0]
    for number in range(20):
        peer.send(session.seal(inner(frame(BROADCAST, mac(number + 1), b"x"))))
    tap.wait_drops("mac_limit", 15)
    tap.link.receive_all()
    learn(tap, peers[1], mac(500))
    listed = {each.mac: each.peer_id for each in tap.client.list_macs()}
    assert listed == {**{mac(number + 1): 1 for number in range(5)}, mac(500): 2}


def test_addresses_not_seen_for_their_age_are_forgotten(tap: Rig, peers: list[tuple[Far, Session]]) -> None:
    """[E9] Ageing: after it the address floods again."""
    tap.client.set_options(100, 1)
    learn(tap, peers[1], mac(2))
    assert len(tap.client.list_macs()) == 1
    time.sleep(1.1)
    tap.link.send(frame(mac(2), HOST, b"where are you"))
    assert [len(each) for each in arrived(peers, tap, 3)] == [1, 1, 1]


def test_a_removed_peers_addresses_go_with_it(tap: Rig, peers: list[tuple[Far, Session]]) -> None:
    learn(tap, peers[0], mac(1))
    learn(tap, peers[1], mac(2))
    tap.client.remove_peer(1)
    assert [each.mac for each in tap.client.list_macs()] == [mac(2)]


def test_a_link_frame_shorter_than_its_header_is_counted(tap: Rig, peers: list[tuple[Far, Session]]) -> None:
    """The kernel itself refuses such a frame on a TAP, or the plane counts it; no peer sees it."""
    try:
        tap.link.send(b"\xff" * 13)
    except OSError:
        pass
    else:
        tap.wait_drops("link_not_frame", 1)
    time.sleep(0.05)
    assert arrived(peers, tap, 0) == [[], [], []]
