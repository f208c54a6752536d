"""Every kind of mistake, in the words the operator reads."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.config.site import BERLIN, LYON, PEER, Site, key_text
from vpnd.config import load
from vpnd.config.names import SECTION_KEYS
from vpnd.errors import ConfigError

TEN_MISTAKES = f"""\
[interface]
name = "vpn-a-name-too-long"
type = "tunnel"
adresses = ["10.255.0.1/30"]
mtu = 1400

[local]
private_key = "{key_text(bytes(range(32)))}"
listen = [
    "0.0.0.0:5180",
    "vpn.example.net:5180",
]

[peer.berlin]
public_key = "{key_text(bytes(31))}"
endpoint = "2001:db8::1:5180"
networks = ["10.20.0.1/16"]
keepalive = "25"

[rooting]
forward = true
"""


def test_all_ten_mistakes_of_a_file_are_told_at_once_in_reading_order(site: Site) -> None:
    assert (
        "\n".join(site.mistakes(TEN_MISTAKES))
        == """\
site.toml:2: interface.name: "vpn-a-name-too-long" has 19 bytes, a link's name at most 15
site.toml:3: interface.type: "tunnel" is none of "tun", "tap"
site.toml:4: interface.adresses: unknown; did you mean "addresses"?
site.toml:8: local.private_key: looks like the key itself; keep that in a file of mode 0600 and name the file here
site.toml:11: local.listen: "vpn.example.net:5180" is no literal address, such as 0.0.0.0:5180 or [::]:5180
site.toml:15: peer.berlin.public_key: 31 bytes after base64, a key has 32
site.toml:16: peer.berlin.endpoint: "2001:db8::1:5180": an IPv6 address stands in brackets, as in [2001:db8::1]:5180
site.toml:17: peer.berlin.networks: "10.20.0.1/16" has bits set beyond its prefix; the network is "10.20.0.0/16"
site.toml:18: peer.berlin.keepalive: needs an integer, not the string "25"
site.toml:20: rooting: unknown; did you mean "routing"?"""  # noqa: E501
    )


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ('name = "a/b"', 'name: "a/b" holds "/", a link\'s name must not'),
        ('name = "a b"', 'name: "a b" holds " ", a link\'s name must not'),
        ('name = "vpn%d"', 'name: "vpn%d" holds "%", a link\'s name must not'),
        ('name = "vpn\\u0007"', 'name: "vpn\\u0007" holds "\\u0007", a link\'s name must not'),
        ('name = "."', 'name: "." is a name the kernel keeps for itself'),
        ('name = ".."', 'name: ".." is a name the kernel keeps for itself'),
        ('name = "all"', 'name: "all" is a name the kernel keeps for itself'),
        ('name = ""', "name: empty; a link needs a name"),
        ('name = "ääääääää"', 'name: "ääääääää" has 16 bytes, a link\'s name at most 15'),
        ("name = 5", "name: needs a string, not the integer 5"),
        ("type = 1.5", "type: needs a string, not the float 1.5"),
        (
            'addresses = "10.0.0.1/8"',
            'addresses: needs an array of strings, not the string "10.0.0.1/8"; write ["10.0.0.1/8"]',
        ),
        ("addresses = {}", "addresses: needs an array of strings, not a table"),
        ("addresses = [[]]", "addresses: needs strings, not an array"),
        (
            'addresses = ["ten"]',
            'addresses: "ten" is not an address with a prefix, such as 10.255.0.1/30 or fd00::1/64',
        ),
        (
            'addresses = ["10.0.0.1/33"]',
            'addresses: "10.0.0.1/33" is not an address with a prefix, such as 10.255.0.1/30 or fd00::1/64',
        ),
        (
            'addresses = ["10.0.0.1/255.0.0.0"]',
            'addresses: "10.0.0.1/255.0.0.0" '
            "is not an address with a prefix, such as 10.255.0.1/30 or fd00::1/64",
        ),
        (
            'addresses = ["fe80::1%eth0/64"]',
            'addresses: "fe80::1%eth0/64" '
            "is not an address with a prefix, such as 10.255.0.1/30 or fd00::1/64",
        ),
        ('addresses = ["0.0.0.0/0"]', 'addresses: "0.0.0.0/0" cannot be the address of a link'),
        ('addresses = ["224.0.0.5/32"]', 'addresses: "224.0.0.5/32" cannot be the address of a link'),
        ('addresses = ["::1"]', 'addresses: "::1" cannot be the address of a link'),
        (
            'addresses = ["10.0.0.0/24"]',
            'addresses: "10.0.0.0/24" is the network itself; take an address inside it',
        ),
        (
            'addresses = ["10.0.0.255/24"]',
            'addresses: "10.0.0.255/24" is the network\'s broadcast address; take one before it',
        ),
        (
            'addresses = ["10.0.0.1/24", "10.0.0.1/30"]',
            'addresses: "10.0.0.1/30" stands twice, first at site.toml:2',
        ),
        (
            'addresses = "assigned"',
            'addresses: "assigned", but by no peer; set accept = ["address"] for the one that gives them',
        ),
        ("mtu = 575", "mtu: 575 is out of range; it may be 576 to 65535"),
        ("mtu = 65536", "mtu: 65536 is out of range; it may be 576 to 65535"),
        ("mtu = true", "mtu: needs an integer, not the boolean true"),
        ("mtu = 1979-05-27", "mtu: needs an integer, not the date or time 1979-05-27"),
        ("mtu = 0x" + "f" * 50, "mtu: an integer of 200 bits is out of range; it may be 576 to 65535"),
        ('mtu = "auto"', 'mtu: "auto" is not yet supported'),
        ("txqueuelen = 0", "txqueuelen: 0 is out of range; it may be 1 to 4294967295"),
        ('mac = "02:76:70:6e:00:01"', 'mac: only a link of type "tap" has a MAC address'),
        ('bridge = "br0"', 'bridge: only a link of type "tap" can be in a bridge'),
        ("listen = []", "listen: unknown here; it is a key of [local]"),
        ("keepalive = 1", "keepalive: unknown here; it is a key of [peer.NAME]"),
        ("domains = 1", "domains: unknown here; it is a key of [dns]"),
        (
            "colour = 1",
            "colour: unknown; known here: name, type, addresses, mtu, txqueuelen, mac, bridge",
        ),
        ("Address = []", 'Address: unknown; did you mean "addresses"?'),
        (
            '"a \\"key\\"\\n" = 1',
            '"a \\"key\\"\\u000A": unknown; known here: name, type, addresses, mtu, txqueuelen, mac, bridge',
        ),
        (
            '"\\U000E0001" = 1',
            '"\\U000E0001": unknown; known here: name, type, addresses, mtu, txqueuelen, mac, bridge',
        ),
    ],
)
def test_a_wrong_key_of_interface_is_explained(site: Site, line: str, mistake: str) -> None:
    assert site.mistakes(f"[interface]\n{line}\n") == [f"site.toml:2: interface.{mistake}"]


@pytest.mark.parametrize(
    ("mac", "mistake"),
    [
        ("02-76-70-6e-00-01", "is not a MAC address; write it as 02:76:70:6e:00:01"),
        ("03:76:70:6e:00:01", "is a multicast address; a link needs a unicast one"),
        ("00:76:70:6e:00:01", "belongs to a manufacturer; a locally administered one starts with 02"),
    ],
)
def test_a_wrong_mac_is_explained(site: Site, mac: str, mistake: str) -> None:
    text = f'[interface]\ntype = "tap"\nmac = "{mac}"\n'
    assert site.mistakes(text) == [f'site.toml:3: interface.mac: "{mac}" {mistake}']


def test_a_wrong_type_of_link_is_not_told_again_by_its_mac(site: Site) -> None:
    text = '[interface]\ntype = "tapp"\nmac = "02:76:70:6e:00:01"\n'
    assert site.mistakes(text) == ['site.toml:2: interface.type: "tapp" is none of "tun", "tap"']


def test_a_tap_link_takes_fewer_bytes_than_a_tun_link(site: Site) -> None:
    assert site.mistakes('[interface]\ntype = "tap"\nmtu = 65522\n') == [
        "site.toml:3: interface.mtu: 65522 is out of range; it may be 576 to 65521"
    ]


def test_a_default_name_that_is_too_long_is_a_mistake_of_the_section(site: Site) -> None:
    (site.folder / "a-long-instance.toml").write_text("")
    with pytest.raises(ConfigError) as raised:
        load("a-long-instance", Path("a-long-instance.toml"))
    assert str(raised.value) == (
        'a-long-instance.toml: interface.name: the default "vpn-a-long-instance" has 19 bytes, '
        "a link's name at most 15; set another"
    )


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ('private_key = "keys/site.key"', "private_key: not an absolute path of a key file"),
        ('private_key = "/a\\u0000b"', "private_key: the path holds control characters"),
        ("private_key = 5", "private_key: needs the path of a file in quotes"),
        ('listen = ["5180"]', 'listen: "5180" has no port; write host:port, or [address]:port for IPv6'),
        ('listen = ["0.0.0.0:0"]', 'listen: "0" is not a port; ports are 1 to 65535'),
        ('listen = ["224.0.0.1:5"]', 'listen: "224.0.0.1:5" is a multicast address'),
        (
            'listen = ["[fe80::1]:5180"]',
            'listen: "[fe80::1]:5180" needs the number of its link, as in [fe80::1%2]:5180',
        ),
        ('listen = ["a\\u001b:1"]', 'listen: "a\\u001B:1" is neither an address nor a host name'),
        (
            'listen = ["[::]:5180", "[::0]:5180"]',
            'listen: "[::0]:5180" stands twice, first at site.toml:2',
        ),
        ('listen = ["0.0.0.0:5", "10.0.0.1:5"]', "listen: 10.0.0.1:5 is covered by 0.0.0.0:5 already"),
        (
            "listen = [" + ", ".join(f'"10.0.0.{n}:1"' for n in range(1, 10)) + "]",
            "listen: 9 endpoints; at most 8",
        ),
        ("fwmark = -1", "fwmark: -1 is out of range; it may be 0 to 4294967295"),
        ("fwmark = 0x100000000", "fwmark: 4294967296 is out of range; it may be 0 to 4294967295"),
        ("workers = 0", "workers: 0 is out of range; it may be 1 to 32"),
        ("workers = 33", "workers: 33 is out of range; it may be 1 to 32"),
        ("workers = true", "workers: needs an integer, not the boolean true"),
        ('workers = "all"', 'workers: "all" is neither "auto" nor an integer'),
        ('padding = "32"', 'padding: "32" is none of "none", "16", "bucket", "full"'),
        ("padding = 16", "padding: needs a string, not the integer 16"),
        ("key_overlap = 0", "key_overlap: 0 is out of range; it may be 1 to 2592000"),
        ("key_overlap = 2592001", "key_overlap: 2592001 is out of range; it may be 1 to 2592000"),
        ('previous_private_key = "site.key"', "previous_private_key: not an absolute path of a key file"),
        ('offload = "on"', 'offload: "on" is none of "auto", "off"'),
        (
            'offload = ["tun-vnet", "udp"]',
            'offload: "udp" is none of "udp-gso", "udp-gro", "tun-vnet"',
        ),
        (
            'offload = ["udp-gso", "udp-gso"]',
            'offload: "udp-gso" stands twice, first at site.toml:2',
        ),
        ("offload = [4]", "offload: needs strings, not the integer 4"),
        ("ListenPort = 5180", 'ListenPort: unknown; did you mean "listen"?'),
    ],
)
def test_a_wrong_key_of_local_is_explained(site: Site, line: str, mistake: str) -> None:
    assert site.mistakes(f"[local]\n{line}\n") == [f"site.toml:2: local.{mistake}"]


def test_a_packet_mover_serves_so_many_sockets(site: Site) -> None:
    listen = "listen = [" + ", ".join(f'"10.0.0.{n}:1"' for n in range(1, 4)) + "]"
    assert site.mistakes(f"[local]\n{listen}\nworkers = 21\n") == []
    assert site.mistakes(f"[local]\n{listen}\nworkers = 22\n") == [
        "site.toml:3: local.workers: 22 is too many for 3 endpoints; 21 at most"
    ]


def test_workers_are_not_counted_for_endpoints_that_are_mistakes(site: Site) -> None:
    listen = "listen = [" + ", ".join(f'"10.0.0.{n}:1"' for n in range(1, 10)) + "]"
    assert site.mistakes(f"[local]\n{listen}\nworkers = 32\n") == [
        "site.toml:2: local.listen: 9 endpoints; at most 8"
    ]


def test_wildcards_of_both_families_may_share_a_port(site: Site) -> None:
    assert site.mistakes('[local]\nlisten = ["0.0.0.0:5180", "[::]:5180", "0.0.0.0:5181"]\n') == []


@pytest.mark.parametrize("name", ["private_key", "knock"])
@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(bytes(range(32))).decode(),
        base64.b64encode(bytes(range(32))).decode().rstrip("="),
        "/" + base64.b64encode(b"\xff" * 32).decode()[1:],
        "/" + base64.b64encode(bytes(range(32))).decode()[1:].rstrip("="),
        bytes(range(32)).hex(),
        " " + base64.b64encode(bytes(range(32))).decode() + "\\n",
        base64.urlsafe_b64encode(b"\xfb" * 32).decode(),
    ],
)
def test_a_key_in_the_place_of_a_path_is_refused_and_not_repeated(site: Site, name: str, text: str) -> None:
    assert site.mistakes(f'[local]\n{name} = "{text}"\n') == [
        f"site.toml:2: local.{name}: looks like the key itself; "
        "keep that in a file of mode 0600 and name the file here"
    ]


def test_a_path_as_long_as_a_key_is_still_a_path(site: Site) -> None:
    path = "/etc/vpnd/keys/a-site-with-a-name-this-long"
    assert len(path) == 43
    assert site.mistakes(f'[local]\nprivate_key = "{path}"\n') == []


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        (
            'table = "mane"',
            'table: "mane" is none of "default", "main", "local"; a number stands without quotes',
        ),
        ("table = 0", "table: 0 is out of range; it may be 1 to 4294967295"),
        ("table = []", "table: needs an integer, not an array"),
        ("metric = -1", "metric: -1 is out of range; it may be 0 to 4294967295"),
        (
            "full_tunnel = true",
            "full_tunnel: no peer leads everywhere: "
            "one needs 0.0.0.0/0 or ::/0 in its networks, and route = true",
        ),
        ("full_tunnel = 1", "full_tunnel: needs true or false, not the integer 1"),
        ("allow_lan = false", "allow_lan: false needs full_tunnel = true"),
        ("kill_switch = true", "kill_switch: true needs full_tunnel = true"),
        ("kill_switch = 1", "kill_switch: needs true or false, not the integer 1"),
        ('forward = "yes"', 'forward: needs true or false, not the string "yes"'),
        (
            'masquerade = ["10.8.0.1/20"]',
            'masquerade: "10.8.0.1/20" has bits set beyond its prefix; the network is "10.8.0.0/20"',
        ),
        ("NAT = true", 'NAT: unknown; did you mean "masquerade"?'),
    ],
)
def test_a_wrong_key_of_routing_is_explained(site: Site, line: str, mistake: str) -> None:
    assert site.mistakes(f"[routing]\n{line}\n") == [f"site.toml:2: routing.{mistake}"]


@pytest.mark.parametrize(
    ("key", "value", "mistake"),
    [
        ("public_key", '"AAAA*"', "public_key: not base64: Only base64 data is allowed"),
        ("public_key", '"é"', None),
        (
            "public_key",
            f'"{key_text(bytes(32))}"',
            "public_key: a point of low order: anybody could compute the secrets shared with it",
        ),
        (
            "public_key",
            f'"{key_text(bytes([1]) + bytes(31))}"',
            "public_key: a point of low order: anybody could compute the secrets shared with it",
        ),
        ("preshared_key", '"psk"', "preshared_key: not an absolute path of a key file"),
        (
            "endpoint",
            '"berlin"',
            'endpoint: "berlin" has no port; write host:port, or [address]:port for IPv6',
        ),
        ("endpoint", '"0.0.0.0:1"', 'endpoint: "0.0.0.0:1" is no address of a single host'),
        ("endpoint", '"[ff02::1]:1"', 'endpoint: "[ff02::1]:1" is no address of a single host'),
        ("endpoint", '"255.255.255.255:1"', 'endpoint: "255.255.255.255:1" is no address of a single host'),
        (
            "endpoint",
            '"[fe80::1]:1"',
            'endpoint: "[fe80::1]:1" needs the name of its link, as in [fe80::1%eth0]:5180',
        ),
        (
            "networks",
            '["10.0.0.0/33"]',
            'networks: "10.0.0.0/33" is not a network, such as 10.20.0.0/16 or fd00:20::/48',
        ),
        ("networks", '["lan"]', 'networks: "lan" is not a network, such as 10.20.0.0/16 or fd00:20::/48'),
        (
            "networks",
            '["10.0.0.0/8", "10.0.0.0/8"]',
            'networks: "10.0.0.0/8" stands twice, first at site.toml:1',
        ),
        (
            "networks",
            "[]",
            "networks: none: no packet could go to this peer or come from it; add its address in the tunnel",
        ),
        ("route", "0", "route: needs true or false, not the integer 0"),
        ("keepalive", "65536", "keepalive: 65536 is out of range; it may be 0 to 65535"),
        ("accept", '["dhcp"]', 'accept: "dhcp" is none of "address", "routes", "dns", "mtu"'),
        ("enabled", '"no"', 'enabled: needs true or false, not the string "no"'),
        ("AllowedIPs", "[]", 'AllowedIPs: unknown; did you mean "networks"?'),
        ("PublicKey", '""', 'PublicKey: unknown; did you mean "public_key"?'),
        ("listen", "[]", "listen: unknown here; it is a key of [local]"),
        ("mtu", "1", "mtu: unknown here; it is a key of [interface]"),
    ],
)
def test_a_wrong_key_of_a_peer_is_explained(site: Site, key: str, value: str, mistake: str | None) -> None:
    keys = {"public_key": f'"{BERLIN}"', "endpoint": '"b.example:1"', "networks": '["10.1.0.0/16"]'}
    keys[key] = value
    peer = ", ".join(f"{name} = {text}" for name, text in keys.items())
    [found] = site.mistakes(f"peer.berlin = {{ {peer} }}\n")
    if mistake is None:
        assert found.startswith("site.toml:1: peer.berlin.public_key: not base64: ")
    else:
        assert found == f"site.toml:1: peer.berlin.{mistake}"


def test_a_peer_without_public_key_is_a_mistake_of_its_header(site: Site) -> None:
    assert site.mistakes('\n[peer.berlin]\nendpoint = "b:1"\nnetworks = ["10.0.0.0/8"]\n') == [
        "site.toml:2: peer.berlin.public_key: missing; a peer is known by its public key"
    ]


def test_keys_of_a_peer_without_a_name_are_explained(site: Site) -> None:
    assert site.mistakes(f'[peer]\npublic_key = "{BERLIN}"\n') == [
        "site.toml:2: peer.public_key: a peer has a name; write its keys under [peer.NAME]"
    ]


@pytest.mark.parametrize("name", ["-x", ".x", "a b", "é", "x" * 64])
def test_a_name_that_cannot_be_a_peers_is_refused(site: Site, name: str) -> None:
    [mistake] = site.mistakes(PEER.replace("berlin", f'"{name}"'))
    assert mistake.endswith(
        f'"{name[:59] + "…" if len(name) > 60 else name}" cannot name a peer; '
        'take up to 63 letters, digits, ".", "_" or "-", a letter or digit first'
    )


def test_the_longest_name_of_a_peer_is_accepted(site: Site) -> None:
    name = "0" + "x._-" * 15 + "xx"
    assert len(name) == 63
    assert site.load(PEER.replace("berlin", f'"{name}"')).peers[0].name == name


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("interface = 5", "interface: needs a table, not the integer 5"),
        ("peer = []", "peer: needs a table, not an array"),
        ("peer.berlin = 5", "peer.berlin: needs a table, not the integer 5"),
        ("[[peer.berlin]]", "peer.berlin: needs a table, not an array"),
        ("peers.berlin = {}", 'peers: unknown; did you mean "peer"?'),
        ("mtu = 1400", "mtu: unknown here; it is a key of [interface]"),
        ("[xyz]", "xyz: unknown; known here: interface, local, peer, routing, dns, pool, push, groups"),
        ("dns = 5", "dns: needs a table, not the integer 5"),
        ("[pool]", "pool: gives nothing; set ipv4, ipv6 or both"),
        ("[push]\nmtu = 1400", "push: nobody is told: it is for peers with addresses of [pool]; set that"),
    ],
)
def test_a_wrong_section_is_explained(site: Site, text: str, mistake: str) -> None:
    assert site.mistakes(text) == [f"site.toml:1: {mistake}"]


def test_a_section_of_a_wrong_type_is_not_told_again_by_the_peers(site: Site) -> None:
    text = f'local = 5\ninterface = 6\n[peer.berlin]\npublic_key = "{BERLIN}"\n'
    assert site.mistakes(text) == [
        "site.toml:1: local: needs a table, not the integer 5",
        "site.toml:2: interface: needs a table, not the integer 6",
    ]


def test_unknown_keys_of_later_sections_are_told_too(site: Site) -> None:
    text = "[dns]\nserver = []\n[pool]\nip4 = 1\n[push]\nroute = []\ndns = { domain = [] }\n"
    assert site.mistakes(text) == [
        'site.toml:2: dns.server: unknown; did you mean "servers"?',
        'site.toml:4: pool.ip4: unknown; did you mean "ipv4"?',
        'site.toml:6: push.route: unknown; did you mean "routes"?',
        'site.toml:7: push.dns.domain: unknown; did you mean "domains"?',
    ]


def test_items_of_an_array_are_told_on_their_own_lines(site: Site) -> None:
    text = '[routing]\nmasquerade = [\n  "10.0.0.0/8",\n  7,\n  "ten",\n]\n'
    assert site.mistakes(text) == [
        "site.toml:4: routing.masquerade: needs strings, not the integer 7",
        'site.toml:5: routing.masquerade: "ten" is not a network, such as 10.20.0.0/16 or fd00:20::/48',
    ]


def test_a_peers_own_file_must_not_have_the_header(site: Site) -> None:
    assert site.mistakes("", berlin=PEER) == [
        "site.d/berlin.toml:2: peer: in a peer's own file its keys stand at the top, without [peer.NAME]"
    ]


def test_a_peers_own_file_must_have_a_peers_name(site: Site) -> None:
    [mistake] = site.mistakes("", **{"a b": PEER.replace("[peer.berlin]", "")})
    assert mistake.startswith('site.d/a b.toml: "a b" cannot name a peer; ')


def test_mistakes_of_peer_files_follow_those_of_the_main_file_in_the_order_of_names(site: Site) -> None:
    found = site.mistakes(f"{PEER}\n[interface]\nmtu = 1", b=f'public_key = "{LYON}"\nx = 1', a="x = 2")
    known = ", ".join(SECTION_KEYS["peer"])
    lonely = "can never connect: it has no endpoint, and [local] listens on no port; set one of them"
    bare = "none: no packet could go to this peer or come from it; add its address in the tunnel"
    assert found == [
        "site.toml:8: interface.mtu: 1 is out of range; it may be 576 to 65535",
        "site.d/a.toml: public_key: missing; a peer is known by its public key",
        f"site.d/a.toml: {lonely}",
        f"site.d/a.toml: networks: {bare}",
        f"site.d/a.toml:1: x: unknown; known here: {known}",
        f"site.d/b.toml: {lonely}",
        f"site.d/b.toml: networks: {bare}",
        f"site.d/b.toml:2: x: unknown; known here: {known}",
    ]
