"""A hub gives addresses, routes and an MTU; clients take what they accept of it.

     spoke a ──┐
     spoke b ──┼── switch, outer 10.9.0.0/24 ── hub 10.9.0.1 ── pool 10.8.0.0/28, fd00:8::/64
     spoke c ──┘

a and b are given their addresses, c has one of the pool in its networks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import star
from tests.lab.namespaces import Host, Lab, eventually
from tests.lab.star import LINK, Star

HUB, HUB6 = "10.8.0.1", "fd00:8::1"


def configure_hub(
    site: Star,
    *,
    pool: str = '[pool]\nipv4 = "10.8.0.0/28"\nipv6 = "fd00:8::/64"\n',
    push: str = '[push]\nroutes = ["10.20.0.0/16", "10.99.0.0/16"]\nmtu = 1380\n',
    peers: str = "abc",
) -> None:
    text = f"""\
[interface]
name = "{LINK}"
addresses = ["{HUB}/28", "{HUB6}/64"]
[local]
listen = ["0.0.0.0:5180"]
{pool}{push}"""
    for name in peers:
        text += f'[peer.{name}]\npublic_key = "{site[name].vpnd.key.public}"\n'
        text += 'networks = ["10.8.0.9"]\n' if name == "c" else ""
    site.hub_vpnd.configure(text)


def configure_spoke(
    site: Star,
    name: str,
    *,
    accept: str = '["address", "routes", "mtu"]',
    addresses: str = '"assigned"',
    endpoint: str = "10.9.0.1",
) -> None:
    site[name].vpnd.configure(f"""\
