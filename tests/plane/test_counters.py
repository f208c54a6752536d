"""The shared counters, read from memory that the test itself wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from vpnd.errors import PlaneError
from vpnd.plane import wire
from vpnd.plane.counters import PeerCounters, PlaneCounters, PlaneTotals

PEERS = 10_000


def head(
    *, magic: int = wire.COUNTERS_MAGIC, layout: int = wire.COUNTERS_LAYOUT, peers: int = PEERS
) -> bytes:
    reasons = len(wire.DROP_REASONS)
    heartbeats = [11, 12] + [0] * 62
    drops = [0] * 64
    drops[3], drops[reasons - 1] = 5, 1 << 40
    numbers = (magic, layout, peers, wire.PEER_COUNTERS.size, reasons, 2, 5_000_000_000, 1, 2, 3, 4, 5)
    return wire.COUNTERS_HEAD.pack(*numbers, *heartbeats, *drops)


def peer(number: int, *, has_current: int = 1) -> bytes:
    drops = [0] * 64
    drops[4] = number
    return wire.PEER_COUNTERS.pack(*range(number, number + 12), 0xA1, has_current, 3, 5, *drops)


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = os.memfd_create("counters")
    os.ftruncate(descriptor, wire.COUNTERS_HEAD.size + PEERS * wire.PEER_COUNTERS.size)
    os.pwrite(descriptor, head(), 0)
    yield descriptor
    os.close(descriptor)


def write_peer(memory: int, peer_id: int, content: bytes) -> None:
    os.pwrite(memory, content, wire.COUNTERS_HEAD.size + peer_id * wire.PEER_COUNTERS.size)


def test_numbers_of_the_whole_plane(memory: int) -> None:
    counters = PlaneCounters(memory)
    assert counters.peer_capacity == PEERS
    assert counters.started_at == 5.0
    assert counters.totals() == PlaneTotals(1, 2, 3, 4, 5)
    assert counters.heartbeats() == (11, 12)
    assert counters.drops() == {"data_replay": 5, wire.DROP_REASONS[-1][0]: 1 << 40}
    counters.close()


def test_one_peer_by_its_number(memory: int) -> None:
    counters = PlaneCounters(memory)
    write_peer(memory, 9_999, peer(100))
    read = counters.peer(9_999)
    assert (read.rx_bytes, read.rx_packets, read.tx_bytes, read.tx_packets) == (100, 101, 102, 103)
    assert (read.last_sent_ns, read.last_received_ns) == (104, 105)
    assert (read.last_data_sent_ns, read.last_data_received_ns) == (106, 107)
    assert (read.unanswered_sent_since_ns, read.unanswered_received_since_ns) == (108, 109)
    assert (read.session_messages, read.session_bytes) == (110, 111)
    assert (read.current_index, read.staged, read.gso_error) == (0xA1, 3, 5)
    assert read.drops == {"data_auth": 100}
    write_peer(memory, 9_999, peer(100, has_current=0))
    assert counters.peer(9_999).current_index is None
    counters.close()


def test_a_peer_nobody_spoke_to_has_nothing_but_zeroes(memory: int) -> None:
    counters = PlaneCounters(memory)
    assert counters.peer(7) == PeerCounters(None, 0, 0, {}, *[0] * 12)
    write_peer(memory, 7, peer(0, has_current=0))
    assert counters.peer(7).staged == 3
    counters.close()


def test_a_number_beyond_the_capacity_is_no_peer(memory: int) -> None:
    counters = PlaneCounters(memory)
    for peer_id in (-1, PEERS):
        with pytest.raises(IndexError):
            counters.peer(peer_id)
    counters.close()


def test_a_mark_changes_with_any_number_of_its_peer_and_with_no_others(memory: int) -> None:
    counters = PlaneCounters(memory)
    write_peer(memory, 7, peer(100))
    before = counters.mark(7)
    write_peer(memory, 6, peer(50))
    write_peer(memory, 8, peer(50))
    assert counters.mark(7) == before
    for at in range(0, wire.PEER_COUNTERS.size, 4):
        changed = bytearray(peer(100))
        changed[at] ^= 1
        write_peer(memory, 7, bytes(changed))
        assert counters.mark(7) != before
    counters.close()


def test_a_copy_does_not_change_when_the_plane_goes_on(memory: int) -> None:
    counters = PlaneCounters(memory)
    before = counters.peer(0)
    write_peer(memory, 0, peer(100))
    assert before.rx_bytes == 0
    assert before.drops == {}
    assert counters.peer(0).rx_bytes == 100
    counters.close()


def test_ten_thousand_peers_are_read_without_a_call_per_field(
    memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = PlaneCounters(memory)
    calls = 0
    real = wire.Layout.unpack

    def counted(self: wire.Layout, data: wire.Buffer, offset: int = 0) -> tuple[int, ...]:
        nonlocal calls
        calls += 1
        return real(self, data, offset)

    monkeypatch.setattr(wire.Layout, "unpack", counted)
    assert sum(counters.peer(peer_id).staged for peer_id in range(PEERS)) == 0
    assert calls == 0
    counters.close()


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (head(magic=0), None),
        (head(layout=2), None),
        (head(peers=PEERS + 1), None),
        (head(), wire.COUNTERS_HEAD.size - 1),
        (b"", 0),
    ],
)
def test_memory_of_another_layout_is_refused(memory: int, content: bytes, size: int | None) -> None:
    os.pwrite(memory, content, 0)
    if size is not None:
        os.ftruncate(memory, size)
    with pytest.raises(PlaneError) as caught:
        PlaneCounters(memory)
    assert caught.value.code == "counters_layout"


def test_memory_with_other_drop_reasons_is_refused(memory: int) -> None:
    offset, _ = wire.COUNTERS_HEAD.offsets["drop_reasons"]
    os.pwrite(memory, b"\x01\0\0\0", offset)
    with pytest.raises(PlaneError):
        PlaneCounters(memory)
