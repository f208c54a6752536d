"""A hub with two hundred real clients: what it gives them, what they reach, and changes while all talk.

company.py draws the picture. The clients of house 0 have a systemd-resolved, the others none. The tests
follow one another on the same machines.
"""

from __future__ import annotations

import hashlib
import json
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network

import pytest

from tests.host import resolved
from tests.lab.company import (
    EACH,
    HOUSES,
    NAMES,
    OFFICE,
    OFFICE6,
    POOL,
    POOL6,
    PUSHED,
    Client,
    Company,
    Echoes,
    build,
    each_prints,
    knocks,
    open_office,
    queries,
    wait_up,
)
from tests.lab.namespaces import Lab, eventually

PEERS = HOUSES * EACH
NEW = range(1000, 2000)
RELOAD_MAX_S = 10.0  # on a machine that others use; alone it takes a fraction of it
MORE = (*PUSHED, "10.21.0.0/16")

GROUPS = f"""
[groups.everyone]
allow = ["{NAMES}:udp/53", "{NAMES}:tcp/53", "tcp/80", "icmp"]
[groups.staff]
allow = ["10.20.0.0/16:tcp/443", "fd20::/64:tcp/443"]
[groups.admins]
allow = ["tcp/22"]
[groups.guests]
allow = ["{OFFICE}:tcp/8080"]
"""
OF_FOUR = (("staff",), ("admins",), ("guests",), ("staff", "admins"))  # who is in which, in turns
ALLOWED = {
    "staff": {f"tcp/{OFFICE}/443", f"tcp/{OFFICE6}/443"},
    "admins": {f"tcp/{OFFICE}/22", f"tcp/{OFFICE6}/22"},
    "guests": {f"tcp/{OFFICE}/8080"},
}
SERVICES = [f"tcp/{address}/{port}" for address in (OFFICE, OFFICE6) for port in (22, 443, 8080)]


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    with Lab() as lab:
        made = build(lab)
        made.configure_hub(GROUPS)
        for client in made.clients:
            made.admit(client, "everyone", *OF_FOUR[client.number % 4])
        open_office(made.office)
        made.hub_vpnd.start()
        within = ("ip", "netns", "exec", made.clients[0].house.namespace)
        with resolved.running(tmp_path_factory.mktemp("names") / "resolved", within=within):
            for client in made.clients[:EACH]:
                del client.vpnd.environment["DBUS_SYSTEM_BUS_ADDRESS"]
            began = time.monotonic()
            made.start_clients()
            print(f"{PEERS} clients started in {time.monotonic() - began:.1f} s")
            yield made
        made.assert_no_error()


@pytest.fixture(scope="module")
def echoes(company: Company) -> Iterator[Echoes]:
    """All clients ask the office for echoes, from the first test that wants it to the last of all."""
    asking = Echoes(company)
    yield asking
    asking.stop()


def have_routes(house: Sequence[Client], wanted: Sequence[str]) -> bool:
    """Tells whether our daemons made just these routes into the link of each client of a house."""
    found: dict[str, set[str]] = {client.link: set() for client in house}
    for version in ("-4", "-6"):
        for route in json.loads(house[0].house.output(f"ip {version} -j route show proto 176") or "[]"):
            found[route["dev"]].add(route["dst"])
    return all(routes == set(wanted) for routes in found.values())


def test_everybody_has_addresses_of_the_pool(company: Company) -> None:
    """As the hub's leases say, each its own, on the link itself; routes and MTU too."""
    leases = {
        lease["peer"]: lease["addresses"] for lease in company.hub_vpnd.ask("show", topic="leases")["leases"]
    }
    given = [client.addresses for client in company.clients]
    assert len({address for pair in given for address in pair}) == 2 * PEERS
    for client, (four, six) in zip(company.clients, given, strict=True):
        assert leases[client.name] == [four, six]
        assert ip_address(four) in ip_network(POOL)
        assert ip_address(six) in ip_network(POOL6)
    for house in company.houses():
        shown = {link["ifname"]: link for link in json.loads(house[0].house.output("ip -j addr"))}
        for client in house:
            link = shown[client.link]
            on_it = [each["local"] for each in link["addr_info"] if each["scope"] == "global"]
            assert (on_it, link["mtu"]) == (leases[client.name], 1380)
        assert have_routes(house, PUSHED)


def test_everybody_reaches_the_office_under_its_own_address(company: Company, echoes: Echoes) -> None:
    """Web pages by both versions of IP, and echoes."""
    pages = f"http://{OFFICE}/ http://[{OFFICE6}]/"
    seen = each_prints(company.clients, f"curl -sS --max-time 20 --interface $LINK {pages}")
    assert seen == [address for client in company.clients for address in client.addresses]
    assert echoes.lost() == {}


