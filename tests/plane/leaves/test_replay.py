"""The replay window against other implementations' sequences and against a set."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest

from tests.plane.leaves.library import COUNTER_LIMIT, USABLE, Leaves, Replay

# The steps of the kernel's own WireGuard test, with its window and its limit replaced by ours: its
# T_LIM is the usable window plus one.
EDGE = USABLE + 1
KERNEL_STEPS = (
    (0, True),
    (1, True),
    (1, False),
    (9, True),
    (8, True),
    (7, True),
    (7, False),
    (EDGE, True),
    (EDGE - 1, True),
    (EDGE - 1, False),
    (EDGE - 2, True),
    (2, True),
    (2, False),
    (EDGE + 16, True),
    (3, False),
    (EDGE + 16, False),
    (EDGE * 4, True),
    (EDGE * 4 - (EDGE - 1), True),
    (10, False),
    (EDGE * 4 - EDGE, False),
    (EDGE * 4 - (EDGE + 1), False),
    (EDGE * 4 - (EDGE - 2), True),
    (EDGE * 4 + 1 - EDGE, False),
    (0, False),
    (COUNTER_LIMIT, False),
    (COUNTER_LIMIT - 1, True),
    (COUNTER_LIMIT, False),
    (COUNTER_LIMIT - 1, False),
    (COUNTER_LIMIT - 2, True),
    (COUNTER_LIMIT + 1, False),
    (COUNTER_LIMIT + 2, False),
    (COUNTER_LIMIT - 2, False),
    (COUNTER_LIMIT - 3, True),
    (0, False),
)
KERNEL_RUNS: dict[str, tuple[Iterable[int], tuple[tuple[int, bool], ...]]] = {
    "upwards from 1, then 0": (range(1, USABLE + 1), ((0, True), (0, False))),
    "upwards from 2, then 1": (range(2, USABLE + 2), ((1, True), (0, False))),
    "downwards to 0": (range(USABLE, -1, -1), ()),
    "downwards to 1 from one higher": (range(USABLE + 1, 0, -1), ((0, False),)),
    "downwards to 1, then one above": (range(USABLE, 0, -1), ((USABLE + 1, True), (0, False))),
    "downwards to 1, then 0 and one above": (range(USABLE, 0, -1), ((0, True), (USABLE + 1, True))),
}


class SetWindow:
    """The rule itself: below the limit, not seen, at most the window behind the highest."""

    def __init__(self) -> None:
        self.top = 0
        self.seen: set[int] = set()

    def accept(self, counter: int) -> bool:
        if counter >= COUNTER_LIMIT or counter + 1 + USABLE < self.top or counter in self.seen:
            return False
        self.seen.add(counter)
        self.top = max(self.top, counter + 1)
        return True


def verdicts(window: Replay, steps: Iterable[tuple[int, bool]]) -> list[tuple[int, bool]]:
    return [(counter, window.accept(counter)) for counter, _ in steps]


def test_the_kernels_34_steps_give_its_verdicts(leaves: Leaves) -> None:
    """[B1]"""
    assert len(KERNEL_STEPS) == 34
    assert verdicts(leaves.replay(), KERNEL_STEPS) == list(KERNEL_STEPS)


@pytest.mark.parametrize("name", KERNEL_RUNS)
def test_the_kernels_bulk_runs_are_accepted_whole(leaves: Leaves, name: str) -> None:
    """[B1]"""
    run, steps = KERNEL_RUNS[name]
    window = leaves.replay()
    assert [counter for counter in run if not window.accept(counter)] == []
    assert verdicts(window, steps) == list(steps)


def test_a_jump_by_three_windows_and_a_reverse_fill_are_taken_once_each(leaves: Leaves) -> None:
    """[B2] The sequence of boringtun's own test, its window replaced by ours."""
    window, size = leaves.replay(), USABLE
    twice = [0, 1, 63, 15, *range(64, size + 128)]
    assert [(window.accept(c), window.accept(c)) for c in twice] == [(True, False)] * len(twice)
    assert window.accept(size * 3)
    # One more is in reach than in boringtun, whose window counts the newest itself.
    gone, open_ = range(size * 2), range(size * 2, size * 3)
    assert not any(window.is_new(c) or window.accept(c) for c in gone)
    assert all(window.is_new(c) for c in open_)
    assert not window.is_new(size * 3)
    backwards = [(window.accept(c), window.accept(c)) for c in reversed(open_)]
    assert backwards == [(True, False)] * len(backwards)
    ahead = [size * 3 + step for step in (70, 71, 72, 72 + 125, 63)]
    assert [window.accept(c) for c in ahead] == [True] * 5
    assert [window.accept(c) for c in ahead] == [False] * 5


