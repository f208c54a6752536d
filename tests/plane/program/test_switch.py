"""A hub of Ethernet peers: relaying, isolation, VLANs, storms, and whose MAC addresses are whose."""

from __future__ import annotations

import contextlib
import time
from ipaddress import ip_network

import pytest

from tests.plane.far import Session
from tests.plane.harness import Far, Rig, public_key, wait_until
from tests.plane.packets import BROADCAST, frame, ipv4, mac
from tests.plane.program.test_requests import refuses
from tests.plane.program.test_tap import HOST, arrived, inner
from tests.plane.service_manager import ServiceManager
from vpnd.plane import wire
from vpnd.plane.events import ControlEvent
from vpnd.plane.frames import FrameRules, pack_rules
from vpnd.plane.wire import WireType

RELAYED = FrameRules(is_relayed=True)
Peers = list[tuple[Far, Session]]


@pytest.fixture
def peers(tap: Rig) -> Peers:
    """Three peers with a session each, which exchange frames."""
    made = [tap.add_peer(number, [], address=f"127.0.0.{number + 1}") for number in (1, 2, 3)]
    for number in (1, 2, 3):
        tap.client.set_peer_frames(number, RELAYED)
    return [(peer, peer.install()) for peer in made]


def send(far_end: tuple[Far, Session], content: bytes) -> None:
    peer, session = far_end
    peer.send(session.seal(inner(content)))


def meet(tap: Rig, peers: Peers) -> None:
    """Our side says a word, and then each peer, so that it is known to be behind mac(its number)."""
    sent = now_sent(tap)
    tap.link.send(frame(BROADCAST, HOST, b"hello"))
    arrived(peers, tap, sent + len(peers))
    for number, peer in enumerate(peers, 1):
        send(peer, frame(HOST, mac(number), b"hello"))
        tap.link.receive()


def now_sent(tap: Rig) -> int:
    return tap.client.counters.totals().tx_datagrams


def test_a_broadcast_of_a_peer_reaches_the_link_and_each_other_peer_once(tap: Rig, peers: Peers) -> None:
    hello = frame(BROADCAST, mac(1), b"hello")
    send(peers[0], hello)
    assert tap.link.receive() == hello
    assert arrived(peers, tap, 2) == [[], [inner(hello)], [inner(hello)]]
    assert tap.link.receive_all() == []
    assert tap.drops() == {}


def test_what_is_known_goes_to_its_peer_alone_or_to_the_link_alone(tap: Rig, peers: Peers) -> None:
    meet(tap, peers)
    sent = now_sent(tap)
    frames = [frame(mac(2), mac(1), bytes([number])) for number in range(40)]
    for each in frames:
        send(peers[0], each)
    assert arrived(peers, tap, sent + 40) == [[], [inner(each) for each in frames], []]
    home = frame(HOST, mac(1), b"home")
    send(peers[0], home)
    assert tap.link.receive() == home
    assert now_sent(tap) == sent + 40
    assert tap.link.receive_all() == []


def test_a_partial_checksum_is_made_whole_for_a_peer_that_takes_none(tap: Rig, peers: Peers) -> None:
    """The sessions here agreed on whole checksums only; the link gets the same bytes."""
    segment = ipv4("10.0.0.1", "10.0.0.2", bytes(6) + b"\0\x0c\0\0" + b"abcd", protocol=17)
    content = frame(BROADCAST, mac(1), segment, kind=0x0800)
    peer, session = peers[0]
    peer.send(session.seal(b"\x11" + content))
    at_link = tap.link.receive()
    _, (second,), (third,) = arrived(peers, tap, 2)
    assert second == third == inner(at_link)


def test_what_is_larger_than_the_other_path_is_answered_to_its_sender(tap: Rig, peers: Peers) -> None:
    meet(tap, peers)
    sent = now_sent(tap)
    tap.client.set_peer_mtu(2, 1300)
    packet = ipv4("10.0.0.1", "10.0.0.2", bytes(1380))
    packet = packet[:6] + b"\x40\0" + packet[8:]
    send(peers[0], frame(mac(2), mac(1), packet, kind=0x0800))
    (answer,), second, third = arrived(peers, tap, sent + 1)
    assert answer[1:15] == mac(1) + mac(2) + b"\x08\0"
    assert answer[15 + 20 : 15 + 22] == b"\x03\x04"
    assert (second, third) == ([], [])
    assert tap.drops() == {"path_too_large": 1}