def test_pushed_name_servers_are_asked_through_the_tunnel(company: Company) -> None:
    """For names of the split domain, and for no others; who has no systemd-resolved says so."""
    control = resolved.unpacked() / "usr/bin/resolvectl"
    for client in company.clients[:EACH]:
        client.house.run(f"{control} query --cache=no --interface={client.link} intranet.corp.example")
    asked = {source for name, source in queries(company.office) if name == "intranet.corp.example"}
    assert asked == {client.addresses[0] for client in company.clients[:EACH]}
    house = company.clients[0].house
    found = house.output(f"{control} query --cache=no intranet.corp.example")
    assert OFFICE in found
    assert house.run(f"{control} query www.elsewhere.example", check=False).returncode != 0
    assert not [name for name, _ in queries(company.office) if not name.endswith("corp.example")]
    for client in company.clients:
        health = client.report()["health"]
        if client.number < EACH:
            assert health == []
        else:
            (finding,) = health
            assert finding["code"] == "dns-failed"
            assert "install and start systemd-resolved" in finding["text"]


def test_groups_forbid_what_they_should(company: Company) -> None:
    """Every client at every service: it answers those it is in the group for, and no other."""
    for house in company.houses():
        said = iter(knocks([(client, SERVICES) for client in house]))
        for client in house:
            allowed = set().union(*(ALLOWED[group] for group in OF_FOUR[client.number % 4]))
            for service in SERVICES:
                expected = "answered" if service in allowed else "forbidden"
                assert next(said) == expected, (client.name, service)
    shown = {group["name"]: group for group in company.hub_vpnd.ask("show", topic="groups")["groups"]}
    assert len(shown["everyone"]["peers"]) == PEERS


def test_changing_one_costs_the_others_nothing(company: Company, echoes: Echoes) -> None:
    """[I6] Blocked, moved to another group, renamed, removed: 0 packets of the 199 others are lost."""
    hub, folder = company.hub_vpnd, company.peer_files
    blocked, moved, renamed, removed = company.clients[7], *company.clients[8:11]
    hub.ctl(f"peer block {blocked.name}")
    assert echoes.lost().keys() == {blocked.name}
    hub.ctl(f"peer unblock {blocked.name}")
    eventually(lambda: hub.peer_now(blocked.name)["state"] == "up", what="the blocked peer")
    echoes.lost()

    assert knocks([(moved, [f"tcp/{OFFICE}/22"])]) == ["forbidden"]
    company.admit(moved, "everyone", "admins")
    (folder / f"{renamed.name}.toml").rename(folder / "nine.toml")
    changes = [change["what"] for change in hub.ask("reload")["changes"]]
    assert {f"peer {moved.name}", f"peer {renamed.name}"} <= set(changes)
    assert knocks([(moved, [f"tcp/{OFFICE}/22"])]) == ["answered"]
    assert echoes.lost() == {}

    before = removed.addresses
    (folder / f"{removed.name}.toml").unlink()
    hub.ask("reload")
    assert echoes.lost().keys() == {removed.name}
    company.admit(removed, "everyone")
    hub.ask("reload")
    wait_up([removed])
    assert removed.addresses == before
    echoes.lost()


def test_a_thousand_more_by_files_cost_nobody_a_packet(company: Company, echoes: Echoes) -> None:
    """[I6] Each with addresses of the pool and in a group."""
    for number in NEW:
        key = b64encode(hashlib.sha256(f"newcomer {number}".encode()).digest()).decode()
        text = f'public_key = "{key}"\ngroups = ["everyone", "guests"]\n'
        (company.peer_files / f"n{number}.toml").write_text(text)
    began = time.monotonic()
    changes = company.hub_vpnd.ask("reload")["changes"]
    took_s = time.monotonic() - began
    print(f"{len(NEW)} peers added by files beside {PEERS} in {took_s:.2f} s")
    assert {f"peer n{number}" for number in NEW} <= {change["what"] for change in changes}
    assert took_s <= RELOAD_MAX_S
    assert echoes.lost() == {}
    assert len(company.hub_vpnd.ask("show", topic="leases")["leases"]) == PEERS + len(NEW)
    for number in NEW:
        (company.peer_files / f"n{number}.toml").unlink()
    company.hub_vpnd.ask("reload")
    assert echoes.lost() == {}


def test_a_push_that_changes_while_the_hub_restarts_reaches_everybody(
    company: Company, echoes: Echoes
) -> None:
    """[I1] The daemon is killed, and none of two hundred loses a packet or waits for its next handshake."""
    company.hub_vpnd.kill()
    company.configure_hub(GROUPS, routes=MORE, mtu=1400)
    company.hub_vpnd.start()
    began = time.monotonic()
    for client in company.clients:
        eventually(lambda: client.report()["link"]["mtu"] == 1400, within_s=60, what=client.name)  # noqa: B023
    print(f"{PEERS} clients were told in {time.monotonic() - began:.1f} s")
    for house in company.houses():
        eventually(lambda: have_routes(house, MORE), what="the new routes")  # noqa: B023
    assert echoes.lost() == {}
