"""Reads the peers, from [peer.NAME] of the main file or from a file of their own.

Owns the keys of one peer. What two peers may not have in common is checked elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vpnd.config.names import SECTION_KEYS
from vpnd.config.parse import (
    parse_host_mac,
    parse_network,
    parse_peer_endpoint,
    parse_peer_name,
    parse_public_key,
    parse_secret_path,
    parse_vlans,
)
from vpnd.config.reader import Placed, Table, show_text
from vpnd.config.values import IPNetwork, PeerConfig
from vpnd.keys import KEY_SIZE, PublicKey

SWITCH_KEYS: Final = ("macs", "vlans", "storm_limit", "isolated")  # for Ethernet frames only
STORM_LIMIT_DEFAULT: Final = 1000  # frames a second: far more than hosts need to find each other
MACS_MAX: Final = 256  # the packet mover takes so many of one peer
PUSHABLE: Final = ("address", "routes", "dns", "mtu")
_KEEPALIVE_MAX: Final = 65535  # seconds
_STORM_LIMIT_MAX: Final = 1_000_000
_NOTHING: Final[frozenset[str]] = frozenset()  # one for all: an empty set of its own has 216 bytes
_NO_KEY: Final = PublicKey(bytes(KEY_SIZE))  # stands in for a wrong one until the mistake is raised


@dataclass(frozen=True, slots=True)
class ReadPeer:
    """A peer as read, with the places that checks across peers point to. Its networks stand in file order."""

    config: PeerConfig
    table: Table
    networks: tuple[Placed[IPNetwork], ...]
    groups: tuple[Placed[str], ...]
    macs: tuple[Placed[bytes], ...]


def read_peers(table: Table) -> Iterator[ReadPeer]:
    """Reads every [peer.NAME] under [peer]."""
    for name in table.keys:
        if name in SECTION_KEYS["peer"] and not isinstance(table.raw(name), dict):
            table.wrong(name, "a peer has a name; write its keys under [peer.NAME]")
            continue
        try:
            parse_peer_name(name)
        except ValueError as error:
            table.wrong(name, str(error))
        peer = table.table(name)
        if not peer.broken:
            yield read_peer(peer, name)


def read_peer(table: Table, name: str) -> ReadPeer:
    """Reads the keys of one peer."""
    table.check_names(SECTION_KEYS["peer"])
    if "public_key" not in table:
        table.wrong("public_key", "missing; a peer is known by its public key")
    networks = table.each("networks", parse_network)
    groups = table.each("groups", str)
    macs = _read_macs(table)
    config = PeerConfig(
        name=name,
        public_key=table.parsed("public_key", parse_public_key, _NO_KEY).value,
        preshared_key=table.parsed("preshared_key", parse_secret_path, None, secret=True).value,
        endpoint=table.parsed("endpoint", parse_peer_endpoint, None).value,
        networks=tuple(network.value for network in networks),
        route=table.boolean("route", True),
        keepalive=table.integer("keepalive", 0, 0, _KEEPALIVE_MAX),
        accept=frozenset(word.value for word in table.each("accept", _parse_pushable)) or _NOTHING,
        enabled=table.boolean("enabled", True),
        previous_public_key=table.parsed("previous_public_key", parse_public_key, None).value,
        groups=tuple(group.value for group in groups),
        invited_until=table.moment("invited_until"),
        macs=tuple(mac.value for mac in macs),
        vlans=_read_vlans(table),
        storm_limit=table.integer("storm_limit", STORM_LIMIT_DEFAULT, 0, _STORM_LIMIT_MAX),
        isolated=table.boolean("isolated", False),
    )
    return ReadPeer(config, table, networks, groups, macs)


def _read_macs(table: Table) -> tuple[Placed[bytes], ...]:
    macs = table.each("macs", parse_host_mac)
    if len(macs) > MACS_MAX:
        table.wrong("macs", f"{len(macs)} addresses; at most {MACS_MAX}")
    return macs


def _read_vlans(table: Table) -> frozenset[int] | None:
    if "vlans" not in table:
        return None
    allowed = table.each("vlans", parse_vlans)
    if not allowed and table.is_sound("vlans"):
        table.wrong("vlans", "none: no frame would pass; leave the key out for all")
    return frozenset(vlan for vlans in allowed for vlan in vlans.value)


def _parse_pushable(word: str) -> str:
    if word not in PUSHABLE:
        raise ValueError(f"{show_text(word)} is none of {', '.join(map(show_text, PUSHABLE))}")
    return word
