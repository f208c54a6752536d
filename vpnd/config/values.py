"""What a configuration says, once it is free of mistakes.

Owns the frozen values that the rest of vpnd reads and compares whole. Knows nothing of TOML;
the only trace of the files is a way to find where a key stands, for later error messages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Literal, TypeAlias

from vpnd.endpoint import Endpoint, EndpointName
from vpnd.keys import PublicKey

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPInterface: TypeAlias = IPv4Interface | IPv6Interface
IPNetwork: TypeAlias = IPv4Network | IPv6Network
OffloadName: TypeAlias = Literal["udp-gso", "udp-gro", "tun-vnet"]
Protocol: TypeAlias = Literal["tcp", "udp", "sctp", "icmp"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key stands: the file, the line from 1 where there is one, and the key as written there."""

    file: str
    line: int | None
    key: str

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """The link as it shall be. `mac` is None for "tun", and for "tap" where the public key decides it.

    `is_assigned`: a peer gives the addresses, and `addresses` is empty. `bridge` is the one it is a port of.
    """

    name: str
    type: Literal["tun", "tap"]
    addresses: tuple[IPInterface, ...]
    mtu: int
    txqueuelen: int
    mac: bytes | None
    is_assigned: bool = False
    bridge: str | None = None


@dataclass(frozen=True, slots=True)
class LocalConfig:
    """Our own end. An empty `listen` means an ephemeral port: we call, nobody can call us first.

    `offload` names those that may run, in their usual order. `key_overlap` is how many seconds keys
    that are replaced hold, ours and those of peers.
    """

    private_key: Path
    listen: tuple[Endpoint, ...]
    fwmark: int
    workers: int | Literal["auto"]
    knock: Path | None
    padding: Literal["none", "16", "bucket", "full"]
    offload: Literal["auto", "off"] | tuple[OffloadName, ...]
    previous_private_key: Path | None
    key_overlap: int


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """One remote party. `endpoint` is None where we wait for its call; `keepalive` is in seconds, 0 = off.

    It may still come with `previous_public_key`, for as long as [local] tells. `groups` are those it names
    itself; others may name it. One with `invited_until`, in seconds since 1970, is yet to join: `public_key`
    is the one-time key of its token. On a link of type "tap":
    `macs` are the only sources it may show, none for any; `vlans` those it may use, 0 for untagged, None
    for all; `storm_limit` is in frames a second, 0 for none.
    """

    name: str
    public_key: PublicKey
    preshared_key: Path | None
    endpoint: Endpoint | EndpointName | None
    networks: tuple[IPNetwork, ...]
    route: bool
    keepalive: int
    accept: frozenset[str]
    enabled: bool
    previous_public_key: PublicKey | None
    groups: tuple[str, ...] = ()
    invited_until: float | None = None
    macs: tuple[bytes, ...] = ()
    vlans: frozenset[int] | None = None
    storm_limit: int = 1000
    isolated: bool = False

    @property
    def is_invited(self) -> bool:
        return self.invited_until is not None


@dataclass(frozen=True, slots=True)
class RoutingConfig:
    """Where routes go and what this machine does for others' packets; `table` is the kernel's number.

    With a full tunnel neither it nor the mark in [local] is left to others: both have a value of their own.
    """

    table: int
    metric: int
    forward: bool
    masquerade: tuple[IPNetwork, ...]
    client_to_client: bool = True
    full_tunnel: bool = False
    allow_lan: bool = True
    kill_switch: bool = False


@dataclass(frozen=True, slots=True)
class AllowRule:
    """What may be reached: a network, or every address; by one protocol and its ports, or by all.

    "icmp" is ICMPv6 for addresses of that version.
    """

    network: IPNetwork | None
    protocol: Protocol | None
    ports: tuple[int, int] | None

    def __str__(self) -> str:
        service: str = self.protocol or ""
        if self.ports is not None:
            low, high = self.ports
            service += f"/{low}" if low == high else f"/{low}-{high}"
        parts = [str(self.network)] if self.network is not None else []
        return ":".join([*parts, service] if service else parts) or "any"


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """What the members may begin to talk to. `peers` are those it names; others name the group."""

    name: str
    allow: tuple[AllowRule, ...]
    peers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """Name servers and the domains they are asked for; one that begins with "~" is not searched in."""

    servers: tuple[IPAddress, ...] = ()
    domains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """Where the addresses that peers get are taken from."""

    ipv4: IPNetwork | None
    ipv6: IPNetwork | None

    @property
    def networks(self) -> tuple[IPNetwork, ...]:
        return tuple(network for network in (self.ipv4, self.ipv6) if network is not None)


@dataclass(frozen=True, slots=True)
class PushConfig:
    """What peers with addresses of the pool are told besides; an `mtu` of None is the link's."""

    routes: tuple[IPNetwork, ...] = ()
    dns: DnsConfig = DnsConfig()
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """One instance, whole. Two are equal when they ask for the same in files of the same names."""

    instance: str
    files: tuple[Path, ...]
    interface: InterfaceConfig
    local: LocalConfig
    peers: tuple[PeerConfig, ...]
    routing: RoutingConfig
    groups: tuple[GroupConfig, ...] = ()
    pool: PoolConfig | None = None
    push: PushConfig = PushConfig()
    dns: DnsConfig = DnsConfig()
    find_place: Callable[[str], Place | None] = field(default=lambda _: None, compare=False, repr=False)

    def groups_of(self) -> dict[str, tuple[str, ...]]:
        """Gives the groups of every peer by its name, in the order of the groups."""
        members = {peer.name: set(peer.groups) for peer in self.peers}
        for group in self.groups:
            for name in group.peers:
                members[name].add(group.name)
        order = [group.name for group in self.groups]
        return {peer: tuple(name for name in order if name in named) for peer, named in members.items()}

    def place_of(self, key: str) -> Place:
        """Tells where a key such as "peer.berlin.public_key" is set; a defaulted one has no line."""
        return self.find_place(key) or Place(str(self.files[0]), None, key)
