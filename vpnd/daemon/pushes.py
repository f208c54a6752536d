"""What peers push to us, and how much of it the configuration takes.

Owns that judgement and the memory of what was told: a restart of the daemon must not take addresses
away. Changes nothing on the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from vpnd.config import TABLES, Config, IPAddress, IPInterface, IPNetwork, PeerConfig, is_inside
from vpnd.endpoint import Endpoint, is_domain
from vpnd.keys import PublicKey
from vpnd.protocol.parameters import Parameters

_IPV6_MTU_MIN = 1280  # RFC 8200, section 5
_MTU_MIN = 576  # as interface.mtu


@dataclass(frozen=True, slots=True)
class Told:
    """All that one peer pushes. Its MTU may be no more than what its own link has."""

    addresses: tuple[IPInterface, ...] = ()
    routes: tuple[IPNetwork, ...] = ()
    servers: tuple[IPAddress, ...] = ()
    domains: tuple[str, ...] = ()
    mtu: int | None = None

    @classmethod
    def of(cls, parameters: Parameters) -> Told:
        return cls(
            parameters.addresses, parameters.routes, parameters.dns, parameters.domains, parameters.mtu
        )

    @property
    def is_push(self) -> bool:
        """Tells whether there is more than the MTU, which every peer tells."""
        return bool(self.addresses or self.routes or self.servers or self.domains)

    def to_json(self) -> dict[str, object]:
        return {
            "addresses": list(map(str, self.addresses)),
            "routes": list(map(str, self.routes)),
            "servers": list(map(str, self.servers)),
            "domains": list(self.domains),
            "mtu": self.mtu,
        }

    @classmethod
    def from_json(cls, each: Mapping[str, Any]) -> Told:
        """Raises ValueError, TypeError or KeyError where this is none of `to_json`."""
        domains, mtu = tuple(each["domains"]), each["mtu"]
        if not all(map(is_domain, domains)) or not isinstance(mtu, int | None):
            raise ValueError("no push")
        return cls(
            tuple(map(ip_interface, each["addresses"])),
            tuple(map(ip_network, each["routes"])),
            tuple(map(ip_address, each["servers"])),
            domains,
            mtu,
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing that a peer pushes and that does not come into force. `is_fault`: `accept` would take it."""

    what: str
    why: str
    is_fault: bool

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@dataclass(frozen=True, slots=True)
class Accepted:
    """What comes into force of all that is pushed."""

    addresses: tuple[IPInterface, ...] = ()
    routes: tuple[IPNetwork, ...] = ()
    servers: tuple[IPAddress, ...] = ()
    domains: tuple[str, ...] = ()
    mtu: int | None = None


NOTHING = Accepted()


@dataclass(slots=True)
class _Judged:
    accepted: Accepted = NOTHING
    refusals: list[Refusal] = field(default_factory=list)

    def take(
        self, what: str, items: Iterable[tuple[object, str | None]], not_accepted: str | None
    ) -> Iterator[object]:
        """Gives those without an objection; the others are refused. `not_accepted` stands against all."""
        for item, objection in items:
            why = not_accepted or objection
            if why is None:
                yield item
            else:
                self.refusals.append(Refusal(f"{what} {item}", why, not_accepted is None))


def judge(
    config: Config, peer: PeerConfig, told: Told, endpoints: Mapping[PublicKey, Endpoint]
) -> tuple[Accepted, tuple[Refusal, ...]]:
    """Tells what is taken of what a peer pushes, and why the rest is not. `endpoints`: where peers are."""
    judged = _Judged()
    barred = {word: _barred(config, peer, word) for word in ("address", "routes", "dns")}
    mtu = _judge_mtu(config, peer, told, judged)
    has_ipv6_room = (mtu or config.interface.mtu) >= _IPV6_MTU_MIN
    addresses = judged.take(
        "address",
        ((each, _against(config, each, has_ipv6_room)) for each in told.addresses),
        barred["address"],
    )
    routes = judged.take(
        "route",
        ((each, _against_route(config, peer, each, endpoints)) for each in told.routes),
        barred["routes"],
    )
    servers = judged.take(
        "name server", ((each, _against_host(each)) for each in told.servers), barred["dns"]
    )
    accepted = Accepted(
        tuple(_narrowed(config, peer, each, endpoints) for each in addresses),  # type: ignore[arg-type]
        tuple(routes),  # type: ignore[arg-type]
        tuple(servers),  # type: ignore[arg-type]
        tuple(judged.take("domain", ((each, None) for each in told.domains), barred["dns"])),  # type: ignore[arg-type]
        mtu,
    )
    return accepted, tuple(judged.refusals)


def _barred(config: Config, peer: PeerConfig, word: str) -> str | None:
    if word not in peer.accept:
        return f'peer.{peer.name}.accept has no "{word}"'
    if word == "address" and not config.interface.is_assigned:
        return 'interface.addresses is not "assigned"'
    return None


