"""What a configuration wants of the machine, of the Device and of the plane, as values.

Owns the translation from Config to the rooms below; every function here is pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from vpnd.config import (
    TABLES,
    Config,
    DnsConfig,
    IPInterface,
    IPNetwork,
    LocalConfig,
    PeerConfig,
    Secrets,
    derived_mac,
    is_inside,
)
from vpnd.daemon.plane_peers import PeerWiring
from vpnd.daemon.pushes import NOTHING, Accepted
from vpnd.daemon.switch import frame_rules
from vpnd.endpoint import Endpoint, EndpointName
from vpnd.host.plan import DnsPlan, FilterPlan, FullTunnelPlan, HostPlan, LinkPlan, Permission, RoutePlan
from vpnd.keys import PublicKey, Secret
from vpnd.plane.wire import Offload
from vpnd.protocol.constants import Feature, PaddingMode
from vpnd.protocol.local import DeviceOptions
from vpnd.protocol.parameters import encode_push
from vpnd.protocol.peer import PeerOptions

_PADDING = {
    "none": PaddingMode.NONE,
    "16": PaddingMode.X16,
    "bucket": PaddingMode.BUCKET,
    "full": PaddingMode.FULL,
}
OFFLOADS = {"udp-gso": Offload.UDP_GSO, "udp-gro": Offload.UDP_GRO, "tun-vnet": Offload.TUN_VNET}
WORKERS_AUTO_MAX = 8  # more than these on one link gain little and cost memory


def workers(local: LocalConfig, usable_cpus: int) -> int:
    """How many threads move packets each way: as many pairs of them as have a processor each."""
    if local.workers == "auto":
        return min(max(usable_cpus // 2, 1), WORKERS_AUTO_MAX)
    return local.workers


def offloads(config: Config) -> Offload:
    """The offloads that may run."""
    match config.local.offload:
        case "auto":
            return Offload.ALL
        case "off":
            return Offload(0)
        case names:
            return Offload(sum(OFFLOADS[name] for name in names))


def host_plan(
    config: Config, public_key: PublicKey, usable_cpus: int = 1, accepted: Accepted = NOTHING
) -> HostPlan:
    """The link, its routes, forwarding, masquerading and what peers may reach, with what they push."""
    interface, routing = config.interface, config.routing
    mac = None
    if interface.type == "tap":
        mac = interface.mac if interface.mac is not None else derived_mac(public_key)
    link = LinkPlan(
        name=interface.name,
        type=interface.type,
        addresses=(*interface.addresses, *accepted.addresses),
        mtu=interface.mtu if accepted.mtu is None else accepted.mtu,
        txqueuelen=interface.txqueuelen,
        mac=mac,
        owner=None,
        group=None,
        queues=workers(config.local, usable_cpus),
        bridge=interface.bridge,
    )
    routes = frozenset(
        RoutePlan(network, routing.table, routing.metric)
        for network in (*_routed(config), *_pool_routes(config), *accepted.routes)
    )
    return HostPlan(
        config.instance,
        link,
        routes,
        routing.forward,
        routing.masquerade,
        filter_plan(config),
        _full_tunnel(config, routes),
        dns_plan(config.dns, DnsConfig(accepted.servers, accepted.domains)),
    )


def _full_tunnel(config: Config, routes: Iterable[RoutePlan]) -> FullTunnelPlan | None:
    """The way of everything, for the IP versions that have a default route into the link."""
    routing = config.routing
    if not routing.full_tunnel:
        return None
    versions = frozenset(route.prefix.version for route in routes if route.prefix.prefixlen == 0)
    return FullTunnelPlan(
        config.local.fwmark, routing.table, versions, routing.allow_lan, routing.kill_switch
    )


def filter_plan(config: Config) -> FilterPlan:
    """What peers may reach. A disabled peer's networks are nobody's, also inside those of another."""
    client_to_client = config.routing.client_to_client
    if not config.groups:
        return FilterPlan(client_to_client)
    groups_of = config.groups_of()
    return FilterPlan(
        client_to_client,
        {
            group.name: frozenset(Permission(rule.network, rule.protocol, rule.ports) for rule in group.allow)
            for group in config.groups
        },
        tuple(
            (network, groups_of[peer.name] if peer.enabled else ())
            for peer in config.peers
            for network in peer.networks
        ),
    )


def dns_plan(*parts: DnsConfig) -> DnsPlan | None:
    """The name servers of all parts together. One that names no domains is for every name."""
    asked = [part for part in parts if part.servers]
    if not asked:
        return None
    return DnsPlan(
        tuple(dict.fromkeys(server for part in asked for server in part.servers)),
        tuple(dict.fromkeys(domain for part in asked for domain in part.domains)),
        any(not part.domains or "~." in part.domains for part in asked),
    )


def _routed(config: Config) -> Iterator[IPNetwork]:
    """What lies behind peers; addresses of the pool have one route together."""
    pool = () if config.pool is None else config.pool.networks
    for peer in config.peers:
        if peer.enabled and peer.route:
            yield from (net for net in peer.networks if not any(is_inside(net, each) for each in pool))


def _pool_routes(config: Config) -> Iterator[IPNetwork]:
    """The pool's networks, unless an address of ours brings the same route."""
    own = {address.network for address in config.interface.addresses}
    is_main = config.routing.table == TABLES["main"]
    for network in () if config.pool is None else config.pool.networks:
        if not is_main or network not in own:
            yield network


