"""The daemon's process: its exit statuses, its order, and what the service manager hears of it."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.manager import Manager, listening
from tests.listening import is_listening
from vpnd.daemon import log, main, status
from vpnd.daemon.main import EXIT_CONFIG, EXIT_FAILED
from vpnd.daemon.service import Service
from vpnd.daemon.settings import Settings
from vpnd.errors import HostError, PlaneError
from vpnd.plane.program import find_program

GOOD = """\
[interface]
addresses = ["10.255.0.1/30"]
[local]
private_key = "{key}"
listen = ["0.0.0.0:5180"]
[peer.berlin]
public_key = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
networks = ["10.255.0.2/32"]
"""


@dataclass
class FakeInstance:
    """An instance that brings nothing up; `at_start` is what happens then, `soon` right after it."""

    settings: Settings
    service: Service
    at_start: Exception | None = None
    soon: Callable[[], object] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    events: list[str] = field(default_factory=list)

    async def start(self) -> None:
        self.events.append("start")
        self.settings.runtime_dir.mkdir(parents=True, exist_ok=True)
        if self.at_start is not None:
            raise self.at_start
        asyncio.get_running_loop().call_later(0.05, self.soon)

    async def stop(self) -> None:
        self.events.append("stop")


@dataclass
class Machine:
    """The files of one instance, and the fake that takes its place once they are read."""

    folder: Path
    made: list[FakeInstance] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)

    def write(self, text: str | None = None) -> None:
        key = self.folder / "site.key"
        key.touch(mode=0o600)
        key.write_text("YAwKKFkZLbAAvMKQBpUOQbVKMTa8OBbi4mUaF6Q4c3E=\n")
        key.chmod(0o600)
        (self.folder / "site.toml").write_text(text or GOOD.format(key=key))

    def run(self, *arguments: str) -> int:
        return main.main(
            [
                *("--instance", "site", "--config-dir", str(self.folder)),
                *("--runtime-dir", str(self.folder / "run"), "--state-dir", str(self.folder / "lib")),
                *arguments,
            ]
        )


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Neither this process's log nor its limits are touched."""
    made = Machine(tmp_path)

    def instance(settings: Settings, config: object, secrets: object, service: Service, **_: object) -> Any:
        made.made.append(FakeInstance(settings, service, **made.plan))
        return made.made[-1]

    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr(main, "Instance", instance)
    monkeypatch.setattr(main, "harden", lambda: None)
    monkeypatch.setattr(log, "start_logging", lambda *_: None)
    monkeypatch.setattr(status, "line", lambda _: "0 of 1 peers up")
    return made


