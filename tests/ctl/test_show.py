import json
from dataclasses import replace

import pytest

from tests.ctl.console import Console, Result
from tests.fakes.control_server import FakeDaemon
from tests.fakes.status_reports import BERLIN_KEY, OSLO_KEY
from vpnd.control import PreviousKeyReport, Show, to_json
from vpnd.control.reports import (
    ConfigReport,
    DropReport,
    DropsReport,
    GroupReport,
    GroupsReport,
    LeaseReport,
    LeasesReport,
    MacReport,
    MacsReport,
    OffloadReport,
    OffloadsReport,
    PeerDetail,
    PeersReport,
    RouteReport,
    RoutesReport,
    SettingReport,
)
from vpnd.errors import ControlError

BERLIN = PeerDetail(
    name="berlin",
    public_key=BERLIN_KEY,
    state="up",
    reason=None,
    endpoint="203.0.113.7:5180",
    configured_endpoint="vpn.berlin.example.net:5180",
    networks=("10.255.0.2/32", "10.20.0.0/16"),
    keepalive_s=25,
    padding="none",
    suite="aes-256-gcm",
    session_index=0x1A2B,
    stage="up",
    attempts=0,
    handshakes=3,
    handshake_age_s=41.0,
    last_refusal="hs_replay",
    last_refusal_age_s=62.0,
    rtt_ms=14.2,
    remote_mtu=1420,
    staged=2,
    refusals={"hs_replay": 1, "hs_dup": 4},
    drops={"data_replay": 3},
)
OSLO = PeerDetail(
    name="oslo",
    public_key=OSLO_KEY,
    state="down",
    reason="waits for its call",
    endpoint=None,
    configured_endpoint=None,
    networks=("10.40.0.0/16",),
    keepalive_s=0,
    padding=None,
    suite=None,
    session_index=None,
    stage="handshaking",
    attempts=4,
    handshakes=0,
    handshake_age_s=None,
    last_refusal=None,
    last_refusal_age_s=None,
    rtt_ms=None,
    remote_mtu=None,
    staged=0,
    refusals={},
    drops={},
)


def show(console: Console, topic: str, report: object, *options: str) -> Result:
    with FakeDaemon(console.runtime_dir, "site", {Show: [report]}) as fake:
        result = console.run(*options, "show", topic)
    assert fake.requests == [Show(topic)]  # type: ignore[arg-type]
    return result


def test_peers_are_shown_in_full(console: Console) -> None:
    assert (
        show(console, "peers", PeersReport((BERLIN, OSLO))).out
        == f"""\
berlin
  public key    {BERLIN_KEY}
  state         up
  endpoint      203.0.113.7:5180 (configured vpn.berlin.example.net:5180)
  networks      10.255.0.2/32 10.20.0.0/16
  suite         aes-256-gcm
  session       0x00001a2b
  handshake     up
  handshakes    3, last 41s ago
  rtt           14 ms
  keepalive     every 25 s
  padding       none
  remote mtu    1420
  staged        2 packets
  last refusal  hs_replay, 1m 2s ago
  refusals      hs_replay 1, hs_dup 4
  drops         data_replay 3

oslo
  public key    {OSLO_KEY}
  state         down, waits for its call
  endpoint      not known; it has to call
  networks      10.40.0.0/16
  handshake     handshaking, attempt 4
  handshakes    0, last never
  rtt           -
  keepalive     off
"""
    )


@pytest.mark.parametrize(
    ("endpoint", "configured", "text"),
    [
        ("203.0.113.7:5180", None, "203.0.113.7:5180"),
        ("203.0.113.7:5180", "203.0.113.7:5180", "203.0.113.7:5180"),
        (None, "a.example:1", "not known (configured a.example:1)"),
    ],
)
def test_the_configured_endpoint_is_told_where_it_differs(
    console: Console, endpoint: str | None, configured: str | None, text: str
) -> None:
    peer = replace(BERLIN, endpoint=endpoint, configured_endpoint=configured)
    assert f"  endpoint      {text}\n" in show(console, "peers", PeersReport((peer,))).out


@pytest.mark.parametrize(("left_s", "words"), [(60.5, "accepted for 1m"), (0.0, "no longer accepted")])
def test_a_peers_previous_key_is_shown_with_the_time_it_has_left(
    console: Console, left_s: float, words: str
) -> None:
    """[A17]"""
    peer = replace(BERLIN, previous_key=PreviousKeyReport(OSLO_KEY, left_s))
    lines = show(console, "peers", PeersReport((peer,))).out.splitlines()
    assert lines[2] == f"  previous key  {OSLO_KEY}, {words}"


def test_routes_say_which_the_kernel_lacks(console: Console) -> None:
    routes = (
        RouteReport("10.20.0.0/16", "berlin", "main", 50, installed=True),
        RouteReport("10.30.0.0/16", "lyon", "main", 50, installed=False),
        RouteReport("10.40.0.0/16", "oslo", "5180", 50, installed=None),
    )
    assert (
        show(console, "routes", RoutesReport(routes)).out
        == """\
PREFIX        PEER    TABLE  METRIC  INSTALLED
10.20.0.0/16  berlin  main   50      yes
10.30.0.0/16  lyon    main   50      MISSING
10.40.0.0/16  oslo    5180   50      not wanted
"""
    )


