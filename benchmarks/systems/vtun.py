"""vtun 3.0 over UDP with AES-256; it has no authentication of packets to switch on.

ECB, as the cipher that it has when nobody chooses: its chained modes end the session at the first
datagram that is lost.
"""

from __future__ import annotations

from functools import partial

from benchmarks import pair
from benchmarks.pair import MTU, RIGHT, TUNNEL_LEFT, TUNNEL_RIGHT, Pair
from benchmarks.systems.system import System
from tests.lab.namespaces import Host, Lab, eventually

_PORT = 5000


class Vtun(System):
    name = "vtun"
    about = "3.0 over UDP, AES-256-ECB, packets not authenticated"
    package = "vtun"

    def build(self, lab: Lab) -> Pair:
        made = pair.cable(lab)
        for host, address in ((made.right, TUNNEL_RIGHT), (made.left, TUNNEL_LEFT)):
            # A packet that comes before the other end's link is up ends its vtund.
            host.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
            _configure(host, address)
        made.right.start(*_program(made.right), "-s", "-P", str(_PORT), log="vtun.log")
        eventually(lambda: f":{_PORT}" in made.right.output("ss -ltn"), what="vtund listening")
        made.left.start(*_program(made.left), "-P", str(_PORT), _session(made.left), RIGHT, log="vtun.log")
        for host in (made.right, made.left):
            eventually(partial(_is_up, host), what=f"the link of vtun on {host}")
        return pair.tunnelled(made)


def _is_up(host: Host) -> bool:
    return "LOWER_UP" in host.run("ip link show tun0", check=False).stdout


def _session(host: Host) -> str:
    # vtund keeps a lock file per session for the whole machine: the lab's name makes ours unique.
    return f"vpnd{host.lab.folder.name.rpartition('-')[2]}"


def _program(host: Host) -> tuple[str, ...]:
    return ("vtund", "-n", "-f", f"{host.folder}/vtund.conf")


def _configure(host: Host, address: str) -> None:
    (host.folder / "vtund.conf").write_text(f"""
options {{ port {_PORT}; syslog daemon; ip /sbin/ip; }}
{_session(host)} {{
  passwd benchmark;
  type tun;
  proto udp;
  encrypt aes256ecb;
  compress no;
  stat no;
  keepalive no;
  persist no;
  up {{
    ip "addr add {address}/24 dev %%";
    ip "link set %% mtu {MTU} up";
  }};
}}
""")
