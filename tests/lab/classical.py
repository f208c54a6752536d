"""The classical topology of VPN courses.

                outer                                      inner
    host U ──────────────── 10.9.0.11 gateway 192.168.60.11 ──────────── host V
    10.9.0.5                fd09::11             fd60::11            192.168.60.5
    fd09::5                     │                                    fd60::5
       └──────── tunnel ────────┘
     192.168.53.99    192.168.53.11
     fd53::99         fd53::11

U and the gateway run vpnd. V knows the way back to the tunnel's addresses by one route, no more.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.lab.namespaces import Host, Lab, eventually
from tests.lab.relay import Road
from tests.lab.vpnd import Vpnd

U_OUTER, GATEWAY_OUTER = "10.9.0.5", "10.9.0.11"
U_OUTER6, GATEWAY_OUTER6 = "fd09::5", "fd09::11"
V_INNER, GATEWAY_INNER = "192.168.60.5", "192.168.60.11"
V_INNER6, GATEWAY_INNER6 = "fd60::5", "fd60::11"
U_TUNNEL, GATEWAY_TUNNEL = "192.168.53.99", "192.168.53.11"
U_TUNNEL6, GATEWAY_TUNNEL6 = "fd53::99", "fd53::11"
PORT = 5180


@dataclass
class Classical:
    """The three hosts and the two daemons; `road` lies between U and the gateway when asked for."""

    u: Host
    gateway: Host
    v: Host
    u_vpnd: Vpnd
    gateway_vpnd: Vpnd
    road: Road | None

    def start(self) -> None:
        self.gateway_vpnd.start()
        self.u_vpnd.start()
        self.u_vpnd.wait_up()
        self.gateway_vpnd.wait_up()

    def settle(self, carried: int) -> None:
        """Waits until both sides have found that the path carries outer IP packets of so many bytes."""
        for vpnd in (self.u_vpnd, self.gateway_vpnd):
            eventually(lambda vpnd=vpnd: path_mtu(vpnd) == carried, within_s=8, what=f"{carried} found")  # type: ignore[misc]


def path_mtu(vpnd: Vpnd) -> int | None:
    """The largest outer IP packet that was seen to arrive at the only peer."""
    value = vpnd.status()["peers"][0]["path_mtu"]
    assert value is None or isinstance(value, int)
    return value


def build(
    lab: Lab, *, kind: str = "tun", outer: str = "ipv4", road_seed: int | None = None, own_plane: bool = False
) -> Classical:
    """Builds hosts and cables and writes both configurations; starts nothing."""
    u, gateway, v = lab.host("u"), lab.host("gateway"), lab.host("v")
    road = None
    if road_seed is None:
        lab.cable(u, "eth0", gateway, "outer")
    else:
        road = Road(lab, u, "eth0", gateway, "outer", seed=road_seed)
    lab.cable(gateway, "inner", v, "eth0")
    for host, link, addresses in (
        (u, "eth0", (f"{U_OUTER}/24", f"{U_OUTER6}/64")),
        (gateway, "outer", (f"{GATEWAY_OUTER}/24", f"{GATEWAY_OUTER6}/64")),
        (gateway, "inner", (f"{GATEWAY_INNER}/24", f"{GATEWAY_INNER6}/64")),
        (v, "eth0", (f"{V_INNER}/24", f"{V_INNER6}/64")),
    ):
        for address in addresses:
            host.run(f"ip addr add {address} dev {link}")
    v.run(f"ip route add 192.168.53.0/24 via {GATEWAY_INNER}")
    v.run(f"ip -6 route add fd53::/64 via {GATEWAY_INNER6}")
    topology = Classical(
        u, gateway, v, Vpnd(u, own_plane=own_plane), Vpnd(gateway, own_plane=own_plane), road
    )
    configure(topology, kind=kind, outer=outer)
    return topology


def configure(
    topology: Classical,
    *,
    kind: str = "tun",
    outer: str = "ipv4",
    endpoint: str = "",
    u_address: str = f"{U_TUNNEL}/24",
    u_interface: str = "",
    u_local: str = "",
    u_peer: str = "",
    gateway_interface: str = "",
    gateway_local: str = "",
    gateway_peer: str = "",
    gateway_networks: tuple[str, ...] = (f"{U_TUNNEL}/32", f"{U_TUNNEL6}/128"),
    u_networks: tuple[str, ...] = (
        f"{GATEWAY_TUNNEL}/32",
        f"{GATEWAY_TUNNEL6}/128",
        "192.168.60.0/24",
        "fd60::/64",
    ),
    routing: str = "forward = true",
) -> None:
    """Writes both files; the keyword arguments are lines added to a section or values replaced."""
    if kind == "tap":
        # Frames find their way by MAC address; routes to what lies behind go through the gateway.
        u_networks, gateway_networks = (), ()
    endpoint = endpoint or (f"{GATEWAY_OUTER}:{PORT}" if outer == "ipv4" else f"[{GATEWAY_OUTER6}]:{PORT}")
    topology.u_vpnd.configure(f"""
        [interface]
        name = "vpn-u"
        type = "{kind}"
        addresses = ["{u_address}", "{U_TUNNEL6}/64"]
        {u_interface}
        [local]
        {u_local}
        [peer.gateway]
        public_key = "{topology.gateway_vpnd.key.public}"
        endpoint = "{endpoint}"
        networks = [{_quoted(u_networks)}]
        {u_peer}
    """)
    topology.gateway_vpnd.configure(f"""
        [interface]
        name = "vpn-gw"
        type = "{kind}"
        addresses = ["{GATEWAY_TUNNEL}/24", "{GATEWAY_TUNNEL6}/64"]
        {gateway_interface}
        [local]
        listen = ["0.0.0.0:{PORT}", "[::]:{PORT}"]
        {gateway_local}
        [peer.u]
        public_key = "{topology.u_vpnd.key.public}"
        networks = [{_quoted(gateway_networks)}]
        {gateway_peer}
        [routing]
        {routing}
    """)


def route_through_tap(topology: Classical) -> None:
    """Leads U's packets for V's network to the gateway's address on the TAP link."""
    topology.u.run(f"ip route add 192.168.60.0/24 via {GATEWAY_TUNNEL} dev vpn-u")
    topology.u.run(f"ip -6 route add fd60::/64 via {GATEWAY_TUNNEL6} dev vpn-u")


def _quoted(networks: tuple[str, ...]) -> str:
    return ", ".join(f'"{network}"' for network in networks)
