"""What the tables show, and what a run leaves behind."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from benchmarks.figures import FIGURES, Figures
from benchmarks.record import Machine, read_kept, record_of, write
from benchmarks.report import cell, moved, number, print_report
from benchmarks.runner import Results

MACHINE = Machine("a processor", 2, "6.1", 0.01, 0.02)
GROUPS = (("systems", ("vpnd", "openvpn", "fastd")), ("as a hub", ("hub",)))
FOUND: Figures = {"vpnd": {"tcp1_out": [4.0, 8.0], "rtt_median": [50.0]}, "openvpn": {"tcp1_out": [1.0, 1.0]}}


def printed(results: Results, kept: tuple[str, Figures] = ("", {}), *, is_whole: bool = True) -> str:
    sink = io.StringIO()
    print_report(Console(file=sink, width=160), results, GROUPS, kept, is_whole=is_whole)
    return sink.getvalue()


def test_a_cell_has_median_factor_and_spread() -> None:
    assert cell(FIGURES["tcp1_out"], [1.0, 2.0, None], [4.0, 8.0, 9.0]) == (
        "1.5 [bold]4x[/bold]\n[dim]1-2[/dim]"
    )


def test_less_is_better_turns_the_factor_round() -> None:
    assert "[bold]3x[/bold]" in cell(FIGURES["cpu_out"], [30.0], [10.0])


def test_shares_are_not_compared() -> None:
    assert cell(FIGURES["imix_lost"], [30.0], [10.0]) == "30.00"


def test_a_cell_without_figures_says_so() -> None:
    assert cell(FIGURES["tcp1_out"], [None], [1.0]) == "-"


def test_numbers_keep_three_digits() -> None:
    assert [number(value) for value in (12345.6, 100.0, 45.678, 1.2345, 0.01234, 0.0)] == [
        *("12,346", "100", "45.68", "1.23", "0.0123", "0")
    ]


def test_a_move_is_coloured_from_a_tenth_on() -> None:
    assert moved(10.0, 10.5) == "+5 %"
    assert moved(10.0, 12.0) == "[green]+20 %[/]"
    assert moved(10.0, 7.0) == "[red]-30 %[/]"
    assert moved(None, 7.0) == moved(7.0, None) == "-"


def test_report_names_what_failed_and_why() -> None:
    results = Results(FOUND)
    results.fail("fastd", "start", OSError("no such\n   program"))
    text = printed(results)
    assert "failed: fastd, start: no such program" in text
    assert "as a hub" not in text


def test_report_compares_ratios_with_the_kept_run() -> None:
    kept: Figures = {"vpnd": {"tcp1_out": [3.0]}, "openvpn": {"tcp1_out": [1.0]}}
    text = printed(Results(FOUND), ("2026-01-02T03:04:05+00:00", kept))
    line = next(line for line in text.splitlines() if "TCP, 1 stream →" in line and "+100 %" in line)
    assert [word for word in line.split() if word.endswith("x")] == ["3x", "6x"]


def test_only_a_whole_run_tells_which_bars_were_not_measured() -> None:
    assert "not measured" in printed(Results(FOUND))
    assert "not measured" not in printed(Results(FOUND), is_whole=False)
    assert "one TCP stream: times OpenVPN's →" in printed(Results(FOUND), is_whole=False)


def test_a_written_run_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    write(record_of(Results(FOUND), [], MACHINE, rounds=2, seconds=1), file)
    taken_at, figures = read_kept(file)
    assert figures == FOUND
    assert taken_at.endswith("+00:00")
    bar = json.loads(file.read_text())["bars"][0]
    assert (bar["title"], bar["met"]) == ("one TCP stream: times OpenVPN's →", False)
    assert bar["measured"] == {"median": 6.0, "low": 4.0, "high": 8.0}


def test_no_kept_run_or_one_of_another_kind_is_nothing(tmp_path: Path) -> None:
    assert read_kept(tmp_path / "none.json") == ("", {})
    (tmp_path / "old.json").write_text('{"vpnd": {"1 stream": [1.0]}}')
    assert read_kept(tmp_path / "old.json") == ("", {})
