"""What a hub lets its peers reach: groups, client_to_client, and a table that changes under traffic.

     a 10.9.0.11 ──┐                          ┌── office 192.168.60.3, fd60::3
     b 10.9.0.12 ──┴─ switch ── 10.9.0.1 hub ─┘   (it knows no tunnel, only the hub as its router)

Inside: hub 192.168.53.1, a .11, b .12; fd53::1 and so on.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.lab.namespaces import Host, Lab, eventually
from tests.lab.star import HUB_TUNNEL, HUB_TUNNEL6, Star, build
from tests.lab.tools import UdpStream
from tests.lab.vpnd import Vpnd

_KNOCK = Path(__file__).with_name("knock.py")
OFFICE, OFFICE6 = "192.168.60.3", "fd60::3"
PORTS = ("22", "53", "443")

# In the way of nothing, but it counts what the hub forwards of a flow that b may not have.
BYSTANDER = """
table inet bystander {
    chain seen {
        type filter hook forward priority 10; policy accept;
        ip saddr 192.168.53.12 ip daddr 192.168.60.3 udp dport 5999 counter
    }
}
"""
# A flow that b may not have, sent on whatever the network answers.
_POUR = f"""
import socket, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pouring:
    while True:
        pouring.sendto(b"pour", ("{OFFICE}", 5999))
        time.sleep(0.002)
"""
GROUPS = """
[groups.staff]
peers = ["a"]
allow = ["192.168.60.0/24:tcp/443", "fd60::/64:tcp/443", "udp/53", "192.168.60.3:udp/5990-5999", "icmp"]
[groups.guests]
allow = ["192.168.60.3:tcp/22"]
"""


@dataclass
class Site:
    star: Star
    office: Host

    def configure(self, groups: str = "", *, routing: str = "forward = true", b: str = "") -> None:
        """Writes the hub's file and has it take effect; `b` stands in the entry of b."""
        self.star.configure_hub(routing=routing)
        text = self.star.hub_vpnd.config_file.read_text()
        self.star.hub_vpnd.config_file.write_text(text.replace("[peer.b]", f"[peer.b]\n{b}") + groups)
        self.star.hub_vpnd.ask("reload")


def site(lab: Lab) -> Site:
    """Starts everything; every machine inside answers on all PORTS."""
    star, office = build(lab, ("a", "b")), lab.host("office")
    lab.cable(star.hub, "office", office, "eth0")
    star.hub.run("ip addr add 192.168.60.1/24 dev office")
    star.hub.run("ip addr add fd60::1/64 dev office")
    for address, router in ((f"{OFFICE}/24", "192.168.60.1"), (f"{OFFICE6}/64", "fd60::1")):
        office.run(f"ip addr add {address} dev eth0")
        office.run(f"ip route add default via {router}")
    for name in ("a", "b"):
        file = star[name].vpnd.config_file
        file.write_text(
            file.read_text().replace("networks = [", 'networks = ["192.168.60.0/24", "fd60::/64", ')
        )
    star.hub.nft(BYSTANDER)
    for key in ("net.ipv4.icmp_ratelimit", "net.ipv6.icmp.ratelimit"):
        star.hub.sysctl(key, 0)  # every refusal is answered, not one a second
    star.start()
    for host in (star.hub, office, star["a"].host, star["b"].host):
        listener = host.start(sys.executable, _KNOCK, "answer", *PORTS, stdout=subprocess.PIPE)
        assert listener.stdout is not None
        assert listener.stdout.readline() == b"ready\n"
    return Site(star, office)


def knock(host: Host, *targets: str) -> list[str]:
    """Tries each target, such as "tcp/192.0.2.1/443", and tells what came of it."""
    return host.output(f"{sys.executable} {_KNOCK} try {' '.join(targets)}").split()


def seen_by_bystander(hub: Host) -> int:
    entries = json.loads(hub.output("nft -j list table inet bystander"))["nftables"]
    (rule,) = (entry["rule"] for entry in entries if "rule" in entry)
    packets: int = next(part["counter"]["packets"] for part in rule["expr"] if "counter" in part)
    return packets


def refused(hub: Vpnd, group: str) -> int:
    groups = hub.ask("show", topic="groups")["groups"]
    packets: int = next(each["refused"] for each in groups if each["name"] == group)
    return packets


