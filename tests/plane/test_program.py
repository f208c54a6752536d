"""Where the plane's program is looked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vpnd.errors import PlaneError
from vpnd.plane import program


def put_program(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / program.NAME
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setattr(program, "PACKAGED", tmp_path / "packaged")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path


def test_the_interpreters_own_directory_comes_first_and_path_last(nowhere: Path) -> None:
    on_path = put_program(nowhere / "path")
    assert program.find_program() == on_path
    packaged = put_program(nowhere / "packaged")
    assert program.find_program() == packaged
    beside = put_program(nowhere / "venv")
    assert program.find_program() == beside


def test_a_file_that_may_not_run_is_not_the_program(nowhere: Path) -> None:
    put_program(nowhere / "venv").chmod(0o644)
    packaged = put_program(nowhere / "packaged")
    assert program.find_program() == packaged


def test_a_missing_program_names_the_places_searched(nowhere: Path) -> None:
    with pytest.raises(PlaneError, match="packaged") as caught:
        program.find_program()
    assert caught.value.code == "no_program"


def test_a_child_says_nothing_to_our_service_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its READY would be taken for ours, long before we are."""
    told = tmp_path / "told"
    script = tmp_path / "vpnd-plane"
    script.write_text(f"#!/bin/sh\nenv > {told}.new\nmv {told}.new {told}\n")
    script.chmod(0o755)
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("LANG", "C")
    child, connection = program.start_child(script)
    connection.close()
    assert child.wait(20) == 0
    names = {line.partition("=")[0] for line in told.read_text().splitlines()}
    assert "LANG" in names
    assert not names & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS"}
