"""The systems that are compared, each set up as its own manual says, with its modern ciphers.

left 10.1.0.1 ──── cable, MTU 1500 ──── 10.1.0.2 right
       └───── tunnel 10.2.0.1 ─ 10.2.0.2 ─────┘
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.lab.namespaces import Host, Lab, eventually
from tests.lab.vpnd import Vpnd

LEFT, RIGHT = "10.1.0.1", "10.1.0.2"
TUNNEL_LEFT, TUNNEL_RIGHT = "10.2.0.1", "10.2.0.2"


@dataclass(frozen=True)
class Pair:
    """Two hosts; what is measured goes from left to `address` on right."""

    left: Host
    right: Host
    address: str


@dataclass(frozen=True)
class System:
    name: str
    build: Callable[[Lab], Pair]


def _cable(lab: Lab) -> Pair:
    left, right = lab.host("left"), lab.host("right")
    lab.cable(left, "eth0", right, "eth0")
    left.run(f"ip addr add {LEFT}/24 dev eth0")
    right.run(f"ip addr add {RIGHT}/24 dev eth0")
    return Pair(left, right, RIGHT)


def _tunnelled(pair: Pair) -> Pair:
    eventually(lambda: pair.left.pings(TUNNEL_RIGHT), within_s=20, every_s=0.3, what="the tunnel")
    return Pair(pair.left, pair.right, TUNNEL_RIGHT)


def _vpnd(lab: Lab) -> Pair:
    pair = _cable(lab)
    left, right = Vpnd(pair.left, own_plane=True), Vpnd(pair.right, own_plane=True)
    left.configure(f"""
        [interface]
        addresses = ["{TUNNEL_LEFT}/24"]
        [local]
        [peer.right]
        public_key = "{right.key.public}"
        endpoint = "{RIGHT}:5180"
        networks = ["{TUNNEL_RIGHT}/32"]
    """)
    right.configure(f"""
        [interface]
        addresses = ["{TUNNEL_RIGHT}/24"]
        [local]
        listen = ["0.0.0.0:5180"]
        [peer.left]
        public_key = "{left.key.public}"
        networks = ["{TUNNEL_LEFT}/32"]
    """)
    right.start()
    left.start()
    return _tunnelled(pair)


def _openvpn(lab: Lab) -> Pair:
    """TLS between two peers that know each other's certificate, AES-256-GCM, no DCO."""
    pair = _cable(lab)
    prints = {}
    for host in (pair.left, pair.right):
        host.run(
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
            f" -subj /CN={host} -keyout {host.folder}/key.pem -out {host.folder}/cert.pem"
        )
        shown = host.output(f"openssl x509 -in {host.folder}/cert.pem -noout -fingerprint -sha256")
        prints[host.name] = shown.strip().split("=")[1]
    for host, other, here, there, role in (
        (pair.right, pair.left, TUNNEL_RIGHT, TUNNEL_LEFT, ("--tls-server", "--dh", "none")),
        (pair.left, pair.right, TUNNEL_LEFT, TUNNEL_RIGHT, ("--tls-client", "--remote", RIGHT)),
    ):
        host.start(
            *("openvpn", "--dev", "tun0", "--dev-type", "tun", "--proto", "udp4", "--port", "1194", *role),
            *(
                "--ifconfig",
                here,
                there,
                "--cert",
                host.folder / "cert.pem",
                "--key",
                host.folder / "key.pem",
            ),
            *("--peer-fingerprint", prints[other.name], "--data-ciphers", "AES-256-GCM", "--disable-dco"),
            log="openvpn.log",
        )
    return _tunnelled(pair)


def _fastd(lab: Lab) -> Pair:
    """Its fastest method, salsa2012+umac, as its manual recommends."""
    pair = _cable(lab)
    keys = {}
    for host in (pair.left, pair.right):
        shown = host.run("fastd --machine-readable --generate-key").stdout
        secret, public = re.findall(r"[0-9a-f]{64}", shown)[:1], None
        public = host.run(
            "fastd --machine-readable --show-key -c -", text=f'secret "{secret[0]}";'
        ).stdout.strip()
        keys[host.name] = (secret[0], re.findall(r"[0-9a-f]{64}", public)[0])
    for host, other, address, remote in (
        (pair.right, pair.left, TUNNEL_RIGHT, ""),
        (pair.left, pair.right, TUNNEL_LEFT, f"remote ipv4 {RIGHT} port 10000;"),
    ):
        (host.folder / "fastd.conf").write_text(f"""
            log level warn; mode tun; interface "tun0"; mtu 1400; method "salsa2012+umac";
            bind any port 10000; secret "{keys[host.name][0]}";
            on up "ip addr add {address}/24 dev tun0; ip link set tun0 up";
            peer "{other}" {{ key "{keys[other.name][1]}"; {remote} }}
        """)
        host.start("fastd", "-c", host.folder / "fastd.conf", log="fastd.log")
    return _tunnelled(pair)


SYSTEMS = (
    System("no tunnel", _cable),
    System("vpnd", _vpnd),
    System("openvpn", _openvpn),
    System("fastd", _fastd),
)