def test_an_isolated_peer_exchanges_frames_with_the_link_alone(tap: Rig, peers: Peers) -> None:
    meet(tap, peers)
    tap.client.set_peer_frames(3, FrameRules())
    sent = now_sent(tap)
    send(peers[2], frame(mac(1), mac(3), b"to a peer"))
    send(peers[0], frame(mac(3), mac(1), b"to it"))
    tap.wait_drops("frame_isolated", 2)
    for each in (frame(BROADCAST, mac(3), b"from it"), frame(BROADCAST, mac(1), b"from a peer")):
        send(peers[2] if b"from it" in each else peers[0], each)
        assert tap.link.receive() == each
    assert arrived(peers, tap, sent + 1) == [[], [inner(frame(BROADCAST, mac(1), b"from a peer"))], []]
    tap.link.send(frame(mac(3), HOST, b"from the link"))
    assert arrived(peers, tap, sent + 2)[2] == [inner(frame(mac(3), HOST, b"from the link"))]


def test_only_its_static_addresses_are_taken_from_a_peer_and_from_no_other(tap: Rig, peers: Peers) -> None:
    tap.client.set_peer_frames(1, FrameRules(is_relayed=True, macs=(mac(1), mac(11))))
    send(peers[0], frame(HOST, mac(9), b"another's"))
    send(peers[1], frame(HOST, mac(11), b"stolen"))
    send(peers[1], frame(HOST, mac(11), b"stolen", vlan=10))
    tap.wait_drops("frame_source", 3)
    assert peers[1][0].counters().drops == {"frame_source": 2}
    send(peers[0], frame(BROADCAST, mac(11), b"mine"))
    assert tap.link.receive() == frame(BROADCAST, mac(11), b"mine")
    arrived(peers, tap, 2)
    sent = now_sent(tap)
    tap.link.send(frame(mac(1), HOST, b"it never spoke"))
    assert arrived(peers, tap, sent + 1) == [[inner(frame(mac(1), HOST, b"it never spoke"))], [], []]
    listed = sorted((each.mac, each.is_static) for each in tap.client.list_macs())
    assert listed == [(mac(1), True), (mac(11), False), (mac(11), True)]
    tap.client.set_peer_frames(1, RELAYED)
    send(peers[0], frame(HOST, mac(9), b"free"))
    assert tap.link.receive() == frame(HOST, mac(9), b"free")


def test_a_peer_sends_and_gets_the_vlans_it_may_and_no_other(tap: Rig, peers: Peers) -> None:
    tap.client.set_peer_frames(1, FrameRules(is_relayed=True, vlans=frozenset({0, 10})))
    tap.client.set_peer_frames(2, FrameRules(is_relayed=True, vlans=frozenset({10, 4094})))
    expected: list[list[bytes]] = [[], [], []]
    for vlan in (None, 10, 20, 4094):
        each = frame(BROADCAST, HOST, b"from the link", vlan=vlan)
        tap.link.send(each)
        for place, allowed in enumerate(((None, 10), (10, 4094), (None, 10, 20, 4094))):
            expected[place] += [inner(each)] if vlan in allowed else []
    assert arrived(peers, tap, 8) == expected
    send(peers[1], frame(BROADCAST, mac(2), b"untagged"))
    send(peers[1], frame(BROADCAST, mac(2), b"another", vlan=20))
    send(peers[1], frame(BROADCAST, mac(2), b"priority", vlan=0))
    tap.wait_drops("frame_vlan", 3)
    assert tap.link.receive_all() == []
    tagged = frame(BROADCAST, mac(2), b"mine", vlan=4094)
    send(peers[1], tagged)
    assert tap.link.receive() == tagged
    assert arrived(peers, tap, 9) == [[], [], [inner(tagged)]]
    send(peers[2], frame(mac(2), mac(3), b"known, and not its VLAN"))
    assert tap.link.receive() == frame(mac(2), mac(3), b"known, and not its VLAN")


def test_a_peer_without_any_vlan_sends_no_frame_and_gets_none(tap: Rig, peers: Peers) -> None:
    """As one that is yet to join; what it says besides frames still comes through."""
    tap.client.set_peer_frames(1, FrameRules(vlans=frozenset()))
    send(peers[0], frame(BROADCAST, mac(1), b"let me in"))
    tap.wait_drops("frame_vlan", 1)
    hello = frame(BROADCAST, HOST, b"hello")
    tap.link.send(hello)
    assert arrived(peers, tap, 2) == [[], [inner(hello)], [inner(hello)]]
    assert tap.link.receive_all() == []
    assert tap.client.list_macs() == ()
    peer, session = peers[0]
    peer.send(session.seal(b"\x25" + bytes(4)))
    assert tap.wait_event(ControlEvent).data == b"\x25" + bytes(4)


