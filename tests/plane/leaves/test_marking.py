"""DSCP and ECN between inner and outer headers: RFC 6040, figure 4, and RFC 2983."""

from __future__ import annotations

import pytest

from tests.plane.leaves import flows
from tests.plane.leaves.flows import TCP, Headers
from tests.plane.leaves.library import Leaves
from tests.plane.leaves.offloads import Offloads

NOT_ECT, ECT_1, ECT_0, CE = range(4)
# inner, then what becomes of it by outer Not-ECT, ECT(0), ECT(1), CE; None: dropped
FIGURE_4: dict[int, tuple[int | None, int | None, int | None, int | None]] = {
    NOT_ECT: (NOT_ECT, NOT_ECT, NOT_ECT, None),
    ECT_0: (ECT_0, ECT_0, ECT_1, CE),
    ECT_1: (ECT_1, ECT_1, ECT_1, CE),
    CE: (CE, CE, CE, CE),
}
OUTER = (NOT_ECT, ECT_0, ECT_1, CE)
CASES = [(inner, outer, row[at]) for inner, row in FIGURE_4.items() for at, outer in enumerate(OUTER)]


@pytest.fixture(scope="module")
def offloads(leaves: Leaves) -> Offloads:
    return Offloads(leaves.library)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("inner", "outer", "result"), CASES)
def test_the_inner_field_follows_the_table(
    offloads: Offloads, inner: int, outer: int, result: int | None, family: int
) -> None:
    """[D15] Only the two bits of ECN change, whatever the DSCP of either header, and a checksum stays
    what it was, right or wrong.
    """
    for dscp in (0, 46, 63):
        for outer_dscp in (0, 10, 63):
            headers = Headers(family=family, tos=dscp << 2 | inner, flow_label=0xABCDE)
            packet = headers.packet(b"payload")
            assert offloads.marking_of(packet) == dscp << 2 | inner
            arrived = offloads.arrive(packet, outer_dscp << 2 | outer)
            if result is None:
                assert arrived is None
            else:
                assert arrived == headers.but(tos=dscp << 2 | result).packet(b"payload")


@pytest.mark.parametrize(("inner", "result"), [(ECT_0, CE), (ECT_1, CE)])
def test_a_wrong_header_checksum_stays_wrong(offloads: Offloads, inner: int, result: int) -> None:
    """[D15]"""
    packet = Headers(tos=inner).packet(b"payload")
    wrong = flows.with_field(packet, 10, (int.from_bytes(packet[10:12], "big") + 77) & 0xFFFF)
    arrived = offloads.arrive(wrong, CE)
    assert arrived is not None
    assert arrived[1] == result
    assert flows.ones_sum(wrong[:20]) == flows.ones_sum(arrived[:20]) != 0xFFFF


def test_options_of_ipv4_are_under_the_same_checksum(offloads: Offloads) -> None:
    """[D15]"""
    headers = Headers(tos=ECT_0, ip_options=flows.RECORD_ROUTE)
    assert offloads.arrive(headers.packet(b""), CE) == headers.but(tos=CE).packet(b"")


@pytest.mark.parametrize("content", [b"", b"\x45", b"\x45" * 19, b"\x60" * 39, b"\x10" * 60, bytes(60)])
def test_what_is_no_ip_packet_is_left_alone(offloads: Offloads, content: bytes) -> None:
    """[D15] ARP and the like have no field that a router could mark, and go on."""
    assert offloads.marking_of(content) == 0
    assert offloads.arrive(content, CE) == content


def test_the_transport_is_not_touched(offloads: Offloads) -> None:
    """[D15] Its pseudo-header has no ECN in it."""
    for family in (4, 6):
        headers = Headers(family=family, tos=ECT_0)
        arrived = offloads.arrive(headers.packet(b"payload", partial=True), CE)
        assert arrived is not None
        at = headers.transport_at
        assert arrived[at:] == headers.packet(b"payload", partial=True)[at:]
        assert flows.pseudo_sum(arrived, TCP, 9) == flows.pseudo_sum(headers.packet(b""), TCP, 9)
