import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.ctl.console import Console
from tests.fakes.control_server import FakeDaemon
from vpnd.control import Wait
from vpnd.control.reports import WaitReport
from vpnd.errors import ControlError


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_it_prints_who_is_up(console: Console, running: ExitStack) -> None:
    answers = {Wait: [WaitReport(("berlin", "lyon"))]}
    fake = running.enter_context(FakeDaemon(console.runtime_dir, "site", answers))
    result = console.run("wait", "--timeout", "7")
    assert (result.code, result.out) == (0, "up: berlin lyon\n")
    assert fake.requests == [Wait(None, 7.0)]


def test_one_peer_is_asked_for(console: Console, running: ExitStack) -> None:
    fake = running.enter_context(FakeDaemon(console.runtime_dir, "site", {Wait: [WaitReport(("berlin",))]}))
    assert json.loads(console.run("--json", "wait", "--peer", "berlin").out) == {"peers": ["berlin"]}
    assert fake.requests == [Wait("berlin", 30.0)]


def test_nothing_enabled_is_up_at_once(console: Console, running: ExitStack) -> None:
    running.enter_context(FakeDaemon(console.runtime_dir, "site", {Wait: [WaitReport(())]}))
    assert console.run("wait").out == "up: no peer is enabled\n"


def test_the_end_of_the_daemons_patience_exits_6(console: Console, running: ExitStack) -> None:
    error = ControlError("timed-out", "not up after 30 s: oslo")
    running.enter_context(FakeDaemon(console.runtime_dir, "site", {Wait: [error]}))
    result = console.run("wait")
    assert (result.code, result.err) == (6, "vpnctl: not up after 30 s: oslo\n")


@pytest.mark.parametrize("options", [(), ("-i", "site")])
def test_an_instance_that_starts_meanwhile_is_waited_for(
    console: Console, running: ExitStack, options: tuple[str, ...]
) -> None:
    fakes: list[FakeDaemon] = []

    def start(number: int) -> None:
        if number == 5:
            answers = {Wait: [WaitReport(("berlin",))]}
            fakes.append(running.enter_context(FakeDaemon(console.runtime_dir, "site", answers)))

    console.on_sleep = start
    assert console.run(*options, "wait", "--timeout", "2").code == 0
    (request,) = fakes[0].requests
    assert isinstance(request, Wait)
    assert request.timeout_s == pytest.approx(1.5)


def test_a_daemon_that_dies_while_it_is_asked_is_waited_for(console: Console, running: ExitStack) -> None:
    first = running.enter_context(FakeDaemon(console.runtime_dir, "site", {Wait: [b""]}))

    def restart(number: int) -> None:
        first.kill()
        answers = {Wait: [WaitReport(("berlin",))]}
        running.enter_context(FakeDaemon(console.runtime_dir, "site", answers))

    console.on_sleep = restart
    assert console.run("wait").code == 0
    assert len(first.requests) == 1


def test_an_instance_that_never_starts_exits_6(console: Console) -> None:
    result = console.run("wait", "--timeout", "0.25")
    assert result.code == 6
    assert result.err == (
        f"vpnctl: timed out after 0.25 s: no instance is running in {console.runtime_dir}\n"
    )
    assert console.now == pytest.approx(1000.25)


def test_no_time_to_wait_is_one_try(console: Console) -> None:
    assert console.run("wait", "--timeout", "0").code == 6
    assert console.now == 1000.0


def test_other_errors_are_not_waited_away(console: Console, running: ExitStack) -> None:
    error = ControlError("no-such-peer", "site has none")
    running.enter_context(FakeDaemon(console.runtime_dir, "site", {Wait: [error]}))
    assert console.run("wait", "--peer", "rome").code == 4
    assert console.run("wait", "--timeout", "-1").code == 2
