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
import signal
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
    beside_others: bool = False  # it may share the machine


UNIT = ("protocol", "vectors", "config", "control", "ctl", "daemon", "enrol", "benchmarks")
# Left out under a sanitizer: the real filter of system calls, which it cannot live under; a scan of
# memory, of which it keeps what was freed; and fuzzers, which bring sanitizers of their own.
NOT_SANITIZED = (
    "--ignore=tests/plane/leaves/test_sandbox.py",
    "--ignore=tests/plane/fuzz",
    "--deselect=tests/plane/program/test_sessions.py::test_no_key_is_left_in_memory_when_its_session_is_gone",
)
AT_ONCE = 3  # parts; booted machines wait most of the time
# Tests of the lab which ask what happens, not how fast nor how much of it.
ASKING = tuple(
    f"tests/lab/test_{each}.py"
    for each in (
        *("bridge", "configuration", "full_tunnel", "groups", "ipv6", "join", "journal", "keys"),
        *("live_change", "machine", "metrics", "nat", "nesting", "pcap", "pool", "routing", "spoofing"),
        *("start", "undoing", "unprivileged", "watching", "why"),
    )
)
MEASURING = ("tests/system/test_restarts.py", "tests/system/test_unit.py")
PARTS = (
    # What measures nothing, the longest first.
    Part("lab-beside", ASKING, beside_others=True),
    Part("fuzz", ("tests/plane/fuzz",), beside_others=True),
    Part("plane-asan", ("tests/plane", *NOT_SANITIZED), sanitizer="address", beside_others=True),
    Part(
        "unit",
        ("tests/test_*.py", *(f"tests/{room}" for room in UNIT)),
        with_coverage=True,
        beside_others=True,
    ),
    Part("machines", ("tests/system", *(f"--ignore={each}" for each in MEASURING)), beside_others=True),
    Part(
        "plane-tsan",
        ("tests/plane/program", "tests/plane/leaves/test_threads.py", *NOT_SANITIZED),
        sanitizer="thread",
        beside_others=True,
    ),
    Part("packaging", ("tests/packaging",), beside_others=True),
    Part("plane", ("tests/plane", "--ignore=tests/plane/fuzz"), beside_others=True),
    Part("host", ("tests/host",), beside_others=True),
    # Traffic, which takes the machine for itself.
    Part("lab", ("tests/lab", *(f"--ignore={each}" for each in ASKING))),
    Part("system", MEASURING),
)
NAMES = ("lint", *(part.name for part in PARTS))


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    if options.catalogue:
        return catalogue.print_table()
    # A shell's background leaves it ignored, also by the programs that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wanted = options.part or NAMES
    if options.system:
        wanted = ("machines", "system")
        os.environ["VPND_TEST_RELEASE"] = options.system
    elif not options.part:
        RESULTS.unlink(missing_ok=True)
    failed = []
    if "lint" in wanted and _timed("lint", lint.main) != 0:
        failed.append("lint")
    chosen = [part for part in PARTS if part.name in wanted]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        shared = [part for part in chosen if part.beside_others]
        statuses = list(pool.map(partial(_run_aside, rest=options.rest), shared))
    failed += [part.name for part, status in zip(shared, statuses, strict=True) if status != 0]
    for part in chosen:
        if not part.beside_others and _timed(part.name, partial(_run, part, options.rest)) != 0:
            failed.append(part.name)
    results = read_results()
    outcomes = [outcome for name in wanted for outcome in results.get(name, {}).values()]
    print(*(f"part failed: {name}" for name in failed), sep="\n")
    bad = sum(outcome != "passed" for outcome in outcomes)
    print(f"total: {len(outcomes) - bad} passed, {bad} failed")
    return int(bool(failed) or bad > 0)


def _run_aside(part: Part, rest: Sequence[str]) -> int:
    """Runs a part that shares the machine; its output comes at its end, in one piece."""
    print(f"\n-- {part.name}: begun", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as printed:
        status = _run(part, rest, printed)
        printed.seek(0)
        print(f"\n== {part.name}\n{printed.read()}{_verdict(part.name, status, began)}", flush=True)
    return status


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
    print(_verdict(name, status, began), flush=True)
    return status


def _verdict(name: str, status: int, began: float) -> str:
    return f"== {name}: {'ok' if status == 0 else 'FAILED'} in {time.monotonic() - began:.0f} s"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run test", description="Runs the tests.")
    parser.add_argument("--part", action="append", choices=NAMES, help="only this part; may be repeated")
    parser.add_argument("--system", choices=RELEASES, help="only the booted machines, of this release")
    parser.add_argument("--catalogue", action="store_true", help="print the catalogue with the last results")
    parser.add_argument("rest", nargs="*", help="after --: arguments for pytest")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
