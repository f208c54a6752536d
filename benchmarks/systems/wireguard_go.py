"""wireguard-go: the same handshake pattern and cipher as the kernel's WireGuard, in user space."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks import pair
from benchmarks.pair import MTU, RIGHT, TUNNEL_LEFT, TUNNEL_RIGHT, Pair
from benchmarks.systems.system import System
from tests.lab.namespaces import Host, Lab, eventually

_PORT = 51820
_SOCKETS = Path("/var/run/wireguard")  # one folder for all network namespaces


class WireguardGo(System):
    name = "wireguard-go"
    about = "ChaCha20-Poly1305, Debian's wireguard-go"
    package = "wireguard-go"

    def build(self, lab: Lab) -> Pair:
        made = pair.cable(lab)
        left_public, right_public = _make_key(made.left), _make_key(made.right)
        _start(made.right, TUNNEL_RIGHT, f"peer {left_public} allowed-ips {TUNNEL_LEFT}/32")
        _start(
            made.left,
            TUNNEL_LEFT,
            f"peer {right_public} allowed-ips {TUNNEL_RIGHT}/32 endpoint {RIGHT}:{_PORT}",
        )
        return pair.tunnelled(made)


def _make_key(host: Host) -> str:
    private = host.output("wg genkey")
    (host.folder / "wg.key").write_text(private)
    return host.run("wg pubkey", text=private).stdout.strip()


def _start(host: Host, address: str, peer: str) -> None:
    link = f"wg{os.getpid()}{host.name[0]}"
    host.start(
        *("wireguard-go", "--foreground", link),
        log="wireguard.log",
        env=os.environ | {"WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1"},
    )
    eventually((_SOCKETS / f"{link}.sock").exists, what="the socket of wireguard-go")
    host.run(f"wg set {link} private-key {host.folder}/wg.key listen-port {_PORT} {peer}")
    host.run(f"ip addr add {address}/24 dev {link}")
    host.run(f"ip link set {link} mtu {MTU} up")
