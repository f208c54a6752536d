"""Checks what sections and peers mean together: nothing twice, nothing that could never work.

Knows only values that were read without a mistake; about the others it keeps silent, so that
one mistake is not told as two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vpnd.config.peers import SWITCH_KEYS, ReadPeer
from vpnd.config.pool import fixed_address, fixed_addresses, is_assigned, is_inside, kept_out
from vpnd.config.reader import Placed, Table
from vpnd.config.values import (
    InterfaceConfig,
    IPInterface,
    IPNetwork,
    LocalConfig,
    PoolConfig,
    PushConfig,
    RoutingConfig,
)
from vpnd.keys import PublicKey

T = TypeVar("T")

_IPV6_MTU_MIN = 1280  # bytes (RFC 8200, section 5)


@dataclass(frozen=True, slots=True)
class ReadSections:
    """The main file's sections that peers depend on, with their tables."""

    interface: InterfaceConfig
    interface_table: Table
    local: LocalConfig
    local_table: Table
    pool: PoolConfig | None
    pool_table: Table
    push: PushConfig
    push_table: Table


def unique_peers(peers: Iterable[ReadPeer]) -> tuple[ReadPeer, ...]:
    """Keeps the first peer of each name; the others are mistakes that name both places."""
    named: dict[str, ReadPeer] = {}
    for peer in peers:
        first = named.setdefault(peer.config.name, peer)
        if first is not peer:
            text = f'peer "{peer.config.name}" is named twice, first at {first.table.place()}'
            peer.table.reading.mistake(peer.table.place(), text)
    return tuple(named.values())


def check_together(sections: ReadSections, peers: Sequence[ReadPeer]) -> None:
    """Notes every conflict between the sections and the peers."""
    _check_mtu(sections, peers)
    _check_public_keys(peers)
    _check_networks(sections.interface.addresses, peers)
    _check_macs(sections.interface.mac, peers)
    _check_assigned(sections, peers)
    _check_pool(sections, peers)
    _check_push(sections)
    for peer in peers:
        _check_can_connect(sections, peer)
        _check_has_networks(sections, peer)
        _check_has_frames(sections, peer)


def check_full_tunnel(
    table: Table, interface: InterfaceConfig, routing: RoutingConfig, peers: Sequence[ReadPeer]
) -> None:
    """Notes a full tunnel that leads nowhere."""
    if not routing.full_tunnel:
        return
    if interface.type == "tap":
        table.wrong("full_tunnel", 'needs a link of type "tun"')
    is_doubtful = any(not peer.table.is_sound("networks") for peer in peers)
    if not is_doubtful and not any(map(_leads_everywhere, peers)):
        text = "no peer leads everywhere: one needs 0.0.0.0/0 or ::/0 in its networks, and route = true"
        table.wrong("full_tunnel", text)


def _leads_everywhere(peer: ReadPeer) -> bool:
    """Tells whether a default route leads to the peer."""
    config = peer.config
    return config.enabled and config.route and any(network.prefixlen == 0 for network in config.networks)


def _check_mtu(sections: ReadSections, peers: Sequence[ReadPeer]) -> None:
    table, mtu = sections.interface_table, sections.interface.mtu
    prefixes: list[IPInterface | IPNetwork] = list(sections.interface.addresses)
    for peer in peers:
        prefixes += peer.config.networks
    prefixes += sections.pool.networks if sections.pool is not None else ()
    ipv6 = next((prefix for prefix in prefixes if prefix.version == 6), None)
    if ipv6 is not None and mtu < _IPV6_MTU_MIN and table.is_sound("mtu"):
        table.wrong("mtu", f"{mtu} is too small for IPv6 ({ipv6}); at least {_IPV6_MTU_MIN}")


def _check_public_keys(peers: Sequence[ReadPeer]) -> None:
    owners: dict[PublicKey, tuple[ReadPeer, str]] = {}
    for peer in peers:
        for name in ("public_key", "previous_public_key"):
            key = getattr(peer.config, name)
            if key is None or not peer.table.is_sound(name):
                continue
            first, its_name = owners.setdefault(key, (peer, name))
            if (first, its_name) != (peer, name):
                text = f'peer "{first.config.name}" has this key too, at {first.table.place(its_name)}'
                peer.table.wrong(name, text)


def _check_networks(addresses: Sequence[IPInterface], peers: Sequence[ReadPeer]) -> None:
    """Prefixes that overlap are nested or equal; of nested ones the longer wins: equal ones conflict."""
    own = {address.ip for address in addresses}
    _check_owners(((peer, network) for peer in peers for network in peer.networks), str)
    for peer in peers:
        for network in peer.networks:
            if network.value.num_addresses == 1 and network.value.network_address in own:
                text = f"{network.value} is this machine's own address on the link"
                peer.table.reading.mistake(network.place, text)


