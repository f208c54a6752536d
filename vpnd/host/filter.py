"""What may come out of the link: peers kept apart, and groups of sources that may reach certain things.

Owns the chains and sets for it, and the reading of what they refused. Costs a packet a few lookups, however
many peers and rules there are: its source leads to the chain of its groups, its destination, protocol and
port are one key of one set there.

A connection that was begun towards a peer has its answers let through; nothing else depends on what the
kernel remembers of connections, so a permission that is withdrawn ends them.
"""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vpnd.host.disjoint import Bounds, cut_boxes, flatten, merge
from vpnd.host.nft import listing
from vpnd.host.plan import FilterPlan, Network, Permission
from vpnd.host.table import PROTOCOL_NUMBERS, Chain, Collection, Element, Hook, Rule, table_name

REFUSED_FOR_S = 600  # that a refusal is remembered after its last packet
_REFUSED_MAX = 4096  # pairs of addresses remembered: a peer that scans must not fill the machine's memory
_PORTS = (0, 65535)
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOL_NUMBERS.items()}
_ICMP = f"{PROTOCOL_NUMBERS['icmp']}, {PROTOCOL_NUMBERS['ipv6-icmp']}"
_IP = {4: "ip", 6: "ip6"}
_ANY = frozenset({Permission()})

Class = tuple[str, ...]  # the groups that a source is in


def filter_parts(link: str, plan: FilterPlan) -> tuple[tuple[Collection, ...], tuple[Chain, ...]]:
    """Gives the sets and the chains for the plan; none where everything is allowed."""
    if plan.client_to_client and plan.groups is None:
        return (), ()
    collections = [_refused(version) for version in _IP]
    chains = [_refuse_chain()]
    forward: list[Rule] = []
    if not plan.client_to_client:
        match = f'iifname "{link}" oifname "{link}"'
        forward.append(Rule(f"{match} goto refuse", "client_to_client is off"))
    if plan.groups is not None:
        names: dict[Class, str] = {}
        for groups in sorted({groups for _, groups in plan.members if groups}):
            sets, chain = _class_parts(groups, plan.groups)
            collections += sets
            chains.append(chain)
            names[groups] = chain.name
        sources = [_sources(version, plan.members, names) for version in _IP]
        collections += sources
        chains.append(_groups_chain(sources))
        enter = Rule(f'iifname "{link}" jump groups', "what peers send is judged by their groups")
        chains.append(Chain("input", (enter,), Hook("filter", "input", "filter", 0)))
        forward.append(enter)
    chains.append(Chain("forward", tuple(forward), Hook("filter", "forward", "filter", 0)))
    return tuple(collections), tuple(chains)


def _digest(*content: object) -> str:
    """Makes a name of content: other content is another set, and nobody asks one that changes."""
    return f"{zlib.crc32(repr(content).encode()):08x}"


def _groups_chain(sources: Sequence[Collection]) -> Chain:
    return Chain(
        "groups",
        (
            Rule("ct direction reply accept", "answers to what was begun towards a peer"),
            Rule(
                f"ct state related meta l4proto {{ {_ICMP} }} accept",
                "errors about a connection that stands",
            ),
            *(
                Rule(f"{ip} saddr vmap @{each.name}", "whose groups count")
                for ip, each in zip(_IP.values(), sources, strict=True)
            ),
            Rule("goto refuse", "no group allows it"),
        ),
    )


def _refuse_chain() -> Chain:
    notes = tuple(
        Rule(
            f"update @refused-ipv{version} {{ {ip} saddr . {ip} daddr . meta l4proto }}",
            f"for vpnctl why, IPv{version}",
        )
        for version, ip in _IP.items()
    )
    return Chain(
        "refuse", (*notes, Rule("counter reject with icmpx admin-prohibited", "all that is refused"))
    )


def _refused(version: int) -> Collection:
    address = f"ipv{version}_addr"
    header = (
        f"type {address} . {address} . inet_proto; size {_REFUSED_MAX}; "
        f"flags dynamic,timeout; timeout {REFUSED_FOR_S}s; counter;"
    )
    return Collection("set", f"refused-ipv{version}", header, None)


