"""The systems that are compared; each stands in a file of its own."""

from __future__ import annotations

from benchmarks.systems.fastd import Fastd
from benchmarks.systems.nebula import Nebula
from benchmarks.systems.no_tunnel import NoTunnel
from benchmarks.systems.openvpn import OpenVpn
from benchmarks.systems.system import System
from benchmarks.systems.tinc import Tinc
from benchmarks.systems.vpnd import systems
from benchmarks.systems.vtun import Vtun
from benchmarks.systems.wireguard_go import WireguardGo

_VPND, *_VARIANTS = systems()
PEERS: tuple[System, ...] = (
    NoTunnel(),
    _VPND,
    OpenVpn(),
    Fastd(),
    Tinc(),
    Vtun(),
    WireguardGo(),
    Nebula(),
)
VARIANTS: tuple[System, ...] = tuple(_VARIANTS)
SYSTEMS = PEERS + VARIANTS
