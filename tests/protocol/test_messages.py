"""The clear layout: every length and every reserved bit, accepted or refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpnd.errors import MalformedMessage
from vpnd.protocol.messages import (
    cookie_message,
    initiation_head,
    parse_cookie_untrusted,
    parse_initiation_untrusted,
    parse_response_untrusted,
    response_head,
)

EPHEMERAL = bytes(range(32))
INITIATION_SIZES = [136 + 64 * steps for steps in range(1, 9)]
RESPONSE_SIZES = [76 + 64 * steps for steps in range(1, 17)]


def initiation(size: int = 200) -> bytes:
    return initiation_head(1, 0x11223344, EPHEMERAL).ljust(size, b"\xaa")


def response(size: int = 140) -> bytes:
    return response_head(1, 0x11223344, 0x55667788, EPHEMERAL).ljust(size, b"\xaa")


def test_an_initiation_is_cut_where_the_specification_says() -> None:
    """Offsets of section 3.1."""
    datagram = bytes(initiation_head(1, 0x11223344, EPHEMERAL)) + bytes(range(160))
    message = parse_initiation_untrusted(datagram)
    assert (message.version, message.sender_index, message.ephemeral) == (1, 0x11223344, EPHEMERAL)
    assert message.head == datagram[:40]
    assert message.box_id == datagram[40:88]
    assert message.box_parameters == datagram[88:168]
    assert (message.covered1, message.mac1) == (datagram[:168], datagram[168:184])
    assert (message.covered2, message.mac2) == (datagram[:184], datagram[184:])
    assert message.size == 200


def test_a_response_is_cut_where_the_specification_says() -> None:
    """Offsets of section 3.2."""
    datagram = bytes(response_head(1, 0x11223344, 0x55667788, EPHEMERAL)) + bytes(range(96))
    message = parse_response_untrusted(datagram)
    assert (message.version, message.receiver_index, message.sender_index) == (1, 0x11223344, 0x55667788)
    assert (message.ephemeral, message.head) == (EPHEMERAL, datagram[:44])
    assert message.box_parameters == datagram[44:124]
    assert (message.covered, message.mac, message.size) == (datagram[:124], datagram[124:], 140)


def test_a_cookie_is_cut_where_the_specification_says() -> None:
    """Offsets of section 3.3."""
    datagram = cookie_message(1, 0x11223344, bytes(range(24)), bytes(range(32)))
    assert len(datagram) == 64
    message = parse_cookie_untrusted(datagram)
    assert (message.version, message.receiver_index) == (1, 0x11223344)
    assert (message.nonce, message.box) == (bytes(range(24)), bytes(range(32)))


def test_indices_are_little_endian() -> None:
    assert initiation_head(1, 0x11223344, EPHEMERAL)[:8] == bytes.fromhex("0801000044332211")
    assert response_head(1, 1, 2, EPHEMERAL)[:12] == bytes.fromhex("090100000100000002000000")


def test_of_all_lengths_only_the_stepped_ones_are_initiations() -> None:
    """[H1] Lengths 0 to 2000."""
    for size in range(2001):
        if size in INITIATION_SIZES:
            assert parse_initiation_untrusted(initiation(size)).size == size
        else:
            with pytest.raises(MalformedMessage):
                parse_initiation_untrusted(initiation(2000)[:size])


def test_of_all_lengths_only_the_stepped_ones_are_responses() -> None:
    """[H1, A21] Lengths 0 to 2000; the greatest is 1100 bytes, below the 1232 that always fit."""
    for size in range(2001):
        if size in RESPONSE_SIZES:
            assert parse_response_untrusted(response(size)).size == size
        else:
            with pytest.raises(MalformedMessage):
                parse_response_untrusted(response(2000)[:size])


def test_of_all_lengths_only_64_is_a_cookie() -> None:
    """[H1] Lengths 0 to 2000."""
    whole = cookie_message(1, 1, bytes(24), bytes(32)).ljust(2000, b"\0")
    for size in set(range(2001)) - {64}:
        with pytest.raises(MalformedMessage):
            parse_cookie_untrusted(whole[:size])


@pytest.mark.parametrize("bit", range(16))
def test_a_clear_extension_is_refused_in_version_1(bit: int) -> None:
    """xlen other than zero, in both messages; a cookie's zero bytes likewise."""
    extension = (1 << bit).to_bytes(2, "little")
    for whole, parse in (
        (initiation(), parse_initiation_untrusted),
        (response(), parse_response_untrusted),
        (cookie_message(1, 1, bytes(24), bytes(32)), parse_cookie_untrusted),
    ):
        with pytest.raises(MalformedMessage):
            parse(whole[:2] + extension + whole[4:])


@settings(max_examples=200)
@given(st.binary(max_size=1500))
def test_random_bytes_raise_nothing_but_malformed(datagram: bytes) -> None:
    """[H1, H3] Whatever comes, the answer is a message or MalformedMessage."""
    for parse in (parse_initiation_untrusted, parse_response_untrusted, parse_cookie_untrusted):
        try:
            parse(datagram)
        except MalformedMessage:
            continue