def _sources(version: int, plan: Iterable[tuple[Network, Class]], names: Mapping[Class, str]) -> Collection:
    """Gives the map from a source to the chain of its groups."""
    members = ((_bounds(network), groups) for network, groups in plan if network.version == version)
    elements: list[tuple[str, Element]] = []
    for bounds, groups in flatten(members):
        if groups:  # whose peer is in none meets no entry
            elements.append((f"{_range(version, bounds)} : jump {names[groups]}", (bounds, names[groups])))
    header = f"type ipv{version}_addr : verdict; flags interval;"
    return Collection("map", f"sources-ipv{version}-{_digest(*elements)}", header, tuple(elements))


def _class_parts(
    groups: Class, allowed: Mapping[str, frozenset[Permission]]
) -> tuple[list[Collection], Chain]:
    """Gives the sets of one combination of groups, and the chain that looks into them."""
    permissions = frozenset[Permission]().union(*(allowed[group] for group in groups))
    words = ", ".join(groups)
    name = f"groups-{_digest(groups, sorted(map(repr, permissions)))}"
    if permissions & _ANY:
        return [], Chain(name, (Rule("accept", words),))
    collections: list[Collection] = []
    rules: list[Rule] = []
    for version, ip in _IP.items():
        address = f"ipv{version}_addr"
        if hosts := tuple(_hosts(version, permissions)):
            each = Collection("set", f"{name}-hosts-ipv{version}", f"type {address}; flags interval;", hosts)
            collections.append(each)
            rules.append(Rule(f"{ip} daddr @{each.name} accept", words))
        if services := tuple(_services(version, permissions)):
            header = f"type {address} . inet_proto . inet_service; flags interval;"
            each = Collection("set", f"{name}-services-ipv{version}", header, services)
            collections.append(each)
            rules.append(Rule(f"{ip} daddr . meta l4proto . th dport @{each.name} accept", words))
    return collections, Chain(name, tuple(rules))


def _hosts(version: int, permissions: Iterable[Permission]) -> Iterator[tuple[str, Element]]:
    """Gives the addresses that may be reached by every protocol."""
    whole = (
        _bounds(permission.network)
        for permission in permissions
        if permission.protocol is None and permission.network and permission.network.version == version
    )
    for bounds in merge(whole):
        yield _range(version, bounds), (bounds,)


def _services(version: int, permissions: Iterable[Permission]) -> Iterator[tuple[str, Element]]:
    """Gives addresses with a protocol and its ports, no point of them twice.

    ICMP has something else where others have the port: it is allowed with all numbers there.
    """
    boxes: dict[str, list[tuple[Bounds, Bounds]]] = {}
    everywhere = (0, 2 ** (32 if version == 4 else 128) - 1)
    for permission in permissions:
        network, protocol = permission.network, permission.protocol
        if protocol is None or (network is not None and network.version != version):
            continue
        name: str = "ipv6-icmp" if (protocol, version) == ("icmp", 6) else protocol
        addresses = everywhere if network is None else _bounds(network)
        boxes.setdefault(name, []).append((addresses, permission.ports or _PORTS))
    for name, of_protocol in sorted(boxes.items()):
        number = PROTOCOL_NUMBERS[name]
        for addresses, (low, high) in cut_boxes(of_protocol):
            text = f"{_range(version, addresses)} . {number} . {low}-{high}"
            yield text, (addresses, (number, number), (low, high))


def _bounds(network: Network) -> Bounds:
    return int(network.network_address), int(network.broadcast_address)


def _range(version: int, bounds: Bounds) -> str:
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    first, last = map(kind, bounds)
    return str(first) if first == last else f"{first}-{last}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was refused from one address to another lately; `protocol` by its name where it has one."""

    source: ipaddress.IPv4Address | ipaddress.IPv6Address
    destination: ipaddress.IPv4Address | ipaddress.IPv6Address
    protocol: str
    packets: int


def refusals(instance: str) -> list[Refusal]:
    """Reads what the instance's standing table refused lately. HostError where it has no such sets."""
    name = table_name(instance)
    found = []
    for version in _IP:
        what = ("set", "inet", name, f"refused-ipv{version}")
        for entry in listing(f"nftables: list {' '.join(what)}", *what):
            for element in entry.get("set", {}).get("elem", ()):
                source, destination, protocol = element["elem"]["val"]["concat"]
                packets = int(element["elem"]["counter"]["packets"])
                source, destination = map(ipaddress.ip_address, (source, destination))
                known_as = _PROTOCOL_NAMES.get(protocol, str(protocol))
                found.append(Refusal(source, destination, known_as, packets))
    return found
