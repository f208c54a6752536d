import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ctl.console import Console
from tests.fakes.control_server import FakeDaemon
from tests.fakes.status_reports import BERLIN, status
from vpnd.control import Status
from vpnd.ctl.context import Context, Verb, no_arguments
from vpnd.ctl.main import load_verbs, main, parse
from vpnd.errors import ConfigError, Mistake


def test_the_table_holds_the_verbs_of_the_manual() -> None:
    names = [verb.name for verb in load_verbs()]
    assert names == [
        "status",
        "show",
        "why",
        "ping",
        "top",
        "monitor",
        "pcap",
        "metrics",
        "key",
        "peer",
        "join",
        "check",
        "reload",
        "reconnect",
        "wait",
    ]


def test_global_options_stand_before_the_verb_or_after_it() -> None:
    before = parse(["-i", "site", "--json", "--no-color", "--runtime-dir", "/x", "status"])
    after = parse(["status", "-i", "site", "--json", "--no-color", "--runtime-dir", "/x"])
    for arguments in (before, after):
        assert (arguments.instance, arguments.json, arguments.no_color) == ("site", True, True)
        assert arguments.runtime_dir == Path("/x")
    default = parse(["status"])
    assert (default.instance, default.json, default.no_color) == (None, False, False)
    assert (default.runtime_dir, default.config_dir) == (Path("/run/vpnd"), Path("/etc/vpnd"))


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["halt"], "invalid choice: 'halt' (choose from 'status', 'show', 'why'"),
        (["--jso"], "unrecognized arguments: --jso"),
        (["why"], "the following arguments are required: PEER"),
        (["key"], "the following arguments are required: gen|pub|psk"),
        (["show", "weather"], "invalid choice: 'weather'"),
        (["ping", "a", "-c", "many"], "invalid int value: 'many'"),
    ],
)
def test_a_wrong_command_line_exits_2(capsys: pytest.CaptureFixture[str], argv: list[str], text: str) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(argv)
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_help_and_version_exit_0(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--help"], ["--version"], *([verb.name, "--help"] for verb in load_verbs())):
        with pytest.raises(SystemExit) as caught:
            parse(argv)
        assert caught.value.code == 0
    assert "vpnctl 0." in capsys.readouterr().out


def test_main_reads_the_process_and_prints_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["vpnctl", "--runtime-dir", str(tmp_path), "--json", "status"])
    with FakeDaemon(tmp_path, "site", {Status: [status(peers=(BERLIN,))]}):
        assert main() == 0
    assert json.loads(capsys.readouterr().out)["instances"][0]["instance"] == "site"
    assert main() == 3
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "not-running"


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out, FakeDaemon(tmp_path, "site", {Status: [status()]}):
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["--runtime-dir", str(tmp_path), "status"]) == 0


def outcome(console: Console, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Any:
    """Runs a verb that ends in this error."""

    def fail(context: Context, arguments: object) -> int:
        raise error

    verb = Verb("fail", "fails", no_arguments, fail)
    monkeypatch.setattr("vpnd.ctl.main.load_verbs", lambda _: (verb,))
    return console.run("fail")


def test_an_interrupt_exits_130(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    result = outcome(console, monkeypatch, KeyboardInterrupt())
    assert (result.code, result.out, result.err) == (130, "", "")


def test_mistakes_exit_78_each_on_its_line(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    mistakes = (Mistake("a.toml", 1, "x", "wrong"), Mistake("a.toml", None, "", "gone"))
    result = outcome(console, monkeypatch, ConfigError(mistakes))
    assert (result.code, result.err) == (78, "a.toml:1: x: wrong\na.toml: gone\n")


def test_an_error_nobody_foresaw_is_not_hidden(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        outcome(console, monkeypatch, ZeroDivisionError())
