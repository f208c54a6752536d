"""Records every test's result, with the catalogue's rows its docstring names."""

from __future__ import annotations

import os

import hypothesis
import pytest

from tests.catalogue import note_rows, rows_of
from tests.results import add_results

_outcomes: dict[str, str] = {}

# Properties are about values; how long a busy machine takes to try them says nothing.
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")


# The first test that wants a root of Debian makes it, or waits for another that does.
ROOTS_MADE_S = 900
NEED_ROOTS = ("packaging", "system")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    note_rows({item.nodeid: rows_of(item) for item in items})
    for item in items:
        if item.path.parent.name in NEED_ROOTS:
            item.add_marker(pytest.mark.timeout(ROOTS_MADE_S))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.failed or report.skipped:
        # A failure in set-up or clean-up is the test's failure; a skip is no pass.
        worst = "failed" if report.failed else "skipped" if report.skipped else "passed"
        if _outcomes.get(report.nodeid) != "failed":
            _outcomes[report.nodeid] = worst


def pytest_sessionfinish() -> None:
    if _outcomes:
        add_results(os.environ.get("VPND_TEST_PART", "by hand"), _outcomes)
