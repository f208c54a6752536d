"""Runs every part of the tests in turn and says at the end how many passed.

./run test                      everything
./run test --part unit          one part (see PARTS)
./run test --system trixie      the booted machines, of another release of Debian
./run test --catalogue          the catalogue's rows with their tests and last results
./run test -- -k replay -x      pytest's own arguments, for the parts that are pytest's
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from tests import catalogue, lint
from tests.packaging.roots import RELEASES
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
    Part("system", ("tests/system",)),
    Part("plane-asan", ("tests/plane", *NOT_SANITIZED), sanitizer="address"),
    Part(
        "plane-tsan",
        ("tests/plane/program", "tests/plane/leaves/test_threads.py", *NOT_SANITIZED),
        sanitizer="thread",
    ),
)
NAMES = ("lint", *(part.name for part in PARTS))
# Run at the same time: work for the processor, which waits for little and measures nothing.
PAIRS = {"unit": "packaging", "plane-asan": "plane-tsan"}


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    if options.catalogue:
        return catalogue.print_table()
    wanted = options.part or NAMES
    if options.system:
        wanted = ("system",)
        os.environ["VPND_TEST_RELEASE"] = options.system
    elif not options.part:
        RESULTS.unlink(missing_ok=True)
    parts = {part.name: part for part in PARTS}
    failed = []
    left = [name for name in NAMES if name in wanted]
    while left:
        name = left.pop(0)
        beside = PAIRS.get(name)
        if name == "lint":
            statuses = {name: _timed(name, lint.main)}
        elif beside in left:
            left.remove(beside)
            statuses = _both(parts[name], parts[beside], options.rest)
        else:
            statuses = {name: _timed(name, partial(_run, parts[name], options.rest))}
        failed += [each for each, status in statuses.items() if status != 0]
    results = read_results()
    outcomes = [outcome for name in wanted for outcome in results.get(name, {}).values()]
    print(*(f"part failed: {name}" for name in failed), sep="\n")
    bad = sum(outcome != "passed" for outcome in outcomes)
    print(f"total: {len(outcomes) - bad} passed, {bad} failed")
    return int(bool(failed) or bad > 0)


def _both(one: Part, other: Part, rest: Sequence[str]) -> dict[str, int]:
    """Runs two parts at the same time; what the other prints follows."""
    with tempfile.TemporaryFile("w+") as printed, ThreadPoolExecutor(1) as beside:
        later = beside.submit(_run, other, rest, printed)
        began = time.monotonic()
        status = _timed(one.name, partial(_run, one, rest))
        other_status = later.result()
        print(f"\n== {other.name}, beside it")
        printed.seek(0)
        print(printed.read(), end="")
        print(f"== {other.name}: {_verdict(other_status)} in {time.monotonic() - began:.0f} s", flush=True)
    return {one.name: status, other.name: other_status}


def _run(part: Part, rest: Sequence[str], printed: IO[str] | None = None) -> int:
    """Runs a part; gives pytest's status. Its output goes to `printed`, or to the terminal."""
    forget_results(part.name)
    words = [word for each in part.tests for word in _paths(each)]
    arguments = ["-q", *words, *rest]
    environment = os.environ | {"VPND_TEST_PART": part.name}
    start: tuple[str, ...] = ("pytest",)
    if part.sanitizer:
        start = ("tests.plane.sanitize", part.sanitizer)
    elif part.with_coverage and not rest:
        start = ("coverage", "run", "-m", "pytest")
    call = partial(subprocess.call, cwd=ROOT, env=environment, stdout=printed, stderr=printed)
    status = call([sys.executable, "-m", *start, *arguments])
    if status == 0 and start[0] == "coverage":
        report = ["coverage", "report", f"--include={BRANCHES_WANTED}", "--fail-under=100"]
        status = call([sys.executable, "-m", *report])
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
    print(f"== {name}: {_verdict(status)} in {time.monotonic() - began:.0f} s", flush=True)
    return status


def _verdict(status: int) -> str:
    return "ok" if status == 0 else "FAILED"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run test", description="Runs the tests.")
    parser.add_argument("--part", action="append", choices=NAMES, help="only this part; may be repeated")
    parser.add_argument("--system", choices=RELEASES, help="only the booted machines, of this release")
    parser.add_argument("--catalogue", action="store_true", help="print the catalogue with the last results")
    parser.add_argument("rest", nargs="*", help="after --: arguments for pytest")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
