"""Whether a bar counts as met."""

from __future__ import annotations

import pytest

from benchmarks.bars import BARS, Judged, judge
from benchmarks.figures import FIGURES, Figures


def judged(figures: Figures, title: str) -> Judged:
    return next(each for each in judge(figures) if each.bar.title == title)


def beside_openvpn(*ours: float) -> Figures:
    return {"vpnd": {"tcp1_out": list(ours)}, "openvpn": {"tcp1_out": [1.0] * len(ours)}}


def test_the_median_of_the_rounds_judges() -> None:
    title = "one TCP stream: times OpenVPN's →"
    assert judged(beside_openvpn(2.0, 7.0, 9.0), title).is_met
    assert not judged(beside_openvpn(6.9, 6.9, 90.0), title).is_met


@pytest.mark.parametrize(("seconds", "is_met"), [(3.0, True), (3.1, False)])
def test_a_bar_that_is_a_most(seconds: float, is_met: bool) -> None:
    figures: Figures = {"hub-10000": {"start_s": [seconds]}}
    assert judged(figures, "10,000 peers: start to READY").is_met is is_met


def test_a_bar_within_one_system() -> None:
    figures: Figures = {"hub": {"flood_mac1": [0.9, 0.7], "flood_none": [1.0, 1.0]}}
    found = judged(figures, "… with a right mac1: of unflooded")
    assert found.measured is not None
    assert found.measured.median == pytest.approx(0.8)
    assert (found.measured.low, found.measured.high) == (0.7, 0.9)


def test_what_was_not_measured_is_not_met() -> None:
    assert not any(each.is_met for each in judge({}))
    assert not any(
        each.is_met for each in judge({"vpnd": {"tcp1_out": [None]}, "openvpn": {"tcp1_out": [1.0]}})
    )


def test_titles_tell_bars_apart() -> None:
    titles = [bar.title for bar in BARS]
    assert len(set(titles)) == len(titles)


def test_every_bar_reads_figures_that_exist() -> None:
    """With every figure at 1 for every system, each bar has something to judge."""
    systems = (
        "vpnd",
        "openvpn",
        "fastd",
        "vpnd-copy",
        "vpnd-tap",
        "vpnd-chacha20",
        "vpnd-openssl",
        "vpnd-10000",
    )
    figures: Figures = {
        system: {name: [1.0] for name in FIGURES} for system in (*systems, "hub", "hub-10000")
    }
    assert [each.bar.title for each in judge(figures) if each.measured is None] == []
