"""Carries the trials out in rounds, so that what is compared was measured at the same time.

For each round all systems are started anew and stand idle until it is their turn: one process may be
quicker than the next of the same program for as long as both live. Within a round a system's measures of
one family follow each other, then those of the system beside it; those that come near to each other are
taken in more turns; every other round goes backwards. One system's fault is told by name and the run goes on.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from benchmarks.figures import Figures
from benchmarks.hub import HUB_MEASURES
from benchmarks.measures import MEASURES, Measure, Taken
from benchmarks.pair import Pair, with_echo
from benchmarks.systems.system import System
from tests.lab.namespaces import laboratory

Tell = Callable[[str], None]
_REASON_SIZE = 200


class DeadError(Exception):
    """A system that worked does not carry packets any more."""


@dataclass(frozen=True)
class Trial:
    """`is_alive` is asked after a failure: a dead system is not tried again in that round."""

    measure: str
    system: str
    take: Callable[[], Taken]
    is_alive: Callable[[], bool] = lambda: True


@dataclass
class Results:
    figures: Figures = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)  # by system, by measure or "start"
    _turns: dict[tuple[str, str, int], list[float]] = field(default_factory=dict)

    def add(self, system: str, number: int, taken: Taken) -> None:
        """Notes the figures of one round, counted from 0; of several turns in it the median counts."""
        for name, value in taken.items():
            turns = self._turns.setdefault((system, name, number), [])
            turns.append(value)
            values = self.figures.setdefault(system, {}).setdefault(name, [])
            values += [None] * (number + 1 - len(values))
            values[number] = statistics.median(turns)

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
    systems: Sequence[System], pairs: Mapping[str, Pair], wanted: Sequence[str], seconds: int, number: int
) -> list[Trial]:
    """Gives the trials of a round, counted from 0, in the order in which they are taken."""
    trials = [
        Trial(
            measure.name,
            system.name,
            partial(_take, measure, pairs, system.name, seconds),
            partial(_is_alive, pairs, system.name),
        )
        for family in dict.fromkeys(measure.family for measure in MEASURES)
        for turn in range(max(measure.turns for measure in MEASURES))
        for system in systems
        for measure in MEASURES
        if measure.family == family
        and (turn == 0 or (turn < measure.turns and system.name in measure.near))
        and measure.name in wanted
        and (system.measures is None or measure.name in system.measures)
    ]
    return trials if number % 2 == 0 else trials[::-1]


def _take(measure: Measure, pairs: Mapping[str, Pair], system: str, seconds: int) -> Taken:
    return measure.take(pairs[system], seconds)


def _is_alive(pairs: Mapping[str, Pair], system: str) -> bool:
    return pairs[system].is_alive()


def hub_trials(wanted: Sequence[str], seconds: int) -> list[Trial]:
    """Gives the trials of vpnd as a hub."""
    return [
        Trial(measure.name, measure.system, partial(measure.take, seconds))
        for measure in HUB_MEASURES
        if measure.name in wanted
    ]


def carry_out(
    trials: Sequence[Trial],
    number: int,
    results: Results,
    *,
    missing: Collection[str] = (),
    tell: Tell,
    step: Callable[[], None],
) -> None:
    """Takes a round's trials but those of systems that are `missing`; `step` is called after each."""
    dead = set(missing)
    for trial in trials:
        if trial.system not in dead:
            tell(f"round {number + 1}: {trial.measure}, {trial.system}")
            try:
                results.add(trial.system, number, trial.take())
            except Exception as error:  # whatever it is, the others can be measured
                results.fail(trial.system, trial.measure, error)
                tell(f"failed: {trial.system}, {trial.measure}: {error}")
                if not trial.is_alive():
                    dead.add(trial.system)
                    results.fail(trial.system, "rest", DeadError("its tunnel went; not tried in that round"))
        step()
