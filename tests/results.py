"""What each test of the last run did, kept in a file between the parts of a run.

A result is found by the part it ran in and the test's id; the catalogue reads it too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "build" / "results.json"


def read_results() -> dict[str, dict[str, str]]:
    """Gives {part: {test id: "passed" or "failed"}} of the last run; empty before the first."""
    if not RESULTS.exists():
        return {}
    results: dict[str, dict[str, str]] = json.loads(RESULTS.read_text())
    return results


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Holds off parts that run at the same time while one of them changes a file of results."""
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def forget_results(part: str) -> None:
    """Takes a part's results away before it runs anew, so that tests that are gone leave none."""
    with alone():
        results = read_results()
        if results.pop(part, None) is not None:
            RESULTS.write_text(json.dumps(results, indent=1))


def add_results(part: str, outcomes: dict[str, str]) -> None:
    """Adds what one pytest run found; a test that ran again has its newest result."""
    with alone():
        results = read_results()
        results.setdefault(part, {}).update(outcomes)
        RESULTS.write_text(json.dumps(results, indent=1))
