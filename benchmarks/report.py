"""The tables of a run: medians and ratios, how they moved since the kept run, and the bars."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.bars import judge
from benchmarks.figures import FIGURES, Figure, Figures, ratios, spread, values_of
from benchmarks.runner import Results

OURS = "vpnd"
_RIVALS = ("openvpn", "fastd")
_NOTICEABLE = 0.1  # share by which a ratio moved


def print_report(
    console: Console,
    results: Results,
    groups: Sequence[tuple[str, Sequence[str]]],
    kept: tuple[str, Figures],
    *,
    is_whole: bool,
) -> None:
    """Prints a table for each group of systems that has figures, then the rest.

    Of a run that was not the whole one, the bars that it cannot tell of are left out.
    """
    for title, systems in groups:
        shown = [system for system in systems if results.figures.get(system) or system in results.failures]
        if shown and (shown != [OURS] or len(results.figures) == 1):
            console.print(systems_table(title, results, shown))
    for system, where in results.failures.items():
        for name, reason in where.items():
            console.print(f"failed: {system}, {name}: {reason}", style="red", highlight=False, markup=False)
    if kept[1]:
        console.print(kept_table(results.figures, *kept))
    console.print(bars_table(results.figures, is_whole=is_whole))


def systems_table(title: str, results: Results, systems: Sequence[str]) -> Table:
    """A row for each figure, a column for each system."""
    table = Table(title=title, caption="median, how many times as good vpnd is; below: lowest-highest")
    table.add_column("", no_wrap=True)
    for system in systems:
        table.add_column(system, justify="right", no_wrap=True)
    for figure in FIGURES.values():
        rows = [values_of(results.figures, system, figure.name) for system in systems]
        others = [row for system, row in zip(systems, rows, strict=True) if system != OURS]
        if figure.is_shown and any(others if len(systems) > 1 else rows):
            ours = values_of(results.figures, OURS, figure.name)
            cells = [
                cell(figure, values, [] if system == OURS else ours)
                for system, values in zip(systems, rows, strict=True)
            ]
            table.add_row(f"{figure.title}, {figure.unit}", *cells)
    return table


def cell(figure: Figure, values: Sequence[float | None], ours: Sequence[float | None]) -> str:
    """Median and spread, and how many times as good ours is, where there is one to compare with."""
    measured = spread(values)
    if measured is None:
        return "-"
    better = spread(ratios(ours, values) if figure.is_rate else ratios(values, ours))
    if not figure.is_compared:
        better = None
    factor = f" [bold]{better.median:.3g}x[/bold]" if better is not None else ""
    rounds = sum(value is not None for value in values)
    around = f"\n[dim]{number(measured.low)}-{number(measured.high)}[/dim]" if rounds > 1 else ""
    return f"{number(measured.median)}{factor}{around}"


def number(value: float) -> str:
    """Three digits that count, and no exponent."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 10 else f"{value:.3g}"


def kept_table(figures: Figures, taken_at: str, kept: Figures) -> Table:
    """How vpnd stands beside its rivals now and in the kept run; absolute figures of two runs mean little."""
    table = Table(title=f"ratios of vpnd, kept ({taken_at}) and now")
    table.add_column("")
    for rival in _RIVALS:
        for when in ("kept", "now", "moved"):
            table.add_column(f"{rival}\n{when}", justify="right")
    for figure in FIGURES.values():
        cells: list[str] = []
        for rival in _RIVALS:
            before, after = (_ratio(each, figure, rival) for each in (kept, figures))
            cells += [*(f"{each:.3g}x" if each else "-" for each in (before, after)), moved(before, after)]
        if figure.is_shown and figure.is_compared and set(cells) != {"-"}:
            table.add_row(figure.title, *cells)
    return table


def moved(before: float | None, after: float | None) -> str:
    """By how much a ratio changed; coloured from a tenth on."""
    if not before or not after:
        return "-"
    change = after / before - 1
    text = f"{change * 100:+.0f} %"
    if abs(change) < _NOTICEABLE:
        return text
    return f"[{'green' if change > 0 else 'red'}]{text}[/]"


def _ratio(figures: Figures, figure: Figure, rival: str) -> float | None:
    """How many times as good vpnd is."""
    ours, theirs = (values_of(figures, system, figure.name) for system in (OURS, rival))
    measured = spread(ratios(ours, theirs) if figure.is_rate else ratios(theirs, ours))
    return measured.median if measured else None


def bars_table(figures: Figures, *, is_whole: bool) -> Table:
    table = Table(title="bars: wanted and measured, by the median of the rounds")
    table.add_column("bar", no_wrap=True)
    for column in ("wanted", "measured", "lowest-highest"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("met")
    for judged in judge(figures):
        bar, measured = judged.bar, judged.measured
        if measured is None and not is_whole:
            continue
        wanted = f"{'≥' if bar.is_least else '≤'} {number(bar.wanted)} {bar.unit}"
        if measured is None:
            table.add_row(bar.title, wanted, "-", "-", "not measured")
            continue
        verdict = "[green]yes[/green]" if judged.is_met else "[red]no[/red]"
        table.add_row(
            bar.title,
            wanted,
            f"{number(measured.median)} {bar.unit}",
            f"{number(measured.low)}-{number(measured.high)}",
            verdict,
        )
    return table
