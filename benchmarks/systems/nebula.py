"""nebula: two hosts of one certificate authority, the right one the lighthouse."""

from __future__ import annotations

from benchmarks import pair
from benchmarks.pair import MTU, RIGHT, TUNNEL_LEFT, TUNNEL_RIGHT, Pair
from benchmarks.systems.system import System
from tests.lab.namespaces import Host, Lab

_PORT = 4242


class Nebula(System):
    name = "nebula"
    about = "AES-256-GCM, its default"
    package = "nebula"

    def build(self, lab: Lab) -> Pair:
        made = pair.cable(lab)
        authority = lab.folder / "ca"
        made.left.run(f"nebula-cert ca -name benchmark -out-crt {authority}.crt -out-key {authority}.key")
        for host, address in ((made.right, TUNNEL_RIGHT), (made.left, TUNNEL_LEFT)):
            host.run(
                f"nebula-cert sign -name {host} -ip {address}/24"
                f" -ca-crt {authority}.crt -ca-key {authority}.key"
                f" -out-crt {host.folder}/host.crt -out-key {host.folder}/host.key"
            )
            _start(host, is_lighthouse=host is made.right)
        return pair.tunnelled(made)


def _start(host: Host, *, is_lighthouse: bool) -> None:
    known = "{}" if is_lighthouse else f'{{"{TUNNEL_RIGHT}": ["{RIGHT}:{_PORT}"]}}'
    lighthouses = "[]" if is_lighthouse else f'["{TUNNEL_RIGHT}"]'
    file = host.folder / "nebula.yml"
    file.write_text(f"""\
pki: {{ca: {host.lab.folder}/ca.crt, cert: {host.folder}/host.crt, key: {host.folder}/host.key}}
static_host_map: {known}
lighthouse: {{am_lighthouse: {str(is_lighthouse).lower()}, hosts: {lighthouses}}}
listen: {{host: 0.0.0.0, port: {_PORT}}}
cipher: aes
tun: {{dev: nebula0, mtu: {MTU}}}
logging: {{level: warning}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
""")
    host.start("nebula", "-config", file, log="nebula.log")