def _check_owners(claims: Iterable[tuple[ReadPeer, Placed[T]]], show: Callable[[T], str]) -> None:
    """Notes what is claimed to be behind two peers."""
    owners: dict[T, tuple[ReadPeer, Placed[T]]] = {}
    for peer, claim in claims:
        first, placed = owners.setdefault(claim.value, (peer, claim))
        if first is not peer:
            text = f'{show(claim.value)} is behind peer "{first.config.name}" too, at {placed.place}'
            peer.table.reading.mistake(claim.place, text)


def _check_assigned(sections: ReadSections, peers: Sequence[ReadPeer]) -> None:
    table = sections.interface_table
    if not sections.interface.is_assigned:
        return
    if sections.pool is not None:
        table.wrong("addresses", '"assigned", but [pool] gives addresses to others; write our own')
    elif all("address" not in peer.config.accept and peer.table.is_sound("accept") for peer in peers):
        table.wrong(
            "addresses", '"assigned", but by no peer; set accept = ["address"] for the one that gives them'
        )


def _check_pool(sections: ReadSections, peers: Sequence[ReadPeer]) -> None:
    pool, table = sections.pool, sections.pool_table
    if pool is None or not all(map(table.is_sound, ("ipv4", "ipv6"))):
        return
    for network in pool.networks:
        key = f"ipv{network.version}"
        for peer in peers:
            for placed in peer.networks:
                if placed.value.num_addresses > 1 and is_inside(placed.value, network):
                    text = f"{placed.value} lies in pool.{key} ({network}), which is given to others"
                    peer.table.reading.mistake(placed.place, text)
        configs = [peer.config for peer in peers]
        free = network.num_addresses - len(kept_out(network, sections.interface.addresses))
        needed = len(set(fixed_addresses(configs, network))) + sum(
            is_assigned(config.networks, pool) and fixed_address(config, network) is None
            for config in configs
        )
        if needed > free:
            text = f"{network} has {free} addresses to give, {needed} are needed; take a wider one"
            table.wrong(key, text)


def _check_push(sections: ReadSections) -> None:
    push, table = sections.push, sections.push_table
    if sections.pool is None and table.keys and not sections.pool_table.broken:
        table.reading.mistake(
            table.place(), "nobody is told: it is for peers with addresses of [pool]; set that"
        )
    if push.mtu is None or not table.is_sound("mtu"):
        return
    if push.mtu > sections.interface.mtu and sections.interface_table.is_sound("mtu"):
        table.wrong("mtu", f"{push.mtu} is more than our own link carries, {sections.interface.mtu}")
    if push.mtu < _IPV6_MTU_MIN and sections.pool is not None and sections.pool.ipv6 is not None:
        table.wrong(
            "mtu", f"{push.mtu} is too small for IPv6 ({sections.pool.ipv6}); at least {_IPV6_MTU_MIN}"
        )


def _check_macs(own: bytes | None, peers: Sequence[ReadPeer]) -> None:
    _check_owners(((peer, mac) for peer in peers for mac in peer.macs), lambda mac: mac.hex(":"))
    for peer in peers:
        for mac in peer.macs:
            if mac.value == own:
                text = f"{mac.value.hex(':')} is the link's own address"
                peer.table.reading.mistake(mac.place, text)


def _check_can_connect(sections: ReadSections, peer: ReadPeer) -> None:
    we_call = peer.config.endpoint is not None or not peer.table.is_sound("endpoint")
    it_calls = bool(sections.local.listen) or not sections.local_table.is_sound("listen")
    if peer.config.enabled and not we_call and not it_calls:
        text = "can never connect: it has no endpoint, and [local] listens on no port; set one of them"
        peer.table.reading.mistake(peer.table.place(), text)


def _check_has_networks(sections: ReadSections, peer: ReadPeer) -> None:
    is_tun = sections.interface.type == "tun" and sections.interface_table.is_sound("type")
    if is_tun and sections.pool is None and not peer.config.networks and peer.table.is_sound("networks"):
        text = "none: no packet could go to this peer or come from it; add its address in the tunnel"
        peer.table.wrong("networks", text)


def _check_has_frames(sections: ReadSections, peer: ReadPeer) -> None:
    if sections.interface.type == "tap" or not sections.interface_table.is_sound("type"):
        return
    for key in SWITCH_KEYS:
        if key in peer.table:
            peer.table.wrong(key, 'it is about Ethernet frames, and the link is not of type "tap"')