Draw = Callable[[random.Random, int], int]
NEXT_COUNTER: dict[str, tuple[Draw, float]] = {
    "in order": (lambda _, top: top, 0.4),
    "near the top": (lambda r, top: top + r.randint(-200, 200), 0.3),
    "at the window's end": (lambda r, top: top - USABLE + r.randint(-130, 130), 0.2),
    "somewhere behind": (lambda r, top: top - r.randint(0, 3 * USABLE), 0.08),
    "ahead by some windows": (lambda r, top: top + r.randint(0, 4 * USABLE), 0.0195),
    "anywhere": (lambda r, _: r.randrange(COUNTER_LIMIT + 1000), 0.0005),
}


def counters_of(seed: int, how_many: int) -> Iterable[int]:
    """Draws counters around a top that moves as a receiver's would; starts anew near the limit."""
    dice = random.Random(seed)
    draws = [draw for draw, _ in NEXT_COUNTER.values()]
    weights = [weight for _, weight in NEXT_COUNTER.values()]
    top = 0
    for draw in dice.choices(draws, weights, k=how_many):
        counter = max(draw(dice, top), 0)
        yield counter
        if counter < COUNTER_LIMIT:
            top = max(top, counter + 1)


def test_a_million_random_counters_get_the_verdicts_of_a_set(leaves: Leaves) -> None:
    """[B3]"""
    differences = 0
    for seed in range(100):
        window, twin = leaves.replay(), SetWindow()
        accept, expected = window.accept, twin.accept
        differences += sum(accept(c) != expected(c) for c in counters_of(seed, 10_000))
        assert window.window.top == twin.top
    assert differences == 0


def test_the_early_look_foretells_the_verdict_and_changes_nothing(leaves: Leaves) -> None:
    window = leaves.replay()
    for counter in counters_of(7, 20_000):
        before = window.state()
        foretold = window.is_new(counter)
        assert window.state() == before
        assert window.accept(counter) == foretold


def test_the_last_counter_is_two_to_the_33_less_one(leaves: Leaves) -> None:
    """[B4]"""
    for refused in (COUNTER_LIMIT, COUNTER_LIMIT + 1, 2**63, 2**64 - 1):
        window = leaves.replay()
        assert not window.is_new(refused)
        assert not window.accept(refused)
        assert not window.accept_run(refused, 1)
        assert window.state() == leaves.replay().state()
    window = leaves.replay()
    assert not window.accept_run(COUNTER_LIMIT - 4, 5)
    assert window.accept_run(COUNTER_LIMIT - 4, 4)
    assert not window.accept(COUNTER_LIMIT - 1)
    assert window.accept(COUNTER_LIMIT - 5)


def accept_by_run(window: Replay, first: int, count: int) -> list[bool]:
    """What a caller does: the fast path, or one by one where it is not taken."""
    if window.accept_run(first, count):
        return [True] * count
    return [window.accept(counter) for counter in range(first, first + count)]


