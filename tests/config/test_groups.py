"""Groups: what they may allow, who may be in them, and how each mistake is told."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from tests.config.site import BERLIN, LYON, PEER, Site
from vpnd.config import AllowRule, GroupConfig, Place, describe

NET4, NET6 = ip_network("10.20.0.0/16"), ip_network("fd00:20::/48")


@pytest.mark.parametrize(
    ("written", "rule", "shown"),
    [
        ("any", AllowRule(None, None, None), "any"),
        ("icmp", AllowRule(None, "icmp", None), "icmp"),
        ("udp/53", AllowRule(None, "udp", (53, 53)), "udp/53"),
        ("sctp/1-65535", AllowRule(None, "sctp", (1, 65535)), "sctp/1-65535"),
        ("10.20.0.0/16", AllowRule(NET4, None, None), "10.20.0.0/16"),
        ("10.20.0.0/16:tcp/443", AllowRule(NET4, "tcp", (443, 443)), "10.20.0.0/16:tcp/443"),
        ("10.20.0.0/16:tcp", AllowRule(NET4, "tcp", None), "10.20.0.0/16:tcp"),
        ("fd00:20::/48", AllowRule(NET6, None, None), "fd00:20::/48"),
        ("fd00:20::/48:udp/53-60", AllowRule(NET6, "udp", (53, 60)), "fd00:20::/48:udp/53-60"),
        ("fd00::c", AllowRule(ip_network("fd00::c/128"), None, None), "fd00::c/128"),
        ("10.20.0.5:icmp", AllowRule(ip_network("10.20.0.5/32"), "icmp", None), "10.20.0.5/32:icmp"),
    ],
)
def test_a_rule_is_a_network_a_service_or_both(site: Site, written: str, rule: AllowRule, shown: str) -> None:
    config = site.load(f'[groups.office]\nallow = ["{written}"]\n')
    assert config.groups == (GroupConfig("office", (rule,), ()),)
    assert dict(describe(config))["groups.office.allow"] == f'["{shown}"]'
    assert site.load(f'[groups.office]\nallow = ["{shown}"]\n') == config


@pytest.mark.parametrize(
    ("written", "mistake"),
    [
        ("web", '"web": "web" is none of "tcp", "udp", "sctp", "icmp"'),
        ("TCP/443", '"TCP/443": "TCP" is none of "tcp", "udp", "sctp", "icmp"'),
        ("10.20.0.0/16:http", '"10.20.0.0/16:http": "http" is none of "tcp", "udp", "sctp", "icmp"'),
        ("443", '"443" is not a network, such as 10.20.0.0/16 or fd00:20::/48'),
        ("10.20.0.0/16:443", '"10.20.0.0/16:443" is not a network, such as 10.20.0.0/16 or fd00:20::/48'),
        ("any:tcp", '"any" is not a network, such as 10.20.0.0/16 or fd00:20::/48'),
        ("10.20.0.1/16:tcp", '"10.20.0.1/16" has bits set beyond its prefix; the network is "10.20.0.0/16"'),
        ("icmp/8", '"icmp/8": icmp has no ports'),
        ("tcp/", '"tcp/": a port is 1 to 65535, a range such as 8000-8100'),
        ("tcp/0", '"tcp/0": a port is 1 to 65535, a range such as 8000-8100'),
        ("tcp/65536", '"tcp/65536": a port is 1 to 65535, a range such as 8000-8100'),
        ("tcp/90-80", '"tcp/90-80": a port is 1 to 65535, a range such as 8000-8100'),
        ("tcp/https", '"tcp/https": a port is 1 to 65535, a range such as 8000-8100'),
        ("", '"" is not a network, such as 10.20.0.0/16 or fd00:20::/48'),
    ],
)
def test_a_wrong_rule_is_explained(site: Site, written: str, mistake: str) -> None:
    assert site.mistakes(f'[groups.office]\nallow = [\n"{written}"]\n') == [
        f"site.toml:3: groups.office.allow: {mistake}"
    ]


def test_a_peer_names_its_groups_a_group_its_peers_and_both_count(site: Site) -> None:
    text = f"""\
