"""What an operator sees while it happens: events, findings and the live table, by the real programs."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema

import vpnd
from tests.lab.namespaces import Lab, eventually
from tests.lab.pair import CALLED_OUTER, narrow_pair
from tests.lab.vpnd import BIN, Vpnd

SCHEMA = json.loads((Path(vpnd.__file__).parent / "monitor.schema.json").read_text())


class Monitor:
    """A `vpnctl monitor` from its first line on."""

    def __init__(self, daemon: Vpnd, words: str = "") -> None:
        self._file = daemon.folder / f"events-{len(list(daemon.folder.iterdir()))}"
        with self._file.open("wb") as sink:
            self.process = daemon.host.start(
                *(BIN / "vpnctl", "-i", daemon.instance, "--runtime-dir", daemon.runtime_root),
                *("monitor", *words.split()),
                stdout=sink,
                stderr=subprocess.DEVNULL,
            )
        self.wait_for("begin", lambda event: event["event"] == "begin")

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._file.read_text().splitlines(keepends=True) if "\n" in line]

    def wait_for(self, what: str, is_it: Callable[[dict[str, Any]], bool]) -> None:
        try:
            eventually(lambda: any(map(is_it, self.events())), within_s=30, what=f"the event {what}")
        except AssertionError:
            print(self._file.read_text())
            raise


def is_peer(state: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: (event["event"], event.get("state")) == ("peer", state)


def is_log(kind: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event.get("kind") == kind


def is_finding(state: str, code: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: (event.get("state"), event.get("code")) == (state, code)


def findings(daemon: Vpnd) -> dict[str, str]:
    return {each["code"]: each["level"] for each in daemon.ask("status")["instances"][0]["health"]}


def test_a_day_of_an_operator(lab: Lab) -> None:
    """[I8] Peers, parts and findings that come and go are told, over a restart of the daemon too.

    A path is narrow, a plane ends, a peer falls silent and comes back.
    """
    made = narrow_pair(lab)
    caller, called = made.caller, made.called
    made.start()
    eventually(lambda: findings(caller) == {"path-small": "notice"}, within_s=20, what="the narrow path")
    watching, other = Monitor(caller), Monitor(caller, "called")
    assert watching.events()[0]["peers"] == {"called": "up"}

    caller.kill_plane()
    caller.start_plane()
    watching.wait_for("part lost", is_log("part-lost"))
    watching.wait_for("part back", is_log("part-back"))
    watching.wait_for("finding", is_finding("raised", "plane-restarted"))
    eventually(lambda: set(findings(caller).values()) == {"notice"}, what="nothing but notices")
    assert caller.ctl("wait --peer called").returncode == 0
    assert caller.ctl("status", check=False).returncode == 0, "a notice makes nothing unhealthy"

    called.stop()
    watching.wait_for("peer being called", is_peer("connecting"))
    watching.wait_for("finding", is_finding("raised", "peer-silent"))
    assert findings(caller)["peer-silent"] == "warning"
    shown = caller.ctl("status", check=False)
    assert shown.returncode == 1
    assert "vpnctl why called" in shown.stdout
    called.start()
    watching.wait_for("peer coming", is_peer("up"))
    watching.wait_for("finding", is_finding("cleared", "peer-silent"))

    caller.kill()
    caller.start()
    eventually(
        lambda: sum(event["event"] == "begin" for event in watching.events()) == 2, what="a second beginning"
    )
    kinds = [event["event"] for event in watching.events()]
    assert kinds.count("away") == 1
    assert kinds[kinds.index("away") + 1] == "begin"

    table = caller.ctl("top -n 2 -d 0.2").stdout
    assert "called" in table
    assert f"{CALLED_OUTER}:5180" in table

    caller.stop()
    end(watching, other)
    for event in watching.events() + other.events():
        jsonschema.validate(event, SCHEMA)
    made.assert_no_error()


def end(watching: Monitor, interrupted: Monitor) -> None:
    """The daemon is gone: one waits until its time is over, the other is interrupted."""
    watching.wait_for("absence", lambda event: event["event"] == "away")
    interrupted.process.send_signal(signal.SIGINT)
    assert interrupted.process.wait(10) == 130
    watching.process.send_signal(signal.SIGINT)
    assert watching.process.wait(10) == 130
