"""Measures vpnd beside the tunnels that Debian has:

    ./run bench [--quick] [--only SYSTEM …] [--measure NAME …]

docs/benchmarks.md says what is measured, how, and how to read it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import record
from benchmarks.build import BUILD
from benchmarks.figures import add_memory_per_peer
from benchmarks.hub import HUB_MEASURES, HUBS
from benchmarks.measures import MEASURES, busy_share
from benchmarks.plot import LIMIT, draw
from benchmarks.report import print_report
from benchmarks.runner import Results, carry_out, hub_trials, pair_trials, standing
from benchmarks.systems import PEERS, SYSTEMS, VARIANTS

_PAIR_NAMES = tuple(measure.name for measure in MEASURES)
_HUB_NAMES = tuple(dict.fromkeys(measure.name for measure in HUB_MEASURES))
_NAMES = tuple(system.name for system in SYSTEMS)
_HUB_ROWS = (*(name for name, _ in HUBS), "hub")
_GROUPS = (
    ("systems", tuple(system.name for system in PEERS)),
    ("variants of vpnd", ("vpnd", *(system.name for system in VARIANTS))),
    ("vpnd as a hub", _HUB_ROWS),
)
_WATCH_S = 2.0
_BUSY = 0.05  # share of the machine from which its figures are doubtful
_QUICK = {"rounds": 1, "seconds": 1}
_THOROUGH = {"rounds": 3, "seconds": 2}


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    began = time.monotonic()
    results = Results()
    try:
        busy_before = busy_share(_WATCH_S)
        busy_idle = _measure(options, results, console)
    except KeyboardInterrupt:
        console.print("interrupted; nothing is written")
        return 130
    add_memory_per_peer(results.figures, HUBS[0], HUBS[-1])
    machine = record.Machine.this(busy_before, busy_idle)
    taken = record.record_of(
        results, options.systems, machine, rounds=options.rounds, seconds=options.seconds
    )
    print_report(
        console, results, _GROUPS, record.read_kept(), is_whole=not (options.only or options.measure)
    )
    if max(busy_before, busy_idle) > _BUSY:
        shares = f"{busy_before * 100:.0f} % busy before, {busy_idle * 100:.0f} % with all systems idle"
        console.print(f"The machine was {shares}: trust no figure.", style="bold red")
    console.print(f"{(time.monotonic() - began) / 60:.1f} minutes", style="dim")
    drawn = [name for name in _GROUPS[0][1] if results.figures.get(name)]
    files = [BUILD / "results.json"] + ([record.KEPT] if options.keep else [])
    for file in files:
        record.write(taken, file)
        console.print(f"written: {file}", style="dim")
        if set(drawn) - {LIMIT}:
            draw(results.figures, drawn, file.with_suffix(".svg"))
            console.print(f"written: {file.with_suffix('.svg')}", style="dim")
    return int(not results.figures)


def _measure(options: argparse.Namespace, results: Results, console: Console) -> float:
    """Takes every figure; gives the share of the machine that was busy while all stood idle."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(
        *columns, console=console, refresh_per_second=2, disable=not sys.stdout.isatty()
    ) as progress:
        task = progress.add_task("", total=None)
        tell = _teller(progress, lambda text: progress.update(task, description=text), console)
        systems = options.systems if set(options.measures) & set(_PAIR_NAMES) else []
        hubs = hub_trials(options.measures, options.seconds) if options.with_hubs else []
        busy_idle = 0.0
        for number in range(options.rounds):
            with standing(systems, results, tell) as pairs:
                if number == 0:
                    tell("watching how quiet the machine is")
                    busy_idle = busy_share(_WATCH_S)
                trials = pair_trials(systems, pairs, options.measures, options.seconds, number)
                progress.update(task, total=(len(trials) + len(hubs)) * options.rounds)
                missing = {system.name for system in systems} - pairs.keys()
                step = partial(progress.advance, task)
                carry_out(trials, number, results, missing=missing, tell=tell, step=step)
            carry_out(hubs, number, results, tell=tell, step=step)
    return busy_idle


def _teller(progress: Progress, describe: Callable[[str], None], console: Console) -> Callable[[str], None]:
    """Shows what is going on beside the bar, or as lines where there is no terminal."""

    def tell(text: str) -> None:
        if progress.disable or text.startswith("failed"):
            console.print(text, style="dim", highlight=False, markup=False)
        describe(text)

    return tell


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    lines = [f"  {measure.name:14}{measure.about}" for measure in MEASURES]
    lines += [f"  {measure.name:14}{measure.about}" for measure in HUB_MEASURES]
    lines += ["systems:"] + [f"  {system.name:14}{system.about}" for system in SYSTEMS]
    parser = argparse.ArgumentParser(
        prog="./run bench",
        description="Measures vpnd beside the tunnels that Debian has.",
        epilog="measures:\n" + "\n".join(dict.fromkeys(lines)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = {"metavar": "NAME", "nargs": "+"}
    parser.add_argument("--quick", action="store_true", help="one round of one second: does it run at all?")
    parser.add_argument("--only", choices=_NAMES, help="these systems alone, and no hub", **names)  # type: ignore[arg-type]
    parser.add_argument("--measure", choices=_PAIR_NAMES + _HUB_NAMES, help="these measures alone", **names)  # type: ignore[arg-type]
    parser.add_argument("--rounds", type=int, help=f"default {_THOROUGH['rounds']}")
    parser.add_argument("--seconds", type=int, help=f"of each trial, default {_THOROUGH['seconds']}")
    parser.add_argument("--keep", action="store_true", help=f"write {record.KEPT.name}, to compare with")
    options = parser.parse_args(arguments)
    defaults = _QUICK if options.quick else _THOROUGH
    options.rounds = options.rounds or defaults["rounds"]
    options.seconds = options.seconds or defaults["seconds"]
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds take whole numbers from 1 on")
    options.systems = [system for system in SYSTEMS if not options.only or system.name in options.only]
    options.measures = options.measure or _PAIR_NAMES + _HUB_NAMES
    # A choice of systems leaves the hub out, unless one of its measures is asked for by name.
    options.with_hubs = not options.only or bool(options.measure)
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
