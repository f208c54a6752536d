"""[pool], [push] and "assigned": what a hub gives and who takes it, and every mistake in it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from tests.config.site import BERLIN, LYON, OSLO, Site
from vpnd.config import (
    DnsConfig,
    PoolConfig,
    PushConfig,
    describe,
    fixed_address,
    is_assigned,
    is_inside,
    kept_out,
)

LISTEN = '[local]\nlisten = ["0.0.0.0:5180"]\n'
POOL = '[pool]\nipv4 = "10.8.0.0/29"\nipv6 = "fd00:8::/64"\n'
PUSH = """\
[push]
routes = ["10.0.0.0/8"]
dns = { servers = ["10.8.0.1", "fd00:8::1"], domains = ["~Corp.example.", "~."] }
mtu = 1400
"""


def peer(name: str, key: str, networks: str = "") -> str:
    return f'[peer.{name}]\npublic_key = "{key}"\n' + (f"networks = [{networks}]\n" if networks else "")


HUB = LISTEN + POOL + peer("berlin", BERLIN)


def test_pool_and_push_arrive(site: Site) -> None:
    found = site.load(HUB + PUSH)
    assert found.pool == PoolConfig(ip_network("10.8.0.0/29"), ip_network("fd00:8::/64"))
    assert found.push == PushConfig(
        (ip_network("10.0.0.0/8"),),
        DnsConfig((ip_address("10.8.0.1"), ip_address("fd00:8::1")), ("~corp.example", "~.")),
        1400,
    )
    assert dict(describe(found)).items() >= {
        ("pool.ipv4", '"10.8.0.0/29"'),
        ("push.routes", '["10.0.0.0/8"]'),
        ("push.dns.servers", '["10.8.0.1", "fd00:8::1"]'),
        ("push.dns.domains", '["~corp.example", "~."]'),
        ("push.mtu", "1400"),
    }


def test_name_servers_of_our_own_are_read(site: Site) -> None:
    found = site.load('[dns]\nservers = ["10.8.0.1"]\ndomains = ["~corp.example"]\n')
    assert found.dns == DnsConfig((ip_address("10.8.0.1"),), ("~corp.example",))
    assert ("dns.domains", '["~corp.example"]') in describe(found)
    assert site.load("").dns == DnsConfig()


def test_one_family_is_enough_and_nothing_need_be_pushed(site: Site) -> None:
    found = site.load(LISTEN + '[pool]\nipv6 = "fd00:8::/64"\n' + peer("berlin", BERLIN))
    assert found.pool is not None
    assert found.pool.networks == (ip_network("fd00:8::/64"),)
    assert found.push == PushConfig()
    assert ("push.mtu", "(that of our link)") in describe(found)


def test_addresses_may_be_a_peers_to_give(site: Site) -> None:
    text = '[interface]\naddresses = "assigned"\n' + LISTEN
    text += peer("berlin", BERLIN, '"10.8.0.0/20"') + 'accept = ["address"]\n'
    found = site.load(text)
    assert found.interface.is_assigned
    assert found.interface.addresses == ()
    assert ("interface.addresses", '"assigned"') in describe(found)


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ('ipv4 = "fd00::/64"', ['3: pool.ipv4: "fd00::/64" is a network of IPv6']),
        ('ipv6 = "10.0.0.0/8"', ['3: pool.ipv6: "10.0.0.0/8" is a network of IPv4']),
        ('ipv4 = "224.0.0.0/8"', ['3: pool.ipv4: "224.0.0.0/8" has no addresses to give']),
        (
            'ipv4 = "10.8.0.1/20"',
            ['3: pool.ipv4: "10.8.0.1/20" has bits set beyond its prefix; the network is "10.8.0.0/20"'],
        ),
        ('ipv4 = "0.0.0.0/0"', ['3: pool.ipv4: "0.0.0.0/0" is too wide; a pool has a prefix of 8 or more']),
        ('ipv6 = "fc00::/7"', ['3: pool.ipv6: "fc00::/7" is too wide; a pool has a prefix of 32 or more']),
        ("ipv4 = 5", ["3: pool.ipv4: needs a string, not the integer 5"]),
    ],
)
def test_a_wrong_pool_is_explained(site: Site, text: str, mistakes: list[str]) -> None:
    found = site.mistakes(f"[pool]\n\n{text}\n" + PUSH.replace("mtu = 1400\n", ""))
    assert found == [f"site.toml:{mistake}" for mistake in mistakes]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("mtu = 500", "mtu: 500 is out of range; it may be 576 to 65535"),
        ("mtu = 1500", "mtu: 1500 is more than our own link carries, 1420"),
        ("mtu = 1000", "mtu: 1000 is too small for IPv6 (fd00:8::/64); at least 1280"),
        ('routes = ["10.0.0.1/8"]', None),
        ('dns = { servers = ["ns"] }', 'dns.servers: "ns" is not an address, such as 10.8.0.1 or fd00::1'),
        ('dns = { servers = ["0.0.0.0"] }', 'dns.servers: "0.0.0.0" cannot be a name server\'s address'),
        (
            'dns = { servers = ["10.8.0.1"], domains = ["a b"] }',
            'dns.domains: "a b" is no domain, such as "corp.example" to search in, '
            '"~corp.example" to route by, or "~." for all names',
        ),
        ('dns = { domains = ["~."] }', "dns.domains: no servers to ask for them; set servers"),
        (
            f"dns = {{ servers = {[f'10.8.0.{n}' for n in range(9)]} }}".replace("'", '"'),
            "dns.servers: 9 of them; at most 8",
        ),
        (
            f"routes = {[f'10.{n}.0.0/16' for n in range(150)]}".replace("'", '"'),
            "routes: with dns they take 1050 bytes of a message, at most 994 fit; push wider ones",
        ),
    ],
)
def test_a_wrong_push_is_explained(site: Site, text: str, mistake: str | None) -> None:
    (found,) = site.mistakes(HUB + "[push]\n" + text + "\n")
    if mistake is not None:
        assert found.partition("push.")[2] == mistake


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            peer("berlin", BERLIN, '"10.8.0.4/31"') + LISTEN + POOL,
            "site.toml:3: peer.berlin.networks: "
            "10.8.0.4/31 lies in pool.ipv4 (10.8.0.0/29), which is given to others",
        ),
        (
            POOL.replace("/29", "/30") + LISTEN + peer("a", BERLIN) + peer("b", LYON) + peer("c", OSLO),
            "site.toml:2: pool.ipv4: 10.8.0.0/30 has 2 addresses to give, 3 are needed; take a wider one",
        ),
        (
            '[interface]\naddresses = ["10.8.0.1/30"]\n' + POOL.replace("/29", "/30") + LISTEN
            + peer("a", BERLIN) + peer("b", LYON, '"10.8.0.2"'),
            "site.toml:4: pool.ipv4: 10.8.0.0/30 has 1 addresses to give, 2 are needed; take a wider one",
        ),
        (
            '[interface]\naddresses = "assigned"\n' + HUB,
            'site.toml:2: interface.addresses: '
            '"assigned", but [pool] gives addresses to others; write our own',
        ),
        (
            "[interface]\nmtu = 1000\n" + HUB,
            "site.toml:2: interface.mtu: 1000 is too small for IPv6 (fd00:8::/64); at least 1280",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_explained(site: Site, text: str, mistake: str) -> None:
    assert site.mistakes(text) == [mistake]


def test_a_network_around_the_pool_may_be_a_peers(site: Site) -> None:
    """[E4] Of nested networks the longer wins: those that get addresses keep them."""
    assert site.mistakes(HUB + peer("lyon", LYON, '"10.0.0.0/8"')) == []


def test_a_peer_with_an_address_of_its_own_needs_none_of_the_pool(site: Site) -> None:
    text = (
        POOL.replace("/29", "/30") + LISTEN + peer("a", BERLIN) + peer("b", LYON, '"10.9.0.1", "10.7.0.0/16"')
    )
    config = site.load(text)
    assert config.pool is not None
    a, b = config.peers
    assert [is_assigned(each.networks, config.pool) for each in (a, b)] == [True, False]
    inside = replace(b, networks=(ip_network("10.8.0.2/32"),))
    assert is_assigned(inside.networks, config.pool)
    assert fixed_address(inside, config.pool.networks[0]) == ip_address("10.8.0.2")
    assert fixed_address(b, config.pool.networks[0]) is None


@pytest.mark.parametrize(
    ("network", "out"),
    [
        ("10.8.0.0/30", {"10.8.0.0", "10.8.0.1", "10.8.0.3"}),
        ("10.8.0.0/31", {"10.8.0.1"}),
        ("fd00:8::/126", {"fd00:8::", "fd00:8::1"}),
        ("fd00:8::/127", {"fd00:8::1"}),
    ],
)
def test_a_networks_own_addresses_and_ours_are_kept_out(network: str, out: set[str]) -> None:
    own = (ip_interface("10.8.0.1/30"), ip_interface("fd00:8::1/126"), ip_interface("192.0.2.1/24"))
    assert kept_out(ip_network(network), own) == {ip_address(each) for each in out}


def test_families_are_never_inside_each_other() -> None:
    assert not is_inside(ip_network("10.0.0.0/8"), ip_network("::/0"))
    assert not is_inside(ip_network("::1/128"), ip_network("0.0.0.0/0"))
    assert is_inside(ip_network("fd00::1/128"), ip_network("fd00::/64"))
