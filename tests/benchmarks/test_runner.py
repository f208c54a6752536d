"""The order of trials, and that one system's fault is no other's."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.measures import Taken
from benchmarks.runner import Results, Trial, carry_out


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

    def run(self, rounds: int) -> None:
        trials = [[self.trial(measure, system) for system in ("a", "b")] for measure in ("tcp1", "rtt")]
        carry_out(trials, rounds, self.results, tell=lambda _: None, step=self._step)

    def _step(self) -> None:
        self.steps += 1


def test_each_round_of_a_measure_takes_all_systems() -> None:
    bench = Bench()
    bench.run(2)
    assert bench.taken == ["tcp1 a", "tcp1 b", "tcp1 a", "tcp1 b", "rtt a", "rtt b", "rtt a", "rtt b"]
    assert bench.steps == 8
    assert bench.results.failures == {}


def test_a_failed_round_is_told_and_the_run_goes_on() -> None:
    bench = Bench("a")
    bench.run(2)
    assert len(bench.taken) == 8
    assert bench.results.failures == {"a": {"tcp1": "broken pipe", "rtt": "broken pipe"}}


def test_a_system_that_died_is_not_tried_again() -> None:
    bench = Bench("a", survives=False)
    bench.run(3)
    assert bench.taken.count("tcp1 a") == 2
    assert "rtt a" not in bench.taken
    assert bench.taken.count("rtt b") == 3
    assert bench.steps == 12
    assert bench.results.failures["a"]["rest"] == "its tunnel is gone; not tried again"


def test_a_round_that_failed_keeps_its_place() -> None:
    results = Results()
    results.add("a", 0, {"tcp1_out": 1.0})
    results.add("a", 2, {"tcp1_out": 3.0})
    assert results.figures == {"a": {"tcp1_out": [1.0, None, 3.0]}}
