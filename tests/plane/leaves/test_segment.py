"""Frames of many segments cut into packets, bit for bit as Linux cuts them."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.plane.leaves import flows
from tests.plane.leaves.flows import ACK, CHECKSUM_AT, CWR, ECE, FIN, PSH, TCP, UDP, URG, Headers, ethernet
from tests.plane.leaves.library import Leaves
from tests.plane.leaves.offloads import (
    GSO_ECN,
    GSO_TCPV4,
    GSO_UDP_L4,
    GSO_UFO,
    LAYOUTS,
    NEEDS_CSUM,
    TAP,
    TUN,
    LargeFrame,
    Offloads,
    large,
)
from vpnd.plane import wire

C_FILES = Path(wire.__file__).parent / "c"
BODY = bytes(range(256)) * 257


@pytest.fixture(scope="module")
def offloads(leaves: Leaves) -> Offloads:
    return Offloads(leaves.library)


def kind_of(headers: Headers) -> int:
    return TAP if headers.ether else TUN


@st.composite
def any_headers(draw: st.DrawFn) -> Headers:
    family = draw(st.sampled_from((4, 6)))
    tags = draw(st.sampled_from(((), (), (7,), (5, 7))))
    ether = draw(st.booleans())
    options = st.sampled_from(
        (b"", flows.TIMESTAMPS, flows.SACK, flows.TIMESTAMPS + flows.SACK + b"\x01" * 16)
    )
    return Headers(
        protocol=draw(st.sampled_from((TCP, UDP))),
        family=family,
        tos=draw(st.integers(0, 255)),
        ttl=draw(st.integers(1, 255)),
        identity=draw(st.integers(0, 65535)),
        fragment=draw(st.sampled_from((0, flows.DONT_FRAGMENT))),
        ip_options=draw(st.sampled_from((b"", b"\x01" * 4, flows.RECORD_ROUTE, b"\x01" * 40))),
        extensions=draw(st.sampled_from((b"", bytes(8), bytes(24)))),
        flow_label=draw(st.integers(0, 0xFFFFF)),
        sequence=draw(st.integers(0, 2**32 - 1)),
        flags=ACK | draw(st.integers(0, 255)) & (FIN | PSH | URG | ECE | CWR),
        reserved=draw(st.integers(0, 15)),
        urgent=draw(st.integers(0, 65535)),
        tcp_options=draw(options),
        ether=ethernet(*tags, family=family) if ether or tags else b"",
    )


def test_the_structs_are_what_the_compiler_says(tmp_path: Path) -> None:
    """The mirrors of the leaves' structs have every size and offset right."""
    lines = []
    told = []
    for name, mirror in LAYOUTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        told.append(f"{name} {ctypes.sizeof(mirror)}")
        for field in (each[0] for each in mirror._fields_):
            lines.append(f'printf("{name}.{field} %zu\\n", offsetof(struct {name}, {field}));')
            told.append(f"{name}.{field} {getattr(mirror, field).offset}")
    source = tmp_path / "layouts.c"
    source.write_text(
        "#include <stdio.h>\n#include <stddef.h>\n"
        '#include "coalesce.h"\n#include "link.h"\n#include "segment.h"\n'
        f"int main(void) {{ {' '.join(lines)} return 0; }}\n"
    )
    program = tmp_path / "layouts"
    compiler = ("gcc", "-std=c11", "-D_GNU_SOURCE", f"-I{C_FILES}", "-o", str(program), str(source))
    subprocess.run(compiler, check=True)
    assert (
        subprocess.run([program], capture_output=True, text=True, check=True).stdout.split("\n")[:-1] == told
    )


