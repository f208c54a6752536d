"""Where log lines go and what they look like."""

from __future__ import annotations

import io
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from systemd.journal import JournalHandler

from vpnd.daemon import log


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    """Puts the process's log back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    others = {name: logging.getLogger(name).level for name in ("asyncio", "pyroute2")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in others.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Gives what came on stderr."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    return lambda: capsys.readouterr().err


def test_a_line_on_stderr_names_instance_and_level(stderr: Callable[[], str]) -> None:
    log.start_logging("site", "info")
    logging.getLogger("vpnd.x").warning("the %s is gone", "plane")
    assert stderr() == "vpnd@site WARNING: the plane is gone\n"


def test_a_line_about_a_peer_names_it(stderr: Callable[[], str]) -> None:
    log.start_logging("site", "info")
    logging.getLogger("vpnd.x").info("now at %s", "there", extra={"VPND_PEER": "berlin"})
    assert stderr() == "vpnd@site INFO: berlin: now at there\n"


@pytest.mark.parametrize("level", log.LEVELS)
def test_what_is_below_the_level_is_not_written(stderr: Callable[[], str], level: str) -> None:
    log.start_logging("site", level)
    for each in log.LEVELS:
        getattr(logging.getLogger("vpnd.x"), each)(each)
    written = [line.split(": ")[1] for line in stderr().splitlines()]
    assert written == list(log.LEVELS[log.LEVELS.index(level) :])


@pytest.mark.parametrize("library", ["asyncio", "pyroute2.netlink"])
def test_libraries_keep_their_insides_to_themselves(stderr: Callable[[], str], library: str) -> None:
    log.start_logging("site", "debug")
    logging.getLogger(library).info("inside")
    logging.getLogger(library).warning("outside")
    assert stderr() == "vpnd@site WARNING: outside\n"


def test_a_second_start_does_not_write_twice(stderr: Callable[[], str]) -> None:
    log.start_logging("site", "info")
    log.start_logging("site", "info")
    logging.getLogger("vpnd.x").info("once")
    assert stderr().count("once") == 1


def root_handler() -> logging.Handler:
    (handler,) = logging.getLogger().handlers
    return handler


def test_the_journal_gets_fields_when_it_reads_our_stderr(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """$JOURNAL_STREAM names the very file that stderr is."""
    with (tmp_path / "stderr").open("w") as sink:
        status = os.fstat(sink.fileno())
        monkeypatch.setattr(sys, "stderr", sink)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        log.start_logging("site", "info")
        assert isinstance(root_handler(), JournalHandler)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
        log.start_logging("site", "info")
        assert not isinstance(root_handler(), JournalHandler)


def test_a_closed_stderr_is_no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that is no file."""
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    log.start_logging("site", "info")
    assert not isinstance(root_handler(), JournalHandler)
    one, other = socket.socketpair()
    stream = one.makefile("w")
    one.close()
    other.close()
    monkeypatch.setattr(sys, "stderr", stream)
    log.start_logging("site", "info")
    stream.close()
    log.start_logging("site", "info")
    assert not isinstance(root_handler(), JournalHandler)
