"""Which way packets go: networks that move, very many of them, peers that vanish, marks.

Two machines and a host behind one of them as in classical.py, a hub and spokes as in star.py.
"""

from __future__ import annotations

import json
import time

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.lab.classical import (
    GATEWAY_OUTER,
    GATEWAY_OUTER6,
    GATEWAY_TUNNEL,
    GATEWAY_TUNNEL6,
    U_TUNNEL,
    U_TUNNEL6,
    V_INNER,
    V_INNER6,
    Classical,
    build,
    configure,
)
from tests.lab.namespaces import Host, Lab, eventually
from tests.lab.star import Star
from tests.lab.star import build as build_star
from tests.lab.tools import Capture
from vpnd.keys import Identity, generate_secret

U_NETWORKS = (f"{GATEWAY_TUNNEL}/32", f"{GATEWAY_TUNNEL6}/128", "192.168.60.0/24", "fd60::/64")


def ping_says(host: Host, address: str, options: str = "-c 1 -W 1") -> str:
    """What ping prints for an address that does not answer."""
    done = host.run(f"ping -n {options} {address}", check=False)
    assert done.returncode != 0, f"{address} answered: {done.stdout}"
    return done.stdout


# -- whose address is it --


def test_a_source_outside_the_networks_is_dropped_and_its_sender_still_followed(lab: Lab) -> None:
    """[E4] What is inside is refused, but where it came from was authentic: the endpoint follows."""
    topology = build(lab)
    configure(topology, u_address="192.168.30.99/24")
    topology.start()
    topology.u.run("ip addr del 10.9.0.5/24 dev eth0")
    topology.u.run("ip addr add 10.9.0.6/24 dev eth0")
    capture = Capture(topology.gateway, "vpn-gw")
    assert topology.u.is_silent(V_INNER, count=3)
    assert topology.gateway_vpnd.peer("u")["drops"]["data_source"] >= 3
    eventually(
        lambda: topology.gateway_vpnd.peer("u")["endpoint"].startswith("10.9.0.6:"), what="the new endpoint"
    )
    capture.stop()
    assert not capture.lines("net 192.168.30.0/24")


def test_a_more_specific_network_moves_to_another_peer_by_reload(lab: Lab) -> None:
    """[E4] Ten packets a side: the longer prefix decides from the reload on, for both directions."""
    star = build_star(lab, ("a", "b"))
    for spoke in star.spokes.values():
        spoke.host.run("ip addr add 10.70.1.1/32 dev lo")
    wide = {"a": (*star["a"].own_networks, "10.70.0.0/16")}
    narrow = wide | {"b": (*star["b"].own_networks, "10.70.1.0/24")}
    star.configure_hub(wide)
    star.start()
    handshakes = [peer["handshakes"] for peer in star.hub_vpnd.status()["peers"]]
    for networks, taker in ((wide, "a"), (narrow, "b"), (wide, "a")):
        star.configure_hub(networks)
        star.hub_vpnd.ctl("reload")
        captures = {name: Capture(spoke.host, "vpn", "icmp") for name, spoke in star.spokes.items()}
        assert star.hub.pings_singly("10.70.1.1", count=10)
        for name, spoke in star.spokes.items():
            before = star.hub_vpnd.peer(name)["drops"].get("data_source", 0)
            answers = spoke.host.pings_singly if name == taker else spoke.host.is_silent
            assert answers("192.168.53.1", count=10, options="-I 10.70.1.1")
            dropped = star.hub_vpnd.peer(name)["drops"].get("data_source", 0) - before
            assert dropped == (0 if name == taker else 10)
        for name, capture in captures.items():
            capture.stop()
            echoes = capture.lines("icmp[icmptype] = icmp-echo and dst 10.70.1.1")
            assert len(echoes) == (10 if name == taker else 0)
    assert [peer["handshakes"] for peer in star.hub_vpnd.status()["peers"]] == handshakes
    star.assert_no_error()


# -- many networks --


