"""The ring of a capture as its reader sees it: order, losses, interrupted writers, any bytes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpnd.control.capture import CAPTURE_HEAD, CAPTURE_SLOT, Copy, Ring
from vpnd.plane import wire

SLOTS, SLOT_SIZE = 4, CAPTURE_SLOT.size + 16
RING_SIZE = CAPTURE_HEAD.size + SLOTS * SLOT_SIZE
WRITING = wire.CAPTURE_WRITING
NOBODY = wire.CAPTURE_EVERY_PEER
V4 = bytes([4, 0]) + (5180).to_bytes(2, "little") + bytes(4) + bytes([192, 0, 2, 1]) + bytes(12)
V6 = bytes([6, 0]) + (5181).to_bytes(2, "little") + bytes(4) + IPv6Address("2001:db8::1").packed


class Memory:
    """A ring that the test fills, and its reader with a clock that stands still."""

    def __init__(self) -> None:
        self.bytes = bytearray(RING_SIZE)
        self.now = 0.0
        self.ring = Ring(self.bytes, SLOTS, SLOT_SIZE, lambda: self.now)
        self.next = 0

    def say(self, count: int) -> None:
        """So many were begun in all."""
        self.next = count
        CAPTURE_HEAD.pack_into(self.bytes, 0, wire.CAPTURE_MAGIC, 1, SLOTS, SLOT_SIZE, count)

    def put(self, number: int, content: bytes = b"", *, mark: int | None = None, **fields: int) -> None:
        place = CAPTURE_HEAD.size + number % SLOTS * SLOT_SIZE
        kept = fields.get("kept", len(content))
        CAPTURE_SLOT.pack_into(
            self.bytes,
            place,
            number + 1 if mark is None else mark,
            1000 + number,
            fields.get("peer", 7),
            fields.get("size", len(content)),
            kept,
            fields.get("is_outer", 0),
            fields.get("way", 1),
            fields.get("is_dropped", 0),
            fields.get("reason", 0),
            V4 if fields.get("is_outer") else bytes(24),
            V6 if fields.get("is_outer") else bytes(24),
        )
        self.bytes[place + CAPTURE_SLOT.size : place + CAPTURE_SLOT.size + len(content)] = content

    def read(self) -> list[bytes]:
        return [copy.content for copy in self.ring.read()]


def test_the_layout_is_the_planes_own() -> None:
    assert CAPTURE_HEAD.size == wire.CAPTURE_HEAD.size
    assert CAPTURE_SLOT.size == wire.CAPTURE_SLOT.offsets["bytes"][0]
    values = tuple(range(1, 10))
    packed = CAPTURE_SLOT.pack(*values, V4, V6)
    *theirs, _ = wire.CAPTURE_SLOT.unpack(packed + bytes(wire.CAPTURE_BYTES))
    assert tuple(theirs) == (*values, V4, V6)


def test_packets_come_once_and_in_their_order() -> None:
    memory = Memory()
    memory.put(0, b"a")
    memory.put(1, b"b")
    memory.say(2)
    assert memory.read() == [b"a", b"b"]
    assert memory.read() == []
    memory.put(2, b"c")
    memory.say(3)
    assert memory.read() == [b"c"]
    assert memory.ring.lost == 0


def test_a_copy_tells_what_the_slot_does() -> None:
    memory = Memory()
    memory.put(0, b"abc", size=9000, is_outer=1, way=2, is_dropped=1, reason=4, peer=NOBODY)
    memory.put(1, b"d")
    memory.say(2)
    here, there = (IPv6Address("2001:db8::1"), 5181), (IPv4Address("192.0.2.1"), 5180)
    assert list(memory.ring.read()) == [
        Copy(1000, None, 9000, b"abc", False, True, 4, there, here),
        Copy(1001, 7, 1, b"d", True, False, None, None, None),
    ]


def test_what_was_overwritten_is_counted_and_the_rest_read() -> None:
    memory = Memory()
    for number in range(11):
        memory.put(number, bytes([number]))
    memory.say(11)
    assert memory.read() == [b"\x07", b"\x08", b"\x09", b"\x0a"]
    assert memory.ring.lost == 7


def test_one_that_is_overwritten_while_others_are_read_is_counted() -> None:
    memory = Memory()
    memory.put(0, b"a")
    memory.put(1, b"b")
    memory.say(2)
    reading = memory.ring.read()
    assert next(reading).content == b"a"
    memory.put(5, b"new")
    assert list(reading) == []
    assert memory.ring.lost == 1


def test_one_that_is_being_written_is_waited_for_and_given_up_in_the_end() -> None:
    memory = Memory()
    memory.put(0, b"a", mark=WRITING)
    memory.put(1, b"b")
    memory.say(3)  # the third is not even begun
    assert memory.read() == []
    memory.now = 0.1
    assert memory.read() == []
    memory.now = 0.3
    assert memory.read() == [b"b"]
    assert memory.ring.lost == 1
    memory.put(2, b"c")
    assert memory.read() == [b"c"]
    assert memory.ring.lost == 1


def test_no_more_is_read_than_a_slot_holds() -> None:
    memory = Memory()
    memory.put(0, b"x" * 16, kept=0xFFFF, size=0xFFFF_FFFF)
    memory.say(1)
    assert memory.read() == [b"x" * 16]


@settings(max_examples=200)
@given(st.binary(min_size=RING_SIZE, max_size=RING_SIZE))
def test_any_bytes_are_read_within_bounds(content: bytes) -> None:
    now = iter(range(100))
    ring = Ring(content, SLOTS, SLOT_SIZE, lambda: float(next(now)))
    for _ in range(3):
        copies = list(ring.read())
        assert len(copies) <= SLOTS
        assert all(len(copy.content) <= 16 for copy in copies)


@pytest.mark.parametrize(("slots", "size"), [(0, 100), (1, 79), (2, 200)])
def test_what_can_be_no_ring_is_refused(slots: int, size: int) -> None:
    with pytest.raises(ValueError, match="ring"):
        Ring(bytes(CAPTURE_HEAD.size + 200), slots, size, lambda: 0.0)
