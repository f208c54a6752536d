"""What is taken of what a peer pushes, and what is refused with which words."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from vpnd.config import Config, Secrets, load
from vpnd.daemon import wanted
from vpnd.daemon.pushes import NOTHING, Accepted, Pushes, Told, judge
from vpnd.daemon.state import StateDirectory
from vpnd.endpoint import Endpoint
from vpnd.keys import Identity, PublicKey, Secret, generate_secret
from vpnd.protocol.constants import PUSH_MAX
from vpnd.protocol.parameters import Parameters
from vpnd.protocol.peer import PeerOptions

HUB, OTHER = PublicKey(bytes([10]) * 32), PublicKey(bytes([11]) * 32)
ALL = ("address", "routes", "dns", "mtu")
PUSH = Told(
    (ip_interface("10.8.0.7/20"), ip_interface("fd00:8::7/64")),
    (ip_network("10.20.0.0/16"),),
    (ip_address("10.8.0.1"),),
    ("~corp.example",),
    1400,
)


def config(
    folder: Path, *, accept: tuple[str, ...] = ALL, addresses: str = '"assigned"', lines: str = ""
) -> Config:
    words = ", ".join(f'"{word}"' for word in accept)
    (folder / "site.toml").write_text(f"""\
[interface]
addresses = {addresses}
[peer.hub]
public_key = "{HUB}"
endpoint = "192.0.2.1:5180"
networks = ["10.0.0.0/9", "fd00:8::/64"]
accept = [{words}]
{lines}
[peer.other]
public_key = "{OTHER}"
endpoint = "192.0.2.2:5180"
networks = ["10.8.0.9"]
accept = ["address", "mtu"]
""")
    return load("site", folder / "site.toml")


def refused(found: Config, told: Told) -> list[tuple[str, bool]]:
    return [(str(refusal), refusal.is_fault) for refusal in judge(found, found.peers[0], told, {})[1]]


def test_all_that_is_accepted_comes_into_force(tmp_path: Path) -> None:
    found = config(tmp_path)
    accepted, refusals = judge(found, found.peers[0], PUSH, {})
    assert refusals == ()
    assert accepted == Accepted(PUSH.addresses, PUSH.routes, PUSH.servers, PUSH.domains, 1400)
    plan = wanted.host_plan(found, HUB, 1, accepted)
    assert (plan.link.addresses, plan.link.mtu) == (PUSH.addresses, 1400)
    assert ip_network("10.20.0.0/16") in {route.prefix for route in plan.routes}


def test_what_is_not_accepted_is_no_fault(tmp_path: Path) -> None:
    """[E10] Nothing is taken of a peer that may set nothing; its MTU is only what it has itself."""
    found = config(tmp_path, accept=(), addresses='["10.8.0.7/32"]')
    assert judge(found, found.peers[0], PUSH, {})[0] == NOTHING
    assert refused(found, PUSH) == [
        ('address 10.8.0.7/20: peer.hub.accept has no "address"', False),
        ('address fd00:8::7/64: peer.hub.accept has no "address"', False),
        ('route 10.20.0.0/16: peer.hub.accept has no "routes"', False),
        ('name server 10.8.0.1: peer.hub.accept has no "dns"', False),
        ('domain ~corp.example: peer.hub.accept has no "dns"', False),
    ]


def test_addresses_of_our_own_are_not_mixed_with_given_ones(tmp_path: Path) -> None:
    found = config(tmp_path, addresses='["10.8.0.7/32"]')
    assert refused(found, Told(addresses=PUSH.addresses[:1])) == [
        ('address 10.8.0.7/20: interface.addresses is not "assigned"', False)
    ]


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (Told(routes=(ip_network("10.0.0.0/8"),)), "route 10.0.0.0/8: beyond peer.hub.networks"),
        (Told(routes=(ip_network("::/0"),)), "route ::/0: beyond peer.hub.networks"),
        (Told((ip_interface("127.0.0.1/8"),)), "address 127.0.0.1/8: no machine can have it"),
        (Told((ip_interface("10.8.0.0/20"),)), "address 10.8.0.0/20: no machine can have it"),
        (Told((ip_interface("10.8.15.255/20"),)), "address 10.8.15.255/20: no machine can have it"),
        (Told((ip_interface("fe80::1/64"),)), "address fe80::1/64: no machine can have it"),
        (Told((ip_interface("10.8.0.9/20"),)), "address 10.8.0.9/20: other has it in its networks"),
        (Told(servers=(ip_address("127.0.0.53"),)), "name server 127.0.0.53: no machine can have it"),
        (Told(mtu=1000), "mtu 1000: the link needs 1280"),
    ],
)
def test_what_could_not_work_or_reaches_too_far_is_refused(tmp_path: Path, told: Told, text: str) -> None:
    """[E10]"""
    found = config(tmp_path)
    assert refused(found, told) == [(text, True)]
    assert judge(found, found.peers[0], told, {})[0] == NOTHING


@pytest.mark.parametrize("route", ["10.0.0.0/9", "10.9.0.1/32"])
def test_a_route_that_covers_an_endpoint_is_refused(tmp_path: Path, route: str) -> None:
    """[E2] Of whichever peer; a table of its own, as full_tunnel has, is no way for our own packets."""
    found = config(tmp_path)
    told = Told(routes=(ip_network(route),))
    for key, name in ((HUB, "hub"), (OTHER, "other")):
        accepted, (refusal,) = judge(
            found, found.peers[0], told, {key: Endpoint(ip_address("10.9.0.1"), 5180)}
        )
        assert accepted == NOTHING
        assert f"route {route}: {name} is reached at 10.9.0.1" in str(refusal)
    elsewhere = {HUB: Endpoint(ip_address("10.200.0.1"), 5180), OTHER: Endpoint(ip_address("::1"), 5180)}
    assert judge(found, found.peers[0], told, elsewhere)[1] == ()
    here = {HUB: Endpoint(ip_address("10.9.0.1"), 5180)}
    for harmless in ("enabled = false\n", "[routing]\ntable = 100\n"):
        found = config(tmp_path, lines=harmless)
        assert judge(found, found.peers[0], told, here)[1] == ()


def test_a_small_mtu_is_taken_where_there_is_no_ipv6_and_then_bars_it(tmp_path: Path) -> None:
    found = config(tmp_path)
    text = (tmp_path / "site.toml").read_text().replace(', "fd00:8::/64"', "")
    (tmp_path / "site.toml").write_text(text)
    found = load("site", tmp_path / "site.toml")
    accepted, _ = judge(found, found.peers[0], Told(PUSH.addresses, mtu=600), {})
    assert accepted == Accepted((ip_interface("10.8.0.7/20"),), mtu=600)
    assert refused(found, Told(PUSH.addresses, mtu=500)) == [("mtu 500: the link needs 576", True)]


def test_an_address_stands_alone_where_its_network_is_not_the_peers(tmp_path: Path) -> None:
    """Else it would bring a route to all of it; to where a peer is reached it brings none either."""
    found = config(tmp_path)
    told = Told((ip_interface("10.8.0.7/8"), ip_interface("10.8.0.8/9")))
    accepted, _ = judge(found, found.peers[0], told, {})
    assert accepted.addresses == (ip_interface("10.8.0.7/32"), ip_interface("10.8.0.8/9"))
    accepted, _ = judge(found, found.peers[0], told, {OTHER: Endpoint(ip_address("10.9.0.1"), 5180)})
    assert accepted.addresses == (ip_interface("10.8.0.7/32"), ip_interface("10.8.0.8/32"))


def test_an_mtu_never_raises_the_links(tmp_path: Path) -> None:
    found = config(tmp_path)
    assert judge(found, found.peers[0], Told(mtu=9000), {}) == (NOTHING, ())


def parameters(told: Told) -> Parameters:
    return Parameters(
        mtu=told.mtu, addresses=told.addresses, routes=told.routes, dns=told.servers, domains=told.domains
    )


def test_the_least_mtu_of_several_peers_counts_and_disabled_ones_say_nothing(tmp_path: Path) -> None:
    found = config(tmp_path)
    pushes = Pushes({}, dict)
    assert pushes.accepted(found) == NOTHING
    assert pushes.take(found.peers[0], parameters(PUSH))
    assert not pushes.take(found.peers[0], parameters(PUSH))
    assert pushes.take(found.peers[1], parameters(Told(mtu=1390)))
    assert (pushes.accepted(found).mtu, pushes.accepted(found).addresses) == (1390, PUSH.addresses)
    disabled = config(tmp_path, lines="enabled = false")
    assert pushes.accepted(disabled) == Accepted(mtu=1390)
    assert pushes.refusals(disabled, disabled.peers[0]) == ()
    pushes.keep(disabled)
    assert set(pushes.told) == {HUB, OTHER}


def test_a_peer_that_pushes_nothing_and_may_nothing_is_not_remembered(tmp_path: Path) -> None:
    found = config(tmp_path, accept=(), addresses='["10.8.0.7/32"]')
    pushes = Pushes({}, dict)
    assert not pushes.take(found.peers[0], parameters(Told(mtu=1420)))
    assert pushes.told == {}
    assert pushes.take(found.peers[0], parameters(PUSH))
    assert pushes.take(found.peers[0], parameters(Told(mtu=1420)))
    assert pushes.told == {}


def test_a_peer_keeps_what_it_told_when_its_key_is_replaced(tmp_path: Path) -> None:
    pushes = Pushes({OTHER: PUSH}, dict)
    found = config(tmp_path)
    text = (tmp_path / "site.toml").read_text().partition("[peer.other]")[0]
    (tmp_path / "site.toml").write_text(text + f'previous_public_key = "{OTHER}"\n')
    found = load("site", tmp_path / "site.toml")
    assert pushes.of(found.peers[0]) == PUSH
    pushes.keep(found)
    assert pushes.told == {HUB: PUSH}


def test_what_was_told_outlives_the_daemon_and_a_spoilt_note_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """[I3]"""
    state = StateDirectory(tmp_path / "site")
    state.told.store({})
    assert not (tmp_path / "site").exists()
    state.told.store({HUB: PUSH, OTHER: Told()})
    file = tmp_path / "site" / "told.json"
    assert StateDirectory(tmp_path / "site").told.load() == {HUB: PUSH, OTHER: Told()}
    assert Told.from_json(PUSH.to_json()) == PUSH
    for spoilt in (
        "",
        "[]",
        "{",
        '{"x": {}}',
        file.read_text()[:-20],
        file.read_text().replace("~corp", "a b"),
    ):
        file.write_text(spoilt)
        caplog.clear()
        assert StateDirectory(tmp_path / "site").told.load() == {}
        assert "started anew" in caplog.text


def test_the_largest_push_of_a_configuration_fits_one_message(tmp_path: Path) -> None:
    """[A21] The limit that a configuration is checked against is that of the protocol."""
    routes = [f'"10.{number}.0.0/16"' for number in range(142)]
    text = f"""\
[interface]
addresses = ["10.8.0.1/24"]
[local]
listen = ["0.0.0.0:5180"]
[pool]
ipv4 = "10.8.0.0/24"
ipv6 = "fd00:8::/64"
[push]
routes = [{", ".join(routes)}]
mtu = 1400
[peer.a]
public_key = "{HUB}"
"""
    (tmp_path / "site.toml").write_text(text)
    found = load("site", tmp_path / "site.toml")
    given = {HUB: PUSH.addresses}
    secrets = Secrets(Identity.from_private(generate_secret()), Secret.zero(), {})
    (options,) = wanted.peer_options(found, secrets, {}, {}, {}, given=given)
    assert isinstance(options, PeerOptions)
    assert options.preshared_key == Secret.zero()
    assert PUSH_MAX - 7 < len(options.pushed()) <= PUSH_MAX
