"""A hub and its spokes around one switch; every machine runs vpnd, the hub is called.

     spoke a 10.9.0.11 ───┐
     spoke b 10.9.0.12 ───┼─── switch, outer 10.9.0.0/24 ─── 10.9.0.1 hub
     spoke c 10.9.0.13 ───┘
          └──── tunnel 192.168.53.0/24, fd53::/64: hub .1, a .11, b .12, c .13 ────┘

Every link is called "vpn". The hub passes packets, or frames, from spoke to spoke.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.lab.namespaces import Host, Lab, Switch
from tests.lab.vpnd import Vpnd

HUB_OUTER = "10.9.0.1"
HUB_TUNNEL, HUB_TUNNEL6 = "192.168.53.1", "fd53::1"
LINK = "vpn"
PORT = 5180


@dataclass
class Spoke:
    name: str
    number: int
    host: Host
    vpnd: Vpnd

    @property
    def outer(self) -> str:
        return f"10.9.0.{self.number}"

    @property
    def tunnel(self) -> str:
        return f"192.168.53.{self.number}"

    @property
    def tunnel6(self) -> str:
        return f"fd53::{self.number}"

    @property
    def own_networks(self) -> tuple[str, ...]:
        return f"{self.tunnel}/32", f"{self.tunnel6}/128"


@dataclass
class Star:
    """The machines and their daemons, all of one kind of link."""

    hub: Host
    hub_vpnd: Vpnd
    spokes: dict[str, Spoke]
    kind: str
    switch: Switch

    def __getitem__(self, name: str) -> Spoke:
        return self.spokes[name]

    def start(self) -> None:
        self.hub_vpnd.start()
        for spoke in self.spokes.values():
            spoke.vpnd.start()
        for spoke in self.spokes.values():
            spoke.vpnd.wait_up()
        self.hub_vpnd.wait_up()

    def assert_no_error(self) -> None:
        for vpnd in (self.hub_vpnd, *(spoke.vpnd for spoke in self.spokes.values())):
            vpnd.assert_no_error()

    def configure_hub(
        self,
        networks: Mapping[str, Sequence[str]] | None = None,
        *,
        peers: Sequence[str] | None = None,
        mtu: int = 1420,
        routing: str = "forward = true",
    ) -> None:
        """Writes the hub's file; `networks` replaces those of the spokes named, `peers` leaves others out."""
        text = f"""\
[interface]
name = "{LINK}"
type = "{self.kind}"
mtu = {mtu}
addresses = ["{HUB_TUNNEL}/24", "{HUB_TUNNEL6}/64"]
[local]
listen = ["0.0.0.0:{PORT}"]
[routing]
{routing}
"""
        for name in self.spokes if peers is None else peers:
            spoke = self.spokes[name]
            behind = () if self.kind == "tap" else spoke.own_networks
            behind = tuple((networks or {}).get(name, behind))
            text += f'[peer.{name}]\npublic_key = "{spoke.vpnd.key.public}"\nnetworks = {list(behind)}\n'
        self.hub_vpnd.configure(text)

    def configure_spoke(self, name: str, *, mtu: int = 1420) -> None:
        spoke = self.spokes[name]
        behind = [] if self.kind == "tap" else ["192.168.53.0/24", "fd53::/64"]
        spoke.vpnd.configure(f"""\
[interface]
name = "{LINK}"
type = "{self.kind}"
mtu = {mtu}
addresses = ["{spoke.tunnel}/24", "{spoke.tunnel6}/64"]
[local]
[peer.hub]
public_key = "{self.hub_vpnd.key.public}"
endpoint = "{HUB_OUTER}:{PORT}"
networks = {behind}
""")


def build(lab: Lab, names: Sequence[str] = ("a", "b", "c"), *, kind: str = "tun", mtu: int = 1420) -> Star:
    """Builds hosts, switch and cables and writes every configuration; starts nothing."""
    switch, hub = lab.switch("switch"), lab.host("hub")
    switch.join(hub, "eth0")
    hub.run(f"ip addr add {HUB_OUTER}/24 dev eth0")
    star = Star(hub, Vpnd(hub), {}, kind, switch)
    for number, name in enumerate(names, start=11):
        host = lab.host(name)
        switch.join(host, "eth0")
        spoke = Spoke(name, number, host, Vpnd(host))
        host.run(f"ip addr add {spoke.outer}/24 dev eth0")
        star.spokes[name] = spoke
    star.configure_hub(mtu=mtu)
    for name in names:
        star.configure_spoke(name, mtu=mtu)
    return star
