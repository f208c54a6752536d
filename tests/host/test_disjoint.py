"""Cutting ranges apart changes nothing of what they cover."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vpnd.host.disjoint import Bounds, cut_boxes, flatten, merge

EDGE = 12
RANGES = st.tuples(st.integers(0, EDGE), st.integers(0, EDGE)).map(lambda pair: (min(pair), max(pair)))
NUMBERS = range(EDGE + 1)


def covers(bounds: Bounds, number: int) -> bool:
    return bounds[0] <= number <= bounds[1]


@given(st.lists(RANGES, max_size=6))
def test_merged_ranges_cover_the_same_and_lie_apart(ranges: list[Bounds]) -> None:
    merged = merge(ranges)
    for number in NUMBERS:
        assert any(covers(each, number) for each in ranges) == any(covers(each, number) for each in merged)
    assert all(one[1] + 1 < other[0] for one, other in pairwise(merged))


@given(st.lists(st.tuples(RANGES, RANGES), max_size=6))
def test_cut_boxes_cover_every_point_of_the_boxes_once(boxes: list[tuple[Bounds, Bounds]]) -> None:
    cut = cut_boxes(boxes)
    for x in NUMBERS:
        for y in NUMBERS:
            was_covered = any(covers(width, x) and covers(height, y) for width, height in boxes)
            assert sum(covers(width, x) and covers(height, y) for width, height in cut) == was_covered


def test_boxes_side_by_side_of_equal_height_become_one() -> None:
    assert cut_boxes([((0, 4), (443, 443)), ((5, 9), (443, 443)), ((5, 9), (80, 80))]) == [
        ((0, 4), (443, 443)),
        ((5, 9), (80, 80)),
        ((5, 9), (443, 443)),
    ]
    assert cut_boxes([((0, 4), (1, 2)), ((5, 9), (1, 2))]) == [((0, 9), (1, 2))]


@given(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 31)), max_size=8), st.data())
def test_flattened_prefixes_give_every_number_to_the_longest(
    chosen: set[tuple[int, int]], data: st.DataObject
) -> None:
    """Prefixes of a space of 32 numbers, as those of an IP version: nested or apart."""
    prefixes = {(number >> (5 - length) << (5 - length), length) for length, number in chosen}
    nested = [
        ((first, first + (32 >> length) - 1), data.draw(st.integers(0, 2))) for first, length in prefixes
    ]
    flat = flatten(nested)
    for number in range(32):
        around = [(last - first, value) for (first, last), value in nested if first <= number <= last]
        found = [value for bounds, value in flat if covers(bounds, number)]
        assert found == [min(around)[1]] if around else not found


def test_neighbours_with_one_value_become_one_range() -> None:
    assert flatten([((0, 3), "a"), ((4, 7), "a"), ((9, 9), "a")]) == [((0, 7), "a"), ((9, 9), "a")]
