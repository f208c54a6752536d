import json
from dataclasses import replace

import pytest

from tests.ctl.console import Console
from tests.fakes.control_server import FakeDaemon
from tests.fakes.status_reports import BERLIN, LYON, OSLO, status
from vpnd.control import (
    HealthFinding,
    LinkReport,
    PeerReport,
    PeerState,
    PlaneReport,
    PreviousKeyReport,
    Status,
    StatusReport,
    no_such_peer,
    to_json,
)
from vpnd.errors import ControlError

GOLDEN = """\
site  up 3d 4h   tun vpn-site  10.255.0.1/30 fd00:ff::1/64   mtu 1420   udp 5180
      aes-256-gcm (ipsec-mb) · offload udp-gso udp-gro tun-vnet · plane up 9d 1h · peers 2 up 1 down
PEER      STATE  ENDPOINT              HANDSHAKE  RTT     RX        TX        NETWORKS
berlin    up     203.0.113.7:5180      41s ago    14 ms   1.2 GiB   3.4 GiB   10.255.0.2/32 10.20.0.0/16
lyon      up     [2001:db8::9]:5180    1m 2s ago  9.1 ms  9.1 GiB   2.0 GiB   10.30.0.0/16
oslo      down   oslo.example.net      never      -       0         0         10.40.0.0/16     does not resolve (NXDOMAIN)
"""  # noqa: E501


def daemon(console: Console, *answers: object, instance: str = "site") -> FakeDaemon:
    return FakeDaemon(console.runtime_dir, instance, {Status: answers})


def printed(console: Console, **changes: object) -> list[str]:
    with daemon(console, status(**changes)):
        return console.run("status").out.splitlines()


def test_the_table_is_exactly_this(console: Console) -> None:
    with daemon(console, status()) as fake:
        result = console.run("status")
    assert result.out == GOLDEN
    assert result.err == ""
    assert fake.requests == [Status()]


@pytest.mark.parametrize(("left_s", "words"), [(7200.5, "accepted for 2h"), (0.0, "no longer accepted")])
def test_a_key_that_is_replaced_is_told_with_the_time_it_has_left(
    console: Console, left_s: float, words: str
) -> None:
    """[A17]"""
    lines = printed(console, previous_key=PreviousKeyReport(OSLO.public_key, left_s))
    assert lines[2] == f"      previous key {OSLO.public_key} {words}"


def test_without_a_verb_it_is_the_status(console: Console) -> None:
    with daemon(console, status()):
        assert console.run().out == GOLDEN


def test_json_is_the_report_as_it_stands(console: Console) -> None:
    with daemon(console, status()):
        result = console.run("--json", "status")
    assert json.loads(result.out) == to_json(status())
    assert result.code == 1


def test_json_passes_on_what_a_later_daemon_tells(console: Console) -> None:
    later = to_json(status(peers=(BERLIN,)))
    later["instances"][0]["moon"] = "full"
    with daemon(console, later):
        result = console.run("--json", "status")
    assert json.loads(result.out) == later
    assert result.code == 0


def test_json_of_another_language_is_refused(console: Console) -> None:
    with daemon(console, to_json(status()) | {"schema": "vpnd.status/2"}):
        result = console.run("--json", "status")
    assert result.code == 1
    assert "site answers in another language" in result.err


@pytest.mark.parametrize(
    ("peers", "code"),
    [
        ((BERLIN, LYON), 0),
        ((), 0),
        ((BERLIN, replace(OSLO, state="disabled")), 0),
        ((BERLIN, OSLO), 1),
        ((BERLIN, replace(OSLO, state="connecting")), 1),
    ],
)
def test_the_exit_status_tells_whether_all_enabled_peers_are_up(
    console: Console, peers: tuple[PeerReport, ...], code: int
) -> None:
    with daemon(console, status(peers=peers)):
        assert console.run("status").code == code


def test_a_finding_is_unhealthy_and_shown_with_its_remedy(console: Console) -> None:
    findings = (
        HealthFinding("plane-failed", "the plane is gone", "see its log"),
        HealthFinding("clock", "it went back", ""),
        HealthFinding("path-small", "it is narrow", "", level="notice"),
    )
    with daemon(console, status(peers=(BERLIN,), health=findings)):
        result = console.run("status")
    assert result.code == 1
    assert result.out.splitlines()[2:5] == [
        "      ! plane-failed: the plane is gone → see its log",
        "      ! clock: it went back",
        "      * path-small: it is narrow",
    ]


