"""What sections and peers may not mean together."""

from __future__ import annotations

from tests.config.site import BERLIN, LYON, PEER, Site

LISTEN = '[local]\nlisten = ["0.0.0.0:5180"]\n'


def peer(name: str, key: str, networks: str, more: str = "") -> str:
    return f'[peer.{name}]\npublic_key = "{key}"\nnetworks = [{networks}]\n{more}\n'


def own_file(text: str) -> str:
    return text.partition("\n")[2]


def test_a_full_tunnel_leads_to_a_peer_that_is_enabled_and_has_routes(site: Site) -> None:
    everywhere = peer("berlin", BERLIN, '"::/0"')
    full = LISTEN + "[routing]\nfull_tunnel = true\n"
    assert site.mistakes(full + everywhere) == []
    for line in ("enabled = false", "route = false"):
        (mistake,) = site.mistakes(full + everywhere + line)
        assert mistake.startswith("site.toml:4: routing.full_tunnel: no peer leads everywhere")
    (mistake,) = site.mistakes(full + peer("berlin", BERLIN, '"everywhere"'))
    assert mistake.startswith('site.toml:7: peer.berlin.networks: "everywhere" is not a network')


def test_a_full_tunnel_takes_packets_not_frames(site: Site) -> None:
    text = '[interface]\ntype = "tap"\n' + LISTEN + "[routing]\nfull_tunnel = true\n"
    assert site.mistakes(text + peer("berlin", BERLIN, '"::/0"')) == [
        'site.toml:6: routing.full_tunnel: needs a link of type "tun"'
    ]


def test_a_peer_named_in_two_files_is_told_with_both_places(site: Site) -> None:
    text = LISTEN + peer("berlin", BERLIN, '"10.1.0.0/16"')
    assert site.mistakes(text, berlin=own_file(peer("berlin", BERLIN, '"10.1.0.0/16"'))) == [
        'site.d/berlin.toml: peer "berlin" is named twice, first at site.toml:3'
    ]


def test_one_key_of_two_peers_is_told_with_both_places(site: Site) -> None:
    text = LISTEN + peer("berlin", BERLIN, '"10.1.0.0/16"')
    assert site.mistakes(text, lyon=own_file(peer("lyon", BERLIN, '"10.2.0.0/16"'))) == [
        'site.d/lyon.toml:1: public_key: peer "berlin" has this key too, at site.toml:4'
    ]


def test_a_previous_key_belongs_to_one_peer_like_any_other(site: Site) -> None:
    """[A17] A key that two peers have, or one has twice, would not tell who calls."""
    previous = f'previous_public_key = "{BERLIN}"'
    text = LISTEN + peer("berlin", BERLIN, '"10.1.0.0/16"', previous)
    text += peer("lyon", LYON, '"10.2.0.0/16"', previous)
    assert site.mistakes(text) == [
        'site.toml:6: peer.berlin.previous_public_key: peer "berlin" has this key too, at site.toml:4',
        'site.toml:10: peer.lyon.previous_public_key: peer "berlin" has this key too, at site.toml:4',
    ]


def test_two_wrong_keys_are_not_the_same_key(site: Site) -> None:
    text = LISTEN + peer("berlin", "AAAA", '"10.1.0.0/16"') + peer("lyon", "AAAA", '"10.2.0.0/16"')
    assert site.mistakes(text) == [
        "site.toml:4: peer.berlin.public_key: 3 bytes after base64, a key has 32",
        "site.toml:8: peer.lyon.public_key: 3 bytes after base64, a key has 32",
    ]


def test_one_network_of_two_peers_is_told_with_both_places(site: Site) -> None:
    text = LISTEN + peer("berlin", BERLIN, '"10.1.0.0/16", "10.3.0.0/16"')
    text += peer("lyon", LYON, '"10.2.0.0/16",\n"10.3.0.0/16"')
    assert site.mistakes(text) == [
        'site.toml:10: peer.lyon.networks: 10.3.0.0/16 is behind peer "berlin" too, at site.toml:5'
    ]


def test_a_longer_prefix_inside_another_peers_network_is_accepted(site: Site) -> None:
    text = (
        LISTEN + peer("berlin", BERLIN, '"10.0.0.0/8", "10.1.0.0/16"') + peer("lyon", LYON, '"10.1.2.0/24"')
    )
    assert site.mistakes(text) == []


def test_our_own_address_behind_a_peer_is_a_mistake(site: Site) -> None:
    text = '[interface]\naddresses = ["10.255.0.1/30"]\n' + LISTEN
    text += peer("berlin", BERLIN, '"10.255.0.0/30", "10.255.0.1"')
    assert site.mistakes(text) == [
        "site.toml:7: peer.berlin.networks: 10.255.0.1/32 is this machine's own address on the link"
    ]


def test_an_mtu_below_1280_is_refused_with_an_ipv6_address(site: Site) -> None:
    text = '[interface]\naddresses = ["10.0.0.1/8", "fd00::1/64"]\nmtu = 1279\n'
    assert site.mistakes(text) == [
        "site.toml:3: interface.mtu: 1279 is too small for IPv6 (fd00::1/64); at least 1280"
    ]


def test_an_mtu_below_1280_is_refused_with_an_ipv6_network(site: Site) -> None:
    text = "[interface]\nmtu = 1000\n" + LISTEN + peer("berlin", BERLIN, '"fd00::/64"')
    assert site.mistakes(text) == [
        "site.toml:2: interface.mtu: 1000 is too small for IPv6 (fd00::/64); at least 1280"
    ]


def test_an_mtu_of_1280_is_enough_for_ipv6(site: Site) -> None:
    assert site.mistakes('[interface]\naddresses = ["fd00::1/64"]\nmtu = 1280\n') == []


def test_an_mtu_of_576_is_enough_without_ipv6(site: Site) -> None:
    assert site.mistakes("[interface]\nmtu = 576\n" + PEER) == []


def test_a_wrong_mtu_is_told_once(site: Site) -> None:
    text = '[interface]\naddresses = ["fd00::1/64"]\nmtu = 5\n'
    assert site.mistakes(text) == ["site.toml:3: interface.mtu: 5 is out of range; it may be 576 to 65535"]


def test_a_peer_that_neither_side_can_call_is_a_mistake(site: Site) -> None:
    assert site.mistakes(peer("berlin", BERLIN, '"10.1.0.0/16"')) == [
        "site.toml:1: peer.berlin: can never connect: it has no endpoint, and [local] listens on no port; "
        "set one of them"
    ]


def test_a_disabled_peer_needs_no_way_to_connect(site: Site) -> None:
    assert site.mistakes(peer("berlin", BERLIN, '"10.1.0.0/16"', "enabled = false")) == []


def test_a_wrong_endpoint_is_not_told_as_a_missing_one(site: Site) -> None:
    assert len(site.mistakes(peer("berlin", BERLIN, '"10.1.0.0/16"', 'endpoint = "x"'))) == 1


def test_a_wrong_listen_is_not_told_as_a_missing_one(site: Site) -> None:
    assert len(site.mistakes('[local]\nlisten = ["x"]\n' + peer("berlin", BERLIN, '"10.1.0.0/16"'))) == 1


def test_a_tap_link_needs_no_networks(site: Site) -> None:
    assert site.mistakes('[interface]\ntype = "tap"\n' + LISTEN + peer("berlin", BERLIN, "")) == []


def test_wrong_networks_are_not_told_as_missing_ones(site: Site) -> None:
    assert len(site.mistakes(LISTEN + peer("berlin", BERLIN, '"x"'))) == 1
