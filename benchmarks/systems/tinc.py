"""tinc 1.0 in router mode, with the cipher and digest that it has when nobody chooses."""

from __future__ import annotations

from pathlib import Path

from benchmarks import pair
from benchmarks.pair import MTU, RIGHT, TUNNEL_LEFT, TUNNEL_RIGHT, Pair
from benchmarks.systems.system import System
from tests.lab.namespaces import Host, Lab


class Tinc(System):
    name = "tinc"
    about = "1.0, router mode, AES-256-CBC with SHA-256 (its defaults)"
    package = "tinc"

    def build(self, lab: Lab) -> Pair:
        made = pair.cable(lab)
        _prepare(made.left, TUNNEL_LEFT, "ConnectTo = right\n", "")
        _prepare(made.right, TUNNEL_RIGHT, "", f"Address = {RIGHT}\n")
        for here, there in ((made.left, made.right), (made.right, made.left)):
            (_folder(here) / "hosts" / there.name).write_text(
                (_folder(there) / "hosts" / there.name).read_text()
            )
        for host in (made.right, made.left):
            host.start(
                *("tincd", "-c", _folder(host), "-D", f"--pidfile={host.folder}/tinc.pid"), log="tinc.log"
            )
        return pair.tunnelled(made)


def _folder(host: Host) -> Path:
    return host.folder / "tinc"


def _prepare(host: Host, address: str, connect: str, reachable: str) -> None:
    """Writes the host's own files and makes its key, whose public half joins its host file."""
    folder = _folder(host)
    (folder / "hosts").mkdir(parents=True)
    (folder / "tinc.conf").write_text(f"Name = {host}\nMode = router\nInterface = tun0\n{connect}")
    (folder / "hosts" / host.name).write_text(f"{reachable}Subnet = {address}/32\n")
    up = folder / "tinc-up"
    up.write_text(
        f'#!/bin/sh\nip addr add {address}/24 dev "$INTERFACE"\nip link set "$INTERFACE" mtu {MTU} up\n'
    )
    up.chmod(0o755)
    host.run(f"tincd -c {folder} -K 2048")
