"""Runs fuzz targets for as long as one likes: `python -m tests.plane.fuzz --seconds 600 segment inbound`.

Without names all of them, two at a time. What they learned is kept in build/fuzz-found/<name>/corpus and
is where the next run begins; an input that broke something lies beside it.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.plane import building
from tests.plane.fuzz.running import Outcome, Run

FOUND = building.SOURCE / "build" / "fuzz-found"
TARGETS = sorted(path.stem for path in Path(__file__).parent.glob("*.c"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.plane.fuzz", description="Runs fuzz targets.")
    parser.add_argument("--seconds", type=int, default=600, help="of each target; 600 if not said")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="targets at a time")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    options = parser.parse_args()
    names: list[str] = options.targets or TARGETS
    unknown = sorted(set(names) - set(TARGETS))
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    with ThreadPoolExecutor(options.at_once) as pool:
        outcomes = list(pool.map(lambda name: _run(name, options.seconds), names))
    return int(any(outcome.status != 0 for outcome in outcomes))


def _run(name: str, seconds: int) -> Outcome:
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    with Run(name, folder, f"-max_total_time={seconds}", keeps_corpus=True) as run:
        outcome = run.wait(seconds)
    if outcome.status == 0:
        print(f"{name}: {outcome.runs} runs in {seconds} s, nothing found", flush=True)
    else:
        print(f"{name}: ended with {outcome.status}, see {folder}\n{outcome.output[-4000:]}", flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
