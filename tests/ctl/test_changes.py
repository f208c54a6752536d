import json

from tests.ctl.console import Console, Result
from tests.fakes.control_server import FakeDaemon
from vpnd.control import Reconnect, Reload, to_json
from vpnd.control.reports import ReconnectReport, ReloadChange, ReloadReport
from vpnd.errors import ControlError

CHANGES = (
    ReloadChange("add", "peer berlin"),
    ReloadChange("remove", "route 10.30.0.0/16", "metric 50"),
    ReloadChange("change", "peer oslo", "networks"),
)


def reload(console: Console, answer: object, *argv: str) -> Result:
    with FakeDaemon(console.runtime_dir, "site", {Reload: [answer]}) as fake:
        result = console.run("reload", *argv)
    assert fake.requests == [Reload(dry_run="--dry-run" in argv)]
    return result


def test_a_reload_prints_what_changed(console: Console) -> None:
    result = reload(console, ReloadReport(dry_run=False, changes=CHANGES))
    assert result.code == 0
    assert result.out == "+ peer berlin\n- route 10.30.0.0/16: metric 50\n~ peer oslo: networks\n"


def test_a_dry_run_says_that_nothing_was_changed(console: Console) -> None:
    result = reload(console, ReloadReport(dry_run=True, changes=CHANGES[:1]), "--dry-run")
    assert (result.code, result.out) == (0, "+ peer berlin\ndry run: nothing was changed\n")


def test_a_reload_without_differences_says_so(console: Console) -> None:
    assert reload(console, ReloadReport(dry_run=False, changes=())).out == "nothing to change\n"
    assert reload(console, ReloadReport(dry_run=True, changes=()), "--dry-run").out == "nothing to change\n"


def test_a_reload_with_mistakes_prints_them_all_and_exits_78(console: Console) -> None:
    mistakes = "site.toml:14: peer.berlin.public_key: 31 bytes\nsite.toml:20: mtu: too small"
    result = reload(console, ControlError("config", mistakes))
    assert (result.code, result.out) == (78, "")
    assert result.err.splitlines() == mistakes.splitlines()


def test_mistakes_are_one_error_in_json(console: Console) -> None:
    result = reload(console, ControlError("config", "a.toml:1: x\na.toml:2: y"), "--json")
    assert json.loads(result.out) == {"error": {"code": "config", "text": "a.toml:1: x\na.toml:2: y"}}
    assert result.err == "a.toml:1: x\na.toml:2: y\n"


def test_json_is_the_report_as_it_stands(console: Console) -> None:
    report = ReloadReport(dry_run=False, changes=CHANGES)
    assert json.loads(reload(console, report, "--json").out) == to_json(report)


def reconnect(console: Console, answer: object, *options: str) -> Result:
    with FakeDaemon(console.runtime_dir, "site", {Reconnect: [answer]}) as fake:
        result = console.run(*options, "reconnect", "berlin")
    assert fake.requests == [Reconnect("berlin")]
    return result


def test_reconnect_says_with_whom(console: Console) -> None:
    known = reconnect(console, ReconnectReport("berlin", "203.0.113.7:5180"))
    assert (known.code, known.out) == (0, "berlin: handshake begun with 203.0.113.7:5180\n")
    assert reconnect(console, ReconnectReport("berlin", None)).out == "berlin: handshake begun\n"
    report = reconnect(console, ReconnectReport("berlin", None), "--json")
    assert json.loads(report.out) == {"peer": "berlin", "endpoint": None}


def test_a_refused_reconnect_exits_1(console: Console) -> None:
    result = reconnect(console, ControlError("refused", "berlin is disabled"))
    assert (result.code, result.err) == (1, "vpnctl: berlin is disabled\n")