def test_a_providers_tag_opens_no_vlan(tap: Rig, peers: Peers) -> None:
    """A bridge takes such a frame for an untagged one."""
    tap.client.set_peer_frames(1, FrameRules(vlans=frozenset({10})))
    send(peers[0], frame(BROADCAST, mac(1), b"\0\x0a\x08\0within", kind=0x88A8))
    tap.wait_drops("frame_vlan", 1)
    assert tap.link.receive_all() == []


def test_a_storm_is_limited_each_way_and_what_is_known_is_not(tap: Rig, peers: Peers) -> None:
    for number in (1, 2, 3):
        tap.client.set_peer_frames(number, FrameRules(is_relayed=True, storm_limit=5))
    meet(tap, peers)
    began = time.monotonic()
    group = b"\x01\0\x5e\0\0\1"
    for number in range(120):
        send(peers[0], frame((BROADCAST, group, mac(77))[number % 3], mac(1), b"storm"))
        send(peers[0], frame(mac(2), mac(1), b"known"))
        send(peers[0], frame(HOST, mac(1), b"known"))
    one, known = peers[0][0], frame(HOST, mac(1), b"known")
    wait_until(lambda: one.counters().rx_packets + tap.dropped() >= 361, "all of it dealt with")
    at_link: list[bytes] = []

    def is_written() -> bool:
        at_link.extend(tap.link.receive_all())
        return at_link.count(known) == 120

    wait_until(is_written, "what is known at the link")
    # As many for each second that began meanwhile, on whatever machine.
    most = 5 * (2 + int(time.monotonic() - began))
    assert 120 - most <= tap.drops()["frame_storm"] <= 115
    assert 5 <= len(at_link) - 120 <= most
    relayed: list[bytes] = []

    def is_relayed() -> bool:
        relayed.extend(arrived(peers, tap, 0)[1])
        return relayed.count(inner(frame(mac(2), mac(1), b"known"))) == 120

    wait_until(is_relayed, "what is known at the other peer")
    before = tap.dropped()
    for _ in range(120):
        tap.link.send(frame(BROADCAST, HOST, b"storm"))
    wait_until(lambda: tap.dropped() >= before + 3 * 60, "what is too much counted for each peer")
    assert set(tap.drops()) == {"frame_storm"}


BAD = {
    "a flag nobody knows": (4, (), b""),
    "VLAN 4095": (2, (), bytes(511) + b"\x80"),
    "a group address": (0, (BROADCAST,), b""),
    "nobody's address": (0, (bytes(6),), b""),
    "an address twice": (0, (mac(1), mac(1)), b""),
    "addresses that descend": (0, (mac(2), mac(1)), b""),
}


@pytest.mark.parametrize("name", BAD)
def test_rules_that_cannot_be_are_refused(tap: Rig, peers: Peers, name: str) -> None:
    flags, macs, vlans = BAD[name]
    body = wire.SET_PEER_FRAMES_REQUEST.pack(1, flags, 0, len(macs), vlans.ljust(512, b"\0"))
    refuses(tap, "bad_value", WireType.SET_PEER_FRAMES, body + b"".join(map(wire.MAC.pack, macs)))


def test_rules_of_nobody_and_of_the_wrong_length_are_refused(tap: Rig, peers: Peers) -> None:
    refuses(tap, "no_such_peer", WireType.SET_PEER_FRAMES, pack_rules(9, RELAYED))
    body = pack_rules(1, FrameRules(macs=(mac(1), mac(2))))
    refuses(tap, "bad_length", WireType.SET_PEER_FRAMES, body[:-8])
    refuses(tap, "bad_length", WireType.SET_PEER_FRAMES, body + bytes(8))
    too_many = wire.SET_PEER_FRAMES_REQUEST.pack(1, 0, 0, 257, bytes(512)) + 257 * wire.MAC.pack(mac(1))
    refuses(tap, "bad_value", WireType.SET_PEER_FRAMES, too_many)


def test_the_next_plane_knows_the_rules(service: ServiceManager) -> None:
    client = service.connect()
    for number in (1, 2):
        client.set_peer(number, public_key(number), [ip_network("10.2.0.0/16")], None)
    rules = FrameRules(True, 7, tuple(mac(each) for each in range(1, 257)), frozenset({0, 4094}))
    client.set_peer_frames(2, rules)
    before = client.list_macs()
    client.close()
    service.terminate()
    service.start()
    with contextlib.closing(service.connect()) as client:
        assert {each.mac for each in client.list_macs()} == {each.mac for each in before}
        assert {(each.peer_id, each.is_static) for each in client.list_macs()} == {(2, True)}
        assert len(client.inventory().peers) == 2
