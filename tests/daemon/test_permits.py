"""Whose packets groups refused, and what is said of it."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from vpnd.config import Config, load
from vpnd.control.reports import GroupReport, GroupsReport, WhyStep
from vpnd.daemon import wanted
from vpnd.daemon.permits import groups_report, why_steps
from vpnd.host.filter import Refusal
from vpnd.host.plan import FilterPlan, Permission

PEERS = """
[local]
listen = ["0.0.0.0:5180"]
[peer.anna]
public_key = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
networks = ["10.8.0.2/32", "fd00:8::2/128"]
[peer.lyon]
public_key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
networks = ["10.8.0.0/24"]
"""
STAFF = """
[groups.staff]
allow = ["10.20.0.0/16:tcp/443", "icmp"]
peers = ["anna"]
"""


def configured(folder: Path, text: str) -> Config:
    file = folder / "site.toml"
    file.write_text(text)
    return load("site", file)


def refusal(source: str, destination: str, packets: int, protocol: str = "tcp") -> Refusal:
    return Refusal(ip_address(source), ip_address(destination), protocol, packets)


FOUND = (
    refusal("10.8.0.2", "10.20.0.9", 3),
    refusal("fd00:8::2", "fd00:20::9", 5, "udp"),
    refusal("10.8.0.77", "10.20.0.9", 11),
    refusal("172.16.0.1", "10.20.0.9", 13),  # of a peer that was removed since
)


def test_refusals_belong_to_the_peer_with_the_longest_network_around_their_source(tmp_path: Path) -> None:
    config = configured(tmp_path, PEERS + STAFF)
    assert groups_report(config, FOUND) == GroupsReport(
        (GroupReport("staff", ("10.20.0.0/16:tcp/443", "icmp"), ("anna",), 8),), ("lyon",)
    )


def test_why_names_what_was_refused_most_and_what_is_allowed(tmp_path: Path) -> None:
    config = configured(tmp_path, PEERS + STAFF)
    assert [*why_steps(config, "anna", FOUND)] == [
        WhyStep(
            "groups",
            False,
            "packets from anna were refused lately, udp to fd00:20::9 (5), tcp to 10.20.0.9 (3): "
            "staff allows 10.20.0.0/16:tcp/443, icmp",
            "add to groups.staff.allow what anna shall reach",
        )
    ]
    assert [*why_steps(config, "lyon", FOUND)] == [
        WhyStep(
            "groups",
            False,
            "packets from lyon were refused lately, tcp to 10.20.0.9 (11): "
            "it is in no group, so it may begin nothing",
            "name a group in peer.lyon.groups",
        )
    ]


def test_why_is_content_where_nothing_was_refused_and_silent_where_nothing_can_be(tmp_path: Path) -> None:
    config = configured(tmp_path, PEERS + STAFF)
    assert [(step.ok, step.text) for peer in ("anna", "lyon") for step in why_steps(config, peer, ())] == [
        (True, "nothing refused in the last 10 minutes"),
        (None, "lyon is in no group: it may begin nothing"),
    ]
    assert [*why_steps(configured(tmp_path, PEERS), "anna", ())] == []


def test_peers_kept_apart_are_told_so(tmp_path: Path) -> None:
    config = configured(tmp_path, PEERS + "[routing]\nclient_to_client = false\n")
    (step,) = why_steps(config, "anna", FOUND)
    assert step.text.endswith("(3): client_to_client is off")
    assert step.remedy == "set routing.client_to_client = true if peers shall reach each other"
    both = configured(tmp_path, PEERS + STAFF + "[routing]\nclient_to_client = false\n")
    (step,) = why_steps(both, "anna", FOUND)
    assert step.text.endswith("staff allows 10.20.0.0/16:tcp/443, icmp; client_to_client is off")


def test_a_disabled_peers_networks_may_nothing_also_inside_those_of_another(tmp_path: Path) -> None:
    text = PEERS.replace("[peer.lyon]", "enabled = false\n[peer.lyon]")
    config = configured(tmp_path, text + STAFF.replace('"anna"', '"anna", "lyon"'))
    plan = wanted.filter_plan(config)
    assert {str(network): groups for network, groups in plan.members} == {
        "10.8.0.2/32": (),
        "fd00:8::2/128": (),
        "10.8.0.0/24": ("staff",),
    }
    assert plan.groups is not None
    assert Permission(None, "icmp", None) in plan.groups["staff"]
    assert wanted.filter_plan(configured(tmp_path, PEERS)) == FilterPlan()
