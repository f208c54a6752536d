"""Ethernet through the tunnel: what a switch port would carry, a TAP link carries.

Two machines stand as in classical.py (the gateway's link is vpn-gw, U's vpn-u), hub and spokes as in star.py.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from tests.lab.classical import (
    GATEWAY_TUNNEL,
    GATEWAY_TUNNEL6,
    U_TUNNEL,
    U_TUNNEL6,
    Classical,
    build,
    configure,
)
from tests.lab.dhcp import lease
from tests.lab.ethernet import frame, mac, mac_of, send_frames
from tests.lab.namespaces import Host, Lab, eventually
from tests.lab.star import Star
from tests.lab.star import build as build_star
from tests.lab.tools import Capture
from tests.lab.vpnd import Vpnd

BROADCAST = "ff:ff:ff:ff:ff:ff"


@pytest.fixture
def tap(lab: Lab) -> Iterator[Classical]:
    """U and the gateway on one Ethernet segment."""
    topology = build(lab, kind="tap")
    topology.start()
    yield topology
    topology.u_vpnd.assert_no_error()
    topology.gateway_vpnd.assert_no_error()


@pytest.fixture
def hub(lab: Lab) -> Iterator[Star]:
    """A hub with three TAP peers."""
    star = build_star(lab, kind="tap")
    star.start()
    yield star
    star.assert_no_error()


def learned(vpnd: Vpnd) -> dict[tuple[str, int], str]:
    """What `show macs` says: address and VLAN to peer."""
    report = json.loads(vpnd.ctl("--json show macs").stdout)
    return {(each["mac"], each["vlan"]): each["peer"] for each in report["macs"]}


def neighbour(host: Host, address: str, link: str) -> str:
    """The Ethernet address that the kernel found for an IP address, or nothing."""
    words = host.output(f"ip neigh show {address} dev {link}").split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


def arrivals(capture: Capture, source: str, expression: str = "") -> int:
    """How many frames from `source` a capture saw."""
    return len(capture.lines(f"ether src {source} {expression}"))


def test_arp_finds_the_far_end_by_its_own_address(tap: Classical) -> None:
    """[E9] Requests are answered by the far kernel itself, with the address of its link."""
    there = mac_of(tap.gateway, "vpn-gw")
    answers = tap.u.output(f"arping -c 2 -w 5 -I vpn-u {GATEWAY_TUNNEL}")
    assert answers.lower().count(f"[{there}]") == 2
    assert tap.u.pings(GATEWAY_TUNNEL)
    assert neighbour(tap.u, GATEWAY_TUNNEL, "vpn-u") == there
    assert neighbour(tap.gateway, U_TUNNEL, "vpn-gw") == mac_of(tap.u, "vpn-u")


def test_ipv6_neighbours_are_found(tap: Classical) -> None:
    """[E9] Solicitation by multicast, advertisement back, and an address nobody has stays unknown."""
    capture = Capture(tap.gateway, "vpn-gw", "icmp6")
    tap.u.run("ip neigh flush dev vpn-u")
    assert tap.u.pings(GATEWAY_TUNNEL6)
    assert not tap.u.pings("fd53::dead")
    capture.stop()
    solicitations = "icmp6[icmp6type] = icmp6-neighborsolicit"
    assert capture.lines(f"{solicitations} and ether multicast and ether src {mac_of(tap.u, 'vpn-u')}")
    assert capture.lines("icmp6[icmp6type] = icmp6-neighboradvert")
    assert neighbour(tap.u, GATEWAY_TUNNEL6, "vpn-u") == mac_of(tap.gateway, "vpn-gw")
    assert neighbour(tap.u, "fd53::dead", "vpn-u") == ""


def test_broadcast_and_multicast_reach_the_far_end(tap: Classical) -> None:
    """[E9] A broadcast ping, a multicast ping of each family, and a datagram to a group."""
    tap.gateway.sysctl("net.ipv4.icmp_echo_ignore_broadcasts", 0)
    groups = "-n -q -c 3 -i 0.5 -W 1 -I vpn-u"
    assert "3 received" in tap.u.output(f"ping -b {groups} 192.168.53.255")
    assert "3 received" in tap.u.output(f"ping {groups} 224.0.0.1")
    # The echo of U itself comes first: ping does not wait for the other's answer to the last one.
    multicast6 = tap.u.output("ping -n -c 8 -i 0.2 -W 1 ff02::1%vpn-u")
    own = tap.gateway.output("ip -6 -o addr show dev vpn-gw scope link").split()[3].split("/")[0]
    assert multicast6.count(f"from {own}%vpn-u") >= 6
    capture = Capture(tap.gateway, "vpn-gw", "udp port 6000")
    tap.u.run("ip route add 239.1.2.3 dev vpn-u")
    tap.u.run("socat -u STDIN UDP4-DATAGRAM:239.1.2.3:6000", text="to everybody")
    capture.stop()
    assert len(capture.lines("ether dst 01:00:5e:01:02:03")) == 1
    assert b"to everybody" in capture.content


def test_dhcp_gives_an_address_over_the_tunnel(lab: Lab) -> None:
    """[E9] A real server behind the gateway's link, a real client on U's; the lease outlives a restart."""
    topology = build(lab, kind="tap")
    file = topology.u_vpnd.config_file
    file.write_text(file.read_text().replace(f'"{U_TUNNEL}/24", ', ""))
    topology.start()
    lease(topology.gateway, "vpn-gw", topology.u, "vpn-u", IPv4Interface("192.168.53.70/24"))
    assert topology.u.pings(GATEWAY_TUNNEL, count=5)
    leases = (topology.gateway.folder / "leases").read_text()
    assert mac_of(topology.u, "vpn-u") in leases
    topology.u_vpnd.stop()
    topology.u_vpnd.start()
    topology.u_vpnd.wait_up()
    assert topology.u_vpnd.ctl("reload").stdout.count("192.168.53.70") == 0
    assert "192.168.53.70/24" in topology.u.output("ip -br addr show dev vpn-u"), "the lease is not over"
    assert topology.u.pings(GATEWAY_TUNNEL, count=5)


def test_mac_addresses_differ_and_never_change(lab: Lab) -> None:
    """[E9] Derived from the key: the same after a restart, after a crash and after the link was removed."""
    topology = build(lab, kind="tap")
    topology.start()

    def addresses() -> tuple[str, str]:
        return mac_of(topology.u, "vpn-u"), mac_of(topology.gateway, "vpn-gw")

    first = addresses()
    assert first[0] != first[1]
    for address in first:
        assert int(address[:2], 16) & 0b11 == 0b10, "unicast and locally administered"
    topology.u_vpnd.stop()
    topology.u_vpnd.start()
    topology.gateway_vpnd.kill()
    topology.gateway_vpnd.start()
    assert addresses() == first
    topology.u_vpnd.stop()
    topology.u_vpnd.teardown()
    assert "vpn-u" not in topology.u.output("ip -br link")
    topology.u_vpnd.start()
    assert addresses() == first
    topology.u_vpnd.wait_up()
    assert topology.u.pings(GATEWAY_TUNNEL)


def test_a_configured_mac_address_is_the_link_s(lab: Lab) -> None:
    """The derived address gives way to that of the file, also live."""
    topology = build(lab, kind="tap")
    topology.start()
    assert topology.u.pings(GATEWAY_TUNNEL)
    configure(topology, kind="tap", u_interface='mac = "02:76:70:6e:00:01"')
    topology.u_vpnd.ctl("reload")
    assert mac_of(topology.u, "vpn-u") == "02:76:70:6e:00:01"
    eventually(lambda: topology.u.pings(GATEWAY_TUNNEL), what="a ping with the new address")
    assert ("02:76:70:6e:00:01", 0) in learned(topology.gateway_vpnd)


@pytest.mark.parametrize("size", [64, 1440, 3000])
@pytest.mark.parametrize("address", [GATEWAY_TUNNEL, GATEWAY_TUNNEL6], ids=["ipv4", "ipv6"])
def test_pings_of_every_size_pass(tap: Classical, address: str, size: int) -> None:
    """[D1] Small ones, such as need fragments inside, and such as need several."""
    assert tap.u.pings(address, count=20, options=f"-s {size}")


@pytest.mark.parametrize(("size", "vlan"), [(64, 7), (1514, None), (1518, 7)])
def test_whole_frames_pass_with_and_without_a_vlan_tag(lab: Lab, size: int, vlan: int | None) -> None:
    """[E9] 1500 bytes of payload are 1514 of frame, 1518 with a tag; the tag arrives, and is told."""
    topology = build(lab, kind="tap")
    configure(topology, kind="tap", u_interface="mtu = 1500", gateway_interface="mtu = 1500")
    topology.start()
    source = mac(1)
    sent = frame(mac_of(topology.gateway, "vpn-gw"), source, os.urandom(32), size=size, vlan=vlan)
    capture = Capture(topology.gateway, "vpn-gw", f"ether src {source}")
    send_frames(topology.u, "vpn-u", sent)
    eventually(lambda: (source, vlan or 0) in learned(topology.gateway_vpnd), what="the frame's source")
    capture.stop()
    assert len(capture.lines(f"vlan {vlan}" if vlan else "not vlan")) == 1
    assert sent in capture.content
    topology.gateway_vpnd.assert_no_error()


def test_a_full_packet_needs_no_fragments_inside(lab: Lab) -> None:
    """[E9] With an inner MTU of 1500, 1472 bytes of ping pass unfragmented."""
    topology = build(lab, kind="tap")
    configure(topology, kind="tap", u_interface="mtu = 1500", gateway_interface="mtu = 1500")
    topology.start()
    assert topology.u.pings(GATEWAY_TUNNEL, count=20, options="-M do -s 1472")
    assert not topology.u.pings(GATEWAY_TUNNEL, options="-M do -s 1473")


def test_broadcast_and_unknown_unicast_reach_every_peer(hub: Star) -> None:
    """[E9] What the hub has no port for goes to all three; once the station spoke, to its peer alone."""
    captures = {name: Capture(spoke.host, "vpn", f"ether src {mac(1)}") for name, spoke in hub.spokes.items()}
    send_frames(hub.hub, "vpn", frame(BROADCAST, mac(1)), frame(mac(2), mac(1)))
    eventually(lambda: all(arrivals(each, mac(1)) == 2 for each in captures.values()), what="both frames")
    send_frames(hub["b"].host, "vpn", frame(mac(1), mac(2)))
    eventually(lambda: learned(hub.hub_vpnd).get((mac(2), 0)) == "b", what="the station behind b")
    send_frames(hub.hub, "vpn", frame(mac(2), mac(1), size=100))
    eventually(lambda: arrivals(captures["b"], mac(1), "and greater 100") == 1, what="the answer at b")
    for capture in captures.values():
        capture.stop()
    for name, capture in captures.items():
        assert arrivals(capture, mac(1), "and greater 100") == (1 if name == "b" else 0), name


def test_a_peer_never_gets_its_own_frames_back(hub: Star) -> None:
    """[E9] Broadcast, unknown unicast and a frame to itself end at the hub's link, once each."""
    at_hub = Capture(hub.hub, "vpn", f"ether src {mac(1)}")
    # Other datagrams are smaller, probes of the path larger.
    back = Capture(hub["a"].host, "eth0", "udp and greater 900 and less 1200")
    frames = [frame(to, mac(1), size=1000) for to in (BROADCAST, mac(99), mac(1))]
    send_frames(hub["a"].host, "vpn", *frames)
    eventually(lambda: arrivals(at_hub, mac(1)) == 3, what="three frames at the hub")
    time.sleep(0.5)  # for a wrong one to come back
    at_hub.stop()
    back.stop()
    assert arrivals(at_hub, mac(1)) == 3
    assert len(back.lines(f"src {hub['a'].outer}")) == 3
    assert not back.lines(f"dst {hub['a'].outer}")