def device_options(config: Config, *, has_aes: bool) -> DeviceOptions:
    """Our end of the protocol. Partial checksums are taken only where the link may take them as well."""
    features = Feature.PATH | Feature.PARAMS | Feature.PMTU
    if offloads(config) & Offload.TUN_VNET:
        features |= Feature.CSUM
    return DeviceOptions(
        has_aes=has_aes,
        link_type=Feature.TAP if config.interface.type == "tap" else Feature.TUN,
        mtu=config.interface.mtu,
        padding=_PADDING[config.local.padding],
        features=features,
    )


def peer_options(
    config: Config,
    secrets: Secrets,
    known: Mapping[PublicKey, Endpoint],
    previous_keys: Mapping[PublicKey, Secret],
    until: Mapping[PublicKey, float],
    *,
    given: Mapping[PublicKey, tuple[IPInterface, ...]] = MappingProxyType({}),
) -> list[PeerOptions]:
    """The peers as the Device wants them. `known` are endpoints seen earlier: they serve a peer whose
    configuration names none, or names a host that is yet to be resolved. `until` tells when keys that
    are being replaced end, and `given` the addresses of those that are told so.
    """
    zero = Secret.zero()
    push = config.push
    return [
        PeerOptions(
            public_key=peer.public_key,
            name=peer.name,
            preshared_key=secrets.preshared_keys.get(peer.name, zero),
            previous_preshared_key=previous_keys.get(peer.public_key),
            previous_public_key=peer.previous_public_key,
            previous_key_until=math.inf if (key := peer.previous_public_key) is None else until[key],
            endpoint=peer.endpoint if isinstance(peer.endpoint, Endpoint) else _known(peer, known),
            keepalive_s=peer.keepalive,
            enabled=peer.enabled,
            push=encode_push(given[peer.public_key], push.routes, push.dns.servers, push.dns.domains)
            if peer.public_key in given
            else b"",
            push_mtu=push.mtu if peer.public_key in given else None,
        )
        for peer in config.peers
    ]


def _known(peer: PeerConfig, known: Mapping[PublicKey, Endpoint]) -> Endpoint | None:
    endpoint = known.get(peer.public_key)
    if endpoint is None and peer.previous_public_key is not None:
        return known.get(peer.previous_public_key)
    return endpoint


def endpoint_names(config: Config) -> dict[str, EndpointName]:
    """The names to be resolved, by peer."""
    return {
        peer.name: peer.endpoint
        for peer in config.peers
        if peer.enabled and isinstance(peer.endpoint, EndpointName)
    }


def wirings(config: Config) -> list[PeerWiring]:
    """The peers as the plane wants them. A disabled peer is none of the plane's business."""
    return [_wiring(config, peer) for peer in config.peers if peer.enabled]


def _wiring(config: Config, peer: PeerConfig) -> PeerWiring:
    # Who is yet to join may say so, and reach nothing behind us.
    networks = () if peer.is_invited else peer.networks
    rules = frame_rules(config, peer) if config.interface.type == "tap" else None
    return PeerWiring(peer.public_key, peer.name, networks, peer.previous_public_key, rules)