def test_very_many_networks_are_taken_and_listed_back(lab: Lab) -> None:
    """[E6] 130,560 of them behind one peer, half of each family: all are there, and decide."""
    topology = build(lab)
    # Written as they are printed: without the zeros of an address's end.
    networks = [f"10.{one}.{two}.0/24" for one in range(255) for two in range(256)]
    networks += [f"fdab:{one:x}:{two + 1:x}::/48" for one in range(1, 256) for two in range(256)]
    configure(topology, u_networks=(*networks, f"{GATEWAY_TUNNEL}/32"), u_peer="route = false")
    topology.gateway_vpnd.start()
    began = time.monotonic()
    topology.u_vpnd.start(wait=False)
    eventually(lambda: topology.u_vpnd.ctl("status", check=False).returncode == 0, within_s=30, what="up")
    started = time.monotonic()
    report = json.loads(topology.u_vpnd.ctl("--json show routes").stdout)
    listed = time.monotonic()
    assert len(report["routes"]) == 130_561
    assert {route["prefix"] for route in report["routes"]} == {*networks, f"{GATEWAY_TUNNEL}/32"}
    assert set(topology.u_vpnd.peer("gateway")["networks"]) == {*networks, f"{GATEWAY_TUNNEL}/32"}
    assert started - began < 30
    assert listed - started < 15
    topology.gateway.run("ip addr add 10.254.255.1/32 dev lo")
    topology.gateway.run("ip addr add fdab:fe:ff::1/128 dev lo")
    topology.u.run("ip route add 10.254.255.0/24 dev vpn-u")
    topology.u.run("ip route add fdab:fe:ff::/48 dev vpn-u")
    assert topology.u.pings("10.254.255.1", count=5)
    assert topology.u.pings("fdab:fe:ff::1", count=5)
    topology.u_vpnd.assert_no_error()


def test_many_peers_with_many_networks_are_listed_back(lab: Lab) -> None:
    """[E6] 40 peers of 52 networks each, with their routes in the kernel."""
    topology = build(lab)
    text = topology.u_vpnd.config_file.read_text()
    wanted: dict[str, str] = {}
    for peer in range(40):
        key = Identity.from_private(generate_secret()).public
        networks = [f"10.{peer + 100}.{number}.0/24" for number in range(52)]
        wanted |= dict.fromkeys(networks, f"p{peer}")
        text += f'[peer.p{peer}]\npublic_key = "{key}"\nendpoint = "10.9.0.11:6000"\nnetworks = {networks}\n'
    topology.u_vpnd.config_file.write_text(text)
    topology.gateway_vpnd.start()
    topology.u_vpnd.start()
    report = json.loads(topology.u_vpnd.ctl("--json show routes").stdout)
    listed = {route["prefix"]: route["peer"] for route in report["routes"] if route["peer"] != "gateway"}
    assert listed == wanted
    assert [route for route in report["routes"] if not route["installed"]] == []
    routed = topology.u.output("ip -4 route show dev vpn-u proto 176")
    assert set(wanted) <= {line.split()[0] for line in routed.splitlines()}
    topology.u_vpnd.assert_no_error()


def test_show_routes_tells_what_the_kernel_has(classical: Classical) -> None:
    """A route that was taken away by hand is missing, and of a peer without routes none is wanted."""

    def table() -> dict[str, list[str]]:
        lines = classical.u_vpnd.ctl("show routes").stdout.splitlines()
        assert lines[0].split() == ["PREFIX", "PEER", "TABLE", "METRIC", "INSTALLED"]
        return {line.split()[0]: line.split()[1:] for line in lines[1:]}

    assert table() == {network: ["gateway", "main", "50", "yes"] for network in U_NETWORKS}
    classical.u.run("ip route del 192.168.60.0/24 dev vpn-u")
    assert table()["192.168.60.0/24"] == ["gateway", "main", "50", "MISSING"]
    assert table()["fd60::/64"] == ["gateway", "main", "50", "yes"]
    configure(classical, u_peer="route = false", routing="forward = true")
    classical.u_vpnd.ctl("reload")
    assert classical.u_vpnd.ctl("show routes").stdout.count("not wanted") == len(U_NETWORKS)
    assert not classical.u.output("ip route show dev vpn-u proto 176")


# -- nobody there --


