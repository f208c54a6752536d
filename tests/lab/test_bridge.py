"""Two offices as one Ethernet: their bridges joined by TAP links over a hub that relays.

lan-a ─ eth1 ┐                                              ┌ eth1 ─ lan-b
  .1         ├ bridge "lan" ─ site a ═ hub ═ site b ─ "lan" ┤        .2 or by DHCP
             └ vpn              │ bridge "br0", made by vpnd └ vpn
                                └ 192.168.77.9
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from tests.lab.dhcp import lease
from tests.lab.ethernet import frame, mac, mac_of, send_frames
from tests.lab.namespaces import Host, Lab, eventually
from tests.lab.star import HUB_OUTER, PORT, Star
from tests.lab.star import build as build_star
from tests.lab.tools import Capture, fetch_file, serve_file

BROADCAST = "ff:ff:ff:ff:ff:ff"
STORM_LIMIT = 100
FRR = Path("/usr/lib/frr")


@dataclass
class Offices:
    star: Star
    a: Host
    b: Host

    def configure_hub(self, routing: str = "forward = true", **rules: str) -> None:
        """Writes the hub's file; `rules` are more lines of its peers."""
        text = '[interface]\nname = "vpn"\ntype = "tap"\nbridge = "br0"\nmtu = 1500\n'
        text += f'[local]\nlisten = ["0.0.0.0:{PORT}"]\n[routing]\n{routing}\n'
        for name, spoke in self.star.spokes.items():
            key = spoke.vpnd.key.public
            text += f'[peer.{name}]\npublic_key = "{key}"\nstorm_limit = {STORM_LIMIT}\n'
            text += rules.get(name, "") + "\n"
        self.star.hub_vpnd.configure(text)

    def reload_hub(self, routing: str = "forward = true", **rules: str) -> None:
        self.configure_hub(routing, **rules)
        self.star.hub_vpnd.ctl("reload")

    def drops(self, name: str, reason: str) -> int:
        drops: dict[str, int] = self.star.hub_vpnd.peer(name)["drops"]
        return drops.get(reason, 0)


def office(lab: Lab, star: Star, name: str) -> Host:
    """A machine on the network of a site, whose bridge is the operator's own."""
    spoke, lan = star[name], lab.host(f"lan-{name}")
    lab.cable(spoke.host, "eth1", lan, "eth0")
    spoke.host.run("ip link add lan type bridge")
    spoke.host.run("ip link set lan up")
    spoke.host.run("ip link set eth1 master lan")
    spoke.vpnd.configure(f"""\
[interface]
name = "vpn"
type = "tap"
bridge = "lan"
mtu = 1500
[local]
[peer.hub]
public_key = "{star.hub_vpnd.key.public}"
endpoint = "{HUB_OUTER}:{PORT}"
storm_limit = 0
""")
    return lan


@pytest.fixture
def offices(lab: Lab) -> Iterator[Offices]:
    star = build_star(lab, ("a", "b"), kind="tap")
    made = Offices(star, office(lab, star, "a"), office(lab, star, "b"))
    made.configure_hub()
    star.start()
    made.a.run("ip addr add 192.168.77.1/24 dev eth0")
    star.hub.run("ip addr add 192.168.77.9/24 dev br0")
    yield made
    star.assert_no_error()


def routing_daemon(host: Host, root: Path, network: str) -> Path:
    """Starts FRR with OSPF on eth0; it also announces `network`, which is on its loopback."""
    folder = root / host.name
    folder.mkdir()
    shutil.chown(folder, "frr", "frrvty")
    host.run(f"ip addr add {network} dev lo")
    (folder / "zebra.conf").write_text("")
    (folder / "ospfd.conf").write_text(
        "interface eth0\n ip ospf hello-interval 1\n ip ospf dead-interval 4\n"
        f"router ospf\n network 192.168.77.0/24 area 0\n network {network} area 0\n"
    )
    common = ("--vty_socket", folder, "-z", folder / "zserv.api", "-A", "127.0.0.1", "--log", "stdout")
    for name in ("zebra", "ospfd"):
        host.start(
            FRR / name, *common, "-f", folder / f"{name}.conf", "-i", folder / f"{name}.pid", log="frr.log"
        )
        eventually((folder / f"{name}.vty").exists, what=f"{name} on {host}")
    return folder


def neighbours(host: Host, folder: Path) -> str:
    return host.run(f"vtysh --vty_socket {folder} -c 'show ip ospf neighbor'", check=False).stdout


