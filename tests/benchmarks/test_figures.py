"""The arithmetic over rounds."""

from __future__ import annotations

import pytest

from benchmarks.figures import Figures, Spread, add_memory_per_peer, percentile, ratios, spread


def test_spread_leaves_failed_rounds_out() -> None:
    assert spread([3.0, None, 1.0, 2.5]) == Spread(2.5, 1.0, 3.0)
    assert spread([4.0, 1.0]) == Spread(2.5, 1.0, 4.0)


def test_spread_of_nothing_is_none() -> None:
    assert spread([]) is None
    assert spread([None, None]) is None


def test_ratios_are_taken_round_by_round() -> None:
    """A machine that is half as fast in one round changes no ratio."""
    assert ratios([6.0, 3.0], [2.0, 1.0]) == [3.0, 3.0]


def test_ratios_need_both_sides_of_a_round() -> None:
    assert ratios([6.0, None, 8.0, 5.0], [2.0, 1.0, None, 0.0]) == [3.0]
    assert ratios([6.0, 4.0], [2.0]) == [3.0]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.505, 51), (0.99, 99), (1.0, 100)])
def test_percentile_is_a_value_that_was_seen(share: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.99) == 7.0


def test_memory_per_peer_is_the_slope_between_two_hubs() -> None:
    figures: Figures = {
        "hub-1": {"resident_mb": [50.0, 51.0, None]},
        "hub-10000": {"resident_mb": [149.99, 150.99, 151.0]},
    }
    add_memory_per_peer(figures, ("hub-1", 1), ("hub-10000", 10_000))
    assert figures["hub-10000"]["peer_kb"] == [pytest.approx(10.0), pytest.approx(10.0), None]


def test_memory_per_peer_needs_both_hubs() -> None:
    figures: Figures = {"hub-1": {"resident_mb": [50.0]}}
    add_memory_per_peer(figures, ("hub-1", 1), ("hub-10000", 10_000))
    assert figures == {"hub-1": {"resident_mb": [50.0]}}
