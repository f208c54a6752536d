"""Measures vpnd beside Debian's OpenVPN and fastd: ./run bench [--rounds N] [--seconds S]

Two hosts in network namespaces, joined by a cable; each system carries the same iperf3 tests, in
interleaved rounds, because these figures drift with whatever else the machine does. Compare ratios,
not figures of different runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.measures import MEASURES
from benchmarks.systems import SYSTEMS, System
from tests.lab.namespaces import Lab

RESULTS = Path(__file__).with_name("latest.json")
_console = Console()

Figures = dict[str, dict[str, list[float]]]  # by system, by measure: one figure per round


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run bench", description="Measures vpnd beside its peers.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each test")
    parser.add_argument("--only", action="append", choices=[system.name for system in SYSTEMS])
    parser.add_argument(
        "--keep", action="store_true", help=f"write {RESULTS.name}, the figures to compare with"
    )
    options = parser.parse_args()
    systems = [system for system in SYSTEMS if not options.only or system.name in options.only]
    figures: Figures = defaultdict(lambda: defaultdict(list))
    for number in range(1, options.rounds + 1):
        for system in systems:
            for measure, value in _round(system, options.seconds).items():
                figures[system.name][measure].append(value)
            _console.print(f"round {number} of {options.rounds}: {system.name} done", style="dim")
    _print(figures)
    if options.keep:
        RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def _round(system: System, seconds: int) -> dict[str, float]:
    with Lab() as lab:
        pair = system.build(lab)
        return {measure.name: measure.take(pair, seconds) for measure in MEASURES}


def _print(figures: Figures) -> None:
    before: Figures = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    table = Table(title="medians; in brackets lowest to highest")
    table.add_column("system")
    for measure in MEASURES:
        table.add_column(f"{measure.name}\n{measure.unit}", justify="right")
    for system, measured in figures.items():
        table.add_row(system, *(_cell(measured[measure.name]) for measure in MEASURES))
        if system in before:
            kept = [statistics.median(before[system][measure.name]) for measure in MEASURES]
            table.add_row("  kept", *(f"{value:.4g}" for value in kept), style="dim")
    _console.print(table)
    vpnd = figures.get("vpnd", {})
    for system, measured in figures.items():
        if system != "vpnd" and vpnd:
            ratios = ", ".join(
                f"{measure.name} {_ratio(vpnd[measure.name], measured[measure.name]):.2f}"
                for measure in MEASURES
            )
            _console.print(f"vpnd / {system}: {ratios}")


def _ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the rounds' own ratios: what drifts between rounds falls out."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def _cell(values: list[float]) -> str:
    return f"{statistics.median(values):.4g} [{min(values):.4g}-{max(values):.4g}]"


if __name__ == "__main__":
    sys.exit(main())