def _judge_mtu(config: Config, peer: PeerConfig, told: Told, judged: _Judged) -> int | None:
    if told.mtu is None or "mtu" not in peer.accept or told.mtu >= config.interface.mtu:
        return None
    networks = [*config.interface.addresses, *(network for each in config.peers for network in each.networks)]
    needs = _IPV6_MTU_MIN if any(network.version == 6 for network in networks) else _MTU_MIN
    if told.mtu < needs:
        judged.refusals.append(Refusal(f"mtu {told.mtu}", f"the link needs {needs}", is_fault=True))
        return None
    return told.mtu


def _against(config: Config, address: IPInterface, has_ipv6_room: bool) -> str | None:
    network = address.network
    if (objection := _against_host(address.ip)) is not None:
        return objection
    ends = (network.network_address, network.broadcast_address)
    if network.version == 4 and network.prefixlen < 31 and address.ip in ends:
        return "no machine can have it"
    if address.version == 6 and not has_ipv6_room:
        return f"the link's MTU is less than {_IPV6_MTU_MIN}"
    for peer in config.peers:
        if any(each.num_addresses == 1 and each.network_address == address.ip for each in peer.networks):
            return f"{peer.name} has it in its networks"
    return None


def _against_host(address: IPAddress) -> str | None:
    is_odd = address.is_unspecified or address.is_multicast or address.is_loopback or address.is_link_local
    return "no machine can have it" if is_odd else None


def _against_route(
    config: Config, peer: PeerConfig, route: IPNetwork, endpoints: Mapping[PublicKey, Endpoint]
) -> str | None:
    if not any(is_inside(route, network) for network in peer.networks):
        return f"beyond peer.{peer.name}.networks"
    if config.routing.table not in TABLES.values():
        return None  # who chose the table sends the tunnel's own packets past it, as full_tunnel does
    return _loop(config, route, endpoints)


def _loop(config: Config, network: IPNetwork, endpoints: Mapping[PublicKey, Endpoint]) -> str | None:
    """Tells of whom the tunnel's own packets would go into the tunnel, if a route to the network did."""
    for peer in config.peers:
        endpoint = endpoints.get(peer.public_key)
        if endpoint is not None and peer.enabled and endpoint.address in network:
            return f"{peer.name} is reached at {endpoint.address}, so the tunnel would lead into itself"
    return None


def _narrowed(
    config: Config, peer: PeerConfig, address: IPInterface, endpoints: Mapping[PublicKey, Endpoint]
) -> IPInterface:
    """An address brings a route to its whole network: where that must not be, it stands alone."""
    is_the_peers = any(is_inside(address.network, network) for network in peer.networks)
    if is_the_peers and _loop(config, address.network, endpoints) is None:
        return address
    return ip_interface(address.ip)


class Pushes:
    """What every peer told last."""

    def __init__(
        self, told: Mapping[PublicKey, Told], endpoints: Callable[[], Mapping[PublicKey, Endpoint]]
    ) -> None:
        """`endpoints` tells where peers are now."""
        self._told = dict(told)
        self._endpoints = endpoints

    @property
    def told(self) -> Mapping[PublicKey, Told]:
        return self._told

    def take(self, peer: PeerConfig, parameters: Parameters) -> bool:
        """Notes what a peer told; tells whether that is news. Peers that push nothing cost no memory."""
        told = Told.of(parameters)
        before = self.of(peer)
        if not told.is_push and not peer.accept:
            self._told.pop(peer.public_key, None)
            return before is not None and before.is_push
        self._told[peer.public_key] = told
        return told != before

    def of(self, peer: PeerConfig) -> Told | None:
        """Tells what a peer told last, under whichever key it had then."""
        told = self._told.get(peer.public_key)
        if told is None and peer.previous_public_key is not None:
            return self._told.get(peer.previous_public_key)
        return told

    def keep(self, config: Config) -> None:
        """Forgets the peers that are not configured."""
        self._told = {peer.public_key: told for peer in config.peers if (told := self.of(peer)) is not None}

    def refusals(self, config: Config, peer: PeerConfig) -> tuple[Refusal, ...]:
        """Tells what of a peer's push is not in force."""
        told = self.of(peer) if peer.enabled else None
        return () if told is None else judge(config, peer, told, self._endpoints())[1]

    def accepted_of(self, config: Config, peer: PeerConfig) -> Accepted:
        return self._accepted_of(config, peer, self._endpoints())

    def _accepted_of(
        self, config: Config, peer: PeerConfig, endpoints: Mapping[PublicKey, Endpoint]
    ) -> Accepted:
        told = self.of(peer) if peer.enabled else None
        return NOTHING if told is None else judge(config, peer, told, endpoints)[0]

    def accepted(self, config: Config) -> Accepted:
        """Tells what is in force of all peers together; of several MTUs the least."""
        if not self._told:
            return NOTHING
        endpoints = self._endpoints()
        parts = [self._accepted_of(config, peer, endpoints) for peer in config.peers]
        return Accepted(
            tuple(dict.fromkeys(each for part in parts for each in part.addresses)),
            tuple(dict.fromkeys(each for part in parts for each in part.routes)),
            tuple(dict.fromkeys(each for part in parts for each in part.servers)),
            tuple(dict.fromkeys(each for part in parts for each in part.domains)),
            min((part.mtu for part in parts if part.mtu is not None), default=None),
        )
