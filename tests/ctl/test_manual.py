from pathlib import Path

import pytest

import tests
from tests.ctl.test_status import GOLDEN
from vpnd.control import EXIT_CODES, PING_SIZE_LIMIT, TOPICS, StatusReport
from vpnd.control.metrics import to_openmetrics
from vpnd.ctl.main import load_verbs

MANUAL = (Path(tests.__file__).parent.parent / "docs" / "vpnctl.md").read_text()


@pytest.mark.parametrize("name", [verb.name for verb in load_verbs()])
def test_every_verb_has_its_section(name: str) -> None:
    assert f"\n## {name}" in MANUAL


def test_the_status_in_the_manual_is_what_the_program_prints() -> None:
    assert f"$ vpnctl status\n{GOLDEN}```\n" in MANUAL


def test_every_code_topic_and_limit_is_told() -> None:
    assert all(f"`{code}`" in MANUAL for code in EXIT_CODES)
    assert all(f"| {status} |" in MANUAL for status in EXIT_CODES.values())
    assert all(f"| `{topic}` |" in MANUAL for topic in TOPICS)
    assert f"at most {PING_SIZE_LIMIT}" in MANUAL


def test_every_metric_is_told() -> None:
    suffixes = {"counter": "_total", "info": "_info"}
    for line in to_openmetrics(StatusReport(())).splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert f"`{name}{suffixes.get(kind, '')}`" in MANUAL
