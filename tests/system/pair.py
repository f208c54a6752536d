"""Two booted Debians with the package, joined by a cable, each with a machine of its office behind it:

office a 192.168.60.5 ─ .60.1 machine a 10.9.0.1 ── outer ── 10.9.0.2 machine b .70.1 ─ 192.168.70.5 office b
                                   └── tunnel "site" 192.168.53.0/24: a .1, b .2 ─┘
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.lab.namespaces import Host, Lab
from tests.system.machine import Machine

OUTER = {"a": "10.9.0.1", "b": "10.9.0.2"}
TUNNEL = {"a": "192.168.53.1", "b": "192.168.53.2"}
OFFICE = {"a": "192.168.60", "b": "192.168.70"}
PORT = 5180


@dataclass
class Site:
    """One end: the machine, and a host in the office behind it."""

    name: str
    machine: Machine
    office: Host

    @property
    def other(self) -> str:
        return "b" if self.name == "a" else "a"

    @property
    def far_office(self) -> str:
        return f"{OFFICE[self.other]}.5"

    @property
    def office_address(self) -> str:
        return f"{OFFICE[self.name]}.5"

    def install(self, package: Path) -> None:
        """Installs the package as an operator would."""
        path = self.machine.bring(package)
        self.machine.run(f"apt-get install -y {path}", timeout_s=120)

    def configure(self, public_key: str, *, more: str = "") -> None:
        """Writes /etc/vpnd/site.toml for a peer with this key; `a` is the one that calls."""
        calls = f'endpoint = "{OUTER[self.other]}:{PORT}"' if self.name == "a" else ""
        self.machine.write(
            "/etc/vpnd/site.toml",
            f"""\
[interface]
name = "vpn-site"
addresses = ["{TUNNEL[self.name]}/24"]
[local]
listen = ["0.0.0.0:{PORT}"]
[routing]
forward = true
[peer.{self.other}]
public_key = "{public_key}"
networks = ["{TUNNEL[self.other]}/32", "{OFFICE[self.other]}.0/24"]
{calls}
{more}
""",
        )


@dataclass
class Pair:
    a: Site
    b: Site

    def introduce(self) -> None:
        """Makes both keys and writes both configurations."""
        sites = (self.a, self.b)
        keys = {}
        for site in sites:
            site.machine.run("vpnctl key gen /etc/vpnd/keys/site.key")
            keys[site.name] = site.machine.output("vpnctl key pub /etc/vpnd/keys/site.key")
        for site in sites:
            site.configure(keys[site.other])

    def start(self) -> None:
        for site in (self.b, self.a):
            site.machine.run("systemctl enable --now vpnd@site")
        for site in (self.b, self.a):
            site.machine.run("vpnctl -i site wait --timeout 10")


def build(lab: Lab, root: Path) -> Pair:
    """Makes hosts and machines, joined and addressed; boots nothing."""
    sites = {}
    for name in ("a", "b"):
        host, office = lab.host(name), lab.host(f"office-{name}")
        lab.cable(host, "inner", office, "eth0")
        host.run(f"ip addr add {OFFICE[name]}.1/24 dev inner")
        office.run(f"ip addr add {OFFICE[name]}.5/24 dev eth0")
        office.run(f"ip route add default via {OFFICE[name]}.1")
        sites[name] = Site(name, Machine(host, root), office)
    one, other = sites["a"].machine.host, sites["b"].machine.host
    lab.cable(one, "outer", other, "outer")
    one.run(f"ip addr add {OUTER['a']}/24 dev outer")
    other.run(f"ip addr add {OUTER['b']}/24 dev outer")
    return Pair(sites["a"], sites["b"])
