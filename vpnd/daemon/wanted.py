"""What a configuration wants of the machine, of the Device and of the plane, as values.

Owns the translation from Config to the rooms below; every function here is pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from vpnd.config import Config, PeerConfig, Secrets, derived_mac
from vpnd.daemon.driver import PeerWiring
from vpnd.endpoint import Endpoint, EndpointName
from vpnd.host.plan import HostPlan, LinkPlan, RoutePlan
from vpnd.keys import PublicKey, Secret
from vpnd.protocol.constants import Feature, PaddingMode
from vpnd.protocol.local import DeviceOptions
from vpnd.protocol.peer import PeerOptions

_PADDING = {
    "none": PaddingMode.NONE,
    "16": PaddingMode.X16,
    "bucket": PaddingMode.BUCKET,
    "full": PaddingMode.FULL,
}


def host_plan(config: Config, public_key: PublicKey) -> HostPlan:
    """The link, its routes, forwarding and masquerading."""
    interface, routing = config.interface, config.routing
    mac = None
    if interface.type == "tap":
        mac = interface.mac if interface.mac is not None else derived_mac(public_key)
    link = LinkPlan(
        name=interface.name,
        type=interface.type,
        addresses=interface.addresses,
        mtu=interface.mtu,
        txqueuelen=interface.txqueuelen,
        mac=mac,
        owner=None,
        group=None,
    )
    routes = frozenset(
        RoutePlan(network, routing.table, routing.metric)
        for peer in config.peers
        if peer.enabled and peer.route
        for network in peer.networks
    )
    return HostPlan(config.instance, link, routes, routing.forward, routing.masquerade)


def device_options(config: Config, *, has_aes: bool) -> DeviceOptions:
    """Our end of the protocol."""
    return DeviceOptions(
        has_aes=has_aes,
        link_type=Feature.TAP if config.interface.type == "tap" else Feature.TUN,
        mtu=config.interface.mtu,
        padding=_PADDING[config.local.padding],
        features=Feature.PATH | Feature.PARAMS | Feature.CSUM | Feature.PMTU,
    )


def peer_options(
    config: Config,
    secrets: Secrets,
    known: Mapping[PublicKey, Endpoint],
    previous_keys: Mapping[PublicKey, Secret],
) -> list[PeerOptions]:
    """The peers as the Device wants them. `known` are endpoints seen earlier: they serve a peer whose
    configuration names none, or names a host that is yet to be resolved.
    """
    zero = Secret.zero()
    return [
        PeerOptions(
            public_key=peer.public_key,
            name=peer.name,
            preshared_key=secrets.preshared_keys.get(peer.name, zero),
            previous_preshared_key=previous_keys.get(peer.public_key),
            endpoint=peer.endpoint if isinstance(peer.endpoint, Endpoint) else known.get(peer.public_key),
            keepalive_s=peer.keepalive,
            enabled=peer.enabled,
        )
        for peer in config.peers
    ]


def endpoint_names(config: Config) -> dict[str, EndpointName]:
    """The names to be resolved, by peer."""
    return {
        peer.name: peer.endpoint
        for peer in config.peers
        if peer.enabled and isinstance(peer.endpoint, EndpointName)
    }


def wirings(config: Config) -> list[PeerWiring]:
    """The peers as the plane wants them. A disabled peer is none of the plane's business."""
    return [_wiring(peer) for peer in config.peers if peer.enabled]


def _wiring(peer: PeerConfig) -> PeerWiring:
    return PeerWiring(peer.public_key, peer.name, peer.networks)
