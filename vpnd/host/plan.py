"""What the machine should look like for one instance, as plain values.

Owns the plan that the daemon hands over and the words for a change. Knows neither the
kernel nor the configuration: whoever reads the files fills these in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Marks our routes in the kernel (`ip route show proto 176`). Numbers below 16 are the kernel's own,
# and no routing daemon in Debian's /etc/iproute2/rt_protos uses this one.
ROUTE_PROTOCOL = 176

# An IPv6 route without a metric gets this one from the kernel.
IPV6_DEFAULT_METRIC = 1024


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """The wanted TUN or TAP link; `mac` counts for TAP only, `owner` and `group` are numeric ids.

    Each of the `queues` carries packets of its own. `bridge` is the one it shall be a port of.
    """

    name: str
    type: Literal["tun", "tap"]
    addresses: tuple[Interface, ...] = ()
    mtu: int = 1420
    txqueuelen: int = 1000
    mac: bytes | None = None
    owner: int | None = None
    group: int | None = None
    queues: int = 1
    bridge: str | None = None


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """One wanted route into the link; table 254 is "main", metric 0 leaves the metric to the kernel."""

    prefix: Network
    table: int = 254
    metric: int = 0

    @property
    def key(self) -> tuple[Network, int, int]:
        """What the kernel allows once only: prefix, table, and the metric it really stores."""
        is_defaulted = self.metric == 0 and self.prefix.version == 6
        return (self.prefix, self.table, IPV6_DEFAULT_METRIC if is_defaulted else self.metric)

    def __str__(self) -> str:
        table = "main" if self.table == 254 else str(self.table)
        return f"{self.prefix} table {table} metric {self.key[2]}"


@dataclass(frozen=True, slots=True)
class Permission:
    """What may be reached: a network, or every address; by one protocol and its ports, or by all."""

    network: Network | None = None
    protocol: Literal["tcp", "udp", "sctp", "icmp"] | None = None
    ports: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class FilterPlan:
    """What may come out of the link.

    `groups` of None forbid nothing. Otherwise every source in `members` may reach what its groups allow
    and no more, and a source that is nobody's nothing. Networks may nest, the longer one counts.
    """

    client_to_client: bool = True
    groups: Mapping[str, frozenset[Permission]] | None = None
    members: tuple[tuple[Network, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class FullTunnelPlan:
    """Everything but what carries `mark` takes the routes of `table` first, for these IP versions.

    `allow_lan` prefers what the machine's own routes know better than by a default one. With the kill
    switch nothing leaves by another link but the marked packets and, if allowed, those to near networks.
    """

    mark: int
    table: int
    versions: frozenset[int]
    allow_lan: bool = True
    kill_switch: bool = False


@dataclass(frozen=True, slots=True)
class DnsPlan:
    """Name servers of the link. `domains` with "~" before them are not searched in; "~." is all names.

    `is_default`: names of no link's domains are asked here too.
    """

    servers: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]
    domains: tuple[str, ...]
    is_default: bool

    def __str__(self) -> str:
        names = ", ".join(self.domains)
        rest = "all names" if self.is_default else ""
        return f"{', '.join(map(str, self.servers))} for {' and '.join(filter(None, (names, rest)))}"


@dataclass(frozen=True, slots=True)
class HostPlan:
    """Everything one instance wants of the machine."""

    instance: str
    link: LinkPlan
    routes: frozenset[RoutePlan] = frozenset()
    forward: bool = False
    masquerade: tuple[Network, ...] = ()
    filter: FilterPlan = FilterPlan()
    full_tunnel: FullTunnelPlan | None = None
    dns: DnsPlan | None = None  # by LinkDns: it has its own conditions to stand

    @property
    def families(self) -> frozenset[int]:
        """The IP versions that this plan carries: 4, 6, both or none."""
        versions = [address.version for address in self.link.addresses]
        versions += [route.prefix.version for route in self.routes]
        versions += [network.version for network in self.masquerade]
        return frozenset(versions)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that was changed, or would be: the part of the machine, and what happens to it."""

    step: str
    detail: str

    def __str__(self) -> str:
        return f"{self.step}: {self.detail}"
