"""TCP and UDP inside packets: where they are and whether their checksums are right."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.plane.leaves import flows
from tests.plane.leaves.flows import CHECKSUM_AT, MORE_FRAGMENTS, TCP, UDP, Headers, ethernet
from tests.plane.leaves.library import Leaves, Packets
from tests.plane.leaves.offloads import Offloads


@pytest.fixture(scope="module")
def offloads(leaves: Leaves) -> Offloads:
    return Offloads(leaves.library)


@pytest.fixture(scope="module")
def packets(leaves: Leaves) -> Packets:
    return leaves.packets


@settings(max_examples=600, deadline=None)
@given(start=st.integers(0, 65535), data=st.binary(max_size=300), lead=st.integers(0, 9))
@example(start=0, data=b"", lead=0)
@example(start=0xFFFF, data=b"\xff" * 17, lead=1)
@example(start=1, data=b"\xff" * 300, lead=7)
@example(start=0, data=b"\0" * 33, lead=3)
def test_the_sum_is_that_of_rfc_1071(packets: Packets, start: int, data: bytes, lead: int) -> None:
    """At every alignment and of every length; also in two parts, where the first is of even size."""
    assert packets.checksum_add(start, data) == flows.ones_sum(data, start)
    even = lead * 2
    parts = packets.checksum_add(packets.checksum_add(start, data[:even]), data[even:])
    assert parts == flows.ones_sum(data, start)


def test_every_length_and_alignment_sums_right(packets: Packets) -> None:
    """Also of all ones, where every addition carries."""
    for data in (bytes(range(1, 200)), b"\xff" * 199):
        for start in range(17):
            for end in range(start, 100):
                assert packets.checksum_add(7, data[start:end]) == flows.ones_sum(data[start:end], 7)


def test_the_largest_packet_sums_right(packets: Packets) -> None:
    data = b"\xff\xfe" * 32767 + b"\xff"
    assert packets.checksum_add(0xFFFF, data) == flows.ones_sum(data, 0xFFFF)


@settings(max_examples=400, deadline=None)
@given(words=st.lists(st.integers(0, 65535), min_size=2, max_size=12), new=st.integers(0, 65535))
@example(words=[0, 1], new=0xFFFF)
@example(words=[0xFFFF, 0xFFFF], new=0)
@example(words=[0xFFFF, 0], new=0)
def test_a_replaced_word_gives_the_recomputed_sum(offloads: Offloads, words: list[int], new: int) -> None:
    """RFC 1624: as computing all of it anew; the two zeros of ones' complement are one value."""
    if not any(words):
        words = [*words, 1]  # a header of zeros is none
    before = 0xFFFF ^ flows.ones_sum(b"".join(word.to_bytes(2, "big") for word in words))
    changed = [new, *words[1:]]
    after = 0xFFFF ^ flows.ones_sum(b"".join(word.to_bytes(2, "big") for word in changed))
    got = offloads.replaced(before, words[0], new)
    if not any(changed):
        return
    assert got % 0xFFFF == after % 0xFFFF
    # Seven too much stays seven too much.
    wrong = (before + 7) % 0xFFFF
    assert (offloads.replaced(wrong, words[0], new) - wrong) % 0xFFFF == (after - before) % 0xFFFF


@settings(max_examples=500, deadline=None)
@given(
    headers=st.builds(
        Headers,
        protocol=st.sampled_from((TCP, UDP)),
        family=st.sampled_from((4, 6)),
        fragment=st.sampled_from((0, flows.DONT_FRAGMENT, MORE_FRAGMENTS, 3)),
        ip_options=st.sampled_from((b"", b"\x01" * 40)),
        extensions=st.sampled_from((b"", bytes(16))),
        tcp_options=st.sampled_from((b"", flows.SACK)),
        data_offset=st.sampled_from((None, None, 0, 4, 6, 15)),
    ),
    payload=st.binary(max_size=40),
    cut=st.integers(0, 60),
)
def test_the_transport_is_found_where_it_is(
    offloads: Offloads, headers: Headers, payload: bytes, cut: int
) -> None:
    """[D9] Directly behind the IP header, unfragmented, with its whole header inside; else not at all."""
    content = headers.packet(payload)
    one = flows.look(content, 0, 1, is_partial=False)
    field = one.at + CHECKSUM_AT.get(one.protocol, 0)
    expected = None if one.protocol == 0 else (one.protocol, one.at, one.payload_at, field)
    assert offloads.find(content) == expected
    if expected is not None:
        assert offloads.at(content, one.protocol, one.at) == expected
    assert cut == 0 or offloads.find(content[:-cut]) is None