def test_senders_to_a_peer_that_was_removed_are_told(lab: Lab) -> None:
    """[E7] "Destination Host Unreachable" for the machine itself and for one behind it, in both families."""
    topology = build(lab)
    topology.start()
    gateway, v = topology.gateway, topology.v
    assert v.pings(U_TUNNEL)
    assert v.pings(U_TUNNEL6)
    remove_u(topology)
    for host in (gateway, v):
        assert f"From {U_TUNNEL} icmp_seq=1 Destination Host Unreachable" in ping_says(host, U_TUNNEL)
        assert "Address unreachable" in ping_says(host, U_TUNNEL6)
    done = v.run(f"curl -sS --max-time 5 http://{U_TUNNEL}:8080/", check=False)
    assert done.returncode == 7, done.stderr  # 28 were its own timeout
    assert topology.gateway_vpnd.drops()["no_peer"] >= 4


def test_the_unreachable_message_finds_its_sender_through_nat(lab: Lab) -> None:
    """[E7] V's packets leave under the gateway's address: the answer is led back to V."""
    topology = build(lab)
    topology.start()
    gateway, v = topology.gateway, topology.v
    gateway.run(
        "nft -f -",
        text="table inet hide { chain out { type nat hook postrouting priority srcnat; "
        'oifname "vpn-gw" masquerade\n}\n}\n',
    )
    capture = Capture(topology.u, "vpn-u", "icmp or icmp6")
    assert v.pings(U_TUNNEL)
    assert v.pings(U_TUNNEL6)
    capture.stop()
    assert not capture.lines(f"host {V_INNER} or host {V_INNER6}")
    remove_u(topology)
    assert f"From {U_TUNNEL} icmp_seq=1 Destination Host Unreachable" in ping_says(v, U_TUNNEL)
    assert "Address unreachable" in ping_says(v, U_TUNNEL6)


def test_unreachable_messages_are_few(classical: Classical) -> None:
    """[E7] A scan of addresses that nobody has is told of at a bounded rate, and multicast never."""
    capture = Capture(classical.gateway, "vpn-gw", "icmp or icmp6")
    classical.gateway.run(
        "python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);\n"
        'for n in range(5000):\n  s.sendto(b"x", ("192.168.53.200", 9))\n\''
    )
    classical.gateway.run("ping -n -q -c 3 -i 0.2 -W 1 -I vpn-gw 224.0.0.9", check=False)
    classical.gateway.run("ping -n -q -c 3 -i 0.2 -W 1 ff02::9%vpn-gw", check=False)
    capture.stop()
    unreachable = capture.lines("icmp[icmptype] = icmp-unreach")
    assert 1 <= len(unreachable) < 500
    assert not [line for line in unreachable if "192.168.53.200 unreachable" not in line]
    assert not capture.lines("icmp6[icmp6type] = icmp6-destinationunreach")


def remove_u(topology: Classical) -> None:
    """Takes U out of the gateway's configuration; another peer stays, so that the link does."""
    vpnd = topology.gateway_vpnd
    other = vpnd.new_key("other")
    text = vpnd.config_file.read_text()
    text = text.replace("[peer.u]", "[peer.other]").replace(topology.u_vpnd.key.public, other.public)
    text = text.replace(f"{U_TUNNEL}/32", "192.168.53.77/32").replace(f"{U_TUNNEL6}/128", "fd53::77/128")
    vpnd.config_file.write_text(text)
    assert "peer u" in vpnd.ctl("reload").stdout


# -- sockets and marks --


def test_a_socket_bound_to_the_link_reaches_the_peer_past_a_better_route(classical: Classical) -> None:
    """[E8] SO_BINDTODEVICE chooses the link where routing alone would choose the outer one."""
    classical.u.run(f"ip route add 192.168.60.0/24 via {GATEWAY_OUTER} dev eth0 metric 1")
    classical.u.run(f"ip route add fd60::/64 via {GATEWAY_OUTER6} dev eth0 metric 1")
    for address in (V_INNER, V_INNER6):
        assert not classical.u.pings(address)
        assert classical.u.pings(address, count=5, options="-I vpn-u")


