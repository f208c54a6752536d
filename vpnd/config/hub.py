"""Reads what a hub gives to others, [pool] and [push], and name servers, which [push] has too.

Owns the keys, their types and limits. Which address each peer gets is decided elsewhere.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from vpnd.config.names import SECTION_KEYS
from vpnd.config.parse import parse_network
from vpnd.config.reader import Table, show_text
from vpnd.config.sections import MTU_MIN
from vpnd.config.values import DnsConfig, IPAddress, IPNetwork, PoolConfig, PushConfig
from vpnd.endpoint import is_domain

_WIDEST: Final = {4: 8, 6: 32}  # prefix length: a pool is a part of a network, and is routed into the link
SERVERS_MAX: Final = 8
DOMAINS_MAX: Final = 32
_MTU_MAX: Final = 65535
# One control message of the protocol carries it all, beside an address of each family and the MTU.
_PUSH_MAX: Final = 1024 - 7 - 19 - 4


def read_pool(table: Table, *, is_there: bool) -> PoolConfig | None:
    """Reads [pool]; None where the section is absent."""
    if not is_there:
        return None
    table.check_names(SECTION_KEYS["pool"])
    if not table.keys and not table.broken:
        table.reading.mistake(table.place(), "gives nothing; set ipv4, ipv6 or both")
    ipv4 = table.parsed("ipv4", lambda text: _parse_pool(text, 4), None).value
    ipv6 = table.parsed("ipv6", lambda text: _parse_pool(text, 6), None).value
    return PoolConfig(ipv4, ipv6)


def _parse_pool(text: str, version: int) -> IPNetwork:
    network = parse_network(text)
    if network.version != version:
        raise ValueError(f"{show_text(text)} is a network of IPv{network.version}")
    if network.is_multicast or network.is_loopback or network.is_link_local:
        raise ValueError(f"{show_text(text)} has no addresses to give")
    if network.prefixlen < _WIDEST[version]:
        raise ValueError(f"{show_text(text)} is too wide; a pool has a prefix of {_WIDEST[version]} or more")
    return network


def read_push(table: Table) -> PushConfig:
    """Reads [push]."""
    table.check_names(SECTION_KEYS["push"])
    routes = tuple(placed.value for placed in table.each("routes", parse_network))
    dns = read_dns(table.table("dns"))
    mtu = table.integer("mtu", MTU_MIN, MTU_MIN, _MTU_MAX) if "mtu" in table else None
    size = _size(routes, dns)
    if size > _PUSH_MAX:
        table.wrong(
            "routes",
            f"with dns they take {size} bytes of a message, at most {_PUSH_MAX} fit; push wider ones",
        )
    return PushConfig(routes, dns, mtu)


def _size(routes: tuple[IPNetwork, ...], dns: DnsConfig) -> int:
    """Bytes of the protocol's parameters (docs/protocol.md, section 10)."""
    return (
        sum(3 + len(route.network_address.packed) for route in routes)
        + sum(2 + len(server.packed) for server in dns.servers)
        + sum(2 + len(domain) for domain in dns.domains)
    )


def read_dns(table: Table) -> DnsConfig:
    """Reads [dns], or the table of [push] that has its keys."""
    table.check_names(SECTION_KEYS["dns"])
    servers = tuple(placed.value for placed in table.each("servers", _parse_server))
    domains = tuple(placed.value for placed in table.each("domains", _parse_domain))
    for key, found, most in (("servers", servers, SERVERS_MAX), ("domains", domains, DOMAINS_MAX)):
        if len(found) > most:
            table.wrong(key, f"{len(found)} of them; at most {most}")
    if domains and not servers and table.is_sound("servers"):
        table.wrong("domains", "no servers to ask for them; set servers")
    return DnsConfig(servers, domains)


def _parse_server(text: str) -> IPAddress:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{show_text(text)} is not an address, such as 10.8.0.1 or fd00::1") from None
    if address.is_unspecified or address.is_multicast or "%" in text:
        raise ValueError(f"{show_text(text)} cannot be a name server's address")
    return address


def _parse_domain(text: str) -> str:
    if not is_domain(text):
        raise ValueError(
            f'{show_text(text)} is no domain, such as "corp.example" to search in, '
            '"~corp.example" to route by, or "~." for all names'
        )
    return text.removesuffix(".").lower() if text != "~." else text
