"""What each test of the last run did, kept in a file between the parts of a run.

A result is found by the part it ran in and the test's id; the catalogue reads it too.
"""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "build" / "results.json"


def read_results() -> dict[str, dict[str, str]]:
    """Gives {part: {test id: "passed" or "failed"}} of the last run; empty before the first."""
    if not RESULTS.exists():
        return {}
    results: dict[str, dict[str, str]] = json.loads(RESULTS.read_text())
    return results


def forget_results(part: str) -> None:
    """Takes a part's results away before it runs anew, so that tests that are gone leave none."""
    results = read_results()
    if results.pop(part, None) is not None:
        RESULTS.write_text(json.dumps(results, indent=1))


def add_results(part: str, outcomes: dict[str, str]) -> None:
    """Adds what one pytest run found; a test that ran again has its newest result."""
    RESULTS.parent.mkdir(exist_ok=True)
    results = read_results()
    results.setdefault(part, {}).update(outcomes)
    RESULTS.write_text(json.dumps(results, indent=1))
