"""The search for what a path carries: against paths that swallow, cut, come back and change."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpnd.protocol.constants import PATH_BASE, PATH_PROBE_MAX, PATH_SIZES, PATH_TRIES
from vpnd.protocol.path_mtu import Ask, Asleep, Pace, PathMtu, Searching, Settled

PACE = Pace(wait_s=0.5, raise_s=600.0)
RTT_S = 0.01
LARGEST = 1480  # an inner MTU of 1420 over IPv4


@dataclass
class Road:
    """A path that lets through what is no larger than `mtu`; where it `cuts`, the rest comes in pieces."""

    mtu: int = 1500
    cuts: bool = False
    now: float = 1000.0
    path: PathMtu = field(default_factory=PathMtu)
    asked: list[int] = field(default_factory=list)

    def begin(self, largest: int = LARGEST) -> None:
        self.answer(self.path.begin(largest, self.now, PACE))

    def answer(self, asks: list[Ask]) -> None:
        """Lets the probes arrive and their answers come back, and what is asked then, and so on."""
        while asks:
            self.asked += [ask.size for ask in asks]
            self.now += RTT_S
            following: list[Ask] = []
            for ask in asks:
                came = ask.size if ask.size <= self.mtu else self.mtu - 4 if self.cuts else 0
                if came:
                    following += self.path.answered(ask.probe_id, came, self.now, PACE)
            asks = following

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.path.due_at <= end:
            self.now = max(self.now, self.path.due_at)
            self.answer(self.path.run(self.now, PACE))
        self.now = end

    def doubt(self) -> None:
        self.answer(self.path.doubt(self.now, PACE))


def test_a_wide_path_is_found_in_a_round_trip_for_each_size_and_limits_nothing() -> None:
    road = Road()
    road.begin()
    assert road.asked == [1280, 1380, 1400, 1420, 1452, 1472, 1480]
    assert [road.path.carried, road.path.limit, road.path.due_at] == [1480, None, math.inf]


@pytest.mark.parametrize(
    ("mtu", "carried"), [(1280, 1280), (1379, 1280), (1400, 1400), (1451, 1420), (1479, 1472)]
)
def test_of_a_path_that_swallows_the_greatest_size_of_the_table_is_found(mtu: int, carried: int) -> None:
    """[D4] After three tries of the next one."""
    road = Road(mtu)
    road.begin()
    assert (road.path.limit, len(road.asked)) == (None, len(set(road.asked)))
    road.run(PATH_TRIES * PACE.wait_s)
    assert [road.path.carried, road.path.limit] == [carried, carried]
    too_large = next(size for size in (1380, 1400, 1420, 1452, 1472, 1480) if size > carried)
    assert road.asked[-PATH_TRIES:] == [too_large] * PATH_TRIES


def test_of_a_path_that_cuts_the_piece_itself_is_asked_for_and_nothing_is_waited_for() -> None:
    """A router of MTU 1390 makes pieces of 1386: 1380 and 1400 are in the table, the piece is more exact."""
    road = Road(1390, cuts=True)
    road.begin()
    assert road.asked == [1280, 1380, 1400, 1386]
    assert (road.path.carried, road.path.limit, road.path.is_cut) == (1386, 1386, True)


def test_a_piece_no_larger_than_what_was_carried_teaches_nothing() -> None:
    road = Road(1403, cuts=True)
    road.begin()
    assert road.asked[-1] == 1420
    assert road.path.limit == 1400


def test_where_not_even_the_least_comes_through_nothing_changes() -> None:
    """A peer that is away, or a path below the least: data go as before, also under an older limit."""
    road = Road(0)
    road.begin()
    road.run(10.0)
    assert (road.asked, road.path.carried, road.path.limit) == ([1280] * PATH_TRIES, None, None)
    assert not road.path.knows(LARGEST)
    road.path.adopt_limit(1400)
    road.begin()
    road.run(10.0)
    assert road.path.limit == 1400


def test_a_limit_of_an_earlier_run_holds_until_the_search_has_ended() -> None:
    road = Road(1400)
    road.path.adopt_limit(1460)
    road.begin()
    road.run(PACE.wait_s)
    assert road.path.limit == 1460
    road.run(2 * PACE.wait_s)
    assert road.path.limit == 1400
    road.path.adopt_limit(1300)
    assert road.path.limit == 1400


def test_a_search_that_ended_early_is_taken_up_again_from_where_it_ended() -> None:
    road = Road(1400)
    road.begin()
    road.run(2.0)
    settled_at = road.path.due_at - PACE.raise_s
    road.asked.clear()
    road.mtu = 1500
    road.run(settled_at + PACE.raise_s - road.now - 1.0)
    assert road.asked == []
    road.run(2.0)
    assert road.asked == [1420, 1452, 1472, 1480]
    assert (road.path.carried, road.path.limit) == (1480, None)


def test_what_data_never_need_is_never_asked_for() -> None:
    road = Road(100_000)
    road.begin(1060)
    assert (road.asked, road.path.limit) == ([1060], None)
    road.asked.clear()
    road.begin(65_000)
    assert road.asked == [PATH_BASE, *PATH_SIZES]
    assert road.path.limit is None
    assert road.asked[-1] == PATH_PROBE_MAX
    assert road.path.knows(65_000)
    assert not road.path.knows(LARGEST)


def test_one_lost_probe_costs_a_wait_and_no_size() -> None:
    road = Road()
    (lost,) = road.path.begin(LARGEST, road.now, PACE)
    road.run(PACE.wait_s)
    assert lost.size == 1280
    assert road.path.carried == 1480


def test_a_late_answer_to_an_earlier_try_counts() -> None:
    path = PathMtu()
    (first,) = path.begin(LARGEST, 0.0, PACE)
    assert path.found is None
    path.run(0.5, PACE)
    (following,) = path.answered(first.probe_id, first.size, 0.6, PACE)
    assert following.size == 1380


def test_answers_to_nothing_are_ignored() -> None:
    """[H13] Before, during and after a search; an answer that claims more than was sent is one."""
    path = PathMtu()
    assert path.answered(1, 1280, 0.0, PACE) == []
    assert path.is_asleep
    (first,) = path.begin(1280, 5.0, PACE)
    assert path.answered(first.probe_id + 7, 1280, 5.1, PACE) == []
    assert path.state == Searching(1280, (first.probe_id,), 5.5)
    assert path.answered(first.probe_id, 65_535, 5.1, PACE) == []
    assert [path.carried, path.state] == [1280, Settled(math.inf)]
    assert path.answered(first.probe_id, 1280, 5.2, PACE) == []


def test_an_answer_to_an_earlier_run_is_none_to_this_one() -> None:
    """Numbers of a later run are greater: they begin at milliseconds of the clock."""
    earlier, later = PathMtu(), PathMtu()
    old = [ask.probe_id for _ in range(5) for ask in earlier.begin(LARGEST, 100.0, PACE)]
    (new,) = later.begin(LARGEST, 101.0, PACE)
    assert new.probe_id > max(old)


# --- doubt ---


def settled(mtu: int = 1500) -> Road:
    road = Road(mtu)
    road.begin()
    road.run(2.0)
    road.asked.clear()
    return road


def test_a_path_that_begins_to_swallow_is_found_out_by_what_still_comes_through() -> None:
    """[D4] Three tries, then the ground at once, and up to what it carries now."""
    road = settled()
    road.mtu = 1400
    road.doubt()
    road.run(2 * PACE.wait_s)
    assert [road.path.limit, road.path.found] == [None, 1480]
    assert road.asked == [1480, 1280, 1480, 1480]
    road.run(PACE.wait_s)
    assert road.asked[4:] == [1380, 1400, 1420]
    road.run(2.0)
    assert [road.path.carried, road.path.limit] == [1400, 1400]


def test_a_path_that_swallows_still_more_is_left_at_the_least() -> None:
    """[D4] From 1400 to 1280."""
    road = settled(1400)
    assert road.path.limit == 1400
    road.mtu = 1280
    road.doubt()
    road.run(5.0)
    assert (road.path.carried, road.path.limit) == (1280, 1280)
    assert road.path.checked_at == math.inf


def test_a_peer_that_is_away_says_nothing_about_sizes() -> None:
    road = settled(1400)
    raise_at = road.path.due_at
    road.mtu = 0
    road.doubt()
    road.run(5.0)
    assert (road.path.carried, road.path.limit, road.path.state) == (1400, 1400, Settled(raise_at))
    assert road.asked == [1400, 1280, 1280, 1280]


def test_a_peer_that_comes_back_while_its_path_is_doubted_has_all_tries_for_the_large_one() -> None:
    """What was lost while nobody was there counts for one."""
    road = settled()
    road.mtu = 0
    road.doubt()
    road.run(PACE.wait_s)
    road.mtu = 1400
    road.run(2 * PACE.wait_s)
    assert road.asked == [1480, 1280, 1280, 1280, 1480]
    assert road.path.limit is None
    road.run(4 * PACE.wait_s)
    assert road.path.limit == 1400


def test_a_doubt_that_was_wrong_leaves_everything_and_the_time_of_the_next_search() -> None:
    road = settled(1400)
    before = [road.path.found, road.path.limit, road.path.due_at]
    checked_at = road.path.checked_at
    road.doubt()
    assert [road.path.found, road.path.limit, road.path.due_at] == before
    assert road.path.checked_at > checked_at


def test_a_path_that_begins_to_cut_is_found_out_by_the_first_answer() -> None:
    road = settled()
    road.mtu, road.cuts = 1400, True
    road.doubt()
    assert road.asked == [1480, 1280, 1380, 1400, 1420]
    assert (road.path.carried, road.path.limit, road.path.is_cut) == (1400, 1400, True)


def test_a_path_that_swallows_what_it_used_to_cut_is_known_for_that() -> None:
    """A bridge may rely on pieces only as long as they arrive."""
    road = Road(1400, cuts=True)
    road.begin()
    assert road.path.is_cut
    road.mtu, road.cuts = 1300, False
    road.doubt()
    road.run(10.0)
    assert (road.path.carried, road.path.is_cut) == (1280, False)


def test_there_is_nothing_to_doubt_before_an_end_and_at_the_least() -> None:
    assert PathMtu().checked_at == math.inf
    road = Road(1400)
    road.begin()
    assert road.path.checked_at == math.inf
    assert settled(1280).path.checked_at == math.inf
    assert settled(1400).path.checked_at < math.inf


# --- another path ---


def test_another_path_is_asked_from_the_ground_at_its_time() -> None:
    road = settled(1400)
    road.path.forget_at(road.now + 1.0)
    assert (road.path.limit, road.path.carried, road.path.due_at) == (1400, None, road.now + 1.0)
    assert not road.path.knows(LARGEST)
    road.mtu = 1500
    road.run(1.1)
    assert road.asked == [1280, 1380, 1400, 1420, 1452, 1472, 1480]
    assert road.path.limit is None


def test_a_sleeper_asks_nothing() -> None:
    road = settled(1400)
    road.path.sleep()
    assert (road.path.state, road.path.limit, road.path.due_at) == (Asleep(), 1400, math.inf)
    assert not road.path.knows(LARGEST)
    road.path.sleep(forget=True)
    assert (road.path.limit, road.path.carried) == (None, None)


@given(
    mtu=st.integers(1280, 10_000),
    cuts=st.booleans(),
    largest=st.integers(68, 10_000),
    changed=st.integers(1280, 10_000),
)
def test_a_limit_is_never_larger_than_the_path_and_never_far_below_it(
    mtu: int, cuts: bool, largest: int, changed: int
) -> None:
    road = Road(mtu, cuts)
    road.begin(largest)
    for now_mtu in (mtu, changed):
        road.mtu = now_mtu
        if road.path.checked_at < math.inf:
            road.doubt()
        road.run(PACE.raise_s + 20.0)
        needed = min(largest, PATH_PROBE_MAX)
        allowed = needed if road.path.limit is None else road.path.limit
        assert allowed <= max(road.mtu, PATH_BASE)
        table = [size for size in (PATH_BASE, *PATH_SIZES, needed) if size <= min(road.mtu, needed)]
        assert allowed >= max(table, default=0)