@pytest.fixture
def manager(tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    with listening(tmp_path) as made:
        monkeypatch.setenv("NOTIFY_SOCKET", str(made.path))
        yield made


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# -- 78 --


def test_mistakes_in_the_files_are_all_logged_and_end_with_78(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.write('[interface]\nmtu = 99\naddresses = ["10.0.0.300/24"]\n[local]\ncolor = "blue"\n')
    assert machine.run() == EXIT_CONFIG == 78
    assert machine.made == []
    for line in (2, 3, 5):
        assert any(f"site.toml:{line}:" in text for text in errors(caplog)), line


def test_a_missing_file_ends_with_78(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    assert machine.run() == 78
    assert len(errors(caplog)) == 1


def test_a_bad_key_file_ends_with_78(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.write()
    (machine.folder / "site.key").write_text("no key")
    assert machine.run() == 78
    assert "local.private_key" in errors(caplog)[0]
    assert machine.made == []


@pytest.mark.parametrize("name", ["", ".", "../x", "a/b", "-x", "x" * 64, "ä"])
def test_a_name_that_is_none_is_the_callers_mistake(machine: Machine, name: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main([f"--instance={name}"])
    assert caught.value.code == 2


# -- 0 --


def test_check_reads_everything_and_starts_nothing(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.write()
    assert machine.run("--check") == 0
    assert "no mistakes, 1 peers" in capsys.readouterr().out
    assert machine.made == []


def test_teardown_removes_and_needs_no_configuration(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[E11] Also where the file is gone or broken. A kill switch is spared once, by the first teardown after
    a start that a mistake ended."""
    removed: list[tuple[Path, str, bool]] = []

    class Host:
        def __init__(self, state_dir: Path) -> None:
            self.state_dir = state_dir
            self.warnings = ()

        def remove(self, instance: str, *, spares_kill_switch: bool) -> tuple[()]:
            removed.append((self.state_dir, instance, spares_kill_switch))
            return ()

    monkeypatch.setattr(main, "Host", Host)
    assert machine.run("--teardown") == 0
    assert removed == [(machine.folder / "lib", "site", False)]
    (machine.folder / "run").mkdir(exist_ok=True)
    (machine.folder / "site.toml").write_text("colour = 1\n")
    assert machine.run("--check") == 78
    assert [machine.run("--teardown"), removed.pop()[2]] == [0, False]
    assert machine.run() == 78
    assert [machine.run("--teardown"), removed.pop()[2]] == [0, True]
    assert [machine.run("--teardown"), removed.pop()[2]] == [0, False]


def test_forget_has_the_plane_end_and_is_content_without_one(machine: Machine) -> None:
    """[G6] What a service manager keeps for the next plane is wiped by this one, and by it alone."""
    assert machine.run("--forget") == 0
    path = machine.folder / "run" / "plane.sock"
    path.parent.mkdir(exist_ok=True)
    with subprocess.Popen([find_program(), "--listen", path]) as plane:
        while not is_listening(path):
            time.sleep(0.01)
        assert machine.run("--forget") == 0
        assert plane.wait(5) == 0
    assert machine.made == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_ends_with_0(machine: Machine, manager: Manager, number: int) -> None:
    """READY once all stands, a status, a sign of life, STOPPING before anything is let go."""
    machine.write()
    machine.plan = {"soon": lambda: os.kill(os.getpid(), number)}
    assert machine.run() == 0
    assert machine.made[0].events == ["start", "stop"]
    assert manager.heard() == ["READY=1", "WATCHDOG=1", "STATUS=0 of 1 peers up", "STOPPING=1"]
    assert not (machine.folder / "run" / "control.sock").exists()


def test_the_watchdog_hears_of_every_turn(
    machine: Machine, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat, beats = Service.watchdog, itertools.count(1)

    def count(service: Service) -> None:
        beat(service)
        if next(beats) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Service, "watchdog", count)
    monkeypatch.setenv("WATCHDOG_USEC", "20000")  # every 10 ms
    machine.write()
    machine.plan = {"soon": lambda: None}
    assert machine.run() == 0
    assert manager.heard().count("WATCHDOG=1") >= 3


# -- 1 --


@pytest.mark.parametrize(
    "error",
    [HostError("bind udp 0.0.0.0:5180", "another program has the port"), PlaneError("gone", "it is away")],
)
def test_what_the_machine_refuses_is_one_line_and_status_1(
    machine: Machine, manager: Manager, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """[I9] The service manager never hears READY."""
    machine.write()
    machine.plan = {"at_start": error}
    assert machine.run() == EXIT_FAILED == 1
    assert errors(caplog) == [str(error)]
    assert manager.heard() == []


def test_a_control_socket_that_cannot_be_is_status_1_and_all_is_let_go(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    """[I9] A folder stands in its place."""
    (machine.folder / "elsewhere" / "control.sock").mkdir(parents=True)
    machine.write()
    assert machine.run("--runtime-dir", str(machine.folder / "elsewhere")) == 1
    assert "control.sock" in errors(caplog)[0]
    assert machine.made[0].events == ["start", "stop"]
    assert (machine.folder / "elsewhere" / "control.sock").is_dir()


def test_a_mistake_of_ours_ends_with_1_and_is_in_the_log(
    machine: Machine, manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    """The unknown ends the process in order; the service manager starts it anew."""

    def fall() -> None:
        raise RuntimeError("nobody thought of this")

    machine.write()
    machine.plan = {"soon": fall}
    assert machine.run() == 1
    assert machine.made[0].events == ["start", "stop"]
    assert manager.heard()[-1] == "STOPPING=1"
    assert any(record.exc_info and "nobody thought" in str(record.exc_info[1]) for record in caplog.records)


def test_a_mistake_told_without_an_exception_ends_with_1_too(machine: Machine) -> None:
    machine.write()
    machine.plan = {
        "soon": lambda: asyncio.get_running_loop().call_exception_handler({"message": "something broke"})
    }
    assert machine.run() == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_scarcity_is_a_warning_and_no_end(
    machine: Machine, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """[I9] asyncio tells of accept() so, and tries again."""

    def tell() -> None:
        loop = asyncio.get_running_loop()
        error = OSError(number, os.strerror(number))
        loop.call_exception_handler({"message": "socket.accept() out of system resource", "exception": error})
        loop.call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)

    machine.write()
    machine.plan = {"soon": tell}
    assert machine.run() == 0
    assert errors(caplog) == []
    assert os.strerror(number) in caplog.text
