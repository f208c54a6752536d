"""Packets joined into frames: only what Linux would join, and cutting gives every byte back in order."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.plane.leaves import flows
from tests.plane.leaves.flows import (
    MORE_FRAGMENTS,
    TCP,
    UDP,
    Headers,
    Seen,
    ethernet,
)
from tests.plane.leaves.library import Leaves
from tests.plane.leaves.offloads import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    TAP,
    TUN,
    Arriving,
    Joined,
    LargeFrame,
    Offloads,
    join_all,
)
from tests.plane.leaves.senders import BODY, CHANGES, UNIT, senders


@pytest.fixture(scope="module")
def offloads(leaves: Leaves) -> Offloads:
    return Offloads(leaves.library)


def seen(arriving: Arriving) -> Seen:
    return flows.look(arriving.content, arriving.network_at, arriving.owner, is_partial=arriving.is_partial)


def cut_back(offloads: Offloads, joined: Joined, arrivals: Sequence[Arriving]) -> None:
    """A joined frame, cut by Linux' rules and by the plane's, gives the arrivals that are in it."""
    frame = joined.frame
    within = [arrivals[each] for each in joined.arrivals]
    first = seen(within[0])
    network_at = within[0].network_at
    kind = TAP if network_at else TUN
    if len(within) == 1:
        assert frame.content == within[0].content
        if not within[0].is_partial:
            assert frame == LargeFrame(frame.content)
            return
        field_at = flows.CHECKSUM_AT[first.protocol]
        assert frame == LargeFrame(frame.content, NEEDS_CSUM, 0, 0, network_at + first.at, field_at)
        return
    types = {(TCP, 4): GSO_TCPV4, (TCP, 6): GSO_TCPV6}
    assert frame.gso_type == types.get((first.protocol, first.packet[0] >> 4), GSO_UDP_L4)
    assert (frame.flags, frame.gso_size) == (NEEDS_CSUM, len(first.payload))
    assert frame.csum_start == network_at + first.at
    assert frame.csum_offset == flows.CHECKSUM_AT[first.protocol]
    assert frame.hdr_len == network_at + first.payload_at
    assert len(frame.content) - network_at <= 65535
    pieces = flows.cut_as_linux(
        frame.content,
        network_at=network_at,
        transport_at=frame.csum_start,
        protocol=first.protocol,
        size=frame.gso_size,
        partial=False,
    )
    assert pieces == [completed(each) for each in within]
    prefix = b"\x10" if network_at else b""
    cut = offloads.cut(frame, kind, complete=True)
    assert isinstance(cut, list)
    assert [each.content for each in cut] == [prefix + each for each in pieces]


def completed(arriving: Arriving) -> bytes:
    """The arrival with its checksum made real, if it was partial."""
    if not arriving.is_partial:
        return arriving.content
    one = seen(arriving)
    value = flows.real_checksum(one.packet, one.protocol, one.at)
    return one.ether + flows.with_field(one.packet, one.at + flows.CHECKSUM_AT[one.protocol], value)


def check_order(joined: Sequence[Joined], arrivals: Sequence[Arriving]) -> None:
    """Nothing is lost or doubled, and nothing overtakes its flow or what may belong to it."""
    delivered = [number for each in joined for number in each.arrivals]
    assert sorted(delivered) == list(range(len(arrivals)))
    kinds = [seen(each).flow for each in arrivals]
    for flow in set(kinds):
        kept = [number for number in delivered if kinds[number] in (flow, ())]
        assert kept == sorted(kept)


# ---- random flows ----

STEPS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(CHANGES), st.booleans()), min_size=1, max_size=60
)


@settings(max_examples=1500, deadline=None)
@given(steps=STEPS, kind=st.sampled_from((TUN, TAP)))
@example(steps=[(number, "next", True) for number in (0, 1, 2, 3) * 12], kind=TUN)
@example(steps=[(0, "next", False), (0, "minus zero", False), (0, "next", False)], kind=TUN)
@example(steps=[(0, "minus zero", False), (0, "next", False), (0, "next", False)], kind=TAP)
@example(steps=[(2, "next", False), (2, "minus zero header", False), (2, "next", False)], kind=TUN)
@example(steps=[(0, "next", True), (0, "bad offset", True), (0, "next", True)], kind=TUN)
def test_only_what_linux_would_join_is_joined_and_all_comes_back(
    offloads: Offloads, steps: list[tuple[int, str, bool]], kind: int
) -> None:
    """[D8] The frames are exactly the twin's; cut again they are the very packets, in their order."""
    flows_here = senders(ethernet(), ethernet(family=6)) if kind == TAP else senders()
    arrivals = [flows_here[flow].send(change, partial=partial) for flow, change, partial in steps]
    joined = join_all(offloads, arrivals)
    assert [list(each.arrivals) for each in joined] == flows.join_as_linux([seen(each) for each in arrivals])
    check_order(joined, arrivals)
    for each in joined:
        cut_back(offloads, each, arrivals)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from((TUN, TAP)))
def test_long_mixtures_of_flows_come_back(offloads: Offloads, seed: int, kind: int) -> None:
    """[D8] Four flows that mostly go on as they should, more packets than there is room for."""
    chance = random.Random(seed)
    changes = ("next",) * 200 + CHANGES
    flows_here = senders(ethernet(), ethernet(family=6)) if kind == TAP else senders()
    arrivals = [
        chance.choice(flows_here).send(chance.choice(changes), partial=chance.random() < 0.5)
        for _ in range(400)
    ]
    joined = join_all(offloads, arrivals)
    assert len(joined) < 300
    check_order(joined, arrivals)
    for each in joined:
        cut_back(offloads, each, arrivals)