def test_one_peer_is_asked_for_and_judged_alone(console: Console) -> None:
    (site,) = status().instances
    for peer, code in ((BERLIN, 0), (OSLO, 1), (replace(OSLO, state="disabled"), 1)):
        report = StatusReport((replace(site, peers=(peer,)),))
        with daemon(console, report) as fake:
            assert console.run("status", peer.name).code == code
        assert fake.requests == [Status(peer.name)]


def test_a_peer_nobody_has_exits_4(console: Console) -> None:
    with daemon(console, no_such_peer("site", "rome", ("berlin",))):
        result = console.run("status", "rome")
    assert (result.code, result.out) == (4, "")
    assert result.err == 'vpnctl: site has no peer "rome"; it has berlin\n'


def test_all_running_instances_are_shown_by_name(console: Console) -> None:
    hub = status(instance="hub", peers=())
    with daemon(console, status(peers=())), daemon(console, hub, instance="hub"):
        result = console.run("status")
        one = console.run("-i", "hub", "status")
        report = json.loads(console.run("--json").out)
    assert result.out.split("\n\n")[0].startswith("hub  up 3d 4h ")
    assert result.out.split("\n\n")[1].startswith("site  up 3d 4h ")
    assert one.out.count("\n") == 2
    assert [instance["instance"] for instance in report["instances"]] == ["hub", "site"]


def test_a_peer_is_found_in_the_instance_that_has_it(console: Console) -> None:
    (site,) = status().instances
    with (
        daemon(console, StatusReport((site.with_only("berlin"),))),
        daemon(console, no_such_peer("hub", "berlin", ()), instance="hub"),
    ):
        result = console.run("status", "berlin")
    assert result.code == 0
    assert result.err == ""
    assert result.out.startswith("site")


def test_an_instance_that_errs_does_not_hide_the_other(console: Console) -> None:
    with (
        daemon(console, status(peers=())),
        daemon(console, ControlError("not-permitted", "only root may"), instance="hub"),
    ):
        result = console.run("status")
    assert result.code == 5
    assert result.out.startswith("site  up")
    assert result.err == "vpnctl: only root may\n"


def test_what_is_missing_is_said_in_the_header(console: Console) -> None:
    lines = printed(console, state="degraded", link=None, plane=None, listen=(), peers=())
    assert lines == ["site  degraded 3d 4h   no link", "      no plane · peers none"]


def test_a_plane_of_which_little_is_known_is_told_so(console: Console) -> None:
    lines = printed(console, plane=PlaneReport(None, None, ()), peers=())
    assert lines[1] == "      aead unknown · offload off · peers none"


def test_a_link_without_addresses_has_none_in_the_header(console: Console) -> None:
    lines = printed(console, link=LinkReport("tap0", "tap", 1500, ()), peers=())
    assert lines[0] == "site  up 3d 4h   tap tap0   mtu 1500   udp 5180"


def test_a_bound_address_is_told_in_full(console: Console) -> None:
    lines = printed(console, listen=("192.0.2.1:5180", "[::]:5181", "strange"), peers=())
    assert lines[0].endswith("udp 192.0.2.1:5180 5181 strange")


def test_long_networks_are_cut_and_push_only_their_own_reason(console: Console) -> None:
    many = tuple(f"10.{number}.0.0/16" for number in range(7))
    peer = replace(OSLO, networks=many, endpoint=None)
    bare = replace(OSLO, name="rome", networks=(), reason="waits for its call")
    lines = printed(console, peers=(peer, bare))
    networks = "10.0.0.0/16 10.1.0.0/16 10.2.0.0/16 10.3.0.0/16 +3 more  does not resolve (NXDOMAIN)"
    assert lines[3] == f"oslo      down   {'-':<20}  never      -       0         0         {networks}"
    assert lines[4].endswith("0         -                waits for its call")


def test_a_long_name_widens_its_column_alone(console: Console) -> None:
    peer = replace(BERLIN, name="berlin-office-2", state="connecting")
    lines = printed(console, peers=(peer, OSLO))
    assert lines[2].startswith("PEER             STATE       ENDPOINT")
    assert lines[3].startswith("berlin-office-2  connecting  203.0.113.7:5180")
    assert lines[4].startswith("oslo             down        oslo.example.net")


def test_every_state_is_counted_in_the_header(console: Console) -> None:
    states: tuple[PeerState, ...] = ("disabled", "down", "connecting", "up", "up")
    peers = tuple(replace(BERLIN, state=state) for state in states)
    assert printed(console, peers=peers)[1].endswith("peers 2 up 1 connecting 1 down 1 disabled")


def test_a_daemon_of_another_language_is_refused(console: Console) -> None:
    with daemon(console, {"schema": "vpnd.status/9"}):
        result = console.run("status")
    assert result.code == 1
    assert "site answers in another language: schema: " in result.err