def test_a_station_that_moves_is_followed(hub: Star) -> None:
    """[E9] Heard behind a, then behind b: frames for it follow with its first frame from there."""
    station = mac(1)
    captures = {name: Capture(hub[name].host, "vpn", f"ether dst {station}") for name in "abc"}
    sizes = {}
    for size, name in ((200, "a"), (300, "b"), (400, "a")):
        send_frames(hub[name].host, "vpn", frame(BROADCAST, station))
        eventually(lambda: learned(hub.hub_vpnd).get((station, 0)) == name, what=f"behind {name}")  # noqa: B023
        send_frames(hub.hub, "vpn", frame(station, mac(2), size=size))
        sizes[size] = name
    time.sleep(0.3)  # for one that went astray
    for capture in captures.values():
        capture.stop()
    for size, right in sizes.items():
        for name, capture in captures.items():
            found = capture.lines(f"greater {size} and less {size}")
            assert len(found) == (1 if name == right else 0), (size, name)


def test_show_macs_lists_stations_with_vlan_peer_and_age(hub: Star) -> None:
    """One line per station, a VLAN's apart from the untagged; a spoke's own address is among them."""
    spoke = hub["a"]
    send_frames(spoke.host, "vpn", frame(BROADCAST, mac(5)), frame(BROADCAST, mac(5), vlan=42))
    eventually(lambda: (mac(5), 42) in learned(hub.hub_vpnd), what="the tagged station")
    assert spoke.host.pings("192.168.53.1")
    lines = hub.hub_vpnd.ctl("show macs").stdout.splitlines()
    assert lines[0].split() == ["MAC", "VLAN", "PEER", "SEEN"]
    rows = {tuple(line.split()[:3]) for line in lines[1:]}
    assert {(mac(5), "-", "a"), (mac(5), "42", "a"), (mac_of(spoke.host, "vpn"), "-", "a")} <= rows
    assert all(line.endswith("ago") for line in lines[1:]), lines