def test_groups_are_shown_with_their_members_and_who_is_in_none(console: Console) -> None:
    groups = (
        GroupReport("staff", ("10.20.0.0/16:tcp/443", "icmp"), ("anna", "bert"), 7),
        GroupReport("quarantine", (), (), 0),
    )
    assert (
        show(console, "groups", GroupsReport(groups, ("oslo", "lyon"))).out
        == """\
GROUP       PEERS  REFUSED  ALLOWED
staff       2      7        10.20.0.0/16:tcp/443 icmp
quarantine  0      0        nothing
staff: anna bert
quarantine: nobody
in no group, and may begin nothing: oslo lyon
"""
    )


def test_macs_are_shown_with_their_peers(console: Console) -> None:
    macs = (
        MacReport("02:76:70:6e:00:01", 0, "berlin", 3.2),
        MacReport("02:76:70:6e:00:02", 7, "lyon", 90.0),
        MacReport("02:76:70:6e:00:03", 0, "lyon", None),
    )
    assert (
        show(console, "macs", MacsReport(macs)).out
        == """\
MAC                VLAN  PEER    SEEN
02:76:70:6e:00:01  -     berlin  3s ago
02:76:70:6e:00:02  7     lyon    1m 30s ago
02:76:70:6e:00:03  all   lyon    static
"""
    )


def test_the_configuration_is_shown_as_toml(console: Console) -> None:
    settings = (SettingReport("interface.mtu", "1420"), SettingReport("local.knock", "(none)"))
    report = ConfigReport(("/etc/vpnd/site.toml",), settings)
    assert (
        show(console, "config", report).out
        == """\
# /etc/vpnd/site.toml
interface.mtu = 1420
# local.knock = (none)
"""
    )


def test_drops_are_shown_with_the_most_frequent_first(console: Console) -> None:
    drops = (
        DropReport("data_replay", "its counter was seen before or is too old", 3, "berlin"),
        DropReport("data_replay", "its counter was seen before or is too old", 3, None),
        DropReport("rx_malformed", "datagram too short", 17, None),
    )
    assert (
        show(console, "drops", DropsReport(drops)).out
        == """\
REASON        PACKETS  PEER    MEANING
rx_malformed  17       -       datagram too short
data_replay   3        -       its counter was seen before or is too old
data_replay   3        berlin  its counter was seen before or is too old
"""
    )


def test_offloads_are_shown_with_the_reason_why_not(console: Console) -> None:
    offloads = (
        OffloadReport("udp-gso", is_active=True, text=""),
        OffloadReport("udp-gro", False, "no kernel"),
    )
    assert (
        show(console, "offload", OffloadsReport("ipsec-mb", 2, offloads)).out
        == """\
aead     ipsec-mb
workers  2
OFFLOAD  STATE  WHY
udp-gso  on
udp-gro  off    no kernel
"""
    )
    assert (
        show(console, "offload", OffloadsReport(None, None, ())).out == "aead     unknown\nworkers  unknown\n"
    )


@pytest.mark.parametrize(
    ("topic", "report"),
    [
        ("peers", PeersReport(())),
        ("routes", RoutesReport(())),
        ("groups", GroupsReport((), ())),
        ("macs", MacsReport(())),
        ("config", ConfigReport((), ())),
        ("drops", DropsReport(())),
    ],
)
def test_an_empty_topic_is_told_so(console: Console, topic: str, report: object) -> None:
    assert show(console, topic, report).out == f"no {topic}\n"


def test_json_is_the_report_as_it_stands(console: Console) -> None:
    result = show(console, "peers", PeersReport((BERLIN,)), "--json")
    assert json.loads(result.out) == to_json(PeersReport((BERLIN,)))


def test_leases_show_who_has_what_and_what_is_kept(console: Console) -> None:
    leases = (
        LeaseReport("anna", BERLIN_KEY, ("10.8.0.2", "fd00:8::2"), "given", None),
        LeaseReport("ben", OSLO_KEY, ("10.8.0.9",), "fixed", None),
        LeaseReport("carl", OSLO_KEY, ("10.8.0.3",), "kept", 90.0),
    )
    assert (
        show(console, "leases", LeasesReport(leases)).out
        == """\
PEER  ADDRESSES           STATE
anna  10.8.0.2 fd00:8::2  given
ben   10.8.0.9            fixed by networks
carl  10.8.0.3            kept, peer gone 1m 30s ago
"""
    )
    assert show(console, "leases", LeasesReport(())).out == "no leases\n"


def test_an_error_of_the_daemon_is_told_in_its_words(console: Console) -> None:
    result = show(console, "macs", ControlError("refused", "a tun link carries no Ethernet addresses"))
    assert (result.code, result.err) == (1, "vpnctl: a tun link carries no Ethernet addresses\n")