def batches_of(dice: random.Random, how_many: int) -> Iterable[tuple[int, int]]:
    """Runs with gaps, overlaps, repetitions, delays and now and then a jump."""
    top = 0
    for _ in range(how_many):
        lead = dice.choices(
            [0, dice.randint(1, 100), -dice.randint(1, 300), dice.randint(1, 5) * USABLE], [60, 20, 17, 3]
        )[0]
        first = max(top + lead, 0)
        count = dice.choice([1, 2, 44, 63, 64, 65, 128, dice.randint(1, 1000)])
        yield first, count
        top = max(top, first + count)


@pytest.mark.parametrize("seed", range(8))
def test_a_run_leaves_the_same_window_as_its_counters_one_by_one(leaves: Leaves, seed: int) -> None:
    """[B7]"""
    fast, single = leaves.replay(), leaves.replay()
    for first, count in batches_of(random.Random(seed), 300):
        expected = [single.accept(counter) for counter in range(first, first + count)]
        assert accept_by_run(fast, first, count) == expected
        assert fast.state() == single.state()


def test_a_run_as_long_as_the_window_is_taken_and_a_longer_one_is_not(leaves: Leaves) -> None:
    """[B7]"""
    for first in (0, 1, 63, 64, 100_000):
        fast, single = leaves.replay(), leaves.replay()
        assert fast.accept_run(first, USABLE)
        assert all(single.accept(c) for c in range(first, first + USABLE))
        assert fast.state() == single.state()
        assert not leaves.replay().accept_run(first, USABLE + 1)


def test_a_run_that_reaches_below_the_top_is_left_to_the_single_path(leaves: Leaves) -> None:
    window = leaves.replay()
    assert window.accept(10)
    before = window.state()
    assert not window.accept_run(10, 5)
    assert not window.accept_run(0, 5)
    assert not window.accept_run(11, 0)
    assert window.state() == before


@pytest.mark.parametrize("depth", [1, 2, 64, 100, 1000, 8128, 8129, USABLE - 1, USABLE, USABLE + 1, 20_000])
def test_reordering_loses_only_what_is_deeper_than_the_window(leaves: Leaves, depth: int) -> None:
    """[B8] Every hundredth message arrives `depth` messages late."""
    total, step = 3 * depth + 1000, 100
    late = set(range(0, total - depth, step))
    window = leaves.replay()
    lost = []
    for now in range(total):
        if now not in late and not window.accept(now):
            lost.append(now)
        if now - depth in late and not window.accept(now - depth):
            lost.append(now - depth)
    # When the late one comes, `depth` counters above it were seen.
    assert lost == ([] if depth <= USABLE else sorted(late))


@pytest.mark.parametrize("ahead", [1, 63, 64, 65, 1000, USABLE - 64, USABLE, USABLE + 1, 3 * USABLE])
@pytest.mark.parametrize("top", [1, 64, 1000, USABLE, 2 * USABLE + 33])
def test_a_process_killed_while_the_window_moves_lets_no_counter_through_twice(
    leaves: Leaves, top: int, ahead: int
) -> None:
    """[B5] Killed after any number of words: whatever was accepted before is refused by the next."""
    entered = (top - 1 + ahead) // 64 - (top - 1) // 64
    for cleared in {0, min(1, entered), entered // 2, max(entered - 1, 0), entered}:
        window = leaves.replay()
        accepted = [c for c in range(max(0, top - USABLE), top) if c % 3 or c == top - 1]
        assert [c for c in accepted if not window.accept(c)] == []
        # What the process had done when it was killed: said where it moves to, cleared some words.
        window.window.next_top = top + ahead
        for step in range(1, min(cleared, 256) + 1):
            window.window.words[((top - 1) // 64 + step) % 256] = 0
        window.resume()
        assert not any(window.is_new(c) or window.accept(c) for c in accepted)
        assert window.accept(top + ahead - 1), "what moved it was not delivered yet"
        assert window.window.top == top + ahead


def test_a_window_at_rest_is_resumed_as_it_is(leaves: Leaves) -> None:
    window = leaves.replay()
    window.resume()
    for counter in (0, 5, 70, 20000, 19999):
        assert window.accept(counter)
    before = window.state()
    window.resume()
    assert window.state() == before
