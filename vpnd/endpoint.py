"""Outer addresses: where a peer's datagrams come from and go to.

Owns parsing and printing of "address:port" and "name:port". Knows nothing of sockets or
of name resolution; the daemon resolves an EndpointName into Endpoints.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_HOST_NAME = re.compile(
    r"(?=.{1,253}\.?\Z)(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?\Z"
)
_SCOPE_NAME = re.compile(r"(?=.*[^0-9])[^\s/%:\]]{1,15}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An outer address with its UDP port; `scope` is the interface index of a link-local address."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int
    scope: int = 0

    @classmethod
    def from_sockaddr(cls, sockaddr: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
        """Takes what Python's socket calls give; an IPv4-mapped IPv6 address becomes the IPv4 one."""
        host, port = sockaddr[0], sockaddr[1]
        address = ipaddress.ip_address(host.partition("%")[0])
        scope = sockaddr[3] if len(sockaddr) == 4 else 0
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            return cls(address.ipv4_mapped, port)
        return cls(address, port, scope)

    @property
    def ip16(self) -> bytes:
        """The address as 16 bytes in network order; IPv4 in its IPv4-mapped form."""
        if isinstance(self.address, ipaddress.IPv4Address):
            return bytes(10) + b"\xff\xff" + self.address.packed
        return self.address.packed

    def to_sockaddr(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """Gives what Python's socket calls take for the address's own family."""
        if isinstance(self.address, ipaddress.IPv4Address):
            return (str(self.address), self.port)
        return (str(self.address), self.port, 0, self.scope)

    def __str__(self) -> str:
        if isinstance(self.address, ipaddress.IPv4Address):
            return f"{self.address}:{self.port}"
        scope = f"%{self.scope}" if self.scope else ""
        return f"[{self.address}{scope}]:{self.port}"


def is_domain(text: str) -> bool:
    """Tells whether this is a domain: "corp.example"; "~corp.example" routes only; "~." has all names."""
    return text == "~." or (text.isascii() and _HOST_NAME.match(text.removeprefix("~")) is not None)


@dataclass(frozen=True, slots=True)
class EndpointName:
    """A host name with a UDP port, still to be resolved.

    Or a link-local address whose scope is an interface name, as in "fe80::1%eth0".
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint | EndpointName:
    """Reads "192.0.2.1:5180", "[2001:db8::1]:5180", "[fe80::1%3]:5180" or "host.example:5180".

    Raises ValueError whose text says what is wrong with which value.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f'"{text}" has no port; write host:port, or [address]:port for IPv6')
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or not 0 < int(port_text) < 65536:
        raise ValueError(f'"{port_text}" is not a port; ports are 1 to 65535')
    port = int(port_text)
    if host.startswith("[") and host.endswith("]"):
        return _parse_ipv6(host[1:-1], port)
    if ":" in host:
        raise ValueError(f'"{text}": an IPv6 address stands in brackets, as in [2001:db8::1]:5180')
    try:
        return Endpoint(ipaddress.IPv4Address(host), port)
    except ValueError:
        pass
    if re.fullmatch(r"[0-9.]+", host) or not _HOST_NAME.match(host):
        raise ValueError(f'"{host}" is neither an address nor a host name')
    return EndpointName(host, port)


def _parse_ipv6(text: str, port: int) -> Endpoint | EndpointName:
    plain, percent, scope = text.partition("%")
    try:
        address = ipaddress.IPv6Address(plain)
    except ValueError:
        raise ValueError(f'"{text}" is not an IPv6 address') from None
    if not percent:
        return Endpoint(address.ipv4_mapped or address, port)
    if not address.is_link_local:
        raise ValueError(f'"{text}": only a link-local address (fe80::/10) has a scope')
    if re.fullmatch(r"[0-9]{1,10}", scope) and 0 < int(scope) < 2**32:
        return Endpoint(address, port, int(scope))
    if not _SCOPE_NAME.fullmatch(scope):
        raise ValueError(f'"{scope}" is neither the name nor the number of an interface')
    # A scope by interface name needs the machine's table of interfaces: the resolver's work.
    return EndpointName(text, port)
