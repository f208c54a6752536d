"""What a configuration without mistakes gives."""

from __future__ import annotations

import re
import tomllib
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from tests.config.site import BERLIN, LYON, OSLO, PEER, Site
from vpnd.config import (
    Config,
    InterfaceConfig,
    LocalConfig,
    PeerConfig,
    Place,
    RoutingConfig,
    describe,
    load,
)
from vpnd.config.names import SECTION_KEYS
from vpnd.endpoint import Endpoint, EndpointName
from vpnd.keys import PublicKey

EXAMPLES = sorted((Path(__file__).parents[2] / "etc" / "vpnd").glob("*.toml"))

EVERY_KEY = f"""\
[interface]
name = "vpn0"
type = "tap"
addresses = ["10.255.0.1/30", "fd00:ff::1"]
mtu = 1400
txqueuelen = 500
mac = "02:76:70:6E:00:01"

[local]
private_key = "/k/own.key"
previous_private_key = "/k/before.key"
key_overlap = 3600
listen = ["0.0.0.0:5180", "[fe80::1%2]:5180", "[::ffff:192.0.2.1]:5181"]
fwmark = 0x5180
workers = 1
knock = "/k/site.knock"
padding = "16"
offload = "off"

[peer.berlin]
public_key = "{BERLIN}"
previous_public_key = "{OSLO}"
preshared_key = "/k/berlin.psk"
endpoint = "[fe80::2%eth0]:5180"
networks = ["10.20.0.0/16", "10.255.0.2"]
route = false
keepalive = 25
accept = ["mtu", "address"]
enabled = false
macs = ["00:11:22:33:44:55", "02:00:00:00:00:0A"]
vlans = ["20-22", "untagged", "1", "4094"]
storm_limit = 0
isolated = true

[peer."ly.on"]
public_key = "{LYON}"
endpoint = "lyon.example.net:5180"

[routing]
table = 5180
metric = 0
full_tunnel = false
allow_lan = true
kill_switch = false
forward = true
masquerade = ["10.8.0.0/20"]
client_to_client = false
"""


def test_every_key_arrives_where_it_belongs(site: Site) -> None:
    assert site.load(EVERY_KEY) == Config(
        instance="site",
        files=(Path("site.toml"),),
        interface=InterfaceConfig(
            name="vpn0",
            type="tap",
            addresses=(ip_interface("10.255.0.1/30"), ip_interface("fd00:ff::1/128")),
            mtu=1400,
            txqueuelen=500,
            mac=bytes.fromhex("0276706e0001"),
        ),
        local=LocalConfig(
            private_key=Path("/k/own.key"),
            listen=(
                Endpoint(ip_address("0.0.0.0"), 5180),
                Endpoint(ip_address("fe80::1"), 5180, 2),
                Endpoint(ip_address("192.0.2.1"), 5181),
            ),
            fwmark=0x5180,
            workers=1,
            knock=Path("/k/site.knock"),
            padding="16",
            offload="off",
            previous_private_key=Path("/k/before.key"),
            key_overlap=3600,
        ),
        peers=(
            PeerConfig(
                name="berlin",
                public_key=PublicKey.from_base64(BERLIN),
                preshared_key=Path("/k/berlin.psk"),
                endpoint=EndpointName("fe80::2%eth0", 5180),
                networks=(ip_network("10.20.0.0/16"), ip_network("10.255.0.2/32")),
                route=False,
                keepalive=25,
                accept=frozenset({"address", "mtu"}),
                enabled=False,
                previous_public_key=PublicKey.from_base64(OSLO),
                macs=(bytes.fromhex("001122334455"), bytes.fromhex("02000000000a")),
                vlans=frozenset({0, 1, 20, 21, 22, 4094}),
                storm_limit=0,
                isolated=True,
            ),
            PeerConfig(
                name="ly.on",
                public_key=PublicKey.from_base64(LYON),
                preshared_key=None,
                endpoint=EndpointName("lyon.example.net", 5180),
                networks=(),
                route=True,
                keepalive=0,
                accept=frozenset(),
                enabled=True,
                previous_public_key=None,
            ),
        ),
        routing=RoutingConfig(
            table=5180,
            metric=0,
            forward=True,
            masquerade=(ip_network("10.8.0.0/20"),),
            client_to_client=False,
        ),
    )


def test_an_empty_file_gives_the_defaults(site: Site) -> None:
    assert site.load("") == Config(
        instance="site",
        files=(Path("site.toml"),),
        interface=InterfaceConfig("vpn-site", "tun", (), 1420, 1000, None),
        local=LocalConfig(Path("/etc/vpnd/keys/site.key"), (), 0, "auto", None, "none", "auto", None, 86400),
        peers=(),
        routing=RoutingConfig(254, 50, False, ()),
    )


@pytest.mark.parametrize(("name", "number"), [("default", 253), ("main", 254), ("local", 255)])
def test_a_route_tables_name_becomes_its_number(site: Site, name: str, number: int) -> None:
    assert site.load(f'[routing]\ntable = "{name}"\n').routing.table == number


