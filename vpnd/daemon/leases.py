"""Which address of the pool each peer has, kept over restarts in leases.toml.

Owns the rules by which addresses are given, and the file's text. A peer keeps what it has for as long as
it is configured, by its key. One that leaves keeps its addresses too, until nothing else is left: then
those go first whose peer has been gone for the longest time.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import ip_address, ip_interface, ip_network

from vpnd.config import (
    Config,
    IPAddress,
    IPInterface,
    IPNetwork,
    PeerConfig,
    fixed_address,
    fixed_addresses,
    is_assigned,
    kept_out,
)
from vpnd.keys import PublicKey

_HEAD = """\
# The addresses of [pool] that vpnd gave, by public key. Written by vpnd: edit it only while the instance is
# stopped. "released" is when the peer was found missing from the configuration.
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """What one key has: an address of each family at most. `released_at`: since then nobody has the key."""

    name: str
    addresses: tuple[IPAddress, ...]
    released_at: datetime | None = None

    def of(self, network: IPNetwork) -> IPAddress | None:
        return next((address for address in self.addresses if address in network), None)


@dataclass(frozen=True, slots=True)
class Settled:
    """A configuration with every address given: `given` are a peer's own, fixed ones too, with the pool's
    prefix; the networks of peers hold them. `reclaimed` tells whose addresses went to others. `asked` is
    the configuration as it came: in `config` an address of the pool looks like one that was written there.
    """

    asked: Config
    config: Config
    leases: Mapping[PublicKey, Lease]
    given: Mapping[PublicKey, tuple[IPInterface, ...]]
    reclaimed: tuple[tuple[str, IPAddress], ...] = ()


def settle(config: Config, leases: Mapping[PublicKey, Lease], now: datetime) -> Settled:
    """Gives every peer of the pool its addresses. The configuration was checked: there are enough."""
    if config.pool is None:
        return Settled(config, config, leases, {})
    now = now.replace(microsecond=0)
    served = [peer for peer in config.peers if is_assigned(peer.networks, config.pool)]
    before = _known(config, leases, served)
    released = {
        key: lease if lease.released_at else replace(lease, released_at=now)
        for key, lease in leases.items()
        if not any(lease is taken for taken in before.values())
    }
    leased: dict[PublicKey, list[IPAddress]] = {peer.public_key: [] for peer in served}
    given: dict[PublicKey, list[IPInterface]] = {peer.public_key: [] for peer in served}
    reclaimed: list[tuple[str, IPAddress]] = []
    for network in config.pool.networks:
        giver = _Giver(network, config, before, released)
        for peer in served:
            address = fixed_address(peer, network)
            if address is None:
                address = giver.give(peer)
                leased[peer.public_key].append(address)
            given[peer.public_key].append(ip_interface(f"{address}/{network.prefixlen}"))
        reclaimed += giver.reclaimed
    peers = tuple(_with_networks(peer, leased.get(peer.public_key, ())) for peer in config.peers)
    kept = {
        peer.public_key: Lease(peer.name, tuple(leased[peer.public_key]))
        for peer in served
        if leased[peer.public_key]
    }
    return Settled(
        config,
        replace(config, peers=peers),
        kept | {key: lease for key, lease in released.items() if lease.addresses},
        {key: tuple(addresses) for key, addresses in given.items()},
        tuple(reclaimed),
    )


def _known(
    config: Config, leases: Mapping[PublicKey, Lease], served: Iterable[PeerConfig]
) -> dict[PublicKey, Lease]:
    """Finds what each peer had: under its key, the one before it, or by its name if nobody has that key."""
    keys = {peer.public_key for peer in config.peers}
    by_name = {lease.name: lease for key, lease in leases.items() if key not in keys}
    found = {}
    for peer in served:
        lease = leases.get(peer.public_key)
        if lease is None and peer.previous_public_key is not None:
            lease = leases.get(peer.previous_public_key)
        if lease is None:
            lease = by_name.get(peer.name)
        if lease is not None:
            found[peer.public_key] = lease
    return found