def test_show_macs_of_a_tun_link_says_why_not(classical: Classical) -> None:
    """A link without Ethernet has no such table."""
    done = classical.u_vpnd.ctl("show macs", check=False)
    assert done.returncode == 1
    assert "carries no Ethernet addresses" in done.stderr


def test_a_restarted_daemon_still_knows_the_stations(lab: Lab) -> None:
    """[I1] The table lies in the plane: nothing is flooded after a restart of the daemon."""
    topology = build(lab, kind="tap", own_plane=True)
    topology.start()
    assert topology.u.pings(GATEWAY_TUNNEL)
    before = learned(topology.gateway_vpnd)
    assert before[mac_of(topology.u, "vpn-u"), 0] == "u"
    topology.gateway_vpnd.kill()
    topology.gateway_vpnd.start()
    assert learned(topology.gateway_vpnd) == before


def test_a_tun_peer_and_a_tap_peer_do_not_join_and_why_says_so(lab: Lab) -> None:
    """Both ends must agree on the kind of link; the operator is told."""
    topology = build(lab, kind="tap")
    file = topology.u_vpnd.config_file
    text = file.read_text().replace('type = "tap"', 'type = "tun"')
    Path(file).write_text(text.replace("networks = []", f'networks = ["{GATEWAY_TUNNEL}/32"]'))
    topology.gateway_vpnd.start()
    topology.u_vpnd.start()
    eventually(lambda: "interface.type" in topology.gateway_vpnd.why("u"), what="the gateway's answer")
    assert topology.u_vpnd.peer("gateway")["state"] != "up"


def test_an_idle_segment_is_usable_by_link_local_addresses(tap: Classical) -> None:
    """Each end reaches the other by the address the kernel made from its MAC address."""
    for here, link, there, far in (
        (tap.u, "vpn-u", tap.gateway, "vpn-gw"),
        (tap.gateway, "vpn-gw", tap.u, "vpn-u"),
    ):
        address = there.output(f"ip -6 -o addr show dev {far} scope link").split()[3].split("/")[0]
        assert here.pings(f"{address}%{link}", count=5)
    assert tap.u.pings(U_TUNNEL6)
