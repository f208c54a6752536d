"""Offloads change nothing but speed: what leaves the tunnel is what the plain path would have brought.

 host W ──── 10.1.0.254 host U ════ tunnel ════ gateway 10.2.0.254 ──── host V
 10.1.0.1    fd00::1:fe   └──────── outer ─────────┘    fd00::2:fe   10.2.0.2
 fd00::1                  10.9.0.5        10.9.0.11                  fd00::2

U and the gateway run vpnd. W and V know nothing of it: with routes along the outer cable their packets
take the plain path, to which the tunnel is compared.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.lab.classical import (
    GATEWAY_OUTER,
    GATEWAY_TUNNEL,
    GATEWAY_TUNNEL6,
    PORT,
    U_OUTER,
    V_INNER,
    V_INNER6,
    Classical,
    build,
    configure,
)
from tests.lab.mixture import ETHERNET, SOURCE, SOURCE6, TARGET, TARGET6, by_flow, read_packets
from tests.lab.namespaces import Host, Lab
from tests.lab.tools import Capture, fetch_file, serve_file

PACKETS = 400
BULK = 6_000_000
CHOICES = ('"off"', '"auto"', '["udp-gso"]', '["udp-gro"]', '["tun-vnet"]')
W_NETWORKS = (f"{SOURCE}/32", f"{SOURCE6}/128", "192.168.53.99/32", "fd53::99/128")
V_NETWORKS = (f"{TARGET}/32", f"{TARGET6}/128", "192.168.53.11/32", "fd53::11/128")


@dataclass
class Through:
    """Two hosts that know nothing of the tunnel between them, and its ends."""

    w: Host
    v: Host
    ends: Classical

    def configure(self, u: str, gateway: str) -> None:
        # Links hold the whole mixture in single packets, whatever keeps a plane from reading.
        roomy = "txqueuelen = 10000"
        configure(
            self.ends,
            u_interface=roomy,
            gateway_interface=roomy,
            u_local=f"offload = {u}",
            gateway_local=f"offload = {gateway}",
            u_networks=V_NETWORKS,
            gateway_networks=W_NETWORKS,
        )

    def restart(self) -> None:
        for vpnd in (self.ends.u_vpnd, self.ends.gateway_vpnd):
            if vpnd.daemon is not None and vpnd.daemon.poll() is None:
                vpnd.stop()
        self.ends.start()

    def plain_path(self, verb: str) -> None:
        """Adds or deletes the routes that lead around the tunnel."""
        for host, link, address, address6, via in (
            (self.ends.u, "eth0", TARGET, TARGET6, GATEWAY_OUTER),
            (self.ends.gateway, "outer", SOURCE, SOURCE6, U_OUTER),
        ):
            via6 = "fd09::11" if via == GATEWAY_OUTER else "fd09::5"
            host.run(f"ip route {verb} {address}/32 via {via} dev {link} mtu 1420")
            host.run(f"ip -6 route {verb} {address6}/128 via {via6} dev {link} mtu 1420")

    def carry(self, seed: int) -> dict[object, list[bytes]]:
        """What comes to V of a mixture that W sends, by flow."""
        file = self.v.folder / "mixture"
        module = (sys.executable, "-m", "tests.lab.mixture")
        receiver = self.v.start(
            *(*module, "receive", "eth0", file), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == b"ready\n"
        macs = f"{mac_of(self.w, 'eth0')} {mac_of(self.ends.u, 'w')}"
        self.w.run(f"{sys.executable} -m tests.lab.mixture send eth0 {macs} {seed} {PACKETS}", timeout_s=20)
        receiver.communicate(timeout=10)
        return by_flow(read_packets(file))


def mac_of(host: Host, link: str) -> str:
    return host.output(f"cat /sys/class/net/{link}/address").strip()


def through(lab: Lab) -> Through:
    """Builds everything; the daemons are not configured yet, and packets take the plain path."""
    ends = build(lab)
    w = lab.host("w")
    lab.cable(w, "eth0", ends.u, "w")
    for host, link, addresses in (
        (w, "eth0", (f"{SOURCE}/24", f"{SOURCE6}/128")),
        (ends.u, "w", ("10.1.0.254/24", "fd00::1:fe/128")),
        (ends.gateway, "inner", ("10.2.0.254/24", "fd00::2:fe/128")),
        (ends.v, "eth0", (f"{TARGET}/24", f"{TARGET6}/128")),
    ):
        for address in addresses:
            host.run(f"ip addr add {address} dev {link}")
    for host, link, near, far in (
        (w, "eth0", "fd00::1:fe", "10.1.0.254"),
        (ends.v, "eth0", "fd00::2:fe", "10.2.0.254"),
    ):
        host.run(f"ip -6 route add {near}/128 dev {link}")
        host.run(f"ip -6 route add default via {near}")
        host.run(f"ip route replace default via {far}")
        # Nobody is at home for the mixture, and nobody shall say so.
        host.nft(QUIET)
    ends.u.run(f"ip -6 route add {SOURCE6}/128 dev w")
    ends.gateway.run(f"ip -6 route add {TARGET6}/128 dev inner")
    for host in (ends.u, ends.gateway):
        host.sysctl("net.ipv4.ip_forward", 1)
        host.sysctl("net.ipv6.conf.all.forwarding", 1)
    # U joins what comes from W, as network cards do; to V everything goes as on a real wire.
    ends.u.run("ethtool -K w gro on")
    ends.gateway.run("ethtool -K inner tx off tso off gso off")
    made = Through(w, ends.v, ends)
    made.plain_path("add")
    assert w.pings(TARGET, count=2)
    assert w.pings(TARGET6, count=2)
    return made


QUIET = """
    table inet quiet {
        chain in {
            type filter hook input priority 0; policy drop;
            iif lo accept
            icmp type { echo-request, echo-reply } accept
            icmpv6 type { echo-request, echo-reply, nd-neighbor-solicit, nd-neighbor-advert } accept
            tcp dport 8080 accept
            tcp sport 8080 accept
        }
    }"""


def assert_same(found: dict[object, list[bytes]], wanted: dict[object, list[bytes]], what: str) -> None:
    assert found.keys() == wanted.keys(), what
    for flow, packets in wanted.items():
        here = found[flow]
        for number, (one, other) in enumerate(zip(here, packets, strict=False)):
            assert one == other, f"{what}: {flow}, packet {number}: {one.hex()} but {other.hex()}"
        assert len(here) == len(packets), f"{what}: {flow}"


def test_every_pair_of_ends_carries_the_same_bytes(lab: Lab) -> None:
    """[D7, D8, D9, D10] Each choice of offloads at either end: a mixture of packets that is forwarded
    comes out as on the plain path, flow by flow, and so do files both ways.
    """
    made = through(lab)
    wanted = {seed: made.carry(seed) for seed in range(3)}
    assert all(sum(map(len, packets.values())) > PACKETS for packets in wanted.values())
    assert_same(made.carry(0), wanted[0], "the plain path a second time")
    made.plain_path("del")
    sums = {
        TARGET: serve_file(made.v, size=BULK, address=TARGET),
        SOURCE: serve_file(made.w, size=BULK, address=SOURCE),
    }
    for number, (u, gateway) in enumerate(itertools.product(CHOICES, CHOICES)):
        what = f"U {u}, gateway {gateway}"
        made.configure(u, gateway)
        made.restart()
        seed = number % len(wanted)
        assert_same(made.carry(seed), wanted[seed], what)
        assert fetch_file(made.w, address=TARGET, timeout_s=20) == sums[TARGET], what
        assert fetch_file(made.v, address=SOURCE, timeout_s=20) == sums[SOURCE], what
        for vpnd in (made.ends.u_vpnd, made.ends.gateway_vpnd):
            # Hosts talk of themselves to all others on a new link; no peer is there for that.
            assert vpnd.drops_now().keys() <= {"no_peer", "data_source"}, what


# ---- an inner MTU beyond that of any cable ----

LARGE_MTU = 34_736  # the outer cable's 34,816 less 80
CABLE_MTU = 34_816
EXCHANGE = """
import hashlib, socket, sys
kind, address, count, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as sock:
    if kind == "receive":
        sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
        sock.bind((address, 7001))
        print("ready", flush=True)
        sock.settimeout(5)
        print(hashlib.sha256(b"".join(sock.recv(65536) for _ in range(count))).hexdigest())
    else:
        sock.connect((address, 7001))
        sent = [bytes((number,)) * size for number in range(count)]
        for each in sent:
            sock.send(each)
        print(hashlib.sha256(b"".join(sent)).hexdigest())
