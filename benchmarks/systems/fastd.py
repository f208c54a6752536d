"""fastd with its fastest method, salsa2012+umac, as its manual recommends."""

from __future__ import annotations

import re

from benchmarks import pair
from benchmarks.pair import MTU, RIGHT, TUNNEL_LEFT, TUNNEL_RIGHT, Pair
from benchmarks.systems.system import System
from tests.lab.namespaces import Host, Lab

_PORT = 10000


class Fastd(System):
    name = "fastd"
    about = "salsa2012+umac, its fastest method"
    package = "fastd"

    def build(self, lab: Lab) -> Pair:
        made = pair.cable(lab)
        left_secret, left_public = _make_keys(made.left)
        right_secret, right_public = _make_keys(made.right)
        remote = f"remote ipv4 {RIGHT} port {_PORT};"
        _start(made.right, TUNNEL_RIGHT, right_secret, f'peer "left" {{ key "{left_public}"; }}')
        _start(made.left, TUNNEL_LEFT, left_secret, f'peer "right" {{ key "{right_public}"; {remote} }}')
        return pair.tunnelled(made)


def _make_keys(host: Host) -> tuple[str, str]:
    secret = _key_in(host.output("fastd --machine-readable --generate-key"))
    shown = host.run("fastd --machine-readable --show-key -c -", text=f'secret "{secret}";').stdout
    return secret, _key_in(shown)


def _key_in(text: str) -> str:
    match = re.search(r"[0-9a-f]{64}", text)
    assert match is not None, text
    return match.group()


def _start(host: Host, address: str, secret: str, peer: str) -> None:
    file = host.folder / "fastd.conf"
    file.write_text(f"""
        log level warn; mode tun; interface "tun0"; mtu {MTU}; method "salsa2012+umac";
        bind any port {_PORT}; secret "{secret}";
        on up "ip addr add {address}/24 dev tun0; ip link set tun0 up";
        {peer}
    """)
    host.start("fastd", "-c", file, log="fastd.log")