def test_a_mark_changed_by_mangle_leads_inner_packets_into_the_tunnel(lab: Lab) -> None:
    """[E8] The routes into the tunnel stand in a table of their own, which the mark chooses."""
    topology = build(lab)
    configure(topology, u_networks=("192.168.60.0/24", "fd60::/64"))
    file = topology.u_vpnd.config_file
    file.write_text(file.read_text() + "[routing]\ntable = 77\n")
    topology.start()
    u = topology.u
    # Without the mark everything else goes where nobody is.
    u.run("ip route add default via 10.9.0.77 dev eth0")
    u.run("ip route add default via fd09::77 dev eth0")
    ways = (("-4", V_INNER, U_TUNNEL), ("-6", V_INNER6, U_TUNNEL6))
    for family, address, source in ways:
        u.run(f"ip {family} rule add fwmark 0x77 lookup 77")
        assert "vpn-u" in u.output(f"ip {family} route show table 77")
        assert not u.pings(address, options=f"-I {source}")
    assert topology.u_vpnd.ctl("show routes").stdout.count("  77     50      yes") == 2
    assert "by table 77" in topology.u_vpnd.why("gateway")
    u.run(
        "nft -f -",
        text="table inet mangle { chain out { type route hook output priority mangle; "
        f"ip daddr {V_INNER} meta mark set 0x77; ip6 daddr {V_INNER6} meta mark set 0x77\n}}\n}}\n",
    )
    for _, address, source in ways:
        assert u.pings(address, count=5, options=f"-I {source}")


def test_a_mark_changed_by_mangle_moves_the_outer_packets(lab: Lab) -> None:
    """[E8] Our own mark is replaced on the way out, and the packets follow the other one's route, live."""
    topology = build(lab)
    lab.cable(topology.u, "eth1", topology.gateway, "outer2")
    topology.u.run("ip addr add 10.8.0.5/24 dev eth1")
    topology.gateway.run("ip addr add 10.8.0.11/24 dev outer2")
    configure(topology, u_local="fwmark = 0x51")
    topology.start()
    u = topology.u
    u.run("ip route add 10.9.0.11/32 via 10.8.0.11 dev eth1 table 88")
    u.run("ip rule add fwmark 0x88 lookup 88")
    assert moved(topology) == (True, False)
    u.run(
        "nft -f -",
        text="table inet mangle { chain out { type route hook output priority mangle; "
        "meta mark 0x51 udp dport 5180 meta mark set 0x88\n}\n}\n",
    )
    assert moved(topology) == (False, True)
    u.run("nft delete table inet mangle")
    assert moved(topology) == (True, False)


def moved(topology: Classical) -> tuple[bool, bool]:
    """Pings V and tells by which of the gateway's outer links U's packets came."""
    captures = [Capture(topology.gateway, link, "udp dst port 5180") for link in ("outer", "outer2")]
    assert topology.u.pings_singly(V_INNER, count=5)
    first, second = captures
    first.stop()
    second.stop()
    return len(first.lines()) >= 5, len(second.lines()) >= 5


# -- what is told --


def test_metrics_are_what_a_scraper_reads(lab: Lab) -> None:
    """The exposition parses by the format's own rules, and its numbers are those of the status."""
    star = build_star(lab, ("a", "b"))
    star.start()
    assert star["a"].host.pings(star["b"].tunnel, count=5)
    star["a"].host.run("ping -n -q -c 1 -W 1 -I 10.9.0.11 192.168.53.1", check=False)  # a source not allowed
    eventually(lambda: star.hub_vpnd.drops().get("data_source", 0) == 1, what="the drop")
    text = star.hub_vpnd.ctl("metrics").stdout
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }
    assert text.endswith("# EOF\n")
    for peer in star.hub_vpnd.status()["peers"]:
        labels = (("instance", "site"), ("peer", peer["name"]))
        assert samples["vpnd_peer_up", labels] == 1
        assert samples["vpnd_peer_receive_packets_total", labels] >= 5
        assert samples["vpnd_peer_transmit_bytes_total", labels] >= 5 * 84
        assert samples["vpnd_peer_handshakes_total", labels] == peer["handshakes"]
    dropped = ("instance", "site"), ("reason", "data_source")
    assert samples["vpnd_drops_total", dropped] == 1
    dropped_by = ("instance", "site"), ("peer", "a"), ("reason", "data_source")
    assert samples["vpnd_peer_drops_total", dropped_by] == 1
    star.assert_no_error()


def test_spokes_of_a_tun_hub_reach_each_other(lab: Lab) -> None:
    """Each pair by way of the hub, both families."""
    star: Star = build_star(lab)
    star.start()
    for one in star.spokes.values():
        for other in star.spokes.values():
            if one is not other:
                assert one.host.pings(other.tunnel, count=3), (one.name, other.name)
                assert one.host.pings(other.tunnel6, count=3), (one.name, other.name)
    star.assert_no_error()