# ---- single rules ----


def run_of(headers: Headers, count: int, *, size: int = UNIT, partial: bool = False) -> list[Arriving]:
    """Packets of one flow that continue each other."""
    flow = []
    for number in range(count):
        one = headers.but(
            sequence=(headers.sequence + number * size) & 0xFFFFFFFF, identity=headers.identity + number
        )
        content = one.frame(BODY[number * size : (number + 1) * size], partial=partial)
        flow.append(Arriving(content, len(headers.ether), partial))
    return flow


EVERYTHING = [
    Headers(protocol=protocol, family=family, ether=ethernet(*tags, family=family) if tags != (0,) else b"")
    for protocol in (TCP, UDP)
    for family in (4, 6)
    for tags in ((0,), (), (7,), (5, 7))
]


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("headers", EVERYTHING)
def test_a_run_becomes_one_frame(offloads: Offloads, headers: Headers, partial: bool) -> None:
    """[D8] TCP and UDP, of both families, in every kind of frame."""
    arrivals = run_of(headers, 20, partial=partial)
    (joined,) = join_all(offloads, arrivals)
    assert joined.arrivals == tuple(range(20))
    cut_back(offloads, joined, arrivals)


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_what_the_link_does_not_take_is_not_joined(offloads: Offloads, protocol: int) -> None:
    """[D8]"""
    arrivals = run_of(Headers(protocol=protocol), 5)
    joined = join_all(offloads, arrivals, tcp=protocol != TCP, udp=protocol != UDP)
    assert [each.arrivals for each in joined] == [(0,), (1,), (2,), (3,), (4,)]
    assert [each.frame for each in joined] == [LargeFrame(each.content) for each in arrivals]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_no_frame_exceeds_what_ip_can_say(offloads: Offloads, protocol: int, family: int) -> None:
    """[D8] 65,535 bytes of packet, whatever the Ethernet header around it."""
    for ether in (b"", ethernet(5, 7, family=family)):
        arrivals = run_of(Headers(protocol=protocol, family=family, ether=ether), 60, size=1400)
        joined = join_all(offloads, arrivals)
        check_order(joined, arrivals)
        assert len(joined) == 2
        assert 65535 - 1400 < len(joined[0].frame.content) - len(ether) <= 65535
        for each in joined:
            cut_back(offloads, each, arrivals)


def test_a_frame_has_as_many_packets_as_one_write_takes_vectors(offloads: Offloads) -> None:
    """[D8]"""
    arrivals = run_of(Headers(), 200, size=1)
    joined = join_all(offloads, arrivals)
    assert [len(each.arrivals) for each in joined] == [129, 71]
    check_order(joined, arrivals)
    for each in joined:
        cut_back(offloads, each, arrivals)


def test_room_that_ran_out_loses_nothing(offloads: Offloads) -> None:
    """[D8] 128 frames or 256 packets, then nothing more is taken until they were."""
    coalescer = offloads.coalescer()
    flood = [Arriving(Headers(ports=(number, 9)).packet(b"x")) for number in range(129)]
    assert [coalescer.add(each) for each in flood] == [True] * 128 + [False]
    assert [each.frame.content for each in coalescer.take()] == [each.content for each in flood[:128]]
    runs = [each for port in range(5) for each in run_of(Headers(ports=(port, 9)), 60, partial=True)]
    taken = [coalescer.add(each) for each in runs]
    assert taken == [True] * 256 + [False] * 44
    assert [len(each.arrivals) for each in coalescer.take()] == [60, 60, 60, 60, 16]
    assert coalescer.add(flood[0])
    assert coalescer.take()[0].frame == LargeFrame(flood[0].content)


def test_frames_of_two_peers_are_never_joined(offloads: Offloads) -> None:
    """[D8]"""
    one, other = (run_of(Headers(), 2)[number] for number in (0, 1))
    moved = Arriving(other.content, other.network_at, other.is_partial, owner=2)
    assert [each.arrivals for each in join_all(offloads, [one, moved])] == [(0,), (1,)]
    assert [each.arrivals for each in join_all(offloads, [one, other])] == [(0, 1)]


@pytest.mark.parametrize("place", [10, 20 + 16, 20 + 20, 20 + 20 + UNIT - 1])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_damage_is_delivered_as_it_came(offloads: Offloads, which: int, place: int) -> None:
    """[D8] A wrong checksum of TCP or the IPv4 header reaches the far host, which drops the packet."""
    arrivals = run_of(Headers(), 3)
    good = arrivals[which].content
    damaged = Arriving(good[:place] + bytes((good[place] ^ 1,)) + good[place + 1 :])
    arrivals[which] = damaged
    joined = join_all(offloads, arrivals)
    (alone,) = [each for each in joined if which in each.arrivals]
    assert alone.frame == LargeFrame(damaged.content)
    check_order(joined, arrivals)


def test_a_fragment_keeps_its_place_in_every_flow(offloads: Offloads) -> None:
    """[D8] It may belong to any of them: what comes later is not joined to what came before."""
    one, other = run_of(Headers(), 4), run_of(Headers(ports=(5, 6)), 4)
    fragment = Arriving(Headers(fragment=MORE_FRAGMENTS).packet(b"part"))
    mixed = [one[0], other[0], one[1], other[1], fragment, one[2], other[2], one[3], other[3]]
    joined = join_all(offloads, mixed)
    assert [each.arrivals for each in joined] == [(0, 2), (1, 3), (4,), (5, 7), (6, 8)]
