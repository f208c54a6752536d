"""The kill switch: nothing but the tunnel's own packets leaves outside the tunnel.

Owns the chains of our nftables table for it. The table is made elsewhere, stands without a daemon, and goes
when the instance is stopped.
"""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Iterable

from vpnd.host.disjoint import merge
from vpnd.host.plan import FullTunnelPlan, Network
from vpnd.host.table import PROTOCOL_NUMBERS, Chain, Collection, Element, Hook, Rule

KILL_SWITCH = "outside"  # the chain that judges what leaves by another link
_NEIGHBOURS = "nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld2-listener-report"


def kill_switch_parts(
    link: str, plan: FullTunnelPlan | None, near: Iterable[Network]
) -> tuple[tuple[Collection, ...], tuple[Chain, ...]]:
    """Gives the sets and chains; none without a kill switch. `near` are the networks of the other links."""
    if plan is None or not plan.kill_switch:
        return (), ()
    outside = [
        Rule(f"meta mark 0x{plan.mark:x} meta l4proto {PROTOCOL_NUMBERS['udp']} accept", "the tunnel's own"),
        Rule("udp sport 68 udp dport 67 accept", "DHCP"),
        Rule("udp sport 546 udp dport 547 accept", "DHCPv6"),
        Rule(f"icmpv6 type {{ {_NEIGHBOURS} }} accept", "neighbours and routers"),
    ]
    collections: tuple[Collection, ...] = ()
    if plan.allow_lan:
        collections = _near(4, near), _near(6, near)
        outside += [
            Rule(f"ip daddr @{collections[0].name} accept", "allow_lan"),
            Rule(f"ip6 daddr @{collections[1].name} accept", "allow_lan"),
            Rule("ip daddr { 224.0.0.0/24, 239.0.0.0/8, 255.255.255.255 } accept", "allow_lan"),
            Rule("ip6 daddr { fe80::/10, ff02::/16 } accept", "allow_lan"),
        ]
    outside.append(Rule("counter reject with icmpx admin-prohibited", "outside the tunnel"))
    leave = Rule(f'oifname != {{ "lo", "{link}" }} goto {KILL_SWITCH}', "kill_switch")
    hooks = (Hook("filter", name, "filter", 0) for name in ("output", "forward"))
    chains = (Chain(f"kill-{hook.name}", (leave,), hook) for hook in hooks)
    return collections, (Chain(KILL_SWITCH, tuple(outside)), *chains)


def _near(version: int, networks: Iterable[Network]) -> Collection:
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    ranges = merge((int(each[0]), int(each[-1])) for each in networks if each.version == version)
    elements: tuple[tuple[str, Element], ...] = tuple(
        (f"{kind(first)}-{kind(last)}" if first != last else str(kind(first)), ((first, last),))
        for first, last in ranges
    )
    name = f"near-ipv{version}-{zlib.crc32(repr(elements).encode()):08x}"
    return Collection("set", name, f"type ipv{version}_addr; flags interval;", elements)
