"""Sessions in their slots, indices in their table, timestamps in their order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from vpnd.errors import RejectedMessage
from vpnd.protocol.constants import TIMERS, TIMESTAMP_GRAIN_NS, Slot, Suite
from vpnd.protocol.sessions import IndexTable, Session, Slots
from vpnd.protocol.timestamps import TimestampSource, encode_timestamp

T0 = 1000.0


def session(index: int, *, is_initiator: bool = False) -> Session:
    return Session(
        local_index=index,
        remote_index=index + 100,
        suite=Suite.AES_256_GCM,
        is_initiator=is_initiator,
        created_at=T0 + index,
        rekey_at=T0 + 120,
    )


def placed(slots: Slots, index: int, slot: Slot) -> Session:
    made = session(index)
    slots.add(made)
    slots.place(made, slot, T0 + index)
    return made


def test_a_session_of_ours_is_usable_before_it_is_placed_and_the_peers_is_not() -> None:
    slots = Slots()
    slots.add(session(1))
    assert not slots.is_usable()
    slots.add(session(2, is_initiator=True))
    assert slots.is_usable()


def test_a_third_unconfirmed_session_evicts_the_oldest() -> None:
    """[A7] Ours, which only wait for their place, do not count."""
    slots = Slots()
    first, second, third = session(1), session(3), session(4)
    assert slots.add(first) is None
    assert slots.add(session(2, is_initiator=True)) is None
    assert slots.add(second) is None
    assert slots.add(third) is first
    assert [one.local_index for one in slots] == [2, 3, 4]


def test_a_new_current_session_makes_the_old_one_previous_and_displaces_the_one_before() -> None:
    """[A9] One current, one previous."""
    slots = Slots()
    one, two, three = session(1), session(2), session(3)
    slots.add(one)
    assert slots.place(one, Slot.CURRENT, T0) == []
    slots.add(two)
    slots.add(three)
    assert slots.place(two, Slot.CURRENT, T0 + 1) == []
    assert (slots.current, slots.previous) == (two, one)
    assert (one.slot, one.placed_at) == (Slot.PREVIOUS, T0 + 1)
    assert slots.place(three, Slot.CURRENT, T0 + 2) == [one]
    assert (slots.current, slots.previous) == (three, two)


def test_the_loser_of_a_collision_becomes_previous_and_the_winner_stays() -> None:
    """[A8] The plane placed it so; what was previous before loses its place."""
    slots = Slots()
    old, winner = placed(slots, 1, Slot.CURRENT), placed(slots, 2, Slot.CURRENT)
    loser = session(3)
    slots.add(loser)
    assert slots.place(loser, Slot.PREVIOUS, T0 + 3) == [old]
    assert (slots.current, slots.previous) == (winner, loser)


def test_a_first_session_displaces_nothing() -> None:
    """[A9] Also where an old previous one is still there and no current."""
    slots = Slots()
    old = placed(slots, 1, Slot.PREVIOUS)
    new = session(2)
    slots.add(new)
    assert slots.place(new, Slot.CURRENT, T0) == []
    assert (slots.current, slots.previous) == (new, old)


@pytest.mark.parametrize("slot", [Slot.UNCONFIRMED, Slot.CURRENT])
def test_word_of_the_slot_it_has_changes_nothing(slot: Slot) -> None:
    slots = Slots()
    one = placed(slots, 1, Slot.CURRENT)
    assert slots.place(one, slot, T0 + 50) == []
    assert (slots.current, one.slot, one.placed_at) == (one, Slot.CURRENT, T0 + 1)


@pytest.mark.parametrize("slot", list(Slot))
def test_a_removed_session_is_found_no_more(slot: Slot) -> None:
    slots = Slots()
    one = placed(slots, 1, slot)
    assert slots.find(1) is one
    slots.remove(one)
    assert slots.find(1) is None
    assert list(slots) == []


# --- indices ---


def draws(*values: int) -> Callable[[int], bytes]:
    numbers = iter(values)
    return lambda size: next(numbers).to_bytes(size, "little")


def test_an_index_in_use_is_not_drawn() -> None:
    """[H12] Nor is 0, which means the current session."""
    table = IndexTable(draws(7, 7, 0, 8))
    table.claim(table.draw(), "one")
    assert table.draw() == 8
    assert table.owner(7) == "one"
    assert table.owner(8) is None


def test_a_freed_index_may_be_drawn_again() -> None:
    table = IndexTable(draws(7, 7))
    table.claim(table.draw(), "one")
    table.free(7)
    table.free(7)
    assert table.draw() == 7
    assert len(table) == 0


def test_sixteen_failed_draws_are_enough() -> None:
    """[H12] `idx_exhausted` instead of a search without end; the seventeenth would have worked."""
    table = IndexTable(draws(7, *[7] * 16, 8))
    table.claim(table.draw(), "one")
    with pytest.raises(RejectedMessage, match="idx_exhausted"):
        table.draw()
    assert table.draw() == 8


def test_a_full_table_draws_nothing() -> None:
    """[H12] 2^20 live indices, here 100; one freed makes room."""
    table = IndexTable(random.Random(0).randbytes, capacity=100)
    claimed = []
    for _ in range(100):
        claimed.append(table.draw())
        table.claim(claimed[-1], "somebody")
    with pytest.raises(RejectedMessage, match="idx_exhausted"):
        table.draw()
    table.free(claimed[0])
    assert table.draw() not in claimed[1:]


# --- timestamps ---

CLOCK_NS = 1_800_000_000 * 1_000_000_000
HOUR_NS = 3600 * 1_000_000_000


def source(clock_ns: int = CLOCK_NS, last_used_ns: int = 0) -> TimestampSource:
    return TimestampSource(lambda: clock_ns, last_used_ns, TIMERS)


def test_a_timestamp_is_the_clock_on_a_coarse_grid() -> None:
    """[F4] Never ahead of the clock, less than 17 ms behind it."""
    time_ns = source().next(0)
    assert time_ns % TIMESTAMP_GRAIN_NS == 0
    assert CLOCK_NS - TIMESTAMP_GRAIN_NS < time_ns <= CLOCK_NS


def test_timestamps_of_one_peer_rise_while_the_clock_stands() -> None:
    """[F4] By one grain each."""
    making, last = source(), 0
    made = []
    for _ in range(5):
        last = making.next(last)
        made.append(last)
    assert {later - earlier for earlier, later in itertools.pairwise(made)} == {TIMESTAMP_GRAIN_NS}
    assert making.last_used_ns == made[-1]


def test_peers_do_not_push_each_others_timestamps_ahead() -> None:
    """[I11] A hub may start a thousand handshakes in one grain."""
    making = source()
    assert {making.next(0) for _ in range(1000)} == {making.last_used_ns}
    assert making.last_used_ns <= CLOCK_NS


@pytest.mark.parametrize("ahead_ns", [0, HOUR_NS, 10 * 365 * 24 * HOUR_NS])
def test_with_the_clock_behind_timestamps_go_on_from_the_stored_one(ahead_ns: int) -> None:
    """[F1] After it, by at least the slack for what was not stored."""
    stored = CLOCK_NS + ahead_ns
    making = source(last_used_ns=stored)
    assert making.is_behind
    assert making.next(0) >= stored + 600 * 1_000_000_000
    assert making.next(0) % TIMESTAMP_GRAIN_NS == 0


def test_with_the_clock_ahead_the_stored_timestamp_plays_no_part() -> None:
    """[F3]"""
    making = source(last_used_ns=CLOCK_NS - HOUR_NS)
    assert not making.is_behind
    assert making.next(0) == source().next(0)


def test_labels_sort_as_times_do() -> None:
    """TAI64N: seconds and nanoseconds in network order."""
    times = [0, 999_999_999, 1_000_000_000, CLOCK_NS, CLOCK_NS + 1, 2**33 * 1_000_000_000]
    labels = [encode_timestamp(time_ns) for time_ns in times]
    assert labels == sorted(set(labels))
    assert encode_timestamp(1_700_000_037_123_456_789).hex() == "400000006553f125075bcd15"
