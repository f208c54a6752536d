"""vpnctl monitor: what it prints, and what it does when the daemon goes away."""

from __future__ import annotations

import json
import socket
from typing import Any

from tests.ctl.console import Console
from tests.fakes.control_server import FakeDaemon
from vpnd.control import Monitor
from vpnd.control.events import Began, LogEvent, event_time
from vpnd.errors import ControlError

NOW = event_time(0)
BEGAN = Began(NOW, "site", 12.0, {"berlin": "up"})
ROAMED = LogEvent(NOW, "site", "berlin", "info", "roamed", "0" * 32, "now at 192.0.2.1:5180")
DIES = b""  # the connection ends, as that of a daemon which does


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


class Restarting(FakeDaemon):
    """One that answers its first reader so, the next ones with what comes after."""

    def __init__(self, console: Console, *lives: list[object]) -> None:
        self._lives = list(lives)
        super().__init__(console.runtime_dir, "site", {Monitor: []})

    def _answer(self, connection: socket.socket, line: bytes) -> bool:
        self._answers = {Monitor: self._lives.pop(0)}
        return super()._answer(connection, line)


def test_a_daemon_that_comes_back_is_followed_and_its_absence_is_an_event(console: Console) -> None:
    """One that dies before it says anything is none; the last one has no such peer any more."""
    no_peer = ControlError("no-such-peer", "site has no peer berlin")
    with Restarting(console, [BEGAN, ROAMED, DIES], [DIES], [BEGAN, DIES], [no_peer]) as daemon:
        result = console.run("monitor", "berlin")
    assert [event["event"] for event in events(result.out)] == ["begin", "log", "away", "begin", "away"]
    assert events(result.out)[1]["text"] == "now at 192.0.2.1:5180"
    assert (result.code, result.err) == (4, "vpnctl: site has no peer berlin\n")
    assert daemon.requests == [Monitor("berlin")] * 4


class Vanishing(FakeDaemon):
    """One whose socket is gone by the time that its reader looks for it again."""

    def _answer(self, connection: socket.socket, line: bytes) -> bool:
        self.path.unlink()
        return super()._answer(connection, line)


def test_one_that_stays_away_ends_it_after_the_wait(console: Console) -> None:
    began = console.now
    with Vanishing(console.runtime_dir, "site", {Monitor: [BEGAN, DIES]}):
        result = console.run("monitor", "--wait", "5")
    assert [event["event"] for event in events(result.out)] == ["begin", "away"]
    assert result.code == 3
    assert "site is not running" in result.err
    assert 5 <= console.now - began < 6


def test_nothing_is_waited_for_that_never_ran(console: Console) -> None:
    result = console.run("-i", "site", "monitor")
    assert (result.code, result.out) == (4, "")
    assert console.now == 1000.0