@pytest.fixture
def frr() -> Iterator[Path]:
    """A folder that FRR's own user reaches, which those of the lab are not."""
    with tempfile.TemporaryDirectory(prefix="vpnd-frr-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def multicast_dns_crosses(offices: Offices) -> None:
    """The question and its answer go to a group; whoever listens gets each once, the hub's own bridge too."""
    a, b = offices.a, offices.b
    captures = [Capture(host, port, "udp port 5353") for host, port in ((a, "eth0"), (b, "eth0"))]
    captures.append(Capture(offices.star.hub, "br0", "udp port 5353"))
    name = b"\x07printer\x05local\0\0\x01"
    question = b"\0\0\0\0\0\x01\0\0\0\0\0\0" + name + b"\0\x01"
    answer = b"\0\0\x84\0\0\0\0\x01\0\0\0\0" + name + b"\x80\x01\0\0\0\x78\0\x04" + bytes([192, 168, 77, 2])
    for host, message in ((a, question), (b, answer)):
        (host.folder / "mdns").write_bytes(message)
        host.run("ip route add 224.0.0.0/4 dev eth0")
        host.run(f"socat -u OPEN:{host.folder}/mdns UDP4-DATAGRAM:224.0.0.251:5353,bind=:5353")
    group = "ether dst 01:00:5e:00:00:fb"
    eventually(lambda: all(len(each.lines(group)) >= 2 for each in captures), what="question and answer")
    for capture in captures:
        capture.stop()
        lines = capture.lines(group)
        assert len(lines) == 2
        assert sum("A (QM)? printer.local" in line for line in lines) == 1
        assert sum("A 192.168.77.2" in line for line in lines) == 1


def test_two_offices_are_one_network(offices: Offices, frr: Path) -> None:
    """[E9] Addresses by DHCP, a group, 1,000 stations, and a routing protocol, from bridge to bridge."""
    star, a, b = offices.star, offices.a, offices.b
    lease(offices.a, "eth0", offices.b, "eth0", IPv4Interface("192.168.77.2/24"))
    assert a.pings("192.168.77.2", count=10, wait_s=2)
    assert b.pings("192.168.77.9", count=10)
    # Nobody told the stations that the way between the offices carries less than their own wires.
    assert a.pings("192.168.77.2", count=3, options="-s 1472 -M do")
    digest = serve_file(a, size=8_000_000, address="192.168.77.1")
    assert fetch_file(b, address="192.168.77.1", timeout_s=20) == digest
    multicast_dns_crosses(offices)

    there = mac_of(b, "eth0")
    for first in range(0, 1000, 100):
        send_frames(a, "eth0", *(frame(there, mac(number)) for number in range(first, first + 100)))
    macs = {mac(number) for number in range(1000)}

    def behind_a() -> set[str]:
        report = json.loads(star.hub_vpnd.ctl("--json show macs").stdout)
        return {each["mac"] for each in report["macs"] if each["peer"] == "a"}

    eventually(lambda: macs <= behind_a(), what="1,000 stations behind a")
    assert star.hub_vpnd.drops().get("mac_limit", 0) == 0

    folder = routing_daemon(a, frr, "10.77.1.1/32")
    routing_daemon(b, frr, "10.77.2.1/32")
    eventually(lambda: "Full/" in neighbours(a, folder), within_s=30, what="an OSPF adjacency")
    eventually(lambda: "192.168.77.2" in a.output("ip route show 10.77.2.1"), within_s=15, what="a route")
    assert a.pings("10.77.2.1", count=3)


def vlans_are_kept_apart(offices: Offices) -> None:
    """Frames made by hand: not every kernel that runs the lab has links of VLANs."""
    a, b = offices.a, offices.b
    both = {host.name: Capture(host, "eth0", f"ether dst {BROADCAST}") for host in (a, b)}

    def arrived(host: Host, vlan: int) -> int:
        return len(both[host.name].lines(f"vlan {vlan} and ether dst {BROADCAST}"))

    def say(vlan: int) -> None:
        send_frames(a, "eth0", frame(BROADCAST, mac(vlan), vlan=vlan))
        send_frames(b, "eth0", frame(BROADCAST, mac(1000 + vlan), vlan=vlan))

    def crossed(*vlans: int) -> bool:
        return all(arrived(a, vlan) == 2 and arrived(b, vlan) == 2 for vlan in vlans)

    say(20)
    eventually(lambda: crossed(20), what="VLAN 20 both ways")
    offices.reload_hub(b='vlans = ["untagged", "10"]')
    say(20)
    say(10)
    eventually(lambda: crossed(10), what="VLAN 10 both ways")
    assert a.pings("192.168.77.2", count=5)
    for capture in both.values():
        capture.stop()
    # Its own frame each, and none of the other's any more.
    assert (arrived(a, 20), arrived(b, 20)) == (3, 3)
    assert offices.drops("b", "frame_vlan") == 1
    assert "VLAN" in offices.star.hub_vpnd.why("b")


def peers_stay_apart(offices: Offices) -> None:
    """By each of the keys that keep them so, of which one is a default; the hub they reach all the while."""
    a, b = offices.a, offices.b
    # Else a looks for b by broadcasts after a while, which are not counted.
    a.run(f"ip neigh replace 192.168.77.2 lladdr {mac_of(b, 'eth0')} dev eth0 nud permanent")
    apart: list[tuple[str, dict[str, str], str]] = [
        ("", {}, "forward is off"),
        ("forward = true\nclient_to_client = false", {}, "client_to_client is off"),
        ("forward = true", {"a": "isolated = true"}, "it is isolated"),
    ]
    for routing, rules, cause in apart:
        before = offices.drops("a", "frame_isolated")
        offices.reload_hub(routing, **rules)
        assert not a.pings("192.168.77.2"), cause
        assert a.pings("192.168.77.9", count=2)
        assert b.pings("192.168.77.9", count=2)
        assert offices.drops("a", "frame_isolated") > before
        assert "a exchanges no frames with other peers" in offices.star.hub_vpnd.why("a")
        assert cause in offices.star.hub_vpnd.why("a")
    a.run("ip neigh del 192.168.77.2 dev eth0")
    offices.reload_hub()
    eventually(lambda: a.pings("192.168.77.2"), what="a ping once they may again")
    assert "exchanges no frames" not in offices.star.hub_vpnd.why("a")


def the_port_finds_back(offices: Offices) -> None:
    """Taken out of the operator's bridge; and with its own replaced by what is none."""
    site, hub, hub_vpnd = offices.star["a"].host, offices.star.hub, offices.star.hub_vpnd
    site.run("ip link set vpn nomaster")
    eventually(lambda: "master lan" in site.output("ip link show vpn"), what="the port in its bridge again")
    eventually(lambda: offices.a.pings("192.168.77.9"), what="a ping through it")

    with hub_vpnd.paused():  # else it may be first
        hub.run("ip -batch -", text="link delete br0\nlink add br0 type veth peer name br9\n")
    eventually(lambda: "✗ bridge" in hub_vpnd.why("a"), what="the missing bridge told")
    assert "vpn is no port of br0" in hub_vpnd.why("a")
    hub.run("ip link delete br0")
    hub_vpnd.ctl("reload")
    assert "✓ bridge" in hub_vpnd.why("a")


def test_a_hub_keeps_apart_what_it_is_told_to(offices: Offices) -> None:
    """[E9] VLANs, storms, stolen addresses, peers that stay apart; all changed by reloads."""
    star, a, b = offices.star, offices.a, offices.b
    b.run("ip addr add 192.168.77.2/24 dev eth0")
    assert a.pings("192.168.77.2", count=3, wait_s=2)
    vlans_are_kept_apart(offices)

    capture = Capture(b, "eth0", f"ether src {mac(7)}")
    storm = [frame(BROADCAST, mac(7))] * 2000
    began = time.monotonic()
    send_frames(a, "eth0", *storm)
    # Some of 2,000 frames at once may be more than the queue of the link before the plane has its turn.
    eventually(lambda: offices.drops("a", "frame_storm") >= 500, what="most of the storm refused")
    assert a.pings("192.168.77.2", count=5), "those who know each other notice nothing"
    seconds = time.monotonic() - began
    capture.stop()
    assert 0 < len(capture.lines("ether broadcast")) <= STORM_LIMIT * (seconds + 2)

    offices.reload_hub(b=f'macs = ["{mac_of(b, "eth0")}"]')
    stolen = mac_of(b, "eth0")
    send_frames(a, "eth0", frame(BROADCAST, stolen))
    eventually(lambda: offices.drops("a", "frame_source") > 0, what="the theft seen")
    # The thief's own bridge believes it, until the owner speaks.
    assert star.hub.pings("192.168.77.2", count=5)
    assert b.pings("192.168.77.1", count=5)
    assert f"{stolen} all b static".split() in [
        line.split() for line in star.hub_vpnd.ctl("show macs").stdout.splitlines()
    ]

    peers_stay_apart(offices)
    the_port_finds_back(offices)

    star.hub_vpnd.stop()
    star.hub_vpnd.teardown()
    assert "br0" not in star.hub.output("ip -br link")
    star["a"].vpnd.stop()
    star["a"].vpnd.teardown()
    assert "lan " in star["a"].host.output("ip -br link"), "the operator's own bridge stays"
