"""A short run of every fuzz target, from the same seed each time, and a minute of those that stand in
the way of packets and requests. `python -m tests.plane.fuzz` runs them for longer.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.plane import building
from tests.plane.fuzz.running import Run

TARGETS = sorted(path.stem for path in Path(__file__).parent.glob("*.c"))
RUNS = 20_000
# Two at once, for two cores.
LONG = (("coalesce", "inbound"), ("requests", "segment"))
LONG_S = 60


@pytest.fixture(autouse=True)
def _not_sanitized_twice() -> None:
    if building.sanitizer():
        pytest.skip("the fuzz targets bring sanitizers of their own")


def test_every_target_is_found() -> None:
    assert len(TARGETS) >= 11
    assert {name for pair in LONG for name in pair} <= set(TARGETS)


@pytest.mark.parametrize("name", [name for name in TARGETS if not any(name in pair for pair in LONG)])
def test_random_input_finds_no_error(name: str, tmp_path: Path) -> None:
    """[H3] No crash, no sanitizer report, and what each target promises holds."""
    with Run(name, tmp_path, f"-runs={RUNS}", "-seed=1") as run:
        outcome = run.wait(200)
    assert outcome.status == 0, outcome.output[-4000:]
    assert outcome.runs == RUNS


@pytest.mark.parametrize("names", LONG)
def test_a_minute_of_random_input_finds_no_error(names: tuple[str, str], tmp_path: Path) -> None:
    """[D8, H3, H13] Cutting, joining, the whole way in, and the plane socket."""
    folders = [tmp_path / name for name in names]
    with contextlib.ExitStack() as ending:
        runs = []
        for name, folder in zip(names, folders, strict=True):
            folder.mkdir()
            runs.append(ending.enter_context(Run(name, folder, f"-max_total_time={LONG_S}")))
        outcomes = [run.wait(LONG_S) for run in runs]
    for outcome in outcomes:
        assert outcome.status == 0, outcome.output[-4000:]
        assert outcome.runs > 0
