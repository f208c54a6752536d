"""The order of trials, and that one system's fault is no other's."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.measures import MEASURES, Taken
from benchmarks.pair import Pair
from benchmarks.runner import Results, Trial, carry_out, pair_trials
from benchmarks.systems.system import System
from tests.lab.namespaces import Lab


class Bench:
    """Trials that note when they were taken; those of `faulty` fail from their second round on."""

    def __init__(self, faulty: str = "", *, survives: bool = True) -> None:
        self.taken: list[str] = []
        self.results = Results()
        self.steps = 0
        self._faulty, self._survives = faulty, survives

    def trial(self, measure: str, system: str) -> Trial:
        return Trial(measure, system, self._take(f"{measure} {system}", system), lambda: self._survives)

    def _take(self, name: str, system: str) -> Callable[[], Taken]:
        def take() -> Taken:
            self.taken.append(name)
            if system == self._faulty and self.taken.count(name) > 1:
                raise OSError("broken\n  pipe")
            return {"tcp1_out": float(len(self.taken))}

        return take

    def run(self, rounds: int, *, missing: tuple[str, ...] = ()) -> None:
        for number in range(rounds):
            trials = [self.trial(measure, system) for system in ("a", "b") for measure in ("tcp1", "rtt")]
            carry_out(trials, number, self.results, missing=missing, tell=lambda _: None, step=self._step)

    def _step(self) -> None:
        self.steps += 1


class AnySystem(System):
    """One of which everything is taken, or some measures."""

    def __init__(self, name: str, measures: frozenset[str] | None = None) -> None:
        self.name, self.about, self.measures = name, name, measures

    def build(self, lab: Lab) -> Pair:
        raise NotImplementedError


def test_measures_that_are_compared_are_taken_beside_each_other() -> None:
    systems = [AnySystem("a"), AnySystem("b"), AnySystem("c", frozenset({"tcp1"}))]
    wanted = ("tcp1", "tcp4", "rtt")
    forth, back = ([*pair_trials(systems, {}, wanted, 1, number)] for number in (0, 1))
    assert [(trial.system, trial.measure) for trial in forth] == [
        *(("a", "tcp1"), ("a", "tcp4"), ("b", "tcp1"), ("b", "tcp4"), ("c", "tcp1")),
        *(("a", "rtt"), ("b", "rtt")),
    ]
    assert [(trial.system, trial.measure) for trial in reversed(back)] == [
        (trial.system, trial.measure) for trial in forth
    ]


def test_a_system_that_did_not_start_is_left_out() -> None:
    bench = Bench()
    bench.run(1, missing=("a",))
    assert bench.taken == ["tcp1 b", "rtt b"]
    assert bench.steps == 4
    assert bench.results.failures == {}


def test_a_failed_round_is_told_and_the_run_goes_on() -> None:
    bench = Bench("a")
    bench.run(2)
    assert len(bench.taken) == 8
    assert bench.results.failures == {"a": {"tcp1": "broken pipe", "rtt": "broken pipe"}}


def test_a_system_that_died_is_not_tried_again_in_that_round() -> None:
    bench = Bench("a", survives=False)
    bench.run(3)
    assert bench.taken.count("tcp1 a") == 3
    assert bench.taken.count("rtt a") == 1
    assert bench.taken.count("rtt b") == 3
    assert bench.steps == 12
    assert bench.results.failures["a"]["rest"] == "its tunnel went; not tried in that round"


def test_what_comes_near_is_taken_again_and_its_median_counts() -> None:
    systems = [AnySystem("fastd"), AnySystem("tinc"), AnySystem("vpnd")]
    turns = next(measure.turns for measure in MEASURES if measure.name == "rtt")
    assert turns > 1
    trials = pair_trials(systems, {}, ("rtt", "rtt-loaded"), 1, 0)
    again = [("fastd", "rtt"), ("vpnd", "rtt")]
    assert [(trial.system, trial.measure) for trial in trials[6:]] == again * (turns - 1)
    results = Results()
    for value in (5.0, 1.0, 2.0):
        results.add("vpnd", 1, {"rtt_median": value})
    assert results.figures == {"vpnd": {"rtt_median": [None, 2.0]}}


def test_a_round_that_failed_keeps_its_place() -> None:
    results = Results()
    results.add("a", 0, {"tcp1_out": 1.0})
    results.add("a", 2, {"tcp1_out": 3.0})
    assert results.figures == {"a": {"tcp1_out": [1.0, None, 3.0]}}
