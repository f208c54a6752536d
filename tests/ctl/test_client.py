import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ctl.console import Console
from tests.fakes.control_server import FakeDaemon
from tests.fakes.status_reports import status
from vpnd.control import Status, StatusReport, encode_error, encode_reply
from vpnd.ctl.client import Client, connect
from vpnd.ctl.context import list_instances
from vpnd.errors import ControlError


@pytest.fixture
def ends() -> Iterator[tuple[Client, socket.socket]]:
    """A client and the daemon's end of its connection."""
    ours, theirs = socket.socketpair()
    with Client("site", ours) as client, theirs:
        yield client, theirs


def error_of(code: str, text: str, console: Console, *argv: str) -> None:
    result = console.run("--json", *argv)
    assert f'"code": "{code}"' in result.out
    assert result.err.startswith("vpnctl: ")
    assert text in result.err


def test_an_instance_without_a_socket_is_not_running(console: Console) -> None:
    (console.runtime_dir / "site").mkdir()
    result = console.run("-i", "site", "status")
    assert result.code == 3
    path = console.runtime_dir / "site" / "control.sock"
    assert result.err == f"vpnctl: site is not running; nothing listens on {path}\n"


def test_a_dead_socket_is_not_running_and_not_counted(console: Console) -> None:
    FakeDaemon(console.runtime_dir, "dead", {}).kill()
    assert console.run("-i", "dead", "status").code == 3
    assert console.run("status").code == 3
    with FakeDaemon(console.runtime_dir, "site", {Status: [status(peers=())]}):
        assert console.run("status").code == 0


def test_a_configured_instance_is_not_running_but_an_unknown_one_does_not_exist(console: Console) -> None:
    (console.config_dir / "site.toml").touch()
    assert console.run("-i", "site", "status").code == 3
    result = console.run("-i", "rome", "status")
    assert result.code == 4
    assert result.err.startswith('vpnctl: no instance "rome": neither ')


def test_with_nothing_running_the_status_exits_3(console: Console) -> None:
    assert console.run("status").code == 3
    console.runtime_dir.rmdir()
    result = console.run("status")
    assert result.code == 3
    assert result.err == f"vpnctl: no instance is running in {console.runtime_dir}\n"


def test_a_file_in_place_of_the_folder_is_a_usage_error(console: Console) -> None:
    console.runtime_dir.rmdir()
    console.runtime_dir.touch()
    result = console.run("status")
    assert (result.code, result.err) == (2, f"vpnctl: {console.runtime_dir} is no directory\n")
    assert console.run("-i", "site", "status").code == 4


@pytest.mark.parametrize("name", ["", "..", "../etc", "a/b", "-x", "a b"])
def test_an_instance_name_cannot_leave_the_folder(console: Console, name: str) -> None:
    result = console.run(f"--instance={name}", "status")
    assert (result.code, result.err) == (2, f'vpnctl: "{name}" is no name of an instance\n')


def test_a_path_too_long_for_a_socket_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="AF_UNIX path too long") as caught:
        connect("x" * 120, tmp_path)
    assert caught.value.code == "usage"


def test_a_socket_that_may_not_be_opened_exits_5(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    (console.runtime_dir / "site").mkdir()
    monkeypatch.setattr(socket.socket, "connect", refuse)
    result = console.run("status")
    assert result.code == 5
    assert "permission denied; be root or in vpnd-admin" in result.err


def test_an_error_with_one_instance_closes_the_connections_to_the_others(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    (console.runtime_dir / "zoo").mkdir()
    real_connect = socket.socket.connect

    def refuse_zoo(self: socket.socket, address: str) -> None:
        if "/zoo/" in address:
            raise PermissionError(13, "Permission denied")
        real_connect(self, address)

    with FakeDaemon(console.runtime_dir, "site", {}) as fake:
        monkeypatch.setattr(socket.socket, "connect", refuse_zoo)
        assert console.run("status").code == 5
    assert fake.requests == []


def test_a_folder_that_may_not_be_listed_exits_5(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ControlError, match="permission denied; be root or in vpnd-admin") as caught:
        list_instances(console.runtime_dir)
    assert caught.value.code == "not-permitted"


def test_a_full_backlog_is_a_timeout(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "site" / "control.sock"))
        listener.listen(0)
        with connect("site", tmp_path), pytest.raises(ControlError, match="is busy") as caught:
            connect("site", tmp_path)
    assert caught.value.code == "timed-out"


def test_a_silent_daemon_is_a_timeout(ends: tuple[Client, socket.socket]) -> None:
    client, _ = ends
    with pytest.raises(ControlError, match=r"site did not answer within 0\.01 s") as caught:
        client.ask(Status(), StatusReport, timeout_s=0.01)
    assert caught.value.code == "timed-out"


def test_a_daemon_that_reads_nothing_is_a_timeout() -> None:
    ours, theirs = socket.socketpair()
    with Client("site", ours) as client, theirs:
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(bytes(65536))
        with pytest.raises(ControlError, match=r"site did not answer within 0\.01 s") as caught:
            client.ask(Status(), StatusReport, timeout_s=0.01)
    assert caught.value.code == "timed-out"


def test_a_daemon_that_ends_in_the_middle_of_a_line_is_gone(console: Console) -> None:
    with FakeDaemon(console.runtime_dir, "site", {Status: [encode_reply(status())[:-1]]}):
        result = console.run("status")
    assert result.code == 3
    assert result.err == "vpnctl: site closed the connection before it answered\n"


def test_a_daemon_that_ended_before_the_request_is_gone(ends: tuple[Client, socket.socket]) -> None:
    client, theirs = ends
    theirs.close()
    with pytest.raises(ControlError, match="site closed the connection") as caught:
        client.ask(Status(), StatusReport)
    assert caught.value.code == "not-running"


def test_why_a_daemon_turned_us_away_is_told_even_if_it_closed_at_once(
    ends: tuple[Client, socket.socket],
) -> None:
    client, theirs = ends
    theirs.sendall(encode_error(ControlError("not-permitted", "only root may")))
    theirs.close()
    with pytest.raises(ControlError, match="only root may") as caught:
        client.ask(Status(), StatusReport)
    assert caught.value.code == "not-permitted"


def test_a_daemon_that_ends_with_the_request_unread_is_gone(ends: tuple[Client, socket.socket]) -> None:
    client, theirs = ends
    theirs.sendall(b'{"ok": 1}\n')
    answers = client.stream(Status())
    assert next(answers) == 1
    theirs.close()
    with pytest.raises(ControlError, match="site closed the connection"):
        next(answers)


def test_verbs_of_one_instance_ask_for_its_name_where_several_run(console: Console) -> None:
    with FakeDaemon(console.runtime_dir, "site", {}), FakeDaemon(console.runtime_dir, "hub", {}):
        error_of("usage", "several instances run (hub, site); name one with -i", console, "show", "drops")
