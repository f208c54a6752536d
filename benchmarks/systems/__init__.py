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
_LIMIT = NoTunnel()
_OTHERS: tuple[System, ...] = (Fastd(), OpenVpn(), Tinc(), Vtun(), WireguardGo(), Nebula())
PEERS: tuple[System, ...] = (_LIMIT, _VPND, *_OTHERS)
VARIANTS: tuple[System, ...] = tuple(_VARIANTS)
# In the order in which they are measured: beside vpnd, on either side, stand those that come nearest.
SYSTEMS: tuple[System, ...] = (_LIMIT, *reversed(_OTHERS), _VPND, *VARIANTS)
