"""Who takes part in an address pool, and which of its addresses may be given.

Owns the rules that the checks of a configuration and the giving of addresses share. Remembers nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from vpnd.config.values import IPAddress, IPInterface, IPNetwork, PeerConfig, PoolConfig


def is_assigned(networks: Iterable[IPNetwork], pool: PoolConfig) -> bool:
    """Tells whether the pool serves a peer with these: not one that has an address outside it already."""
    return all(
        any(is_inside(network, each) for each in pool.networks)
        for network in networks
        if network.num_addresses == 1
    )


def fixed_address(peer: PeerConfig, network: IPNetwork) -> IPAddress | None:
    """Gives the address of the pool's `network` that the configuration itself gives to the peer."""
    return next(fixed_addresses((peer,), network), None)


def fixed_addresses(peers: Iterable[PeerConfig], network: IPNetwork) -> Iterator[IPAddress]:
    """Gives every address of the pool's `network` that stands in networks of peers."""
    for peer in peers:
        for each in peer.networks:
            if each.num_addresses == 1 and is_inside(each, network):
                yield each.network_address


def kept_out(network: IPNetwork, own: Iterable[IPInterface]) -> frozenset[IPAddress]:
    """Gives the addresses of the pool's `network` that nobody gets: its own and this machine's."""
    found = {address.ip for address in own if address.ip in network}
    if network.version == 4 and network.prefixlen < 31:
        found |= {network.network_address, network.broadcast_address}
    elif network.version == 6 and network.prefixlen < 127:
        found.add(network.network_address)  # any router of the subnet (RFC 4291, section 2.6.1)
    return frozenset(found)


def is_inside(inner: IPNetwork, outer: IPNetwork) -> bool:
    """Tells whether all of `inner` is of `outer`, which may be of the other family."""
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False
