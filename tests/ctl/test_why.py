import json

import pytest

from tests.ctl.console import Console, Result
from tests.fakes.control_server import FakeDaemon
from vpnd.control import Why, to_json
from vpnd.control.reports import WhyReport, WhyStep
from vpnd.errors import ControlError
from vpnd.keys import Identity, generate_secret

STEPS = (
    WhyStep("config", True, "oslo is configured and enabled"),
    WhyStep("name", False, "oslo.example.net does not resolve (NXDOMAIN)", "mend peer.oslo.endpoint"),
    WhyStep("handshake", None, "not tried"),
    WhyStep("routes", False, "10.40.0.0/16 is routed nowhere", "add a route"),
)
OSLO_KEY = str(Identity.from_private(generate_secret()).public)
CONFIG = f"""\
[interface]
addresses = ["10.255.0.1/30"]
[peer.oslo]
public_key = "{OSLO_KEY}"
endpoint = "oslo.example.net:5180"
networks = ["10.40.0.0/16"]
enabled = ENABLED
"""


def why(console: Console, *steps: WhyStep, options: tuple[str, ...] = ()) -> Result:
    with FakeDaemon(console.runtime_dir, "site", {Why: [WhyReport("oslo", steps)]}) as fake:
        result = console.run(*options, "why", "oslo")
    assert fake.requests == [Why("oslo")]
    return result


def test_the_first_failed_check_is_told_with_its_remedy(console: Console) -> None:
    result = why(console, *STEPS)
    assert result.code == 1
    assert (
        result.out
        == """\
oslo
  ✓ config     oslo is configured and enabled
  ✗ name       oslo.example.net does not resolve (NXDOMAIN)
               → mend peer.oslo.endpoint
  - handshake  not tried
  ✗ routes     10.40.0.0/16 is routed nowhere
"""
    )


def test_all_checks_passed_exit_0(console: Console) -> None:
    result = why(console, STEPS[0], STEPS[2])
    assert result.code == 0
    assert "✗" not in result.out


def test_a_cause_without_remedy_has_no_line_for_one(console: Console) -> None:
    assert why(console, WhyStep("clock", False, "")).out == "oslo\n  ✗ clock\n"


def test_a_report_without_checks_is_only_the_name(console: Console) -> None:
    assert why(console).out == "oslo\n"


def test_marks_are_ascii_where_the_locale_is_not_utf_8(console: Console) -> None:
    console.encoding = "ascii"
    assert (
        why(console, *STEPS).out
        == """\
oslo
  ok config     oslo is configured and enabled
  !! name       oslo.example.net does not resolve (NXDOMAIN)
                => mend peer.oslo.endpoint
  -- handshake  not tried
  !! routes     10.40.0.0/16 is routed nowhere
"""
    )


def test_json_is_the_report_as_it_stands(console: Console) -> None:
    result = why(console, *STEPS, options=("--json",))
    assert json.loads(result.out) == to_json(WhyReport("oslo", STEPS))


def test_errors_of_the_daemon_stay_what_they_are(console: Console) -> None:
    error = ControlError("no-such-peer", "site has none")
    with FakeDaemon(console.runtime_dir, "site", {Why: [error]}):
        assert console.run("why", "rome").code == 4


def configure(console: Console, text: str, name: str = "site") -> None:
    (console.config_dir / f"{name}.toml").write_text(text)


@pytest.mark.parametrize("options", [("-i", "site"), ()])
def test_without_the_daemon_the_files_are_checked(console: Console, options: tuple[str, ...]) -> None:
    configure(console, CONFIG.replace("ENABLED", "true"))
    result = console.run(*options, "why", "oslo")
    assert result.code == 3
    assert (
        result.out
        == f"""\
oslo
  ✓ config  {console.config_dir}/site.toml has no mistakes
  ✓ peer    it is configured and enabled
  ✗ daemon  site is not running
            → systemctl start vpnd@site
"""
    )


def test_without_the_daemon_a_disabled_peer_is_named_first(console: Console) -> None:
    configure(console, CONFIG.replace("ENABLED", "false"))
    result = console.run("why", OSLO_KEY)
    assert "  ✗ peer    it is disabled\n" in result.out
    assert "→ remove enabled = false from [peer.oslo]\n" in result.out
    assert "systemctl start" not in result.out


def test_without_the_daemon_an_unknown_peer_is_named_first(console: Console) -> None:
    configure(console, CONFIG.replace("ENABLED", "true"))
    result = console.run("why", "rome")
    assert result.code == 3
    assert '  ✗ peer    there is no peer "rome"\n' in result.out


def test_without_the_daemon_every_mistake_of_the_file_is_named(console: Console) -> None:
    configure(console, CONFIG.replace("ENABLED", '"maybe"').replace("10.40.0.0/16", "10.40.0.0/99"))
    result = console.run("-i", "site", "why", "oslo")
    assert result.code == 3
    assert result.out.count("  ✗ config  ") == 2
    assert "peer.oslo.enabled" in result.out
    assert result.out.count("→") == 1


def test_with_nothing_running_and_several_files_the_instance_has_to_be_named(console: Console) -> None:
    configure(console, CONFIG.replace("ENABLED", "true"))
    configure(console, CONFIG.replace("ENABLED", "true"), "hub")
    result = console.run("why", "oslo")
    assert (result.code, result.out) == (3, "")
    assert "no instance is running" in result.err