@settings(max_examples=600, deadline=None)
@given(
    headers=any_headers(),
    size=st.one_of(st.integers(1, 40), st.integers(500, 9000)),
    pieces=st.integers(0, 30),
    rest=st.integers(0, 9000),
)
@example(headers=Headers(), size=1, pieces=1, rest=0)
@example(headers=Headers(), size=1448, pieces=44, rest=1447)
@example(headers=Headers(family=6), size=1428, pieces=45, rest=0)
@example(headers=Headers(protocol=UDP), size=9, pieces=60, rest=1)
@example(headers=Headers(identity=65530, sequence=2**32 - 100), size=100, pieces=9, rest=1)
@example(headers=Headers(tcp_options=b"\x01" * 40, ip_options=b"\x01" * 40), size=1, pieces=30, rest=0)
@example(headers=Headers(ether=ethernet(5, 7), flags=ACK | CWR | FIN | PSH | URG), size=9, pieces=3, rest=4)
def test_pieces_are_those_of_linux(
    offloads: Offloads, headers: Headers, size: int, pieces: int, rest: int
) -> None:
    """[D7] Bit for bit, with partial checksums and with completed ones; nothing is lost or doubled."""
    payload = BODY[: min(size * pieces + rest % (size + 1), 65000 - headers.size)] or b"x"
    frame = large(headers, payload, size)
    kind = kind_of(headers)
    prefix = b"\x10" if headers.ether else b""
    has_place = not (headers.family == 6 and headers.extensions)
    left = offloads.cut(frame, kind)
    done = offloads.cut(frame, kind, complete=True)
    marked = offloads.cut(frame, kind, mark=True)
    assert isinstance(left, list)
    assert isinstance(done, list)
    assert isinstance(marked, list)
    wanted = flows.cut_frame(headers, payload, size, partial=has_place)
    assert [each.content for each in left] == [prefix + each for each in wanted]
    completed = [prefix + each for each in flows.cut_frame(headers, payload, size, partial=False)]
    assert [each.content for each in done] == completed
    assert {each.is_partial for each in left} == {has_place}
    assert {each.is_partial for each in done} == {False}
    header = len(headers.ether) + headers.size
    assert b"".join(each[header:] for each in wanted) == payload
    assert [each.inner_size for each in left] == [len(each) for each in wanted]
    assert {each.tos for each in left} == {headers.tos}
    for piece, plain in zip(marked, left, strict=True):
        first = plain.content[0] | (0 if not has_place else 1 if headers.ether else 0x10)
        assert piece.content == bytes((first,)) + plain.content[1:]


@settings(max_examples=300, deadline=None)
@given(headers=any_headers(), payload=st.binary(max_size=200), real=st.booleans())
@example(headers=Headers(protocol=UDP, has_checksum=False), payload=b"none", real=True)
@example(headers=Headers(fragment=flows.MORE_FRAGMENTS), payload=b"first of some", real=True)
@example(headers=Headers(family=6, extensions=bytes(8)), payload=b"", real=False)
@example(headers=Headers(protocol=UDP), payload=b"", real=False)
def test_a_single_packet_keeps_its_bytes_and_its_kind_of_checksum(
    offloads: Offloads, headers: Headers, payload: bytes, real: bool
) -> None:
    """[D7, D9] A real checksum is left alone; a partial one is told as such, or completed where the
    protocol has no way to tell it.
    """
    prefix = b"\x10" if headers.ether else b""
    kind = kind_of(headers)
    if real:
        content = headers.frame(payload)
        pieces = offloads.cut(LargeFrame(content), kind)
        assert isinstance(pieces, list)
        assert [(each.content, each.is_partial) for each in pieces] == [(prefix + content, False)]
        return
    frame = large(headers, payload, 0)
    has_place = not (headers.family == 6 and headers.extensions) and headers.fragment & 0x3FFF == 0
    for complete in (False, True):
        pieces = offloads.cut(frame, kind, complete=complete)
        assert isinstance(pieces, list)
        partial = has_place and not complete
        wanted = prefix + headers.frame(payload, partial=partial)
        assert [(each.content, each.is_partial) for each in pieces] == [(wanted, partial)]


@pytest.mark.parametrize("kind", [TUN, TAP])
def test_damage_of_before_stays_visible(offloads: Offloads, kind: int) -> None:
    """[D7] Neither a wrong TCP checksum nor a wrong one of the IPv4 header is made right."""
    headers = Headers(ether=ethernet() if kind == TAP else b"")
    good = headers.frame(b"payload")
    at = len(headers.ether)
    for place in (at + 10, at + 36, len(good) - 1):
        damaged = good[:place] + bytes((good[place] ^ 0x40,)) + good[place + 1 :]
        for complete in (False, True):
            pieces = offloads.cut(LargeFrame(damaged), kind, complete=complete)
            assert isinstance(pieces, list)
            assert [each.content for each in pieces] == [b"\x10" * (kind == TAP) + damaged]


def test_a_source_routed_frame_keeps_the_sum_of_its_real_destination(offloads: Offloads) -> None:
    """[D7] The pseudo-header has the last address of the route, that of IPv4 the next one."""
    headers = Headers(ip_options=flows.LOOSE_SOURCE_ROUTE)
    frame = large(headers, BODY[:300], 100)
    field = headers.transport_at + CHECKSUM_AT[TCP]
    routed = frame.content[:16] + bytes((10, 9, 9, 9)) + frame.content[20:]
    summed = flows.pseudo_sum(routed, TCP, len(routed) - headers.transport_at)
    content = flows.with_field(frame.content, field, summed)
    pieces = offloads.cut(
        LargeFrame(content, NEEDS_CSUM, GSO_TCPV4, 100, frame.csum_start, 16), complete=True
    )
    assert isinstance(pieces, list)
    for piece in pieces:
        as_summed = piece.content[:16] + bytes((10, 9, 9, 9)) + piece.content[20:]
        value = int.from_bytes(piece.content[field : field + 2], "big")
        assert value == flows.real_checksum(as_summed, TCP, headers.transport_at)


