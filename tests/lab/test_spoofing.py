"""What an authenticated peer can send in another's name through a hub: nothing (star.py, and an office).

     a 10.9.0.11 ──┐                          ┌── office 192.168.60.3, fd60::3
     b 10.9.0.12 ──┴─ switch ── 10.9.0.1 hub ─┘

a has its addresses leased from the pool, 10.8.0.2 and fd00:8::2, b has fixed ones, 192.168.53.12 and
fd53::12. Behind a lie 10.20.0.0/16 and fd20::/48, behind b 10.30.0.0/16 and fd30::/48.
"""

from __future__ import annotations

import struct
import sys
from collections import Counter

from tests.lab import star
from tests.lab.namespaces import Host, Lab, eventually
from tests.lab.star import HUB_OUTER, HUB_TUNNEL, HUB_TUNNEL6, LINK, PORT, Star
from tests.lab.tools import Capture
from tests.plane.packets import UDP, checksum, ipv4, ipv6

OFFICE = {4: "192.168.60.3", 6: "fd60::3"}
ALLOWED, FORBIDDEN = 9, 10  # ports, where there are groups
OWN = {
    "a": {4: ("10.8.0.2", "10.20.0.1"), 6: ("fd00:8::2", "fd20::1")},
    "b": {4: ("192.168.53.12", "10.30.0.1"), 6: ("fd53::12", "fd30::1")},
}
NOBODYS = {
    4: ("192.168.53.13", "10.8.0.3", "203.0.113.9", "169.254.1.1", "127.0.0.1", "224.0.0.5",
        "255.255.255.255", "0.0.0.0"),
    6: ("fd53::13", "fd00:8::3", "2001:db8::9", "fe80::7", "::1", "ff02::5", "::", "::ffff:192.168.53.12"),
}  # fmt: skip
HUBS = {4: (HUB_TUNNEL, "10.8.0.1", HUB_OUTER, "192.168.60.1"), 6: (HUB_TUNNEL6, "fd00:8::1", "fd60::1")}
GROUPS = f"""
[groups.staff]
peers = ["a", "b"]
allow = ["udp/{ALLOWED}"]
"""
_SEND = """
import socket, sys
opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
for line in sys.stdin.read().split():
    packet = bytes.fromhex(line)
    opened.sendto(packet, (sys.argv[1], 0x0800 if packet[0] >> 4 == 4 else 0x86DD))
"""


def site(lab: Lab) -> tuple[Star, Host]:
    made, office = star.build(lab, ("a", "b")), lab.host("office")
    lab.cable(made.hub, "office", office, "eth0")
    for address in ("192.168.60.1/24", "fd60::1/64"):
        made.hub.run(f"ip addr add {address} dev office")
    for address, router in ((OFFICE[4], "192.168.60.1"), (OFFICE[6], "fd60::1")):
        office.run(f"ip addr add {address}/{24 if '.' in address else 64} dev eth0")
        office.run(f"ip route add default via {router}")
    configure(made, "")
    file = made["b"].vpnd.config_file
    file.write_text(file.read_text().replace("networks = [", 'networks = ["192.168.60.0/24", "fd60::/64", '))
    made["a"].vpnd.configure(f"""\
        [interface]
        name = "{LINK}"
        addresses = "assigned"
        [local]
        [peer.hub]
        public_key = "{made.hub_vpnd.key.public}"
        endpoint = "{HUB_OUTER}:{PORT}"
        networks = ["10.8.0.0/24", "fd00:8::/64", "192.168.60.0/24", "fd60::/64"]
        accept = ["address"]
    """)
    made.start()
    return made, office


