"""vpnctl top: rates and order, and the table as it is drawn."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from tests.ctl.console import Console
from tests.fakes.control_server import FakeDaemon
from tests.fakes.status_reports import BERLIN, LYON, OSLO, status
from vpnd.control import HealthFinding, PeerReport, Status
from vpnd.ctl.top import rank, rates


def rows_of(*peers: PeerReport, before: tuple[PeerReport, ...] = ()) -> dict[str, tuple[float | None, ...]]:
    seen = {("site", peer.public_key): peer for peer in before}
    found = rates(status(peers=peers), seen, 2.0)
    return {row.peer.name: (row.rx_rate, row.tx_rate, row.drop_rate) for row in found}


def test_rates_are_differences_by_the_time_between() -> None:
    later = replace(BERLIN, rx_bytes=BERLIN.rx_bytes + 2000, drops={"data_replay": 5})
    assert rows_of(later, before=(BERLIN,)) == {"berlin": (1000.0, 0.0, 1.0)}


def test_at_first_and_when_a_counter_began_anew_there_is_no_rate() -> None:
    assert rows_of(BERLIN) == {"berlin": (None, None, None)}
    anew = replace(BERLIN, rx_bytes=5, drops={})
    assert rows_of(anew, before=(BERLIN,)) == {"berlin": (None, 0.0, None)}


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("name", ["berlin", "lyon", "oslo"]),
        ("traffic", ["lyon", "berlin", "oslo"]),
        ("state", ["oslo", "berlin", "lyon"]),
        ("drops", ["berlin", "lyon", "oslo"]),
    ],
)
def test_what_needs_a_look_stands_first(order: str, names: list[str]) -> None:
    before = {("site", peer.public_key): peer for peer in (BERLIN, LYON, OSLO)}
    moved = replace(LYON, tx_bytes=LYON.tx_bytes + 1)
    dropping = replace(BERLIN, drops={"data_replay": 4})
    found = rank(rates(status(peers=(OSLO, moved, dropping)), before, 1.0), order)
    assert [row.peer.name for row in found] == names


def test_the_table_is_drawn_as_often_as_was_asked(console: Console) -> None:
    """In a pipe: no colour, no screen of its own."""
    finding = HealthFinding("clock-behind", "the clock is [b]behind[/b]", "set it")
    with FakeDaemon(console.runtime_dir, "site", {Status: [status(health=(finding,))]}) as daemon:
        result = console.run("top", "-n", "2", "-d", "3")
    assert (result.code, result.err, len(daemon.requests)) == (0, "", 2)
    lines = result.out.splitlines()
    assert lines[0] == "site up 3d 4h   peers 2 of 3 up   plane up 9d 1h"
    assert lines[1] == "site: clock-behind: the clock is [b]behind[/b]"
    assert lines[3].split()[:4] == ["INSTANCE", "PEER", "STATE", "ENDPOINT"]
    assert " ".join(lines[4].split()) == "site berlin up 203.0.113.7:5180 41s ago 14 ms - - 1.2 GiB 3.4 GiB -"
    assert lines[11].split()[-8:] == ["ms", "0", "0", "1.2", "GiB", "3.4", "GiB", "0"]
    assert "\x1b" not in result.out
    assert console.now == 1003.0


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    console.is_terminal = True
    with FakeDaemon(console.runtime_dir, "site", {Status: [status()]}):
        result = console.run("top", "-n", "1")
    assert "site berlin up" in " ".join(result.out.split())
    assert "\x1b" not in result.out


def test_on_a_terminal_what_does_not_fit_is_counted(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINES", "12")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "xterm")
    console.is_terminal = True
    peers = tuple(replace(BERLIN, name=f"p{number:02}", public_key=str(number)) for number in range(40))
    with FakeDaemon(console.runtime_dir, "site", {Status: [status(peers=peers)]}):
        result = console.run("top", "-n", "1")
    assert "and 32 more peers" in result.out
    assert "p07" in result.out
    assert "p08" not in result.out


def test_a_daemon_that_is_away_is_shown_as_such(console: Console) -> None:
    result = console.run("top", "-n", "1")
    assert result.code == 0
    assert result.out.startswith("! no instance is running in ")


def test_without_rich_a_line_says_what_to_install(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vpnd.ctl.picture", raising=False)
    monkeypatch.delattr("vpnd.ctl.picture", raising=False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    result = console.run("top", "-n", "1")
    assert (result.code, result.err) == (
        1,
        "vpnctl: top needs the library rich: apt install python3-rich\n",
    )


def test_it_is_not_drawn_faster_than_anybody_reads(console: Console) -> None:
    assert console.run("top", "-d", "0").code == 2