EVERYWHERE = PEER.replace("10.255.0.2/32", "0.0.0.0/0")


def test_a_full_tunnel_has_a_table_and_a_mark_of_its_own(site: Site) -> None:
    config = site.load(EVERYWHERE + "[routing]\nfull_tunnel = true\nallow_lan = false\nkill_switch = true\n")
    assert (config.routing.full_tunnel, config.routing.allow_lan, config.routing.kill_switch) == (
        True,
        False,
        True,
    )
    assert config.local.fwmark == 0x76706E
    assert 0x76000000 <= config.routing.table <= 0x76FFFFFF
    assert site.load(EVERYWHERE + "[routing]\nfull_tunnel = true\n").routing.table == config.routing.table
    assert dict(describe(config))["routing.kill_switch"] == "true"


def test_a_full_tunnels_table_and_mark_may_be_chosen(site: Site) -> None:
    text = EVERYWHERE + "[local]\nfwmark = 7\n[routing]\nfull_tunnel = true\ntable = 9\n"
    config = site.load(text)
    assert (config.local.fwmark, config.routing.table) == (7, 9)


def test_workers_may_be_left_to_vpnd(site: Site) -> None:
    assert site.load('[local]\nworkers = "auto"\n').local.workers == "auto"


@pytest.mark.parametrize("workers", [1, 2, 32])
def test_workers_may_be_as_many_as_written(site: Site, workers: int) -> None:
    config = site.load(f"[local]\nworkers = {workers}\n")
    assert config.local.workers == workers
    assert dict(describe(config))["local.workers"] == str(workers)


@pytest.mark.parametrize(
    ("written", "names", "shown"),
    [
        ("[]", (), "[]"),
        ('["udp-gro"]', ("udp-gro",), '["udp-gro"]'),
        ('["tun-vnet", "udp-gso"]', ("udp-gso", "tun-vnet"), '["udp-gso", "tun-vnet"]'),
        ('"auto"', "auto", '"auto"'),
        ('"off"', "off", '"off"'),
    ],
)
def test_offloads_may_be_named_in_any_order(site: Site, written: str, names: object, shown: str) -> None:
    config = site.load(f"[local]\noffload = {written}\n")
    assert config.local.offload == names
    assert dict(describe(config))["local.offload"] == shown
    assert site.load(f"[local]\noffload = {shown}\n") == config


def test_a_peer_in_its_own_file_equals_one_in_the_main_file(site: Site) -> None:
    in_main = site.load(PEER).peers
    in_own_file = site.load("", berlin=PEER.replace("[peer.berlin]", "")).peers
    assert in_main == in_own_file


def test_an_invited_peer_may_join_until_a_moment_wherever_that_is_told(site: Site) -> None:
    """In any time zone, but in one."""
    times = ("2033-05-18T03:33:20Z", "2033-05-18T05:33:20+02:00")
    for time in times:
        config = site.load(f"[local]\nlisten = ['0.0.0.0:5180']\n{PEER}\ninvited_until = {time}\n")
        assert config.peers[0].is_invited
        assert config.peers[0].invited_until == 2e9
        assert ("peer.berlin.invited_until", times[0]) in describe(config)
    text = "needs a date and time with offset, such as 2030-01-31T12:00:00Z, without quotes"
    for wrong in ("2033-05-18T03:33:20", "2033-05-18", "2000000000", '"2033-05-18T03:33:20Z"'):
        (mistake,) = site.mistakes(f"{PEER}\ninvited_until = {wrong}\n")
        assert mistake == f"site.toml:7: peer.berlin.invited_until: {text}"


def test_a_configuration_without_the_ending_toml_has_its_peers_beside_it_too(site: Site) -> None:
    (site.folder / "vpn.conf").write_text("")
    (site.folder / "vpn.conf.d").mkdir()
    (site.folder / "vpn.conf.d" / "berlin.toml").write_text(PEER.replace("[peer.berlin]", ""))
    assert [peer.name for peer in load("vpn", Path("vpn.conf")).peers] == ["berlin"]


def test_moving_keys_to_other_lines_leaves_the_configuration_equal(site: Site) -> None:
    assert site.load(EVERY_KEY) == site.load("# moved\n\n" + EVERY_KEY)


def test_the_place_of_a_key_is_known(site: Site) -> None:
    config = site.load(EVERY_KEY)
    assert config.place_of("local.knock") == Place("site.toml", 16, "local.knock")
    assert config.place_of("peer.ly.on.endpoint") == Place("site.toml", 37, 'peer."ly.on".endpoint')
    assert config.place_of("interface.bridge") == Place("site.toml", None, "interface.bridge")


def test_the_place_of_a_key_in_a_peer_file_is_known(site: Site) -> None:
    config = site.load("", berlin=PEER.replace("[peer.berlin]", ""))
    assert config.place_of("peer.berlin.endpoint") == Place("site.d/berlin.toml", 4, "endpoint")


