"""A full tunnel: everything goes through it, and with the kill switch nothing beside it, whatever breaks.

     u ──┐                                     ┌── gateway 203.0.113.11, 2001:db8:1::11
         ├── switch ── router ─────────────────┤
     printer                                   └── far 198.51.100.5, 2001:db8:2::5

The LAN: u 10.9.0.5, printer .7, router .1; fd09::5 and so on. Inside: u 192.168.53.99, fd53::99; the gateway
hides them behind its own addresses. Without vpnd u reaches `far` by the router as well: that is the leak.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from tests.lab.namespaces import Host, Lab, eventually
from tests.lab.tools import Capture, machine
from tests.lab.vpnd import Vpnd

FAR, FAR6 = "198.51.100.5", "2001:db8:2::5"
PRINTER, PRINTER6 = "10.9.0.7", "fd09::7"
GATEWAY, GATEWAY6 = "203.0.113.11", "2001:db8:1::11"
PORT = 5180

# Goes on through everything: to `far`, over both IP versions, whatever the machine answers.
_POUR = f"""
import contextlib, socket, time
while True:
    for family, address in ((socket.AF_INET, "{FAR}"), (socket.AF_INET6, "{FAR6}")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"secret", (address, 9))
    time.sleep(0.005)
"""
# What a machine says to its own LAN to be in it, over IPv6 that is neighbours, routers and multicast reports.
_IN_THE_LAN = "arp or dst host ff02::16 or (icmp6 and (ip6[40] >= 133 and ip6[40] <= 136))"
_OUTER = f"udp and (dst host {GATEWAY} or dst host {GATEWAY6}) and dst port {PORT}"


@dataclass
class Site:
    u: Host
    printer: Host
    vpnd: Vpnd
    gateway_vpnd: Vpnd

    def configure(self, endpoint: str = f"{GATEWAY}:{PORT}", routing: str = "") -> None:
        self.vpnd.configure(f"""\
            [interface]
            name = "vpn-u"
            addresses = ["192.168.53.99/24", "fd53::99/64"]
            [local]
            [peer.gateway]
            public_key = "{self.gateway_vpnd.key.public}"
            endpoint = "{endpoint}"
            networks = ["0.0.0.0/0", "::/0"]
            keepalive = 1
            [routing]
            full_tunnel = true
            kill_switch = true
            {routing}
        """)

    def reaches_far(self) -> bool:
        return self.u.pings(FAR) and self.u.pings(FAR6)

    def wait_for_far(self) -> None:
        eventually(self.reaches_far, within_s=20, what="u reaching far")


def site(lab: Lab) -> Site:
    """Cables and addresses; the gateway runs, u does not yet."""
    switch = lab.switch("lan")
    u, printer, router = lab.host("u"), lab.host("printer"), lab.host("router")
    gateway, far = lab.host("gateway"), lab.host("far")
    for host in (u, printer, router):
        switch.join(host, "eth0")
    lab.cable(router, "togw", gateway, "eth0")
    lab.cable(router, "tofar", far, "eth0")
    for host, link, addresses in (
        (u, "eth0", ("10.9.0.5/24", "fd09::5/64")),
        (printer, "eth0", (f"{PRINTER}/24", f"{PRINTER6}/64")),
        (router, "eth0", ("10.9.0.1/24", "10.9.0.2/24", "fd09::1/64")),
        (router, "togw", ("203.0.113.1/24", "2001:db8:1::1/64")),
        (router, "tofar", ("198.51.100.1/24", "2001:db8:2::1/64")),
        (gateway, "eth0", (f"{GATEWAY}/24", f"{GATEWAY6}/64")),
        (far, "eth0", (f"{FAR}/24", f"{FAR6}/64")),
    ):
        for address in addresses:
            host.run(f"ip addr add {address} dev {link}")
    for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        router.sysctl(key, 1)
    for host, routers in (
        (u, ("10.9.0.1", "fd09::1")),
        (gateway, ("203.0.113.1", "2001:db8:1::1")),
        (far, ("198.51.100.1", "2001:db8:2::1")),
    ):
        for address in routers:
            host.run(f"ip route add default via {address}")
    vpnd, gateway_vpnd = Vpnd(u), Vpnd(gateway)
    gateway_vpnd.configure(f"""\
        [interface]
        name = "vpn-gw"
        addresses = ["192.168.53.1/24", "fd53::1/64"]
        [local]
        listen = ["0.0.0.0:{PORT}", "[::]:{PORT}"]
        [peer.u]
        public_key = "{vpnd.key.public}"
        networks = ["192.168.53.99/32", "fd53::99/128"]
        [routing]
        forward = true
        masquerade = ["192.168.53.0/24", "fd53::/64"]
    """)
    gateway_vpnd.start()
    u.names({"gw.example": GATEWAY})
    return Site(u, printer, vpnd, gateway_vpnd)


def test_nothing_leaves_beside_the_tunnel_whatever_breaks_and_a_stop_lifts_it(lab: Lab) -> None:
    """Endpoints of either IP version and by name, a default route and an address that change, a daemon that
    is killed, a link and rules that are deleted; then a stop, after which the machine is as before."""
    at = site(lab)
    u, vpnd = at.u, at.vpnd
    assert at.reaches_far(), "by the router, without vpnd"
    before = machine(u)
    at.configure()
    full = vpnd.config_file.read_text()
    vpnd.config_file.write_text(full.partition("[routing]")[0])
    vpnd.start()
    vpnd.wait_up()
    assert u.output(f"ip route get {FAR}").split()[4] == "eth0", (
        "by the router as long as it is no full tunnel"
    )
    vpnd.config_file.write_text(full)
    vpnd.ask("reload")
    mac = u.output("cat /sys/class/net/eth0/address").strip()
    capture = Capture(u, "eth0", f"ether src {mac}")
    u.start(sys.executable, "-c", _POUR)
    at.wait_for_far()
    assert u.pings(PRINTER)
    assert u.pings(PRINTER6)
    assert u.output(f"ip route get {FAR}").split()[2] == "vpn-u"

    at.configure(f"[{GATEWAY6}]:{PORT}")
    vpnd.ask("reload")
    vpnd.ask("reconnect", peer="gateway")
    at.wait_for_far()
    # The LAN loses its IPv4, then has it again with another address and another router.
    u.run("ip -4 addr flush dev eth0")
    at.wait_for_far()
    u.run("ip addr add 10.9.0.6/24 dev eth0")
    u.run("ip route add default via 10.9.0.2")
    at.configure(f"gw.example:{PORT}")
    vpnd.ask("reload")
    vpnd.ask("reconnect", peer="gateway")
    at.wait_for_far()
    assert u.pings(PRINTER)

    vpnd.kill()
    assert not at.reaches_far()
    assert u.pings(PRINTER)
    vpnd.start()
    at.wait_for_far()
    u.run("ip link del vpn-u")
    at.wait_for_far()
    rules = u.output("ip rule show proto 176")
    for family in ("-4", "-6"):
        u.run(f"ip {family} rule flush proto 176")
    eventually(lambda: u.output("ip rule show proto 176") == rules, what="the rules")
    at.wait_for_far()
    u.nft("flush ruleset")
    eventually(lambda: "the table is back" in vpnd.log(), what="the kill switch")
    at.configure(routing="allow_lan = false")
    vpnd.ask("reload")
    at.wait_for_far()
    vpnd.kill()

    alone = Capture(u, "eth0", f"ether src {mac}")
    assert not u.pings(PRINTER)
    assert not u.pings(PRINTER6)
    assert not at.reaches_far()
    # A start that fails for good has its service manager tear down, as a stop does: that lifts nothing.
    good = vpnd.config_file.read_text()
    vpnd.config_file.write_text(good.replace("keepalive", "keepalife"))
    vpnd.start(wait=False)
    assert vpnd.daemon is not None
    assert vpnd.daemon.wait(10) == 78
    vpnd.teardown()
    assert "vpn-u" not in u.output("ip link")
    assert not at.reaches_far()
    alone.stop()
    vpnd.config_file.write_text(good)
    vpnd.start()
    at.wait_for_far()
    vpnd.stop()
    capture.stop()
    printing = f"host {PRINTER} or host {PRINTER6}"
    assert capture.lines(f"not ({_IN_THE_LAN}) and not ({_OUTER}) and not ({printing})") == []
    assert len(capture.lines(_OUTER)) > 100
    assert alone.lines(f"not ({_IN_THE_LAN})") == []

    vpnd.teardown()
    assert at.reaches_far(), "by the router again"
    after = machine(u)
    for part in ("links", "rules", "nftables", "sysctls"):
        assert after[part] == before[part]
