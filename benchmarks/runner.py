"""Carries the trials out, interleaved: round 1 of a measure for all systems, then round 2, and so on.

All pairs are built before and stand idle until it is their turn. One system's fault is told by name
and the run goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from benchmarks.figures import Figures
from benchmarks.hub import HUB_MEASURES
from benchmarks.measures import MEASURES, Taken
from benchmarks.pair import Pair, with_echo
from benchmarks.systems.system import System
from tests.lab.namespaces import laboratory

Tell = Callable[[str], None]
_REASON_SIZE = 200


class DeadError(Exception):
    """A system that worked does not carry packets any more."""


@dataclass(frozen=True)
class Trial:
    """`is_alive` is asked after a failure: a dead system is not tried again, which would take its time."""

    measure: str
    system: str
    take: Callable[[], Taken]
    is_alive: Callable[[], bool] = lambda: True


@dataclass
class Results:
    figures: Figures = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)  # by system, by measure or "start"

    def add(self, system: str, number: int, taken: Taken) -> None:
        """Notes the figures of one round, counted from 0."""
        for name, value in taken.items():
            values = self.figures.setdefault(system, {}).setdefault(name, [])
            values += [None] * (number - len(values))
            values.append(value)

    def fail(self, system: str, where: str, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        self.failures.setdefault(system, {})[where] = " ".join(reason.split())[-_REASON_SIZE:]


@contextlib.contextmanager
def standing(systems: Sequence[System], results: Results, tell: Tell) -> Iterator[dict[str, Pair]]:
    """Builds every system in a lab of its own; gives those that work, by name."""
    pairs: dict[str, Pair] = {}
    with contextlib.ExitStack() as labs:
        for system in systems:
            tell(f"starting {system.name}")
            lab = labs.enter_context(contextlib.ExitStack())
            try:
                pairs[system.name] = with_echo(system.build(lab.enter_context(laboratory())))
            except Exception as error:  # whatever it is, the others can be measured
                lab.close()
                results.fail(system.name, "start", error)
                tell(f"failed: {system.name}: {results.failures[system.name]['start']}")
        yield pairs


def pair_trials(
    systems: Sequence[System], pairs: dict[str, Pair], wanted: Sequence[str], seconds: int
) -> list[list[Trial]]:
    """Gives one list of trials for each measure, in the order in which they are taken."""
    return [
        [
            Trial(
                measure.name,
                system.name,
                partial(measure.take, pairs[system.name], seconds),
                pairs[system.name].is_alive,
            )
            for system in systems
            if system.name in pairs and (system.measures is None or measure.name in system.measures)
        ]
        for measure in MEASURES
        if measure.name in wanted
    ]


def hub_trials(wanted: Sequence[str], seconds: int) -> list[list[Trial]]:
    """Gives the trials of vpnd as a hub, those of one measure together."""
    return [
        [
            Trial(name, measure.system, partial(measure.take, seconds))
            for measure in HUB_MEASURES
            if measure.name == name
        ]
        for name in dict.fromkeys(measure.name for measure in HUB_MEASURES)
        if name in wanted
    ]


def carry_out(
    trials: Sequence[Sequence[Trial]], rounds: int, results: Results, *, tell: Tell, step: Callable[[], None]
) -> None:
    """Runs every trial `rounds` times; `step` is called after each."""
    dead: set[str] = set()
    for group in trials:
        for number in range(rounds):
            for trial in group:
                if trial.system in dead:
                    step()
                    continue
                tell(f"{trial.measure}, round {number + 1} of {rounds}: {trial.system}")
                try:
                    results.add(trial.system, number, trial.take())
                except Exception as error:  # whatever it is, the others can be measured
                    results.fail(trial.system, trial.measure, error)
                    tell(f"failed: {trial.system}, {trial.measure}: {error}")
                    if not trial.is_alive():
                        dead.add(trial.system)
                        results.fail(trial.system, "rest", DeadError("its tunnel is gone; not tried again"))
                step()