def configure(made: Star, groups: str) -> None:
    made.hub_vpnd.configure(f"""\
[interface]
name = "{LINK}"
addresses = ["{HUB_TUNNEL}/24", "{HUB_TUNNEL6}/64", "10.8.0.1/24", "fd00:8::1/64"]
[local]
listen = ["0.0.0.0:{PORT}"]
[routing]
forward = true
[pool]
ipv4 = "10.8.0.0/24"
ipv6 = "fd00:8::/64"
[peer.a]
public_key = "{made["a"].vpnd.key.public}"
networks = ["10.20.0.0/16", "fd20::/48"]
[peer.b]
public_key = "{made["b"].vpnd.key.public}"
networks = ["192.168.53.12/32", "fd53::12/128", "10.30.0.0/16", "fd30::/48"]
{groups}""")


def datagram(source: str, port: int) -> bytes:
    """UDP to the office, with a checksum that is right."""
    family = 6 if ":" in source else 4
    make = ipv6 if family == 6 else ipv4
    head = struct.pack(">HHHH", 999, port, 12, 0)
    unsummed = make(source, OFFICE[family], head + b"spoo")
    addresses = unsummed[8:40] if family == 6 else unsummed[12:20]
    summed = checksum(addresses + struct.pack(">HH", 12, UDP) + head + b"spoo")
    segment = head[:6] + struct.pack(">H", summed) + b"spoo"
    return (
        ipv6(source, OFFICE[6], segment, next_header=UDP)
        if family == 6
        else ipv4(source, OFFICE[4], segment, protocol=UDP)
    )


def send(host: Host, packets: list[bytes]) -> None:
    """Puts packets into the link, as a machine that its owner has changed would."""
    host.run(f"{sys.executable} -c '{_SEND}' {LINK}", text="\n".join(each.hex() for each in packets))


def test_no_peer_speaks_in_the_name_of_another_without_groups_and_with_them(lab: Lab) -> None:
    """[E4] Of every wrong source nothing comes to the office, and the drop is counted as the peer's."""
    made, office = site(lab)
    for groups in ("", GROUPS):
        configure(made, groups)
        made.hub_vpnd.ask("reload")
        for name, other in (("a", "b"), ("b", "a")):
            came = what_comes(made, office, name, other)
            # What groups refuse of a right source is counted as that, and not as a wrong one.
            ports = (ALLOWED,) if groups else (ALLOWED, FORBIDDEN)
            assert came == {(source, port): 1 for source in right_sources(name) for port in ports}
            if groups:
                assert f"packets from {name} were refused lately, udp to" in made.hub_vpnd.why(name)
    (group,) = made.hub_vpnd.ask("show", topic="groups")["groups"]
    assert group["refused"] == 8
    made.assert_no_error()


def what_comes(made: Star, office: Host, name: str, other: str) -> Counter[tuple[str, int]]:
    """Sends from all sources; once the wrong ones are counted, tells the rest by source and port."""
    wrong = [
        source
        for family in (4, 6)
        for source in (*OWN[other][family], *HUBS[family], *NOBODYS[family], OFFICE[family])
    ]
    packets = [datagram(source, ALLOWED) for source in wrong]
    packets += [datagram(source, port) for source in right_sources(name) for port in (ALLOWED, FORBIDDEN)]
    capture = Capture(office, "eth0", f"udp dst port {ALLOWED} or udp dst port {FORBIDDEN}")
    before = made.hub_vpnd.peer_now(name)["drops"].get("data_source", 0)

    def dropped() -> int:
        count: int = made.hub_vpnd.peer_now(name)["drops"].get("data_source", 0) - before
        return count

    send(made[name].host, packets)
    eventually(lambda: dropped() >= len(wrong), what="the drops")
    capture.stop()
    assert dropped() == len(wrong)
    came: Counter[tuple[str, int]] = Counter()
    for line in capture.lines():
        _, _, source, _, target, *_ = line.split()
        came[source.rpartition(".")[0], int(target.rstrip(":").rpartition(".")[2])] += 1
    return came


def right_sources(name: str) -> list[str]:
    return [source for family in (4, 6) for source in OWN[name][family]]
