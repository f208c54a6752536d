import json
import socket
from pathlib import Path

import pytest

from tests.host.namespace import in_namespace, sh
from tests.host.plans import a_link, a_plan
from vpnd.errors import HostError
from vpnd.host import Host, HostPlan, LinkPlan

LINK = a_link("10.255.0.1/30")


def settle(host: Host, plan: HostPlan) -> None:
    host.apply(plan)
    assert host.difference(plan) == ()
    assert host.apply(plan) == ()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "site")


@in_namespace
def test_masquerade_is_one_table_of_our_own(host: Host) -> None:
    settle(host, a_plan(LINK, masquerade=("10.8.0.0/20", "10.9.0.1/32", "fd00:8::/64", "0.0.0.0/0", "::/0")))
    table = sh("nft list table inet vpnd-site")
    for match in (
        "ip saddr 10.8.0.0/20",
        "ip saddr 10.9.0.1",
        "ip6 saddr fd00:8::/64",
        "meta nfproto ipv4",
        "meta nfproto ipv6",
    ):
        assert f'{match} oifname != "lo" oifname != "vpn-site" masquerade' in table, match
    assert "type nat hook postrouting priority srcnat; policy accept;" in table


@in_namespace
def test_a_changed_plan_replaces_the_table_and_an_empty_one_removes_it(host: Host) -> None:
    sh("nft add table inet vpnd-other; nft add table ip vpnd-site")
    settle(host, a_plan(LINK, masquerade=("10.8.0.0/20", "fd00:8::/64")))
    settle(host, a_plan(LINK, masquerade=("10.9.0.0/20",)))
    assert "10.8.0.0" not in sh("nft list table inet vpnd-site")
    settle(host, a_plan(LINK))
    assert sh("nft list tables").split("\n")[:-1] == ["table inet vpnd-other", "table ip vpnd-site"]


@in_namespace
@pytest.mark.parametrize(
    "tampering",
    [
        "add rule inet vpnd-site hide-sources ip saddr 10.1.0.0/16 masquerade",
        "add chain inet vpnd-site more",
        "add chain inet vpnd-site more { type filter hook forward priority 0; policy drop; }",
        "flush table inet vpnd-site",
        "delete table inet vpnd-site",
        "add set inet vpnd-site s { type ipv4_addr; }",
    ],
)
def test_a_table_bent_by_hand_is_put_right(host: Host, tampering: str) -> None:
    plan = a_plan(LINK, masquerade=("10.8.0.0/20",))
    settle(host, plan)
    before = sh("nft list ruleset")
    sh("nft -f -", stdin=tampering + "\n")
    assert [change.step for change in host.difference(plan)] == ["nftables"]
    settle(host, plan)
    assert sh("nft list ruleset") == before


@in_namespace
def test_a_missing_nft_is_named_where_it_is_needed_and_no_matter_where_it_is_not(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vpnd.host.nft._PLACES", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    host.apply(a_plan(LINK))
    with pytest.raises(HostError, match=r"nft is not installed.*package nftables"):
        host.apply(a_plan(LINK, masquerade=("10.8.0.0/20",)))
    host.remove("site")


@in_namespace
def test_what_nft_says_reaches_the_error(host: Host) -> None:
    sh("mount -t tmpfs none /tmp && printf '#!/bin/sh\\necho no such luck >&2; exit 1\\n' > /tmp/nft")
    sh("chmod +x /tmp/nft && mount --bind /tmp/nft $(command -v nft)")
    with pytest.raises(HostError, match="nftables: list table inet vpnd-site: nft says: no such luck"):
        host.apply(a_plan(LINK, masquerade=("10.8.0.0/20",)))


@in_namespace
@pytest.mark.parametrize(
    ("instance", "link", "said"),
    [
        ("si te", LINK, "nft takes letters, digits"),
        ("x; flush ruleset", LINK, "nft takes letters, digits"),
        ("site", a_link(name='a"b'), "nft cannot match a link named"),
        ("site", a_link(name="vpn*"), "nft cannot match a link named"),
    ],
)
def test_names_that_nft_would_read_otherwise_are_refused(
    host: Host, instance: str, link: LinkPlan, said: str
) -> None:
    with pytest.raises(HostError, match=said):
        host.apply(a_plan(link, masquerade=("10.8.0.0/20",), instance=instance))


@in_namespace
def test_a_hidden_source_leaves_with_the_links_address_and_our_own_does_not_change(host: Host) -> None:
    """The far end of a veth sees the outgoing address; a packet to ourselves keeps its source."""
    sh(
        "ip link add v0 type veth peer name v1 && ip addr add 192.0.2.1/24 dev v0"
        " && ip link set v0 up && ip link set v1 up && ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev v0"
    )
    host.apply(a_plan(a_link("10.8.0.1/24"), masquerade=("10.8.0.0/24",)))
    sh(
        "nft -f -",
        stdin="""
        table netdev seen {
            chain c {
                type filter hook ingress device v1 priority 0;
                ip saddr 192.0.2.1 udp dport 9 counter comment "hidden"
                ip saddr 10.8.0.1 udp dport 9 counter comment "bare"
            }
        }
        table inet own {
            chain c {
                type filter hook input priority 0;
                iifname "lo" ip saddr 10.8.0.1 udp dport 9 counter comment "own"
            }
        }
        """,
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("10.8.0.1", 0))
        sender.sendto(b"x", ("192.0.2.9", 9))
        sender.sendto(b"x", ("10.8.0.1", 9))
    rules = json.loads(sh("nft -j list ruleset"))["nftables"]
    counts = {
        entry["rule"]["comment"]: next(
            part["counter"]["packets"] for part in entry["rule"]["expr"] if "counter" in part
        )
        for entry in rules
        if "rule" in entry and entry["rule"]["table"] in ("seen", "own")
    }
    assert counts == {"hidden": 1, "bare": 0, "own": 1}
