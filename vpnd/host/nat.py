"""Masquerade: the chain of our nftables table that hides inner sources behind this machine.

Owns its rules; the table that holds them is made elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable

from vpnd.host.plan import Network
from vpnd.host.table import Chain, Hook, Rule

_HOOK = Hook("nat", "postrouting", "srcnat", 100)


def masquerade_chains(link: str, networks: Iterable[Network]) -> tuple[Chain, ...]:
    """Gives the chain that hides these sources where they leave by another link; none without sources.

    "lo" is left out beside our own link: a machine that speaks to its own inner address does
    so through lo, and must see the source it used.
    """
    rules = tuple(
        Rule(
            f'{_source_match(network)} oifname != "lo" oifname != "{link}" masquerade',
            f"{network} leaves under this machine's address",
        )
        for network in dict.fromkeys(networks)
    )
    return (Chain("hide-sources", rules, _HOOK),) if rules else ()


def _source_match(network: Network) -> str:
    if network.prefixlen == 0:
        return "meta nfproto ipv4" if network.version == 4 else "meta nfproto ipv6"
    return f"{'ip' if network.version == 4 else 'ip6'} saddr {network}"