"""


def test_packets_of_many_cables_sizes_pass(lab: Lab) -> None:
    """[D2] An inner MTU of 34,736: datagrams of that size and larger, and streams in superpackets of
    65,535, over both families.
    """
    ends = build(lab)
    for host, link in ((ends.u, "eth0"), (ends.gateway, "outer"), (ends.gateway, "inner"), (ends.v, "eth0")):
        host.run(f"ip link set {link} mtu {CABLE_MTU}")
    large = f"mtu = {LARGE_MTU}"
    configure(ends, u_interface=large, gateway_interface=large)
    ends.start()
    script = lab.folder / "exchange.py"
    script.write_text(EXCHANGE)
    for address, headers in ((GATEWAY_TUNNEL, 28), (GATEWAY_TUNNEL6, 48)):
        assert ends.u.pings(address, count=3, options=f"-M do -s {LARGE_MTU - headers}")
        # The largest datagram there is goes in fragments as large as the link carries.
        for size in (LARGE_MTU - headers, 65_507 - 20):
            receiver = ends.gateway.start(
                *(sys.executable, script, "receive", address, "20", str(size)), stdout=subprocess.PIPE
            )
            assert receiver.stdout is not None
            assert receiver.stdout.readline() == b"ready\n"
            sent = ends.u.output(f"{sys.executable} {script} send {address} 20 {size}").strip()
            assert receiver.stdout.read().decode().strip() == sent
    for address in (V_INNER, V_INNER6):
        wanted = serve_file(ends.v, size=20_000_000, address=address)
        assert fetch_file(ends.u, address=address, timeout_s=20) == wanted
    for vpnd in (ends.u_vpnd, ends.gateway_vpnd):
        assert vpnd.drops_now().keys() <= {"no_peer", "data_source"}


# ---- DSCP and ECN ----

ECT_0, ECT_1, CE = 2, 1, 3
MARKINGS = (0, ECT_0, ECT_1, CE, 0xB8, 0x28 | ECT_0, 0xFC | CE)
CONGESTED = """
    table inet congested {
        chain in {
            type filter hook prerouting priority -300;
            udp dport 5180 udp length > 100 ip ecn set ce
            udp dport 5180 udp length > 100 ip6 ecn set ce
        }
    }"""


def marking_of(packet: bytes) -> int:
    """The byte with DSCP and ECN of an IP packet."""
    return packet[1] if packet[0] >> 4 == 4 else (packet[0] & 15) << 4 | packet[1] >> 4


def echoes(ends: Classical, address: str, markings: Sequence[int]) -> tuple[list[int], list[int]]:
    """The markings outside and inside, at the gateway, of a ping with each of these markings."""
    requests = "icmp[icmptype] == icmp-echo or icmp6[icmp6type] == icmp6-echo"
    # By their size: probes of the path are larger, acknowledgements smaller.
    outer = Capture(ends.gateway, "outer", f"udp dst port {PORT} and greater 120 and less 220")
    inner = Capture(ends.gateway, "vpn-gw", requests)
    for marking in markings:
        ends.u.pings(address, wait_s=0.2, options=f"-Q {marking}")
    outer.stop()
    inner.stop()
    return (
        [marking_of(each[ETHERNET:]) for each in outer.packets()],
        [marking_of(each) for each in inner.packets()],
    )


@pytest.mark.parametrize("outer", ["ipv4", "ipv6"])
def test_markings_travel_outside_and_come_back_in(lab: Lab, outer: str) -> None:
    """[D15] The outer header bears DSCP and ECN of the inner one; what a congested router makes of it
    reaches the inner packet, which is dropped and counted where it could not bear the mark.
    """
    ends = build(lab, outer=outer)
    ends.start()
    addresses = (GATEWAY_TUNNEL, GATEWAY_TUNNEL6)
    assert all(ends.u.pings(address) for address in addresses)
    for address in addresses:
        assert echoes(ends, address, MARKINGS) == (list(MARKINGS), list(MARKINGS))
    ends.gateway.nft(CONGESTED)
    able = [marking for marking in MARKINGS if marking & CE]
    for address in addresses:
        assert echoes(ends, address, able)[1] == [marking | CE for marking in able]
    assert "data_ecn" not in ends.gateway_vpnd.drops_now()
    unable = [marking for marking in MARKINGS if not marking & CE]
    assert echoes(ends, GATEWAY_TUNNEL, unable)[1] == []
    assert ends.gateway_vpnd.drops_now()["data_ecn"] == len(unable)
