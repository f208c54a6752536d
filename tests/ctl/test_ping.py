import json
from collections.abc import Iterator

import pytest

from tests.ctl.console import Console
from tests.fakes.control_server import FakeDaemon
from vpnd.control import Ping, encode_reply
from vpnd.control.reports import PingEcho, PingSummary
from vpnd.ctl.client import Client
from vpnd.errors import ControlError

ECHOES = (
    PingEcho(1, 56, "203.0.113.7:5180", 14.2),
    PingEcho(2, 56, "203.0.113.7:5180", None),
    PingEcho(3, 56, None, 0.5),
)
SUMMARY = PingSummary.of("berlin", ECHOES)


def test_every_echo_is_a_line_and_the_sum_comes_last(console: Console) -> None:
    with FakeDaemon(console.runtime_dir, "site", {Ping: [*ECHOES, SUMMARY]}) as fake:
        result = console.run("ping", "berlin", "-c", "3")
    assert fake.requests == [Ping("berlin", 3, 56)]
    assert result.code == 0
    assert (
        result.out
        == """\
56 bytes from berlin (203.0.113.7:5180): seq=1 time=14 ms
no answer from berlin: seq=2
56 bytes from berlin: seq=3 time=0.50 ms
berlin: 3 sent, 2 received, 33% lost
rtt min/mean/max 0.50 ms / 7.3 ms / 14 ms
"""
    )


def test_no_answer_at_all_exits_1(console: Console) -> None:
    echoes = ECHOES[1:2]
    with FakeDaemon(console.runtime_dir, "site", {Ping: [*echoes, PingSummary.of("berlin", echoes)]}) as fake:
        result = console.run("ping", "berlin", "-c", "1", "-s", "1400")
    assert fake.requests == [Ping("berlin", 1, 1400)]
    assert result.code == 1
    assert result.out == "no answer from berlin: seq=2\nberlin: 1 sent, 0 received, 100% lost\n"


def test_json_is_one_object_a_line(console: Console) -> None:
    with FakeDaemon(console.runtime_dir, "site", {Ping: [*ECHOES, SUMMARY]}):
        lines = console.run("--json", "ping", "berlin").out.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["echo", "echo", "echo", "summary"]
    assert json.loads(lines[-1]) == {
        "event": "summary",
        "peer": "berlin",
        "sent": 3,
        "received": 2,
        "rtt_min_ms": 0.5,
        "rtt_mean_ms": 7.35,
        "rtt_max_ms": 14.2,
    }


def test_a_refusal_in_place_of_echoes_is_told(console: Console) -> None:
    error = ControlError("refused", "oslo has no session")
    with FakeDaemon(console.runtime_dir, "site", {Ping: [error]}):
        result = console.run("ping", "oslo")
    assert (result.code, result.out, result.err) == (1, "", "vpnctl: oslo has no session\n")


def test_a_daemon_that_dies_meanwhile_is_told_after_what_it_said(console: Console) -> None:
    with FakeDaemon(console.runtime_dir, "site", {Ping: [encode_reply(ECHOES[0])]}):
        result = console.run("ping", "berlin")
    assert result.code == 3
    assert result.out.startswith("56 bytes from berlin")
    assert result.err == "vpnctl: site closed the connection before it answered\n"


@pytest.mark.parametrize(
    ("received", "text"),
    [(0, "berlin: 0 sent, 0 received, 0% lost\n"), (1, "berlin: 1 sent, 1 received, 0% lost\n")],
)
def test_an_interrupt_still_sums_up(
    console: Console, monkeypatch: pytest.MonkeyPatch, received: int, text: str
) -> None:
    real_stream = Client.stream

    def interrupted(client: Client, request: Ping) -> Iterator[object]:
        answers = real_stream(client, request)
        for _ in range(received):
            yield next(answers)
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "stream", interrupted)
    with FakeDaemon(console.runtime_dir, "site", {Ping: [*ECHOES]}):
        result = console.run("ping", "berlin")
    assert result.code == (0 if received else 1)
    assert text in result.out


def test_a_count_out_of_range_is_a_usage_error_before_anyone_is_asked(console: Console) -> None:
    result = console.run("ping", "berlin", "-c", "0")
    assert (result.code, result.err) == (2, "vpnctl: count: 0 is outside 1 to 100000\n")
