"""The keys of an Ethernet: the bridge of the link, and what frames a peer may send."""

from __future__ import annotations

import pytest

from tests.config.site import BERLIN, LYON, Site

TAP = '[interface]\ntype = "tap"\n'
LISTEN = '[local]\nlisten = ["0.0.0.0:5180"]\n'


def peer(*lines: str, name: str = "berlin", key: str = BERLIN) -> str:
    return "\n".join((f"[peer.{name}]", f'public_key = "{key}"', *lines, ""))


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        (
            'macs = ["02:00:00:00:01"]',
            'macs: "02:00:00:00:01" is not a MAC address; write it as 02:76:70:6e:00:01',
        ),
        (
            'macs = ["01:00:5e:00:00:01"]',
            'macs: "01:00:5e:00:00:01" is a multicast address; a link needs a unicast one',
        ),
        ('macs = ["00:00:00:00:00:00"]', 'macs: "00:00:00:00:00:00" is nobody\'s address'),
        (
            'macs = ["02:00:00:00:00:0a", "02:00:00:00:00:0A"]',
            'macs: "02:00:00:00:00:0A" stands twice, first at site.toml:7',
        ),
        (
            "macs = [" + ", ".join(f'"02:00:00:00:{n >> 8:02x}:{n & 255:02x}"' for n in range(257)) + "]",
            "macs: 257 addresses; at most 256",
        ),
        ('vlans = ["native"]', 'vlans: "native" is no VLAN; write "10", "100-199" or "untagged"'),
        ('vlans = ["0"]', 'vlans: "0" is no VLAN; they are numbered 1 to 4094'),
        ('vlans = ["20-10"]', 'vlans: "20-10" is no VLAN; they are numbered 1 to 4094'),
        ('vlans = ["4000-4095"]', 'vlans: "4000-4095" is no VLAN; they are numbered 1 to 4094'),
        ("vlans = [10]", "vlans: needs strings, not the integer 10"),
        ("vlans = []", "vlans: none: no frame would pass; leave the key out for all"),
        ("storm_limit = -1", "storm_limit: -1 is out of range; it may be 0 to 1000000"),
        ("isolated = 1", "isolated: needs true or false, not the integer 1"),
    ],
)
def test_a_wrong_rule_for_frames_is_explained(site: Site, line: str, mistake: str) -> None:
    assert site.mistakes(TAP + LISTEN + peer(line)) == [f"site.toml:7: peer.berlin.{mistake}"]


def test_one_address_of_two_peers_or_of_the_link_itself_is_told(site: Site) -> None:
    text = TAP + 'mac = "02:00:00:00:00:07"\n' + LISTEN
    text += peer('macs = ["02:00:00:00:00:01"]')
    text += peer('macs = ["02:00:00:00:00:01", "02:00:00:00:00:07"]', name="lyon", key=LYON)
    assert site.mistakes(text) == [
        'site.toml:11: peer.lyon.macs: 02:00:00:00:00:01 is behind peer "berlin" too, at site.toml:8',
        "site.toml:11: peer.lyon.macs: 02:00:00:00:00:07 is the link's own address",
    ]


def test_rules_for_frames_need_a_link_that_has_frames(site: Site) -> None:
    rules = ('networks = ["10.1.0.0/16"]', 'macs = ["02:00:00:00:00:01"]', "isolated = false")
    text = 'it is about Ethernet frames, and the link is not of type "tap"'
    assert site.mistakes(LISTEN + peer(*rules)) == [
        f"site.toml:6: peer.berlin.macs: {text}",
        f"site.toml:7: peer.berlin.isolated: {text}",
    ]
    assert site.mistakes('[interface]\ntype = "tab"\n' + LISTEN + peer(*rules)) == [
        'site.toml:2: interface.type: "tab" is none of "tun", "tap"'
    ]


def test_a_port_of_a_bridge_has_no_addresses_and_another_name(site: Site) -> None:
    assert site.mistakes(TAP + 'bridge = "br0"\naddresses = ["10.0.0.1/24"]\n') == [
        "site.toml:4: interface.addresses: a link in a bridge has none of its own; give them to the bridge"
    ]
    assert site.mistakes(TAP + 'bridge = "vpn-site"\n') == [
        'site.toml:3: interface.bridge: "vpn-site" is the link\'s own name'
    ]
    assert site.mistakes('[interface]\ntype = "tab"\nbridge = "br0"\n') == [
        'site.toml:2: interface.type: "tab" is none of "tun", "tap"'
    ]
