"""Packets that have nowhere to go, and those that go in circles."""

from __future__ import annotations

import socket
import struct

import pytest

from tests.plane.harness import Far, Rig, wait_until
from tests.plane.packets import UDP, frame, ipv4, ipv6, mac, numbered

HERE, THERE = "10.1.0.1", "10.2.0.7"
DATA = b"\x0c\0\0\0"
IP_RECVTTL, IP_TTL = 12, 2


def wrapped(hops: int, *, begins: bytes = DATA, family: int = 4) -> bytes:
    """A UDP packet that looks as a tunnel's does, with so many hops left."""
    payload = struct.pack(">HHHH", 5180, 5180, 72, 0) + begins + bytes(60)
    if family == 6:
        packet = bytearray(ipv6("2001:db8:1::1", "2001:db8:2::7", payload, next_header=UDP))
        packet[7] = hops
        return bytes(packet)
    packet = bytearray(ipv4(HERE, THERE, payload, protocol=UDP))
    packet[8] = hops
    packet[10:12] = b"\0\0"
    return bytes(packet)


def hops_received(peer: Far) -> int:
    """How far the next datagram of the plane's could have gone."""
    peer.socket.settimeout(2)
    _, ancillary, _, _ = peer.socket.recvmsg(65536, 64)
    ((level, kind, data),) = ancillary
    assert (level, kind) == (socket.IPPROTO_IP, IP_TTL)
    return int.from_bytes(data, "little")


@pytest.mark.parametrize(("inside", "outside"), [(255, 48), (64, 48), (48, 32), (32, 16), (17, 1)])
@pytest.mark.parametrize("kind", ["ipv4", "ipv6", "frame"])
def test_each_wrapping_costs_hops(rig: Rig, kind: str, inside: int, outside: int) -> None:
    """[E1] What carries a tunnel's datagram may go less far than that one; anything else as far as ever."""
    rig.add_link("tap" if kind == "frame" else "tun")
    rig.add_sockets("127.0.0.1")
    peer = rig.add_peer(1, ["10.2.0.0/16", "2001:db8:2::/48"])
    peer.install()
    peer.socket.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)

    def packet(begins: bytes) -> bytes:
        inner = wrapped(inside, begins=begins, family=6 if kind == "ipv6" else 4)
        return frame(mac(1), mac(2), inner, kind=0x0800) if kind == "frame" else inner

    for begins, expected in ((b"\x0c\0\0\1", 64), (DATA, outside), (b"\x08\0\0\0", 64)):
        rig.link.send(packet(begins))
        assert hops_received(peer) == expected
    assert rig.drops() == {}


def test_a_packet_wrapped_too_often_is_dropped_and_counted(tun: Rig) -> None:
    """[E2, E3] Whatever the length of the loop: its hops run out."""
    peer = tun.add_peer(1)
    session = peer.install()
    for hops in (1, 16):
        tun.link.send(wrapped(hops))
    tun.wait_drops("link_loop", 2)
    assert peer.counters().drops == {"link_loop": 2}
    tun.link.send(wrapped(1, begins=b"\x0d\0\0\0"))
    assert session.open(peer.receive()).plaintext == wrapped(1, begins=b"\x0d\0\0\0")


def test_the_sender_to_no_peer_is_told(tun: Rig) -> None:
    """[E7] In both families, from the address it asked for; nothing is said about a group."""
    tun.add_peer(1).install()
    tun.link.send(ipv4(HERE, "224.0.0.5", bytes(20)))
    asked = numbered(HERE, "10.3.0.9", 1)
    tun.link.send(asked)
    answer = tun.link.receive()
    assert (answer[9], answer[20:22], answer[28:]) == (1, b"\x03\x01", asked)
    asked = ipv6("2001:db8:1::1", "2001:db8:9::9", bytes(20), next_header=UDP)
    tun.link.send(asked)
    answer = tun.link.receive()
    assert (answer[6], answer[40:42], answer[48:]) == (58, b"\x01\x03", asked)
    tun.wait_drops("no_peer", 3)
    assert tun.link.receive_all() == []


def test_a_storm_to_no_peer_is_answered_at_a_bounded_rate(tun: Rig) -> None:
    """[E7] 50 at once and 100 a second: a scan gets no more, however fast it is."""
    for number in range(5000):
        tun.link.send(numbered(HERE, "10.3.0.9", number, 40))
    wait_until(lambda: tun.drops().get("no_peer") == 5000, f"all dropped, but {tun.drops()}")
    assert 50 <= len(tun.link.receive_all()) < 1000