def test_groups_allow_what_they_name_and_nothing_else(lab: Lab) -> None:
    """From all allowed, over groups and a peer in none, to peers kept apart; then all is undone."""
    at = site(lab)
    star, hub = at.star, at.star.hub_vpnd
    a, b = star["a"].host, star["b"].host
    everything = [
        f"{kind}/{address}/{port}"
        for kind in ("tcp", "udp")
        for address in (OFFICE, OFFICE6)
        for port in PORTS
    ]
    everything += [f"tcp/{HUB_TUNNEL}/22", f"tcp/{HUB_TUNNEL6}/22", "tcp/192.168.53.12/22", "tcp/fd53::12/22"]
    before = star.hub.output("nft list ruleset")
    assert knock(a, *everything) == ["answered"] * len(everything)
    assert "vpnd-site" not in before

    at.configure(GROUPS)
    allowed = {f"tcp/{OFFICE}/443", f"tcp/{OFFICE6}/443", f"udp/{OFFICE}/53", f"udp/{OFFICE6}/53"}
    for target, said in zip(everything, knock(a, *everything), strict=True):
        assert said == ("answered" if target in allowed else "forbidden"), target
    for address in (OFFICE, OFFICE6, HUB_TUNNEL, HUB_TUNNEL6, "192.168.53.12", "fd53::12"):
        assert a.pings(address), address

    # A peer in no group may begin nothing, and answer everything.
    for address in (OFFICE, OFFICE6, HUB_TUNNEL, HUB_TUNNEL6, "192.168.53.11", "fd53::11"):
        assert not b.pings(address, wait_s=0.3), address
    assert knock(b, *everything[:3]) == ["forbidden"] * 3
    assert knock(at.office, "tcp/192.168.53.12/22", "udp/fd53::12/53") == ["answered"] * 2
    assert star.hub.pings("192.168.53.12")
    assert star.hub.pings("fd53::12")

    # Both peers and operators are told.
    shown = hub.ask("show", topic="groups")
    assert {group["name"]: group["peers"] for group in shown["groups"]} == {"staff": ["a"], "guests": []}
    assert shown["groups"][0]["refused"] >= 10
    assert shown["others"] == ["b"]
    assert f"tcp to {OFFICE} (" in hub.why("a")
    assert "staff allows 192.168.60.0/24:tcp/443, fd60::/64:tcp/443, udp/53" in hub.why("a")
    assert "b were refused lately" in hub.why("b")
    assert "it is in no group" in hub.why("b")

    # A peer may name its group itself; two groups add up.
    at.configure(GROUPS, b='groups = ["guests"]')
    assert knock(b, f"tcp/{OFFICE}/22", f"tcp/{OFFICE}/443") == ["answered", "forbidden"]
    at.configure(GROUPS, b='groups = ["guests", "staff"]')
    assert knock(b, f"tcp/{OFFICE}/22", f"tcp/{OFFICE}/443") == ["answered", "answered"]

    at.configure(GROUPS, routing="forward = true\nclient_to_client = false", b='groups = ["guests"]')
    assert not a.pings("192.168.53.12", wait_s=0.3)
    assert not a.pings("fd53::12", wait_s=0.3)
    assert a.pings(OFFICE)
    assert a.pings(HUB_TUNNEL6)
    at.configure(routing="forward = true\nclient_to_client = false")
    assert knock(b, *everything[:-2]) == ["answered"] * (len(everything) - 2)
    assert not b.pings("192.168.53.11", wait_s=0.3)
    assert "client_to_client is off" in hub.why("b")
    at.configure()
    assert a.pings("fd53::12")
    assert "vpnd-site" not in star.hub.output("nft list tables")

    # Forwarding alone takes no table; whatever took one leaves nothing.
    at.configure(GROUPS)
    hub.stop()
    assert "vpnd-site" in star.hub.output("nft list tables")
    hub.teardown()
    assert star.hub.output("nft -s list ruleset") == star.hub.output("nft -s list table inet bystander")


def test_a_table_is_replaced_under_traffic_and_put_back_when_somebody_takes_it(lab: Lab) -> None:
    """What is allowed before and after is never lost, what is forbidden never passes, and a permission that
    is withdrawn ends what runs."""
    at = site(lab)
    star, hub = at.star, at.star.hub_vpnd
    a, b = star["a"].host, star["b"].host
    at.configure(GROUPS, b='groups = ["guests"]')
    b.start(sys.executable, "-c", _POUR)
    stream = UdpStream(a, at.office, OFFICE, rate=2000)
    for number in range(20):
        more = f'[groups.more]\nallow = ["10.{number}.0.0/16:tcp/{number + 1}-900"]\n'
        at.configure(GROUPS + more, b='groups = ["guests", "more"]')
        # Without the names of protocols, which netbase brings, nft prints numbers.
        assert re.search(rf"(tcp|6) \. {number + 1}-900", star.hub.output("nft list table inet vpnd-site"))
    sent, came = stream.stop()
    assert came == sent > 1000
    assert refused(hub, "guests") > 0
    assert seen_by_bystander(star.hub) == 0

    # A dry run says what would change, and changes nothing.
    before, text = star.hub.output("nft list chains"), hub.config_file.read_text()
    hub.config_file.write_text(text.replace('"udp/53"', '"udp/54"'))
    dry = hub.ctl("reload --dry-run").stdout
    assert "group staff" in dry
    assert "replace table inet vpnd-site" in dry
    assert star.hub.output("nft list chains") == before
    assert knock(a, f"udp/{OFFICE}/53") == ["answered"]

    stream = UdpStream(a, at.office, OFFICE, rate=500)
    hub.config_file.write_text(text.replace('"192.168.60.3:udp/5990-5999", ', ""))
    hub.ask("reload")
    eventually(lambda: refused(hub, "staff") > 200, what="refusals of a flow that ran")
    sent, came = stream.stop()
    assert came < sent - 200

    # Somebody takes the table, or a part of it: it comes back, with a warning.
    for number, tampering in enumerate(("flush ruleset", "flush chain inet vpnd-site groups"), start=1):
        star.hub.nft(tampering)
        eventually(lambda: hub.log().count("the table is back") == number, what="the repair")  # noqa: B023
        assert hub.log().count("somebody changed the nftables table vpnd-site") == number
        assert knock(b, f"tcp/{OFFICE}/443", f"tcp/{OFFICE}/22") == ["forbidden", "answered"]
    star.assert_no_error()
