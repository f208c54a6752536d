"""What groups allow, compiled into one table: put there by the real nft, judged by real packets."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest

from tests.host.namespace import in_namespace, machine, sh
from tests.host.plans import a_link, a_plan
from vpnd.host import FilterPlan, Host, HostPlan, Permission, TableMonitor

LINK = a_link("10.8.0.1/24", "fd00:8::1/64")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "site")


def may(network: str | None = None, protocol: str | None = None, *ports: int) -> Permission:
    prefix = None if network is None else ipaddress.ip_network(network)
    return Permission(prefix, protocol, (ports[0], ports[-1]) if ports else None)  # type: ignore[arg-type]


def judged(
    groups: dict[str, tuple[Permission, ...]], members: dict[str, tuple[str, ...]], **rest: bool
) -> HostPlan:
    sources = tuple((ipaddress.ip_network(network), names) for network, names in members.items())
    allowed = {name: frozenset(permissions) for name, permissions in groups.items()}
    return a_plan(LINK, filter=FilterPlan(groups=allowed, members=sources, **rest))


def settle(host: Host, plan: HostPlan) -> None:
    host.apply(plan)
    assert host.difference(plan) == ()


EVERYTHING = judged(
    {
        "web": (may("10.20.0.0/16", "tcp", 443), may("10.20.0.0/16", "tcp", 80), may("fd00:20::/48", "tcp")),
        "wide": (may("10.20.0.0/15", "tcp", 1, 1000), may("10.21.7.0/24"), may(None, "icmp"), may("::/0")),
        "dns": (may(None, "udp", 53), may("10.20.0.53/32", "udp", 50, 60), may(None, "sctp")),
        "all": (may(),),
        "none": (),
    },
    {
        "10.8.0.2/32": ("web",),
        "10.8.0.3/32": ("web",),
        "fd00:8::2/128": ("web",),
        "10.40.0.0/16": ("wide", "dns", "web"),
        "10.40.1.0/24": ("none",),
        "10.40.2.0/24": (),
        "0.0.0.0/0": ("all",),
    },
    client_to_client=False,
)


@pytest.mark.parametrize("has_names", [True, False])
@in_namespace
def test_a_table_of_every_kind_is_known_again_as_it_stands(host: Host, has_names: bool) -> None:
    """Also on a machine without the names of protocols, which Debian's netbase brings."""
    if not has_names and Path("/etc/protocols").exists():
        sh("mount --bind /dev/null /etc/protocols")
    settle(host, EVERYTHING)
    settle(host, a_plan(LINK, filter=EVERYTHING.filter, masquerade=("10.8.0.0/24",)))
    settle(host, a_plan(LINK, filter=FilterPlan(client_to_client=False)))
    assert "groups" not in sh("nft list table inet vpnd-site")
    settle(host, a_plan(LINK))
    assert sh("nft list ruleset") == ""


@in_namespace
@pytest.mark.parametrize(
    "tampering",
    [
        "add element inet vpnd-site {services} {{ 10.9.9.9 . tcp . 1 }}",
        "delete element inet vpnd-site {services} {{ 10.20.0.0/16 . tcp . 443 }}",
        "add element inet vpnd-site {sources} {{ 10.9.9.9 : accept }}",
        "delete element inet vpnd-site {sources} {{ 10.8.0.2 }}",
        "insert rule inet vpnd-site groups accept",
        "flush chain inet vpnd-site refuse",
        "add counter inet vpnd-site more",
        "add map inet vpnd-site m {{ type ipv4_addr : verdict; elements = {{ 10.1.1.1 : jump refuse }}; }}",
        "add chain inet vpnd-site more {{ type filter hook forward priority 0; policy drop; }}",
        "chain inet vpnd-site forward {{ policy drop; }}",
        "flush ruleset",
    ],
)
def test_sets_and_chains_bent_by_hand_are_put_right_and_the_monitor_tells_of_it(
    host: Host, tampering: str
) -> None:
    plan = judged({"web": (may("10.20.0.0/16", "tcp", 443),)}, {"10.8.0.2/32": ("web",)})
    settle(host, plan)
    before = sh("nft -s list ruleset")
    services, sources = re.findall(r"\t(?:set|map) (\S*(?:services|sources)-ipv4\S*)", before)
    monitor = TableMonitor("site")
    sh("nft -f -", stdin=tampering.format(services=services, sources=sources) + "\n")
    assert monitor.read()
    assert [change.step for change in host.difference(plan)] == ["nftables"]
    settle(host, plan)
    assert sorted(sh("nft -s list ruleset").splitlines()) == sorted(before.splitlines())
    monitor.close()


@in_namespace
def test_the_monitor_is_silent_about_the_tables_of_others(host: Host) -> None:
    settle(host, EVERYTHING)
    monitor = TableMonitor("site")
    sh("nft add table inet vpnd-site2; nft add table inet other; nft add chain inet other c")
    assert not monitor.read()
    sh("nft delete table inet vpnd-site")
    assert monitor.read()
    assert not monitor.read()
    monitor.close()


@in_namespace
def test_news_that_the_kernel_dropped_count_as_a_change(host: Host) -> None:
    monitor = TableMonitor("site")
    rules = "".join(f"add rule inet other c ip saddr 10.0.0.{n % 250} drop\n" for n in range(9000))
    sh("nft -f -", stdin=f"add table inet other\nadd chain inet other c\n{rules}")
    assert monitor.read()
    monitor.close()


@in_namespace
def test_the_rest_of_the_machines_rules_stay_as_they_are(host: Host) -> None:
    sh("nft add table inet filter; nft add chain inet filter f '{ type filter hook forward priority 0; }'")
    sh("nft add rule inet filter f counter drop; nft add table inet vpnd-other")
    before = machine()
    settle(host, EVERYTHING)
    settle(host, judged({"web": ()}, {}))
    host.remove("site")
    assert machine() == before
