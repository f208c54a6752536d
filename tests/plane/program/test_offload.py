"""Large frames, runs of datagrams and partial checksums through the real program and a real kernel."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import pytest

from tests.plane.harness import (
    FEATURE_TAP,
    FEATURE_TUN,
    Rig,
    wait_until,
)
from tests.plane.large_frames import large_frames
from tests.plane.large_tunnel import (
    BODY,
    PARTIAL,
    Large,
    completed,
    joined_to,
    marked,
    send_run,
    split,
)
from tests.plane.leaves import flows
from tests.plane.leaves.flows import MORE_FRAGMENTS, TCP, UDP, Headers, cut_frame, ethernet
from tests.plane.leaves.offloads import NEEDS_CSUM, LargeFrame, large
from tests.plane.packets import BROADCAST
from vpnd.plane.wire import Offload

KINDS = [
    Headers(protocol=protocol, family=family, tcp_options=flows.TIMESTAMPS)
    for protocol in (TCP, UDP)
    for family in (4, 6)
]


def named(headers: Headers) -> str:
    return f"{'tcp' if headers.protocol == TCP else 'udp'}{headers.family}"


@pytest.fixture
def tunnel(tun: Rig) -> Iterator[Large]:
    with joined_to(tun) as made:
        yield made


@pytest.fixture
def bridge(tap: Rig) -> Iterator[Large]:
    with joined_to(tap, kind="tap") as made:
        yield made


# ---- out ----


@pytest.mark.parametrize("headers", KINDS, ids=named)
def test_a_large_frame_leaves_as_packets_of_its_size(tunnel: Large, headers: Headers) -> None:
    """[D7, D9, D11] Bit for bit as Linux cuts, every one with a partial checksum and marked so."""
    tunnel.frames.send(large(headers, BODY[:40_000], 1300))
    wanted = [marked(each, is_tap=False) for each in cut_frame(headers, BODY[:40_000], 1300)]
    assert tunnel.received(31) == wanted
    tunnel.nothing_lost()


@pytest.mark.parametrize("headers", KINDS, ids=named)
def test_a_peer_without_the_feature_gets_whole_checksums(tun: Rig, headers: Headers) -> None:
    """[D10] Bit 4 of the agreed features decides, for large frames and for single packets."""
    with joined_to(tun, features=FEATURE_TUN) as made:
        made.frames.send(large(headers, BODY[:4000], 1300))
        assert made.received(4) == cut_frame(headers, BODY[:4000], 1300, partial=False)
        made.frames.send(large(headers, b"single"))
        assert made.received(1) == [headers.packet(b"single")]
        made.frames.send(LargeFrame(headers.packet(b"whole")))
        assert made.received(1) == [headers.packet(b"whole")]


def test_two_peers_that_differ_get_what_each_of_them_takes(tap: Rig) -> None:
    """[D10] Of one broadcast frame both get whole checksums: they share its bytes."""
    headers = Headers(protocol=UDP, ether=BROADCAST + ethernet()[6:])
    able, unable = (tap.add_peer(number, (), address=f"127.0.0.{number + 1}") for number in (1, 2))
    sessions = [able.install(features=PARTIAL), unable.install(features=FEATURE_TAP)]
    with large_frames(tap.namespace, tap.link) as frames:
        frames.send(large(headers, b"for everybody"))
    for peer, session in zip((able, unable), sessions, strict=True):
        assert session.open(peer.receive()).plaintext == b"\x10" + headers.frame(b"for everybody")


@pytest.mark.parametrize(
    "headers",
    [
        Headers(family=6, extensions=bytes(8)),
        Headers(family=6, protocol=UDP, extensions=bytes(16)),
        Headers(protocol=UDP, fragment=MORE_FRAGMENTS),
    ],
)
def test_a_checksum_whose_place_cannot_be_told_is_completed(tunnel: Large, headers: Headers) -> None:
    """[D9] Behind extension headers, and of a first fragment."""
    tunnel.frames.send(large(headers, b"payload!"))
    assert tunnel.received(1) == [headers.packet(b"payload!")]


@pytest.mark.parametrize("padding", [1, 2, 3])
def test_padding_keeps_the_mark_where_there_is_one(tun: Rig, padding: int) -> None:
    """[D9, D14]"""
    headers = Headers(protocol=UDP)
    with joined_to(tun, padding=padding) as made:
        made.frames.send(large(headers, b"payload"))
        (plaintext,) = made.received(1)
        wanted = marked(headers.packet(b"payload", partial=True), is_tap=False)
        assert plaintext[: len(wanted)] == wanted
        assert not any(plaintext[len(wanted) :])


def test_a_padded_frame_has_no_mark_and_a_whole_checksum(tap: Rig) -> None:
    """[D9, D14]"""
    headers = Headers(protocol=UDP, ether=ethernet())
    with joined_to(tap, padding=1, kind="tap") as made:
        made.frames.send(large(headers, b"payload"))
        (plaintext,) = made.received(1)
        content = headers.frame(b"payload")
        assert plaintext[: 3 + len(content)] == b"\x12" + struct.pack("<H", len(content)) + content


@pytest.mark.parametrize("tags", [(), (7,), (5, 7)])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("family", [4, 6])
def test_frames_with_vlan_tags_are_cut_and_joined(
    bridge: Large, family: int, protocol: int, tags: tuple[int, ...]
) -> None:
    """[D7, D8, E9] Both ways; every piece has the tags of the whole."""
    headers = Headers(protocol=protocol, family=family, ether=ethernet(*tags, family=family))
    bridge.frames.send(large(headers, BODY[:20_000], 1300))
    plaintexts = bridge.received(16)
    assert [completed(each) for each in plaintexts] == cut_frame(headers, BODY[:20_000], 1300, partial=False)
    back = headers.but(ether=headers.ether[6:12] + headers.ether[:6] + headers.ether[12:])
    for each in cut_frame(back, BODY[:20_000], 1300):
        bridge.peer.send(bridge.session.seal(b"\x11" + each))
    frames = bridge.frames.receive_until(20_000, around=len(back.ether) + back.size)
    assert [piece for frame in frames for piece in split(frame)] == cut_frame(
        back, BODY[:20_000], 1300, partial=False
    )
    bridge.nothing_lost()


# ---- in ----


@pytest.mark.parametrize("headers", KINDS, ids=named)
def test_a_run_of_segments_reaches_the_link_as_one_frame(tunnel: Large, headers: Headers) -> None:
    """[D8, D9] With the checksums as they came, partial or whole."""
    for partial in (True, False):
        pieces = cut_frame(headers, BODY[:26_300], 1300, partial=partial)
        send_run(
            tunnel, [tunnel.session.seal(marked(each, is_tap=False, partial=partial)) for each in pieces]
        )
        frame = tunnel.frames.receive()
        assert frame.content == headers.frame(BODY[:26_300], partial=True)
        assert (frame.flags, frame.gso_size) == (NEEDS_CSUM, 1300)
        assert split(frame) == cut_frame(headers, BODY[:26_300], 1300, partial=False)
    tunnel.nothing_lost()


@pytest.mark.parametrize("place", [0, 7, 19])
def test_a_forged_slice_of_a_run_costs_nothing_but_itself(tunnel: Large, place: int) -> None:
    """[D13] The others are delivered in order, one is counted as not authentic."""
    headers = Headers(tcp_options=flows.TIMESTAMPS)
    pieces = cut_frame(headers, BODY[:26_000], 1300)
    datagrams = [tunnel.session.seal(marked(each, is_tap=False)) for each in pieces]
    forged = bytearray(datagrams[place])
    forged[100] ^= 1
    datagrams[place] = bytes(forged)
    send_run(tunnel, datagrams)
    tunnel.rig.wait_drops("data_auth", 1)
    assert tunnel.rig.drops() == {"data_auth": 1}
    frames = tunnel.frames.receive_until(19 * 1300, around=headers.size)
    whole = cut_frame(headers, BODY[:26_000], 1300, partial=False)
    assert [piece for frame in frames for piece in split(frame)] == whole[:place] + whole[place + 1 :]
    assert len(frames) == (1 if place in (0, 19) else 2)


def test_every_kind_of_slice_finds_its_way(tunnel: Large) -> None:
    """[D13] A handshake message, garbage, a replay, a keepalive and packets in one run of equal sizes."""
    packet = Headers(protocol=UDP).packet(bytes(60))
    sealed = [tunnel.session.seal(packet[:4] + bytes((0, number)) + packet[6:]) for number in range(3)]
    size = len(sealed[0])
    garbage = b"\xff" * size
    initiation = b"\x08\0\0\0" + bytes(size - 4)
    unknown = b"\x0c\0\0\0\x01\x02\x03\x04" + bytes(size - 8)
    run = [sealed[0], garbage, sealed[1], sealed[1], unknown, initiation, sealed[2], tunnel.session.seal(b"")]
    send_run(tunnel, run)
    wait_until(lambda: tunnel.rig.dropped() >= 3, f"three drops, but {tunnel.rig.drops()}")
    assert tunnel.rig.drops() == {"rx_malformed": 1, "data_replay": 1, "data_noidx": 1}
    contents = [tunnel.frames.receive().content[5] for _ in range(3)]
    assert contents == [0, 1, 2]
    assert tunnel.rig.received() == len(run)


@pytest.mark.parametrize("offset", [0, 4, 15])
def test_a_partial_checksum_in_a_broken_header_is_refused(tunnel: Large, offset: int) -> None:
    """[D9, H13] The kernel is told of no checksum whose place is not known."""
    headers = Headers(data_offset=offset)
    broken = headers.packet(b"payload", partial=True)
    tunnel.peer.send(tunnel.session.seal(marked(broken, is_tap=False)))
    tunnel.rig.wait_drops("data_inner", 1)
    tunnel.peer.send(tunnel.session.seal(broken))
    assert tunnel.frames.receive() == LargeFrame(broken)


def test_a_wrong_checksum_goes_through_as_it_is(tunnel: Large) -> None:
    """[D8] Out, in and between others: the far host shall see what was damaged before the tunnel."""
    headers = Headers(tcp_options=flows.TIMESTAMPS)
    pieces = cut_frame(headers, BODY[:13_000], 1300, partial=False)
    pieces[4] = pieces[4][:-1] + bytes((pieces[4][-1] ^ 1,))
    tunnel.frames.send(LargeFrame(pieces[4]))
    assert tunnel.received(1) == [pieces[4]]
    send_run(tunnel, [tunnel.session.seal(each) for each in pieces])
    frames = tunnel.frames.receive_until(13_000, around=headers.size)
    assert [piece for frame in frames for piece in split(frame)] == pieces


# ---- switched ----


@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_offloads_are_switched_while_packets_move(rig: Rig, kind: str) -> None:
    """[D10, D11, I6] Each of the eight choices and back, both ways: the same bytes in the same order."""
    rig.add_link(kind)
    rig.add_sockets("127.0.0.1")
    ether = ethernet() if kind == "tap" else b""
    with joined_to(rig, kind=kind) as made:
        for number, choice in enumerate(itertools.chain(range(8), reversed(range(8)))):
            headers = Headers(ether=ether, identity=number * 40, sequence=number * 10_000)
            back = headers.but(ether=ether[6:12] + ether[:6] + ether[12:])
            rig.client.set_options(1024, 300, Offload(choice))
            inventory = rig.inventory().offloads
            assert inventory.wanted == inventory.active == Offload(choice)
            _exchange(made, headers, back, Offload(number * 3 % 8))
        made.nothing_lost()


def _exchange(made: Large, headers: Headers, back: Headers, during: Offload) -> None:
    """10,000 bytes each way, and a change in the middle of it."""
    is_tap = bool(headers.ether)
    made.frames.send(large(headers, BODY[:10_000], 1000))
    datagrams = [
        made.session.seal(marked(each, is_tap=is_tap)) for each in cut_frame(back, BODY[:10_000], 1000)
    ]
    send_run(made, datagrams[:5])
    made.rig.client.set_options(1024, 300, during)
    send_run(made, datagrams[5:])
    plaintexts = made.received(10)
    sent = [completed(each if is_tap else _as_frame(each)) for each in plaintexts]
    wanted = cut_frame(headers, BODY[:10_000], 1000, partial=False)
    assert sent == (wanted if is_tap else [ethernet() + each for each in wanted])
    frames = made.frames.receive_until(10_000, around=len(back.ether) + back.size)
    assert [piece for frame in frames for piece in split(frame)] == cut_frame(
        back, BODY[:10_000], 1000, partial=False
    )


def _as_frame(plaintext: bytes) -> bytes:
    """An IPv4 packet's message as if it were one of an Ethernet link."""
    is_partial = plaintext[0] & 0x10 != 0
    return (
        bytes((0x11 if is_partial else 0x10,)) + ethernet() + bytes((plaintext[0] & ~0x10,)) + plaintext[1:]
    )


def test_the_inventory_tells_what_runs(tunnel: Large) -> None:
    """[D12] All that this kernel can is on, and nothing was refused."""
    offloads = tunnel.rig.inventory().offloads
    assert offloads.wanted == offloads.active == Offload.ALL
    assert not any(offloads.errors.values())
