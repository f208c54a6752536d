import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpnd.ctl.format import abbreviate, format_age, format_bytes, format_duration, format_milliseconds, table


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1024, "1.0 KiB"),
        (102_348, "99.9 KiB"),
        (102_399, "100 KiB"),
        (1024 * 1023, "1.0 MiB"),
        (1_288_490_188, "1.2 GiB"),
        (2**63, "8.0 EiB"),
        (2**73, "8192 EiB"),
    ],
)
def test_bytes_are_told_in_binary_units(count: int, text: str) -> None:
    assert format_bytes(count) == text


@given(st.integers(0, 2**64))
def test_no_count_of_a_counter_is_wider_than_its_column(count: int) -> None:
    assert len(format_bytes(count)) <= 8


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.2, "0s"),
        (0.9, "0s"),
        (41.99, "41s"),
        (60, "1m"),
        (62, "1m 2s"),
        (3600, "1h"),
        (3661, "1h 1m"),
        (3605, "1h"),
        (86399, "23h 59m"),
        (3 * 86400 + 4 * 3600 + 59, "3d 4h"),
        (400 * 86400, "400d"),
    ],
)
def test_durations_are_told_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_an_age_is_never_or_ago() -> None:
    assert format_age(None) == "never"
    assert format_age(0.0) == "0s ago"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0.00 ms"),
        (0.994, "0.99 ms"),
        (0.996, "1.0 ms"),
        (9.14, "9.1 ms"),
        (9.96, "10 ms"),
        (14.2, "14 ms"),
        (999.4, "999 ms"),
        (999.6, "1.0 s"),
    ],
)
def test_round_trips_are_told_with_two_digits_or_three(value: float | None, text: str) -> None:
    assert format_milliseconds(value) == text


def test_long_lists_end_in_how_many_more_there_are() -> None:
    assert abbreviate(("a", "b"), 2) == "a b"
    assert abbreviate(("a", "b", "c", "d"), 2) == "a b +2 more"
    assert abbreviate((), 2) == ""


def test_columns_are_as_wide_as_their_longest_cell_and_no_line_ends_in_blanks() -> None:
    assert table(("A", "B", "C"), [("long", "x", ""), ("s", "", "last")], (2, 3)) == [
        "A     B    C",
        "long  x",
        "s          last",
    ]
