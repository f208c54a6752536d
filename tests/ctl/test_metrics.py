from tests.ctl.console import Console
from tests.fakes.control_server import FakeDaemon
from tests.fakes.status_reports import site, status
from vpnd.control import Status, StatusReport, to_openmetrics
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
