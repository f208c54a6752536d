import pytest

from tests.ctl.console import Console, Result
from tests.fakes.control_server import FakeDaemon
from tests.fakes.status_reports import site, status
from vpnd.control import Status, StatusReport
from vpnd.control.metrics import to_openmetrics, to_prometheus
from vpnd.errors import ControlError


def test_all_instances_share_one_text(console: Console) -> None:
    hub = status(instance="hub")
    with (
        FakeDaemon(console.runtime_dir, "site", {Status: [status()]}),
        FakeDaemon(console.runtime_dir, "hub", {Status: [hub]}),
    ):
        result = console.run("metrics")
    assert result.out == to_openmetrics(StatusReport((site(instance="hub"), site())))
    assert result.code == 0


def test_an_unhealthy_instance_is_no_error_of_its_metrics(console: Console) -> None:
    with FakeDaemon(console.runtime_dir, "site", {Status: [status(state="degraded")]}):
        assert console.run("--json", "metrics").code == 0


def test_an_instance_that_errs_does_not_hide_the_other(console: Console) -> None:
    error = ControlError("timed-out", "hub did not answer")
    with (
        FakeDaemon(console.runtime_dir, "site", {Status: [status()]}),
        FakeDaemon(console.runtime_dir, "hub", {Status: [error]}),
    ):
        result = console.run("metrics")
    assert (result.code, result.err) == (6, "vpnctl: hub did not answer\n")
    assert result.out == to_openmetrics(status())


def test_the_older_format_is_given_for_the_textfile_collector(console: Console) -> None:
    with FakeDaemon(console.runtime_dir, "site", {Status: [status()]}):
        assert console.run("metrics", "--format", "prometheus").out == to_prometheus(status())


def scrape(console: Console, request: bytes) -> tuple[Result, str, str]:
    """Gives the result, the head of the answer and its body."""
    console.stdin = request
    result = console.run("metrics", "--http")
    head, _, body = result.out.partition("\r\n\r\n")
    return result, head, body


@pytest.mark.parametrize(
    ("accept", "kind", "give"),
    [
        (
            b"Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            to_openmetrics,
        ),
        (b"accept: text/plain\r\n", "text/plain; version=0.0.4; charset=utf-8", to_prometheus),
        (b"", "text/plain; version=0.0.4; charset=utf-8", to_prometheus),
    ],
)
def test_a_scrape_gets_the_format_it_asks_for(
    console: Console, accept: bytes, kind: str, give: object
) -> None:
    with FakeDaemon(console.runtime_dir, "site", {Status: [status()]}):
        result, head, body = scrape(console, b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + accept + b"\r\n")
    assert result.code == 0
    assert body == give(status())  # type: ignore[operator]
    assert head.split("\r\n") == [
        "HTTP/1.1 200 OK",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body.encode())}",
        "Connection: close",
    ]


def test_a_scrape_while_nothing_runs_is_an_error_of_the_scrape(console: Console) -> None:
    result, head, body = scrape(console, b"GET /metrics HTTP/1.1\r\n\r\n")
    assert (result.code, head.split("\r\n")[0]) == (0, "HTTP/1.1 503 Service Unavailable")
    assert body.startswith("no instance is running")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"GET /secret HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 400),
        (b"", 400),
        (b"GET /metrics", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 1000 + b"\r\n", 400),
        (b"GET /" + b"x" * 10_000_000, 400),
        (b"\xff\x00 \xfe HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_what_is_no_scrape_is_told_so(console: Console, request_: bytes, code: int) -> None:
    _, head, _ = scrape(console, request_)
    assert head.startswith(f"HTTP/1.1 {code} ")


def test_an_instance_that_errs_does_not_hide_the_other_from_a_scrape(console: Console) -> None:
    error = ControlError("timed-out", "hub did not answer")
    with (
        FakeDaemon(console.runtime_dir, "site", {Status: [status()]}),
        FakeDaemon(console.runtime_dir, "hub", {Status: [error]}),
    ):
        result, _, body = scrape(console, b"GET /metrics HTTP/1.1\r\n\r\n")
    assert body == to_prometheus(status())
    assert result.err == "vpnctl: hub did not answer\n"
