"""Runs every part of the tests in turn and says at the end how many passed.

./run test                      everything
./run test --part unit          one part (see PARTS)
./run test --catalogue          the catalogue's rows with their tests and last results
./run test -- -k replay -x      pytest's own arguments, for the parts that are pytest's
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests import catalogue, lint
from tests.results import RESULTS, read_results

ROOT = Path(__file__).resolve().parent.parent
BRANCHES_WANTED = "vpnd/protocol/*,vpnd/config/*,vpnd/control/*"


@dataclass(frozen=True)
class Part:
    """One run of pytest: folders, and what makes it different from a plain one."""

    name: str
    folders: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    with_coverage: bool = False


PARTS = (
    Part(
        "unit",
        ("tests/test_*.py", "tests/protocol", "tests/config", "tests/control", "tests/ctl", "tests/daemon"),
        with_coverage=True,
    ),
    Part("plane", ("tests/plane",)),
    Part("host", ("tests/host",)),
    Part("lab", ("tests/lab",)),
    Part("plane-asan", ("tests/plane",), {"VPND_SANITIZE": "address"}),
    Part("plane-tsan", ("tests/plane",), {"VPND_SANITIZE": "thread"}),
)
NAMES = ("lint", *(part.name for part in PARTS))


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    if options.catalogue:
        return catalogue.print_table()
    wanted = options.part or NAMES
    if not options.part:
        RESULTS.unlink(missing_ok=True)
    jobs = {"lint": lint.main} | {part.name: partial(_run, part, options.rest) for part in PARTS}
    failed = [name for name, do in jobs.items() if name in wanted and _timed(name, do) != 0]
    outcomes = [outcome for tests in read_results().values() for outcome in tests.values()]
    print(*(f"part failed: {name}" for name in failed), sep="\n")
    bad = sum(outcome != "passed" for outcome in outcomes)
    print(f"total: {len(outcomes) - bad} passed, {bad} failed")
    return int(bool(failed) or bad > 0)


def _run(part: Part, rest: Sequence[str]) -> int:
    folders = [str(path) for pattern in part.folders for path in sorted(ROOT.glob(pattern))]
    command = [sys.executable, "-m", "pytest", "-q", *folders, *rest]
    environment = os.environ | part.environment | {"VPND_TEST_PART": part.name}
    if not part.with_coverage or rest:
        return subprocess.call(command, cwd=ROOT, env=environment)
    measure = [sys.executable, "-m", "coverage"]
    status = subprocess.call([*measure, "run", *command[1:]], cwd=ROOT, env=environment)
    report = [*measure, "report", f"--include={BRANCHES_WANTED}", "--fail-under=100"]
    return status or subprocess.call(report, cwd=ROOT, env=environment)


def _timed(name: str, do: Callable[[], int]) -> int:
    print(f"\n== {name}", flush=True)
    began = time.monotonic()
    status = do()
    print(f"== {name}: {'ok' if status == 0 else 'FAILED'} in {time.monotonic() - began:.0f} s", flush=True)
    return status


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run test", description="Runs the tests.")
    parser.add_argument("--part", action="append", choices=NAMES, help="only this part; may be repeated")
    parser.add_argument("--catalogue", action="store_true", help="print the catalogue with the last results")
    parser.add_argument("rest", nargs="*", help="after --: arguments for pytest")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