[local]
listen = ["0.0.0.0:5180"]
[groups.staff]
allow = ["any"]
peers = ["lyon"]
[groups.guests]
allow = []
peers = ["lyon", "berlin"]
{PEER}groups = ["guests", "staff"]
"""
    lyon = f'public_key = "{LYON}"\nnetworks = ["10.8.0.3"]\ngroups = ["staff"]\n'
    oslo = 'public_key = "ihlIEawvzipDWXGGCRWpe/BpaEPK0pAp9IPOP7Dv0XA="\nnetworks = ["10.8.0.4"]\n'
    config = site.load(text, lyon=lyon, oslo=oslo)
    assert config.groups_of() == {"berlin": ("staff", "guests"), "lyon": ("staff", "guests"), "oslo": ()}
    assert config.place_of("groups.staff.peers") == Place("site.toml", 5, "groups.staff.peers")
    assert dict(describe(config))["peer.berlin.groups"] == '["guests", "staff"]'
    assert dict(describe(config))["groups.guests.peers"] == '["lyon", "berlin"]'


def test_names_that_stand_for_nothing_are_told_with_the_nearest(site: Site) -> None:
    text = (
        PEER + 'groups = ["stuff", "x"]\n[groups.staff]\nallow = []\npeers = ["bärlin", "berlyn", "berlin"]\n'
    )
    assert site.mistakes(text) == [
        'site.toml:6: peer.berlin.groups: there is no group "stuff"; did you mean "staff"?',
        'site.toml:6: peer.berlin.groups: there is no group "x"',
        'site.toml:9: groups.staff.peers: there is no peer "bärlin"; did you mean "berlin"?',
        'site.toml:9: groups.staff.peers: there is no peer "berlyn"; did you mean "berlin"?',
    ]


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ("groups = 5", ["site.toml:1: groups: needs a table, not the integer 5"]),
        ("[groups]\nstaff = []", ["site.toml:2: groups.staff: needs a table, not an array"]),
        (
            "[groups]\nallow = []",
            ["site.toml:2: groups.allow: a group has a name; write its keys under [groups.NAME]"],
        ),
        (
            "[groups.staff]",
            ["site.toml:1: groups.staff.allow: missing; a group that may begin nothing has allow = []"],
        ),
        (
            '[groups."a b"]\nallow = []',
            [
                'site.toml:1: groups."a b": "a b" cannot name a group; '
                'take up to 63 letters, digits, ".", "_" or "-", a letter or digit first'
            ],
        ),
        (
            "[groups.staff]\nallow = []\nmembers = []",
            ['site.toml:3: groups.staff.members: unknown; did you mean "peers"?'],
        ),
    ],
)
def test_a_wrong_group_is_explained(site: Site, text: str, mistakes: list[str]) -> None:
    assert site.mistakes(text) == mistakes


def test_a_key_of_groups_elsewhere_is_told_where_it_belongs(site: Site) -> None:
    assert site.mistakes(PEER + "allow = []\n") == [
        "site.toml:6: peer.berlin.allow: unknown here; it is a key of [groups.NAME]"
    ]


def test_groups_of_a_broken_table_are_not_told_again_by_peers(site: Site) -> None:
    assert site.mistakes("groups = 5\n" + PEER + 'groups = ["staff"]\n') == [
        "site.toml:1: groups: needs a table, not the integer 5"
    ]


def test_a_peer_with_a_mistake_is_still_a_peer_to_its_groups(site: Site) -> None:
    text = '[groups.staff]\nallow = []\npeers = ["berlin", "lyon"]\n[peer]\nlyon = 5\n'
    assert site.mistakes(text, berlin="public_key = ") == [
        "site.toml:5: peer.lyon: needs a table, not the integer 5",
        "site.d/berlin.toml:1: not TOML: Invalid value at the end of the file",
    ]


def test_groups_need_sources_that_can_be_believed(site: Site) -> None:
    text = f'[interface]\ntype = "tap"\n[groups.staff]\nallow = []\n[peer.berlin]\npublic_key = "{BERLIN}"\n'
    assert site.mistakes(text + 'endpoint = "192.0.2.1:1"\n') == [
        'site.toml:3: groups: need a link of type "tun": on "tap" a peer may send from any inner address'
    ]