[interface]
name = "{LINK}"
addresses = {addresses}
[local]
[peer.hub]
public_key = "{site.hub_vpnd.key.public}"
endpoint = "{endpoint}:5180"
networks = ["10.8.0.0/28", "fd00:8::/64", "10.20.0.0/14", "10.9.0.0/16"]
route = false
accept = {accept}
""")


def addresses(host: Host) -> set[str]:
    shown = json.loads(host.output(f"ip -j addr show dev {LINK}"))[0]["addr_info"]
    return {f"{each['local']}/{each['prefixlen']}" for each in shown if each["scope"] == "global"}


def routes(host: Host) -> set[str]:
    return {each["dst"] for each in json.loads(host.output("ip -j route show proto 176"))}


def mtu(host: Host) -> int:
    found: int = json.loads(host.output(f"ip -j link show dev {LINK}"))[0]["mtu"]
    return found


@pytest.fixture(scope="module")
def site() -> Iterator[Star]:
    with Lab() as lab:
        made = star.build(lab)
        configure_hub(made)
        for name in "abc":
            configure_spoke(made, name)
        made["b"].vpnd.environment["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={lab.folder}/no-bus"
        for vpnd in (made.hub_vpnd, made["b"].vpnd):
            vpnd.own_plane = True
        made.start()
        yield made
        made.assert_no_error()


def test_addresses_routes_and_mtu_come_from_the_hub(site: Star) -> None:
    """One in the configuration is kept out of what is given; what lies beyond the networks is refused."""
    assert addresses(site["a"].host) == {"10.8.0.2/28", "fd00:8::2/64"}
    assert addresses(site["b"].host) == {"10.8.0.3/28", "fd00:8::3/64"}
    assert addresses(site["c"].host) == {"10.8.0.9/28", "fd00:8::4/64"}
    for spoke in site.spokes.values():
        spoke.host.run(f"ping -c1 -W2 {HUB}")
        spoke.host.run(f"ping -c1 -W2 {HUB6}")
        assert mtu(spoke.host) == 1380
        assert routes(spoke.host) == {"10.20.0.0/16"}
    assert site["a"].vpnd.status()["link"]["addresses"] == ["10.8.0.2/28", "fd00:8::2/64"]


def test_a_route_beyond_the_networks_is_refused_counted_and_told(site: Star) -> None:
    """[E10]"""
    vpnd = site["a"].vpnd
    assert vpnd.drops()["push_refused"] >= 1
    (finding,) = vpnd.status()["health"]
    assert finding["code"] == "push-refused"
    assert "10.99.0.0/16" in finding["text"]
    assert "route 10.99.0.0/16: beyond peer.hub.networks" in vpnd.why("hub")


def test_the_hub_shows_what_it_gave(site: Star) -> None:
    shown = site.hub_vpnd.ctl("show leases").stdout
    assert "10.8.0.2 fd00:8::2" in shown
    assert "10.8.0.2/32" in site.hub_vpnd.peer("a")["networks"]


def test_changes_at_the_hub_reach_clients_without_a_handshake(site: Star) -> None:
    """[I6] Routes and MTU follow a reload, also when they are taken back."""
    vpnd, host = site["a"].vpnd, site["a"].host
    before = vpnd.peer("hub")["handshakes"]
    configure_hub(site, push='[push]\nroutes = ["10.21.0.0/16"]\nmtu = 1400\n')
    dry = site.hub_vpnd.ctl("reload --dry-run").stdout
    assert "~ push.mtu: 1380 → 1400" in dry
    site.hub_vpnd.ctl("reload")
    eventually(lambda: routes(host) == {"10.21.0.0/16"}, what="the route")
    eventually(lambda: mtu(host) == 1400, what="the MTU")
    assert vpnd.status()["health"] == []
    configure_hub(site, push="")
    site.hub_vpnd.ctl("reload")
    eventually(lambda: routes(host) == set(), what="no route")
    eventually(lambda: mtu(host) == 1420, what="the link's own MTU")
    assert vpnd.peer("hub")["handshakes"] == before
    host.run(f"ping -c1 -W2 {HUB}")


def test_restarts_of_either_daemon_keep_the_addresses(site: Star) -> None:
    """[I1, I2] The client knows what it was told, the hub what it gave, and tells it on old sessions."""
    spoke = site["b"]
    before = addresses(spoke.host)
    spoke.vpnd.kill()
    spoke.vpnd.start()
    assert addresses(spoke.host) == before
    assert not spoke.vpnd.log().count("address: remove")
    site.hub_vpnd.kill()
    site.hub_vpnd.start()
    spoke.vpnd.wait_up()
    spoke.host.run(f"ping -c1 -W1 {HUB}")
    assert addresses(spoke.host) == before
    configure_hub(site, push='[push]\nroutes = ["10.22.0.0/16"]\n')
    site.hub_vpnd.ctl("reload")
    eventually(lambda: routes(spoke.host) == {"10.22.0.0/16"}, what="the route")


@pytest.mark.parametrize("push", ['routes = ["10.23.0.0/16"]', ""], ids=["another", "none"])
def test_a_push_that_changes_while_the_daemon_is_away_is_told_at_its_start(site: Star, push: str) -> None:
    """[I1] It is long until the session's next handshake, and a start that changes nothing makes none."""
    spoke = site["b"]

    def handshakes() -> tuple[int, int]:
        return site.hub_vpnd.peer("b")["handshakes"], spoke.vpnd.peer("hub")["handshakes"]

    site.hub_vpnd.kill()
    told = spoke.vpnd.peer("hub")["handshakes"] + 1
    configure_hub(site, push=f"[push]\n{push}\n" if push else "")
    site.hub_vpnd.start()
    wanted = {"10.23.0.0/16"} if push else set()
    eventually(lambda: routes(spoke.host) == wanted, what="the route")
    assert mtu(spoke.host) == 1420
    # Its first message has told it already: a hub that stops before the second one does not know that.
    eventually(lambda: handshakes() == (1, told), what="the handshake's end on both sides")
    site.hub_vpnd.stop()
    site.hub_vpnd.start()
    site.hub_vpnd.wait_up()
    spoke.host.run(f"ping -c1 -W1 {HUB}")
    assert handshakes() == (0, told)


