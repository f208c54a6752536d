"""Spoofing from inside: an authenticated peer, and every kind of source address that is not its own.

Peer 1 has the networks OWN, peer 2 OTHERS, some of which lie within those.
"""

from __future__ import annotations

import random

import pytest

from tests.plane.far import Session
from tests.plane.harness import Far, Rig
from tests.plane.packets import TCP, ipv4, ipv6, mac
from tests.plane.packets import frame as ethernet
from tests.plane.program.test_data import deliver

HERE = {4: "10.1.0.1", 6: "fd00:1::1"}
OWN = ("10.2.0.7/32", "10.20.0.0/16", "fd00:2::7/128", "fd00:20::/48")
OTHERS = ("10.3.0.7/32", "10.20.5.0/24", "fd00:3::7/128", "fd00:20:0:5::/64")
RIGHT = {4: ("10.2.0.7", "10.20.0.1", "10.20.255.254"), 6: ("fd00:2::7", "fd00:20::1", "fd00:20:0:6::1")}
NEVER = {  # whoever's networks are around them
    4: {"loopback": "127.0.0.1", "multicast": "224.0.0.5", "broadcast": "255.255.255.255"},
    6: {"loopback": "::1", "multicast": "ff02::5"},
}
WRONG = {
    4: NEVER[4]
    | {
        "another peer's address": "10.3.0.7",
        "another peer's network within its own": "10.20.5.1",
        "beside its own address": "10.2.0.8",
        "ours": HERE[4],
        "nobody's": "203.0.113.9",
        "unspecified": "0.0.0.0",
        "link-local": "169.254.1.1",
    },
    6: NEVER[6]
    | {
        "another peer's address": "fd00:3::7",
        "another peer's network within its own": "fd00:20:0:5::1",
        "beside its own address": "fd00:2::8",
        "ours": HERE[6],
        "nobody's": "2001:db8::9",
        "unspecified": "::",
        "link-local": "fe80::7",
        "its own of the other family": "::ffff:10.2.0.7",
    },
}
SOURCES = [(family, kind) for family in WRONG for kind in WRONG[family]]


@pytest.fixture
def peers(tun: Rig) -> tuple[Far, Session]:
    """Peer 1 with a session, and another peer with its own."""
    peer, other = tun.add_peer(1, OWN), tun.add_peer(2, OTHERS, address="127.0.0.3")
    other.install()
    return peer, peer.install()


def packet(source: str, number: int = 0, *, is_partial: bool = False) -> bytes:
    """From `source` to us; a partial checksum is told by a bit of the first byte."""
    family = 6 if ":" in source else 4
    payload = number.to_bytes(4, "big").ljust(40, b"\0") if not is_partial else bytes(12) + b"\x50" + bytes(7)
    if family == 6:
        made = ipv6(source, HERE[6], payload, next_header=TCP if is_partial else 253)
    else:
        made = ipv4(source, HERE[4], payload, protocol=TCP if is_partial else 253)
    return bytes([made[0] | 0x10]) + made[1:] if is_partial else made


def pass_only(rig: Rig, peer: Far, datagrams: list[bytes], right: list[bytes]) -> None:
    """Sends all of them; these come out of the link, in whatever order flows have, and nothing else."""
    for datagram in datagrams:
        peer.send(datagram)
    assert sorted(rig.link.receive() for _ in right) == sorted(right)
    assert rig.link.receive_all() == []


@pytest.mark.parametrize(("family", "kind"), SOURCES)
def test_a_source_that_is_not_the_peers_is_refused_and_counted(
    tun: Rig, peers: tuple[Far, Session], family: int, kind: str
) -> None:
    """[E4] Alone, with a partial checksum, and among right ones in every order; the right ones pass."""
    peer, session = peers
    source, right = WRONG[family][kind], RIGHT[family]
    assert deliver(tun, peer, [session.seal(packet(source))]) == []
    assert deliver(tun, peer, [session.seal(packet(source, is_partial=True))]) == []
    assert peer.counters().drops == {"data_source": 2}
    mixed = [packet(each, number) for number, each in enumerate((*right, source) * 8)]
    random.Random(family).shuffle(mixed)
    refused = {packet(source, number) for number in range(len(mixed))}
    pass_only(
        tun, peer, [session.seal(each) for each in mixed], [each for each in mixed if each not in refused]
    )
    tun.wait_drops("data_source", 2 + 8)
    assert tun.drops() == peer.counters().drops == {"data_source": 2 + 8}


@pytest.mark.parametrize("family", [4, 6])
def test_some_addresses_are_nobodys_even_where_a_peer_has_everything(tun: Rig, family: int) -> None:
    """[E4] A full tunnel's gateway sends from anywhere, but not from our own loopback, nor from a group."""
    peer = tun.add_peer(1, ("0.0.0.0/0", "::/0"))
    session = peer.install()
    never = [session.seal(packet(source)) for source in NEVER[family].values()]
    assert deliver(tun, peer, never) == []
    assert peer.counters().drops == {"data_source": len(never)}
    anywhere = [packet(source) for source in ("9.9.9.9", "2001:db8::9") if (":" in source) == (family == 6)]
    pass_only(tun, peer, [session.seal(each) for each in anywhere], anywhere)


def test_a_frame_is_never_from_a_group(tap: Rig) -> None:
    """[E9] TAP knows no networks: a source is wrong that is a group's, or everybody's."""
    peer = tap.add_peer(1, ())
    session = peer.install()
    groups = [b"\xff" * 6, bytes.fromhex("01005e000001"), bytes.fromhex("333300000001")]
    wrong = [session.seal(b"\x10" + ethernet(mac(1), group, bytes(46))) for group in groups]
    assert deliver(tap, peer, wrong) == []
    assert peer.counters().drops == {"data_inner": len(groups)}
    right = ethernet(mac(1), mac(2), bytes(46))
    pass_only(tap, peer, [session.seal(b"\x10" + right)], [right])