class _Giver:
    """Gives the addresses of one network to one after the other; takes from `released` where it must."""

    def __init__(
        self,
        network: IPNetwork,
        config: Config,
        before: Mapping[PublicKey, Lease],
        released: dict[PublicKey, Lease],
    ) -> None:
        self._network = network
        self._released = released
        self._taken = set(kept_out(network, config.interface.addresses))
        self._taken.update(fixed_addresses(config.peers, network))
        self._held: dict[PublicKey, IPAddress] = {}
        for peer in config.peers:
            lease = before.get(peer.public_key)
            address = None if lease is None else lease.of(network)
            if address is not None and address not in self._taken and fixed_address(peer, network) is None:
                self._held[peer.public_key] = address
                self._taken.add(address)
        for key, lease in tuple(released.items()):
            address = lease.of(network)
            if address in self._taken:
                self._strip(key)
            elif address is not None:
                self._taken.add(address)
        self._free = self._walk()
        self.reclaimed: list[tuple[str, IPAddress]] = []  # from whom, what

    def give(self, peer: PeerConfig) -> IPAddress:
        return self._held.get(peer.public_key) or next(self._free, None) or self._reclaim()

    def _walk(self) -> Iterator[IPAddress]:
        first = int(self._network.network_address)
        kind = type(self._network.network_address)
        for number in range(first, first + self._network.num_addresses):
            address = kind(number)
            if address not in self._taken:
                yield address

    def _reclaim(self) -> IPAddress:
        """Takes the address whose peer has been gone for the longest time."""
        candidates = [
            (lease.released_at or datetime.min.replace(tzinfo=UTC), lease.name, key)
            for key, lease in self._released.items()
            if lease.of(self._network) is not None
        ]
        _, name, key = min(candidates, key=lambda each: each[:2])
        address = self._strip(key)
        self.reclaimed.append((name, address))
        return address

    def _strip(self, key: PublicKey) -> IPAddress:
        lease = self._released[key]
        address = lease.of(self._network)
        assert address is not None
        left = tuple(each for each in lease.addresses if each != address)
        self._released[key] = replace(lease, addresses=left)
        return address


def _with_networks(peer: PeerConfig, addresses: Iterable[IPAddress]) -> PeerConfig:
    own = tuple(ip_network(address) for address in addresses)
    return replace(peer, networks=(*peer.networks, *own)) if own else peer


# -- the file --


def write_leases(leases: Mapping[PublicKey, Lease]) -> str:
    """Gives the file's text."""
    parts = [_HEAD]
    for key, lease in sorted(leases.items(), key=lambda item: (item[1].name, str(item[0]))):
        parts.append(f'\n[lease."{key}"]\nname = "{lease.name}"\n')
        parts += [f'ipv{address.version} = "{address}"\n' for address in lease.addresses]
        if lease.released_at is not None:
            parts.append(f"released = {lease.released_at:%Y-%m-%dT%H:%M:%SZ}\n")
    return "".join(parts)


def read_leases(text: str) -> tuple[dict[PublicKey, Lease], list[str]]:
    """Reads what can be read, and tells what cannot."""
    try:
        tables = tomllib.loads(text).get("lease", {})
        entries = list(tables.items())
    except (ValueError, RecursionError, AttributeError) as error:
        return {}, [f"is no list of leases ({error})"]
    leases: dict[PublicKey, Lease] = {}
    spoilt: list[str] = []
    for key, table in entries:
        try:
            leases[PublicKey.from_base64(key)] = _read_lease(table)
        except (ValueError, TypeError, KeyError, AttributeError):
            spoilt.append(f"has a spoilt lease, of {key[:50]!r}")
    return leases, spoilt


def _read_lease(table: Mapping[str, object]) -> Lease:
    addresses = tuple(ip_address(str(table[key])) for key in ("ipv4", "ipv6") if key in table)
    released = table.get("released")
    if not isinstance(table["name"], str) or not isinstance(released, datetime | None):
        raise TypeError
    return Lease(table["name"], addresses, None if released is None else released.astimezone(UTC))
