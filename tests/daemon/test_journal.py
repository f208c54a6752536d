"""The kinds of events that are told, and what the journal's catalog says of each."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from vpnd.daemon.journal import Event, about

ROOT = Path(__file__).resolve().parents[2]
CATALOG = ROOT / "systemd" / "vpnd.catalog"
DAEMON = ROOT / "vpnd" / "daemon"
TOLD = ("info", "warning", "error")  # what is below them is not for operators


def entries() -> dict[str, tuple[dict[str, str], str]]:
    """Headers and explanation of every entry, by its id."""
    found = {}
    for entry in re.split(r"^-- ", CATALOG.read_text(), flags=re.MULTILINE)[1:]:
        head, _, text = entry.partition("\n\n")
        number, *headers = head.splitlines()
        found[number] = (dict(line.split(": ", 1) for line in headers), text)
    return found


def log_calls() -> list[tuple[str, ast.Call]]:
    """Every call that writes a line for an operator, with its place."""
    return [
        (f"{file.name}:{node.lineno}", node)
        for file in sorted(DAEMON.glob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "_log"
        and node.func.attr in TOLD
    ]


def test_every_id_is_random_and_belongs_to_one_kind() -> None:
    for event in Event:
        # RFC 4122, version 4: what systemd-id128 new makes.
        assert re.fullmatch(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", event.value), event
    values = Counter(member.value for member in Event.__members__.values())
    assert [value for value, count in values.items() if count > 1] == []


def test_ids_and_catalog_agree_both_ways() -> None:
    listed = re.findall(r"^-- (\S+)$", CATALOG.read_text(), flags=re.MULTILINE)
    assert Counter(listed) == Counter(event.value for event in Event)


@pytest.mark.parametrize("event", Event, ids=lambda event: event.name.lower())
def test_an_entry_says_what_it_means_and_what_to_do(event: Event) -> None:
    headers, text = entries()[event.value]
    assert list(headers) == ["Subject", "Defined-By", "Support", "Documentation"]
    assert headers["Defined-By"] == "vpnd"
    meaning, _, remedy = text.strip().partition("\n\n")
    assert meaning
    assert remedy
    # A name between two @ is replaced by that field of the line; a field that it lacks stays as it is.
    fields = set(re.findall(r"@([^@]*)@", headers["Subject"] + text))
    assert fields <= {"VPND_INSTANCE", "VPND_PEER"}


def test_every_line_for_operators_is_of_a_kind_and_every_kind_has_a_line() -> None:
    sources = "\n".join(file.read_text() for file in DAEMON.glob("*.py"))
    assert {name for name in Event.__members__ if f"about(Event.{name}" not in sources} == set()
    calls = log_calls()
    assert len(calls) >= len(Event)
    without = [place for place, call in calls if "extra" not in {word.arg for word in call.keywords}]
    assert without == []


def test_only_the_daemon_speaks() -> None:
    """The rooms below hand up words and errors; what is told, and as what, is decided in one room."""
    for room in ("protocol", "config", "control", "plane", "host"):
        for file in (ROOT / "vpnd" / room).glob("*.py"):
            assert "import logging" not in file.read_text(), file


PERSONAL = [event for event in Event if "@VPND_PEER@" in entries()[event.value][0]["Subject"]]


@pytest.mark.parametrize("event", PERSONAL)
def test_a_kind_that_names_a_peer_is_told_with_one(event: Event) -> None:
    sources = "\n".join(file.read_text() for file in DAEMON.glob("*.py"))
    uses = re.findall(rf"about\(Event\.{event.name}(.)", sources)
    assert uses
    assert set(uses) == {","}


def test_a_line_carries_its_kind_and_its_peer() -> None:
    assert about(Event.READY) == {"MESSAGE_ID": Event.READY.value}
    assert about(Event.ROAMED, "berlin") == {"MESSAGE_ID": Event.ROAMED.value, "VPND_PEER": "berlin"}


def test_journalctl_takes_the_catalog(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    (folder / "vpnd.catalog").write_text(CATALOG.read_text())

    def journalctl(*words: str) -> str:
        command = ["journalctl", f"--root={tmp_path}", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        assert done.stderr == ""
        return done.stdout

    journalctl("--update-catalog")
    listed = {line.split()[0] for line in journalctl("--list-catalog").splitlines()}
    assert listed == {event.value for event in Event}
    shown = journalctl("--dump-catalog", Event.STATE_UNWRITABLE)
    assert entries()[Event.STATE_UNWRITABLE][1].strip() in shown