def test_a_key_of_a_file_that_is_gone_has_no_line(site: Site) -> None:
    """The place is looked for when somebody asks, and the files may have changed by then."""
    config = site.load(EVERY_KEY)
    config.files[0].unlink()
    assert config.place_of("local.knock") == Place("site.toml", None, "local.knock")


def test_the_description_of_a_configuration_is_a_configuration_that_says_the_same(site: Site) -> None:
    config = site.load(EVERY_KEY)
    assert site.load("".join(f"{key} = {value}\n" for key, value in described(config))) == config


def described(config: Config) -> list[tuple[str, str]]:
    return [(key, value) for key, value in describe(config) if not value.startswith("(")]


def test_every_value_of_a_description_outside_parentheses_is_toml(site: Site) -> None:
    for config in (site.load(EVERY_KEY), site.load(PEER)):
        tomllib.loads("".join(f"{key} = {value}\n" for key, value in described(config)))


def test_the_description_shows_defaults(site: Site) -> None:
    assert describe(site.load(PEER)) == [
        ("interface.name", '"vpn-site"'),
        ("interface.type", '"tun"'),
        ("interface.addresses", "[]"),
        ("interface.mtu", "1420"),
        ("interface.txqueuelen", "1000"),
        ("interface.mac", "(none)"),
        ("interface.bridge", "(none)"),
        ("local.private_key", '"/etc/vpnd/keys/site.key"'),
        ("local.previous_private_key", "(none)"),
        ("local.key_overlap", "86400"),
        ("local.listen", "(an ephemeral port)"),
        ("local.fwmark", "0"),
        ("local.workers", '"auto"'),
        ("local.knock", "(none)"),
        ("local.padding", '"none"'),
        ("local.offload", '"auto"'),
        ("peer.berlin.public_key", f'"{BERLIN}"'),
        ("peer.berlin.previous_public_key", "(none)"),
        ("peer.berlin.preshared_key", "(none)"),
        ("peer.berlin.endpoint", '"192.0.2.1:5180"'),
        ("peer.berlin.networks", '["10.255.0.2/32"]'),
        ("peer.berlin.route", "true"),
        ("peer.berlin.keepalive", "0"),
        ("peer.berlin.accept", "[]"),
        ("peer.berlin.enabled", "true"),
        ("peer.berlin.groups", "[]"),
        ("peer.berlin.invited_until", "(none)"),
        ("peer.berlin.macs", "(any)"),
        ("peer.berlin.vlans", "(all)"),
        ("peer.berlin.storm_limit", "1000"),
        ("peer.berlin.isolated", "false"),
        ("routing.table", '"main"'),
        ("routing.metric", "50"),
        ("routing.full_tunnel", "false"),
        ("routing.allow_lan", "true"),
        ("routing.kill_switch", "false"),
        ("routing.forward", "false"),
        ("routing.masquerade", "[]"),
        ("routing.client_to_client", "true"),
        ("dns.servers", "[]"),
        ("dns.domains", "[]"),
    ]


def test_a_port_of_a_bridge_is_shown_with_its_peers_rules(site: Site) -> None:
    lines = dict(describe(site.load(EVERY_KEY)))
    assert lines["peer.berlin.macs"] == '["00:11:22:33:44:55", "02:00:00:00:00:0a"]'
    assert lines["peer.berlin.vlans"] == '["untagged", "1", "20-22", "4094"]'
    config = site.load('[interface]\ntype = "tap"\nbridge = "br0"\n')
    assert config.interface.bridge == "br0"
    assert dict(describe(config))["interface.bridge"] == '"br0"'


def test_the_description_says_where_a_value_comes_from_elsewhere(site: Site) -> None:
    peer = f'[peer.berlin]\npublic_key = "{BERLIN}"\n'
    text = '[interface]\ntype = "tap"\n[local]\nlisten = ["0.0.0.0:1"]\n' + peer
    lines = dict(describe(site.load(text)))
    assert lines["interface.mac"] == "(derived from the public key)"
    assert lines["peer.berlin.endpoint"] == "(it calls us)"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_shipped_example_is_free_of_mistakes(example: Path) -> None:
    assert load(example.stem, example).peers


def test_all_four_examples_are_there() -> None:
    assert [path.stem for path in EXAMPLES] == ["hub", "road-warrior", "site-to-site", "tap"]


def test_the_reference_names_every_key_and_only_those() -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    named = set(re.findall(r"^\| `([a-z_0-9]+)` \|", text, re.MULTILINE))
    sections = ("interface", "local", "peer", "routing", "groups", "pool", "push", "dns")
    assert named == {key for section in sections for key in SECTION_KEYS[section]}


def test_the_toml_in_the_reference_is_free_of_mistakes(site: Site) -> None:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    main, switch, anna, groups = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    called = site.load('[local]\nlisten = ["0.0.0.0:5180"]\n' + switch)
    assert [peer.isolated for peer in called.peers] == [False, True]
    assert [peer.name for peer in site.load(main + groups, anna=anna).peers] == ["lyon", "anna"]
