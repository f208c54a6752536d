from pathlib import Path

import pytest

from tests.ctl.console import Console, Stream
from tests.fakes.control_server import FakeDaemon
from tests.fakes.status_reports import BERLIN, OSLO, status
from vpnd.control import Status
from vpnd.ctl.terminal import Terminal

GREEN_UP = "\x1b[32mup\x1b[0m"


def status_on(console: Console, *options: str) -> str:
    answers = {Status: [status(peers=(BERLIN, OSLO))]}
    with FakeDaemon(console.runtime_dir, "site", answers):
        return console.run(*options, "status").out


def test_a_terminal_shows_states_in_colour_without_moving_the_columns(console: Console) -> None:
    console.is_terminal = True
    coloured = status_on(console)
    assert f"berlin    {GREEN_UP}     203.0.113.7:5180" in coloured
    assert "oslo      \x1b[31mdown\x1b[0m   oslo.example.net" in coloured
    console.is_terminal = False
    plain = coloured
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m"):
        plain = plain.replace(code, "")
    assert status_on(console) == plain


@pytest.mark.parametrize(
    ("environment", "options"),
    [({"NO_COLOR": "1"}, []), ({"TERM": "dumb"}, []), ({}, ["--no-color"])],
)
def test_colour_is_left_out_when_unwanted(
    console: Console, environment: dict[str, str], options: list[str]
) -> None:
    console.is_terminal = True
    console.environment = environment
    assert "\x1b" not in status_on(console, *options)


def test_an_empty_no_color_forbids_nothing(console: Console) -> None:
    console.is_terminal = True
    console.environment = {"NO_COLOR": ""}
    assert GREEN_UP in status_on(console)


def test_a_pipe_gets_no_colour(console: Console) -> None:
    assert "\x1b" not in status_on(console)


def test_marks_are_plain_where_the_locale_is_not_utf_8(console: Console) -> None:
    console.encoding = "iso8859-1"
    assert "aes-256-gcm (ipsec-mb) | offload udp-gso" in status_on(console)


def test_no_character_is_too_much_for_the_stream() -> None:
    out, err = Stream("ascii"), Stream("ascii")
    terminal = Terminal.of(out, err, {}, may_colour=False)
    terminal.print("caf\u00e9 \ud800")
    terminal.print_error("\u2717")
    terminal.print_json_line({"name": "caf\u00e9"})
    assert out.text() == 'caf\\xe9 \\ud800\n{"name": "caf\\u00e9"}\n'
    assert err.text() == "\\u2717\n"


def test_a_stream_without_encoding_counts_as_plain(tmp_path: Path) -> None:
    class Bare(Stream):
        encoding = ""

    assert not Terminal.of(Bare("utf-8"), Stream("utf-8"), {}, may_colour=False).has_unicode


def test_json_keeps_the_characters_a_terminal_can_show() -> None:
    out = Stream("utf-8")
    Terminal.of(out, out, {}, may_colour=False).print_json({"name": "café"})
    assert out.text() == '{"name": "café"}\n'


def test_json_is_laid_out_for_people_on_a_terminal_alone() -> None:
    out = Stream("utf-8", is_terminal=True)
    terminal = Terminal.of(out, out, {}, may_colour=False)
    terminal.print_json({"name": "berlin"})
    terminal.print_json_line({"name": "berlin"})
    assert out.text() == '{\n  "name": "berlin"\n}\n{"name": "berlin"}\n'
