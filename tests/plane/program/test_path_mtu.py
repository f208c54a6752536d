"""Packets larger than the path to their peer: told to their senders, or sent as they are."""

from __future__ import annotations

import struct

import pytest

from tests.plane.harness import Far, Rig
from tests.plane.packets import TCP, UDP, frame, ipv4, ipv6, mac
from vpnd.errors import PlaneError

HERE, THERE = "10.1.0.1", "10.2.0.7"
HERE6, THERE6 = "2001:db8:1::1", "2001:db8:2::7"


@pytest.fixture
def peer(tun: Rig) -> Far:
    return tun.add_peer(1, ["10.2.0.0/16", "2001:db8:2::/48"])


def udp(size: int) -> bytes:
    return struct.pack(">HHHH", 5000, 5001, size, 0).ljust(size, b"x")


def packet(size: int, *, may_fragment: bool = False) -> bytes:
    return ipv4(HERE, THERE, udp(size - 20), protocol=UDP, may_fragment=may_fragment)


def test_a_packet_that_fits_no_more_is_sent_back_with_the_size_that_does(tun: Rig, peer: Far) -> None:
    """[D6] IPv4 that must stay whole, and IPv6."""
    session = peer.install()
    tun.client.set_peer_mtu(1, 1340)
    assert tun.inventory().peers[0].mtu == 1340
    tun.link.send(packet(1341))
    answer = tun.link.receive()
    assert (answer[9], answer[20:22], answer[26:28]) == (1, b"\x03\x04", struct.pack(">H", 1340))
    tun.link.send(ipv6(HERE6, THERE6, udp(1301), next_header=UDP))
    answer = tun.link.receive()
    assert (answer[6], answer[40:42], answer[44:48]) == (58, b"\x02\x00", struct.pack(">I", 1340))
    assert tun.drops() == {"path_too_large": 2}
    tun.link.send(packet(1340))
    assert session.open(peer.receive()).plaintext == packet(1340)


def test_what_may_be_cut_on_its_way_goes_as_it_is(tun: Rig, peer: Far) -> None:
    session = peer.install()
    tun.client.set_peer_mtu(1, 1340)
    tun.link.send(packet(1420, may_fragment=True))
    assert session.open(peer.receive()).plaintext == packet(1420, may_fragment=True)
    assert tun.drops() == {}


def test_without_a_limit_all_that_the_link_takes_goes(tun: Rig, peer: Far) -> None:
    session = peer.install()
    tun.client.set_peer_mtu(1, 1340)
    tun.client.set_peer_mtu(1, 0)
    tun.link.send(packet(1420))
    assert session.open(peer.receive()).plaintext == packet(1420)


def test_answers_are_limited_and_everything_is_counted(tun: Rig, peer: Far) -> None:
    peer.install()
    tun.client.set_peer_mtu(1, 1340)
    for _ in range(500):
        tun.link.send(packet(1400))
    tun.wait_drops("path_too_large", 500)
    assert 50 <= len(tun.link.receive_all()) <= 300


@pytest.mark.parametrize("mtu", [1, 67, 65_536])
def test_an_mtu_that_no_link_has_is_refused(tun: Rig, peer: Far, mtu: int) -> None:
    with pytest.raises(PlaneError, match="bad_value"):
        tun.client.set_peer_mtu(1, mtu)
    assert tun.inventory().peers[0].mtu == 0


def syn(source: str, destination: str) -> bytes:
    """Checksums are not looked at here."""
    header = struct.pack(">HHIIBBHHH", 40000, 80, 1, 0, 6 << 4, 2, 64240, 0, 0)
    return ipv4(source, destination, header + b"\x02\x04\x05\xb4", protocol=TCP)


@pytest.mark.parametrize(("mtu", "mss"), [(0, 1380), (1340, 1300)])
def test_connections_are_told_what_fits_at_both_ends(tun: Rig, peer: Far, mtu: int, mss: int) -> None:
    """[D4] By SYNs that leave and those that come: whatever their hosts believe."""
    session = peer.install()
    tun.client.set_peer_mtu(1, mtu)
    tun.link.send(syn(HERE, THERE))
    assert session.open(peer.receive()).plaintext[42:44] == struct.pack(">H", mss)
    peer.send(session.seal(syn(THERE, HERE)))
    assert tun.link.receive()[42:44] == struct.pack(">H", mss)


def test_a_frame_that_fits_no_more_is_answered_in_a_frame(tap: Rig) -> None:
    """[D6] As by a tunnel of the kernel's own under a bridge; frames without IP go as they are."""
    peer = tap.add_peer(1)
    session = peer.install()
    tap.client.set_peer_mtu(1, 1340)
    us, them = mac(1), mac(2)
    tap.link.send(frame(them, us, packet(1400), kind=0x0800))
    answer = tap.link.receive()
    assert answer[:14] == us + them + b"\x08\x00"
    assert (answer[14 + 20 : 14 + 22], answer[14 + 26 : 14 + 28]) == (b"\x03\x04", struct.pack(">H", 1340))
    tap.link.send(frame(them, us, bytes(1400)))
    assert session.open(peer.receive()).plaintext[1:] == frame(them, us, bytes(1400))
    assert tap.drops() == {"path_too_large": 1}