def test_transport_at_stays_within_the_packet(offloads: Offloads) -> None:
    """[H13]"""
    content = Headers(tcp_options=flows.TIMESTAMPS).packet(b"")
    assert offloads.at(content, TCP, 20) == (TCP, 20, 52, 36)
    for at in (*range(21, 60), 65535, 2**40):
        found = offloads.at(content, TCP, at)
        assert found is None or found[2] <= len(content)
    assert offloads.at(content, TCP, 33) is None
    assert offloads.at(content, UDP, 44) == (UDP, 44, 52, 50)
    assert offloads.at(content, UDP, 45) is None
    assert offloads.at(content, 1, 20) is None
    assert offloads.at(bytes(65536), UDP, 0) is None
    assert offloads.at(bytes(65535), UDP, 0) == (UDP, 0, 8, 6)


@settings(max_examples=400, deadline=None)
@given(
    protocol=st.sampled_from((TCP, UDP)),
    family=st.sampled_from((4, 6)),
    source=st.integers(0, 255),
    ports=st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
    payload=st.binary(max_size=99),
    bit=st.integers(0, 10**6),
)
def test_only_the_right_checksum_is_intact(
    offloads: Offloads,
    protocol: int,
    family: int,
    source: int,
    ports: tuple[int, int],
    payload: bytes,
    bit: int,
) -> None:
    """[D8] Any flipped bit from the transport header on, and of the addresses, is noticed."""
    headers = Headers(protocol=protocol, family=family, source=source, ports=ports)
    content = headers.packet(payload)
    assert offloads.is_intact(content)
    pseudo = flows.pseudo_sum(content, protocol, len(content) - headers.transport_at)
    assert offloads.pseudo_sum(content, protocol, len(content) - headers.transport_at) == pseudo
    first = 12 if family == 4 else 8
    place = first + bit // 8 % (len(content) - first)
    damaged = content[:place] + bytes((content[place] ^ 1 << bit % 8,)) + content[place + 1 :]
    if flows.look(damaged, 0, 1, is_partial=False).protocol == protocol:
        assert not offloads.is_intact(damaged)


def test_no_checksum_of_udp_is_not_an_intact_one(offloads: Offloads) -> None:
    """[D8]"""
    assert not offloads.is_intact(Headers(protocol=UDP, has_checksum=False).packet(b"payload"))


@settings(max_examples=200, deadline=None)
@given(
    headers=st.builds(
        Headers, tos=st.integers(0, 255), identity=st.integers(0, 65535), ttl=st.integers(0, 255)
    )
)
def test_the_header_checksum_of_ipv4_is_written(offloads: Offloads, headers: Headers) -> None:
    for options in (b"", b"\x01" * 4, b"\x01" * 40):
        content = headers.but(ip_options=options).packet(b"")[: 20 + len(options)]
        for before in (0, 0x1234, 0xFFFF):
            assert offloads.with_header_checksum(flows.with_field(content, 10, before)) == content


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("tags", [(), (7,), (5, 7)])
def test_the_packet_of_a_frame_is_behind_its_tags(
    offloads: Offloads, tags: tuple[int, ...], family: int
) -> None:
    """[D7, E9] If the EtherType says that there is one; else there is none, whatever it looks like."""
    ether = ethernet(*tags, family=family)
    frame = ether + Headers(family=family).packet(b"payload")
    assert offloads.network_in(frame) == len(ether)
    assert offloads.network_in(ether[:-1]) == len(ether) - 1
    other = ether[:-2] + b"\x88\xb5" + frame[len(ether) :]
    assert offloads.network_in(other) == len(other)
    assert offloads.network_in(b"") == 0
