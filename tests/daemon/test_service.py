"""What systemd hears of vpnd, on a real NOTIFY_SOCKET."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.manager import Manager, listening
from vpnd.daemon.service import Service


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    with listening(tmp_path) as made:
        monkeypatch.setenv("NOTIFY_SOCKET", str(made.path))
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield made


def test_each_moment_has_its_word(manager: Manager) -> None:
    service = Service()
    service.ready()
    service.watchdog()
    service.stopping()
    assert manager.heard() == ["READY=1", "WATCHDOG=1", "STOPPING=1"]


def test_a_reload_tells_its_moment(manager: Manager) -> None:
    """systemd 253 and later match it with the READY that follows (sd_notify(3))."""
    before = time.monotonic_ns() // 1000
    Service().reloading()
    (message,) = manager.heard()
    matched = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", message)
    assert matched is not None
    assert before <= int(matched[1]) <= time.monotonic_ns() // 1000


def test_the_same_status_is_told_once(manager: Manager) -> None:
    service = Service()
    for line in ("0 of 2 peers up", "0 of 2 peers up", "1 of 2 peers up", "0 of 2 peers up"):
        service.status(line)
    assert manager.heard() == [
        "STATUS=0 of 2 peers up",
        "STATUS=1 of 2 peers up",
        "STATUS=0 of 2 peers up",
    ]


def test_the_watchdog_is_fed_twice_in_its_limit(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert Service().watchdog_interval_s == 15.0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert Service().watchdog_interval_s == 15.0


def test_a_watchdog_meant_for_another_process_is_none_of_ours(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getppid()))
    assert Service().watchdog_interval_s is None


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5"])
def test_no_sensible_watchdog_is_no_watchdog(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", value)
    assert Service().watchdog_interval_s is None


def say_everything(service: Service) -> None:
    service.ready()
    service.reloading()
    service.status("fine")
    service.watchdog()
    service.stopping()


def test_without_a_manager_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Started from a shell."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    say_everything(Service())
    assert caplog.records == []


def test_a_manager_that_is_gone_is_one_warning_until_it_is_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """[I9] Packets go on whether anybody hears of it or not."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    service = Service()
    say_everything(service)
    assert len(caplog.records) == 1
    with listening(tmp_path) as manager:
        service.ready()
        assert manager.heard() == ["READY=1"]
    say_everything(service)
    assert len(caplog.records) == 2
