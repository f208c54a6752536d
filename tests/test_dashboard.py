"""The Grafana dashboard asks for nothing that vpnd does not tell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.status_reports import status
from vpnd.control.metrics import metric_names, to_openmetrics

DASHBOARD: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parent.parent / "docs/metrics/grafana.json").read_text()
)
VARIABLES = {each["name"] for each in DASHBOARD["templating"]["list"]}
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
QUERIES = [
    *EXPRESSIONS,
    *(each["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"),
]
BUILT_IN = {"__rate_interval"}


def labels_of(metric: str) -> set[str]:
    """The labels that the metric has in a report where every metric has a sample."""
    line = next(line for line in to_openmetrics(status()).splitlines() if line.startswith(metric + "{"))
    return set(re.findall(r'(\w+)="', line))


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_names_metrics_and_labels_that_exist(query: str) -> None:
    metrics = re.findall(r"\b(vpnd_\w+)(?=[{,])", query)
    assert metrics
    assert set(metrics) <= set(metric_names())
    for metric, matchers in re.findall(r"\b(vpnd_\w+)\{([^}]*)\}", query):
        if metric != "vpnd_health_finding":  # of which there is none where all is well
            assert set(re.findall(r"(\w+)=~?\"", matchers)) <= labels_of(metric)
    assert set(re.findall(r"\$(\w+)", query)) <= VARIABLES | BUILT_IN


def test_every_metric_has_a_panel() -> None:
    shown = set(re.findall(r"\bvpnd_\w+", " ".join(EXPRESSIONS)))
    assert set(metric_names()) <= shown


def test_panels_lie_beside_each_other_and_have_numbers_of_their_own() -> None:
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not places & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        places |= cells
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
