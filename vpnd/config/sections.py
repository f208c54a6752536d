"""Reads [interface], [local] and [routing]: the keys, their types, defaults and limits.

Knows nothing of peers, nor of what two sections mean together.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from vpnd.config.names import SECTION_KEYS
from vpnd.config.parse import (
    parse_interface_address,
    parse_link_name,
    parse_listen,
    parse_mac,
    parse_network,
    parse_secret_path,
)
from vpnd.config.reader import Table, show_text
from vpnd.config.values import InterfaceConfig, IPInterface, LocalConfig, OffloadName, RoutingConfig
from vpnd.endpoint import Endpoint

MTU_DEFAULT: Final = 1420  # bytes of an inner packet: 1500 outside less 80 for IPv6, UDP and the data header
MTU_MIN: Final = 576  # bytes; every IPv4 host takes that much (RFC 791)
MTU_MAX: Final = {"tun": 65535, "tap": 65521}  # bytes; the tap driver of Linux counts the Ethernet header in
TXQUEUELEN_DEFAULT: Final = 1000  # packets
METRIC_DEFAULT: Final = 50
ASSIGNED: Final = "assigned"  # in place of addresses: a peer gives them
LISTEN_MAX: Final = 8
WORKERS_MAX: Final = 32  # threads per direction
SOCKETS_MAX: Final = 64  # one packet mover serves; every worker has one for each endpoint
KEY_OVERLAP_DEFAULT: Final = 86_400  # seconds: a day to bring a new key to all who need it
KEY_OVERLAP_MAX: Final = 30 * 86_400  # seconds
KEY_FOLDER: Final = Path("/etc/vpnd/keys")
FULL_TUNNEL_MARK: Final = 0x76706E  # one for all instances: a tunnel never runs through another's by default
FULL_TUNNEL_TABLES: Final = 0x76000000  # and a number of 24 bits made of the instance's name
TABLES: Final = {"default": 253, "main": 254, "local": 255}  # the kernel's own numbers for the names
_UINT32_MAX: Final = 2**32 - 1

_TYPES: Final[dict[str, Literal["tun", "tap"]]] = {"tun": "tun", "tap": "tap"}
_PADDINGS: Final[dict[str, Literal["none", "16", "bucket", "full"]]] = {
    "none": "none",
    "16": "16",
    "bucket": "bucket",
    "full": "full",
}
_OFFLOAD_WORDS: Final[dict[str, Literal["auto", "off"]]] = {"auto": "auto", "off": "off"}
_OFFLOADS: Final[dict[str, OffloadName]] = {
    "udp-gso": "udp-gso",
    "udp-gro": "udp-gro",
    "tun-vnet": "tun-vnet",
}


def read_interface(table: Table, instance: str) -> InterfaceConfig:
    table.check_names(SECTION_KEYS["interface"])
    link_type = table.choice("type", "tun", _TYPES)
    mac = table.parsed("mac", parse_mac, None).value
    if "mac" in table and table.is_sound("type") and link_type == "tun":
        table.wrong("mac", 'only a link of type "tap" has a MAC address')
    name, addresses = _read_link_name(table, instance), _read_addresses(table)
    return InterfaceConfig(
        name=name,
        type=link_type,
        addresses=addresses,
        mtu=_read_mtu(table, MTU_MAX[link_type]),
        txqueuelen=table.integer("txqueuelen", TXQUEUELEN_DEFAULT, 1, _UINT32_MAX),
        mac=mac,
        is_assigned=table.raw("addresses") == ASSIGNED,
        bridge=_read_bridge(table, link_type, name, has_addresses=bool(table.raw("addresses"))),
    )


def _read_bridge(table: Table, link_type: str, link: str, *, has_addresses: bool) -> str | None:
    bridge = table.parsed("bridge", parse_link_name, None).value
    if bridge is None:
        return None
    if link_type == "tun" and table.is_sound("type"):
        table.wrong("bridge", 'only a link of type "tap" can be in a bridge')
    if bridge == link:
        table.wrong("bridge", f"{show_text(bridge)} is the link's own name")
    if has_addresses:
        table.wrong("addresses", "a link in a bridge has none of its own; give them to the bridge")
    return bridge


def _read_link_name(table: Table, instance: str) -> str:
    default = f"vpn-{instance}"
    if "name" not in table and not table.broken:
        try:
            parse_link_name(default)
        except ValueError as error:
            table.wrong("name", f"the default {error}; set another")
    return table.parsed("name", parse_link_name, default).value


def _read_addresses(table: Table) -> tuple[IPInterface, ...]:
    if table.raw("addresses") == ASSIGNED:
        return ()
    found = table.each("addresses", parse_interface_address, same=lambda address: address.ip)
    return tuple(address.value for address in found)


def _read_mtu(table: Table, highest: int) -> int:
    if table.raw("mtu") == "auto":
        table.unsupported("mtu", '"auto"')
        return MTU_DEFAULT
    return table.integer("mtu", MTU_DEFAULT, MTU_MIN, highest)


def read_local(table: Table, instance: str) -> LocalConfig:
    table.check_names(SECTION_KEYS["local"])
    default_key = KEY_FOLDER / f"{instance}.key"
    listen = _read_listen(table)
    return LocalConfig(
        private_key=table.parsed("private_key", parse_secret_path, default_key, secret=True).value,
        listen=listen,
        fwmark=table.integer("fwmark", 0, 0, _UINT32_MAX),
        workers=_read_workers(table, len(listen)),
        knock=table.parsed("knock", parse_secret_path, None, secret=True).value,
        padding=table.choice("padding", "none", _PADDINGS),
        offload=_read_offload(table),
        previous_private_key=table.parsed("previous_private_key", parse_secret_path, None, secret=True).value,
        key_overlap=table.integer("key_overlap", KEY_OVERLAP_DEFAULT, 1, KEY_OVERLAP_MAX),
    )


def _read_listen(table: Table) -> tuple[Endpoint, ...]:
    found = table.each("listen", parse_listen)
    if len(found) > LISTEN_MAX:
        table.wrong("listen", f"{len(found)} endpoints; at most {LISTEN_MAX}")
    for placed in found:
        for other in found:
            if placed is not other and _covers(other.value, placed.value):
                table.reading.mistake(placed.place, f"{placed.value} is covered by {other.value} already")
    return tuple(placed.value for placed in found)


def _covers(wide: Endpoint, narrow: Endpoint) -> bool:
    """Whether a socket bound to `wide` takes the port away from `narrow`."""
    same_family = wide.address.version == narrow.address.version
    return wide.address.is_unspecified and wide.port == narrow.port and same_family


def _read_workers(table: Table, endpoints: int) -> int | Literal["auto"]:
    if table.raw("workers") == "auto":
        return "auto"
    if isinstance(table.raw("workers"), str):
        table.wrong("workers", f'{show_text(table.text("workers", ""))} is neither "auto" nor an integer')
        return "auto"
    if "workers" not in table:
        return "auto"
    workers = table.integer("workers", 1, 1, WORKERS_MAX)
    if workers * endpoints > SOCKETS_MAX and table.is_sound("listen"):
        table.wrong(
            "workers", f"{workers} is too many for {endpoints} endpoints; {SOCKETS_MAX // endpoints} at most"
        )
    return workers


def _read_offload(table: Table) -> Literal["auto", "off"] | tuple[OffloadName, ...]:
    if isinstance(table.raw("offload"), list):
        named = {placed.value for placed in table.each("offload", _parse_offload)}
        return tuple(name for name in _OFFLOADS.values() if name in named)
    return table.choice("offload", "auto", _OFFLOAD_WORDS)


def _parse_offload(word: str) -> OffloadName:
    if word not in _OFFLOADS:
        raise ValueError(f"{show_text(word)} is none of {', '.join(map(show_text, _OFFLOADS))}")
    return _OFFLOADS[word]


def read_routing(table: Table) -> RoutingConfig:
    table.check_names(SECTION_KEYS["routing"])
    full_tunnel = table.boolean("full_tunnel", False)
    allow_lan, kill_switch = table.boolean("allow_lan", True), table.boolean("kill_switch", False)
    for key, is_asked, value in (("allow_lan", not allow_lan, "false"), ("kill_switch", kill_switch, "true")):
        if is_asked and not full_tunnel and table.is_sound("full_tunnel"):
            table.wrong(key, f"{value} needs full_tunnel = true")
    return RoutingConfig(
        table=_read_route_table(table),
        metric=table.integer("metric", METRIC_DEFAULT, 0, _UINT32_MAX),
        forward=table.boolean("forward", False),
        masquerade=tuple(network.value for network in table.each("masquerade", parse_network)),
        client_to_client=table.boolean("client_to_client", True),
        full_tunnel=full_tunnel,
        allow_lan=allow_lan,
        kill_switch=kill_switch,
    )


def with_full_tunnel(
    instance: str, local: LocalConfig, routing: RoutingConfig
) -> tuple[LocalConfig, RoutingConfig]:
    """Gives the full tunnel a table of the instance's own, and our packets a mark, unless the file does."""
    if not routing.full_tunnel:
        return local, routing
    table = FULL_TUNNEL_TABLES + (zlib.crc32(instance.encode()) & 0xFFFFFF)
    return (
        local if local.fwmark else replace(local, fwmark=FULL_TUNNEL_MARK),
        routing if routing.table != TABLES["main"] else replace(routing, table=table),
    )


def _read_route_table(table: Table) -> int:
    name = table.raw("table")
    if isinstance(name, str):
        if name not in TABLES:
            known = ", ".join(map(show_text, TABLES))
            table.wrong("table", f"{show_text(name)} is none of {known}; a number stands without quotes")
        return TABLES.get(name, TABLES["main"])
    return table.integer("table", TABLES["main"], 1, _UINT32_MAX)
