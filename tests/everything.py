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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests import catalogue, lint
from tests.results import RESULTS, forget_results, read_results

ROOT = Path(__file__).resolve().parent.parent
BRANCHES_WANTED = "vpnd/protocol/*,vpnd/config/*,vpnd/control/*"


@dataclass(frozen=True)
class Part:
    """One run of pytest: where its tests are, and what makes it different from a plain one."""

    name: str
    tests: tuple[str, ...]  # paths, patterns of paths and options of pytest
    sanitizer: str = ""  # "address" or "thread": the plane is built with it
    with_coverage: bool = False


UNIT = ("protocol", "vectors", "config", "control", "ctl", "daemon", "benchmarks")
# Left out under a sanitizer: the real filter of system calls, which it cannot live under; a scan of
# memory, of which it keeps what was freed; and fuzzers, which bring sanitizers of their own.
NOT_SANITIZED = (
    "--ignore=tests/plane/leaves/test_sandbox.py",
    "--ignore=tests/plane/fuzz",
    "--deselect=tests/plane/program/test_sessions.py::test_no_key_is_left_in_memory_when_its_session_is_gone",
)
PARTS = (
    Part("unit", ("tests/test_*.py", *(f"tests/{room}" for room in UNIT)), with_coverage=True),
    Part("plane", ("tests/plane",)),
    Part("host", ("tests/host",)),
    Part("packaging", ("tests/packaging",)),
    Part("lab", ("tests/lab",)),
    Part("plane-asan", ("tests/plane", *NOT_SANITIZED), sanitizer="address"),
    Part(
        "plane-tsan",
        ("tests/plane/program", "tests/plane/leaves/test_threads.py", *NOT_SANITIZED),
        sanitizer="thread",
    ),
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
    results = read_results()
    outcomes = [outcome for name in wanted for outcome in results.get(name, {}).values()]
    print(*(f"part failed: {name}" for name in failed), sep="\n")
    bad = sum(outcome != "passed" for outcome in outcomes)
    print(f"total: {len(outcomes) - bad} passed, {bad} failed")
    return int(bool(failed) or bad > 0)


def _run(part: Part, rest: Sequence[str]) -> int:
    forget_results(part.name)
    words = [word for each in part.tests for word in _paths(each)]
    arguments = ["-q", *words, *rest]
    environment = os.environ | {"VPND_TEST_PART": part.name}
    start: tuple[str, ...] = ("pytest",)
    if part.sanitizer:
        start = ("tests.plane.sanitize", part.sanitizer)
    elif part.with_coverage and not rest:
        start = ("coverage", "run", "-m", "pytest")
    status = subprocess.call([sys.executable, "-m", *start, *arguments], cwd=ROOT, env=environment)
    if status == 0 and start[0] == "coverage":
        report = ["coverage", "report", f"--include={BRANCHES_WANTED}", "--fail-under=100"]
        status = subprocess.call([sys.executable, "-m", *report], cwd=ROOT, env=environment)
    return status


def _paths(word: str) -> list[str]:
    """Takes a pattern of paths apart; options stay what they are."""
    if word.startswith("-"):
        return [word]
    return [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob(word))]


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