def test_a_route_that_covers_an_endpoint_is_refused(site: Star) -> None:
    """The tunnel would lead into itself: also when the hub moves to where a route leads that was taken."""
    spoke = site["b"]
    site.hub.run("ip addr add 10.9.0.2/24 dev eth0")
    configure_hub(site, push='[push]\nroutes = ["10.9.0.1/32", "10.9.0.2/32"]\n')
    site.hub_vpnd.ctl("reload")
    eventually(lambda: routes(spoke.host) == {"10.9.0.2"}, what="the route")
    spoke.host.run(f"ping -c1 -W1 {HUB}")
    configure_spoke(site, "b", endpoint="10.9.0.2")
    spoke.vpnd.ctl("reload")
    eventually(lambda: spoke.vpnd.endpoint("hub") == "10.9.0.2:5180", what="the other endpoint")
    eventually(lambda: routes(spoke.host) == {"10.9.0.1"}, what="the other route")
    eventually(lambda: spoke.host.pings(HUB), what="the tunnel")
    assert "10.9.0.2/32: hub is reached at 10.9.0.2" in spoke.vpnd.why("hub")
    assert spoke.vpnd.drops().get("link_loop", 0) < 20
    configure_hub(site, push="")
    site.hub_vpnd.ctl("reload")
    configure_spoke(site, "b")
    spoke.vpnd.ctl("reload")
    eventually(lambda: spoke.vpnd.status()["health"] == [], what="nothing to be found")


def test_another_pool_gives_other_addresses_at_once(site: Star) -> None:
    """[I6] Of a client that accepts no address any more, the address goes."""
    spoke = site["a"]
    configure_hub(site, pool='[pool]\nipv4 = "10.8.0.0/29"\n', push="", peers="ab")
    site.hub_vpnd.ctl("reload")
    eventually(lambda: addresses(spoke.host) == {"10.8.0.2/29"}, what="the address of the other pool")
    configure_spoke(site, "a", accept='["routes"]', addresses='["10.8.0.2/32"]')
    spoke.vpnd.ctl("reload")
    assert addresses(spoke.host) == {"10.8.0.2/32"}
    assert spoke.vpnd.status()["health"] == []


def test_a_pool_that_is_too_small_changes_nothing(site: Star) -> None:
    configure_hub(site, pool='[pool]\nipv4 = "10.8.0.0/30"\n', peers="ab")
    refused = site.hub_vpnd.ctl("reload", check=False)
    assert refused.returncode == 78
    assert "pool.ipv4: 10.8.0.0/30 has 1 addresses to give, 2 are needed" in refused.stderr


def test_name_servers_without_resolved_are_told_and_cost_nothing_else(site: Star) -> None:
    """A pushed one that `accept` takes, where there is no systemd-resolved to tell it."""
    spoke = site["b"]
    configure_hub(site, push='[push]\ndns = { servers = ["10.8.0.1"], domains = ["~corp.example"] }\n')
    site.hub_vpnd.ctl("reload")
    configure_spoke(site, "b", accept='["address", "dns"]')
    spoke.vpnd.ctl("reload")
    eventually(lambda: bool(spoke.vpnd.status()["health"]), what="the finding")
    (finding,) = spoke.vpnd.status()["health"]
    assert finding["code"] == "dns-failed"
    assert "install and start systemd-resolved" in finding["text"]
    assert "install and start systemd-resolved" in spoke.vpnd.why("hub")
    spoke.host.run(f"ping -c1 -W1 {HUB}")
    configure_hub(site, push="")
    site.hub_vpnd.ctl("reload")
    eventually(lambda: spoke.vpnd.status()["health"] == [], what="nothing to be found", within_s=15)


def test_without_the_hub_a_client_is_ready_and_says_that_it_waits(site: Star) -> None:
    """It has been given nothing yet: the daemon runs, and whoever waits for the tunnel waits on."""
    spoke = site["c"]
    spoke.vpnd.stop()
    spoke.vpnd.teardown()
    Path(spoke.vpnd.state_dir, "told.json").unlink()
    site.hub_vpnd.stop()
    spoke.vpnd.start()
    status = spoke.vpnd.status()
    assert status["state"] == "starting"
    # After three seconds the hub's silence is told as well.
    assert {each["code"] for each in status["health"]} - {"peer-silent"} == {"no-address"}
    assert spoke.vpnd.ctl("wait --timeout 0.5", check=False).returncode == 6
    configure_hub(site)
    site.hub_vpnd.start()
    spoke.vpnd.wait_up()
    assert "10.8.0.9/28" in addresses(spoke.host)