@pytest.mark.parametrize("kind", [TUN, TAP])
def test_what_follows_the_ip_packet_is_not_cut(offloads: Offloads, kind: int) -> None:
    """[D7]"""
    headers = Headers(ether=ethernet(7) if kind == TAP else b"")
    frame = large(headers, BODY[:500], 200)
    longer = LargeFrame(frame.content + b"trailer", NEEDS_CSUM, frame.gso_type, 200, frame.csum_start, 16)
    assert offloads.cut(longer, kind) == offloads.cut(frame, kind)


def test_the_mtu_is_that_of_one_packet(offloads: Offloads) -> None:
    """[D7] A large frame may be as large as it likes; its pieces may not, nor may a whole packet."""
    headers = Headers(tcp_options=flows.TIMESTAMPS)
    frame = large(headers, BODY[:60000], 1448)
    assert isinstance(offloads.cut(frame, mtu=1500), list)
    assert offloads.cut(frame, mtu=1499) == "link_too_large"
    whole = LargeFrame(headers.frame(BODY[:1448]))
    assert isinstance(offloads.cut(whole, mtu=1500), list)
    assert offloads.cut(whole, mtu=1499) == "link_too_large"
    tagged = headers.but(ether=ethernet(7))
    assert isinstance(offloads.cut(large(tagged, BODY[:60000], 1448), TAP, mtu=1500), list)
    assert offloads.cut(large(tagged, BODY[:60000], 1448), TAP, mtu=1499) == "link_too_large"


LIES = {
    "no checksum is asked for": {"flags": 0},
    "size 0": {"gso_size": 0, "gso_type": GSO_TCPV4},
    "start beyond the end": {"csum_start": 2000},
    "start at the end": {"csum_start": 20 + 20 + 500},
    "start in the IP header": {"csum_start": 8},
    "start such that no header fits": {"csum_start": 20 + 500 + 8},
    "fragments of UDP": {"gso_type": GSO_UFO},
    "unknown type": {"gso_type": 7},
    "ECN of nothing": {"gso_type": GSO_ECN},
    "another protocol": {"gso_type": GSO_UDP_L4},
}


@pytest.mark.parametrize("kind", [TUN, TAP])
@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(offloads: Offloads, lie: str, kind: int) -> None:
    """[D7, H13]"""
    headers = Headers(ether=ethernet() if kind == TAP else b"")
    changes = dict(LIES[lie])
    if "csum_start" in changes:
        changes["csum_start"] += len(headers.ether)
    frame = large(headers, BODY[:500], 100, **changes)
    assert offloads.cut(frame, kind) == "link_offload"


@pytest.mark.parametrize("place", [(539, 0), (540, 0), (2000, 16), (20, 519), (20, 65535)])
def test_a_checksum_beyond_the_packet_is_refused(offloads: Offloads, place: tuple[int, int]) -> None:
    """[D7, H13] The last place that lies within is 538."""
    content = Headers().packet(BODY[:500])
    frame = LargeFrame(content, NEEDS_CSUM, csum_start=place[0], csum_offset=place[1])
    assert offloads.cut(frame) == "link_offload"
    within = LargeFrame(content, NEEDS_CSUM, csum_start=538, csum_offset=0)
    assert isinstance(offloads.cut(within), list)


def test_what_has_no_ip_packet_in_it_has_no_marking(offloads: Offloads) -> None:
    """[D15] The first byte behind the header of a bridge's own frame looks like that of IPv4."""
    spanning_tree = b"\x01\x80\xc2\0\0\0" + bytes(6) + b"\x00\x26" + b"\x42\x42\x03" + bytes(40)
    pieces = offloads.cut(LargeFrame(spanning_tree), TAP)
    assert isinstance(pieces, list)
    assert [(each.content, each.tos) for each in pieces] == [(b"\x10" + spanning_tree, 0)]


def test_a_partial_checksum_is_told_only_where_the_far_end_looks(offloads: Offloads) -> None:
    """[D9] Behind another EtherType there may be an IPv4 header; nobody looks for it there."""
    headers = Headers(ether=ethernet()[:-2] + b"\x88\xb5")
    pieces = offloads.cut(large(headers, b"payload", 0), TAP)
    assert isinstance(pieces, list)
    wanted = (b"\x10" + headers.frame(b"payload"), False)
    assert [(each.content, each.is_partial) for each in pieces] == [wanted]
