"""Sizes on the wire: padding, a route with a smaller MTU than the link's, and lies about the path's MTU."""

from __future__ import annotations

import sys

import pytest

from tests.lab.classical import (
    GATEWAY_OUTER,
    GATEWAY_OUTER6,
    GATEWAY_TUNNEL,
    GATEWAY_TUNNEL6,
    PORT,
    U_OUTER,
    U_OUTER6,
    U_TUNNEL,
    build,
    configure,
)
from tests.lab.namespaces import Lab, eventually
from tests.lab.tools import Capture

OVERHEAD = 32  # of a data message around what it carries
ICMP = 28  # headers of an IPv4 echo
ETHERNET = 14
COUNT = 5
WIDTH = {"tun": 1480, "tap": 1499}  # of the largest outer packets
PROBES = {1252, 1452, 78}  # of the path, which is asked now and then, and two of their answers in one

# inner packet: what is sealed, by mode; the link's MTU is 1420
PACKETS = {
    "16": {40: 48, 128: 128, 129: 144, 1281: 1296, 1411: 1420, 1420: 1420},
    "bucket": {40: 128, 128: 128, 129: 256, 300: 512, 1024: 1024, 1280: 1280, 1281: 1420, 1420: 1420},
    "full": {40: 1420, 576: 1420, 1420: 1420},
}
# inner packet in a frame: type, length and Ethernet header come on top, 1437 is the most
FRAMES = {
    "16": {40: 64, 111: 128, 112: 144, 1420: 1437},
    "bucket": {40: 128, 111: 128, 112: 256, 1264: 1437, 1420: 1437},
    "full": {40: 1437, 1420: 1437},
}


@pytest.mark.parametrize("kind", ["tun", "tap"])
@pytest.mark.parametrize("mode", ["16", "bucket", "full"])
def test_padding_hides_sizes_on_the_wire_and_nowhere_else(lab: Lab, mode: str, kind: str) -> None:
    """[D14] One side asks for padding, both pad; what leaves the tunnel has its own size again."""
    topology = build(lab, kind=kind)
    configure(topology, kind=kind, u_local=f'padding = "{mode}"')
    topology.start()
    topology.settle(WIDTH[kind])
    for inner, sealed in (PACKETS if kind == "tun" else FRAMES)[mode].items():
        wire = Capture(topology.gateway, "outer", f"udp port {PORT} and greater 120")
        link = Capture(topology.gateway, "vpn-gw", "icmp")
        assert topology.u.pings_singly(GATEWAY_TUNNEL, count=COUNT, options=f"-s {inner - ICMP}")
        wire.stop()
        link.stop()
        sizes = [len(packet) - ETHERNET - ICMP for packet in wire.packets()]
        assert sizes.count(OVERHEAD + sealed) >= 2 * COUNT, (inner, sizes)
        if kind == "tun":
            assert set(sizes) | PROBES == {OVERHEAD + sealed} | PROBES
        around = ETHERNET if kind == "tap" else 0
        assert {len(packet) for packet in link.packets()} == {inner + around}


NARROW = """
    table ip narrow {
        chain in {
            type filter hook input priority 0;
            ip length 1360 drop
        }
    }"""


@pytest.mark.parametrize("padding", ["none", "16", "full"])
def test_padding_obeys_the_mtu_of_a_route(lab: Lab, padding: str) -> None:
    """[D3] The link carries 1300 bytes, the route 1299, and a datagram of 1360 bytes would be lost."""
    topology = build(lab)
    narrow = "mtu = 1300"
    configure(topology, u_interface=narrow, gateway_interface=narrow, u_local=f'padding = "{padding}"')
    topology.start()
    for host in (topology.u, topology.gateway):
        host.nft(NARROW)
    topology.u.run(f"ip route add {GATEWAY_TUNNEL}/32 dev vpn-u mtu 1299")
    topology.gateway.run(f"ip route replace {U_TUNNEL}/32 dev vpn-gw mtu 1299")
    eventually(
        lambda: topology.u.pings(GATEWAY_TUNNEL, options="-s 1269"), within_s=3, what="the ping from U"
    )
    assert topology.gateway.pings(U_TUNNEL, options="-s 1269")
    for host in (topology.u, topology.gateway):
        host.run("nft delete table ip narrow")
    # What takes another route may still be as large as the link carries.
    assert topology.u.pings(GATEWAY_TUNNEL6, options="-s 1252")


FORGER = """
import ipaddress, socket, struct, sys
source, port, target, target_port, mtu = sys.argv[1:]
source, target = ipaddress.ip_address(source), ipaddress.ip_address(target)
udp = struct.pack("!4H", int(port), int(target_port), 1460, 0) + bytes(64)
if source.version == 4:
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 1480, 7, 0, 64, 17, 0) + source.packed + target.packed
    body = struct.pack("!HH", 0, int(mtu)) + ip + udp
    head = struct.pack("!BB", 3, 4)
    total = sum(struct.unpack(f"!{(len(head) + 2 + len(body)) // 2}H", head + bytes(2) + body))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    forger = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    message = head + struct.pack("!H", total ^ 0xFFFF) + body
else:
    ip = struct.pack("!IHBB", 6 << 28, 1460, 17, 64) + source.packed + target.packed
    forger = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    message = struct.pack("!BBHI", 2, 0, 0, int(mtu)) + ip + udp
for _ in range(5):
    forger.sendto(message, (str(source), 0))
"""


@pytest.mark.parametrize("mtu", [68, 576, 1400])
@pytest.mark.parametrize("outer", ["ipv4", "ipv6"])
def test_a_forged_word_about_the_path_changes_nothing(lab: Lab, outer: str, mtu: int) -> None:
    """[D5] "Too big" for a datagram of ours, from the gateway's own address: full packets go on as before."""
    topology = build(lab, outer=outer)
    topology.start()
    assert topology.u.pings(GATEWAY_TUNNEL)
    u, gateway = (U_OUTER, GATEWAY_OUTER) if outer == "ipv4" else (U_OUTER6, GATEWAY_OUTER6)
    port = topology.gateway_vpnd.endpoint("u").rpartition(":")[2]
    believed = Capture(topology.u, "eth0", "icmp or icmp6")
    script = topology.gateway.folder / "forge.py"
    script.write_text(FORGER)
    topology.gateway.run(f"{sys.executable} {script} {u} {port} {gateway} {PORT} {mtu}")
    whole = Capture(topology.gateway, "outer", f"udp port {PORT}")
    assert topology.u.pings_singly(GATEWAY_TUNNEL, count=COUNT, options="-s 1392 -M do")
    whole.stop()
    believed.stop()
    assert believed.packets(), "nothing was forged"
    sizes = [len(packet) for packet in whole.packets()]
    full = ETHERNET + (20 if outer == "ipv4" else 40) + 8 + OVERHEAD + 1420
    assert sizes.count(full) >= 2 * COUNT, sizes
    assert "mtu 1420" in topology.u.output("ip link show vpn-u")
    assert " mtu " not in topology.u.output(f"ip route get {gateway}")
