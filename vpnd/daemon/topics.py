"""The answers to `vpnctl show`: one report per topic.

Owns the gathering; the shapes are control's. Reads everybody, changes nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from vpnd.config import PeerConfig, describe
from vpnd.control import (
    ConfigReport,
    DropReport,
    DropsReport,
    MacReport,
    MacsReport,
    OffloadReport,
    OffloadsReport,
    PeerDetail,
    PeersReport,
    RouteReport,
    RoutesReport,
    SettingReport,
    Topic,
)
from vpnd.daemon import status
from vpnd.daemon.clock import boottime
from vpnd.daemon.instance import Instance
from vpnd.errors import ControlError
from vpnd.host import facts
from vpnd.host.plan import Network, RoutePlan
from vpnd.plane.wire import DROP_REASONS
from vpnd.protocol.constants import PaddingMode
from vpnd.protocol.refusals import REFUSAL_TEXTS

_TABLE_NAMES = {254: "main", 253: "default", 255: "local"}
_NOT_YET = "not yet supported"


async def report(instance: Instance, topic: Topic) -> object:
    """Gathers the topic's report. Raises ControlError."""
    match topic:
        case "peers":
            return PeersReport(tuple(_peer(instance, peer) for peer in instance.config.peers))
        case "routes":
            return RoutesReport(await asyncio.to_thread(_routes, instance))
        case "macs":
            return MacsReport(_macs(instance))
        case "config":
            settings = tuple(SettingReport(*setting) for setting in describe(instance.config))
            return ConfigReport(tuple(map(str, instance.config.files)), settings)
        case "drops":
            return DropsReport(tuple(_drops(instance)))
        case "offload":
            return _offloads(instance)


def _peer(instance: Instance, peer: PeerConfig) -> PeerDetail:
    snapshot = instance.driver.device.snapshot(peer.public_key)
    counters = instance.driver.counters(peer.public_key)
    state, reason = status.peer_state(instance, peer)
    now = boottime()
    return PeerDetail(
        name=peer.name,
        public_key=str(peer.public_key),
        state=state,
        reason=reason,
        endpoint=str(snapshot.endpoint) if snapshot.endpoint else None,
        configured_endpoint=str(peer.endpoint) if peer.endpoint else None,
        networks=tuple(map(str, peer.networks)),
        keepalive_s=peer.keepalive,
        padding=None if snapshot.padding is None else PaddingMode(snapshot.padding).name.lower(),
        suite=status.SUITE_NAMES[snapshot.suite] if snapshot.suite else None,
        session_index=snapshot.current_index,
        stage=snapshot.stage,
        attempts=snapshot.attempts,
        handshakes=snapshot.handshakes,
        handshake_age_s=None if snapshot.last_handshake_at is None else now - snapshot.last_handshake_at,
        last_refusal=snapshot.last_refusal,
        last_refusal_age_s=None if snapshot.last_refusal_at is None else now - snapshot.last_refusal_at,
        rtt_ms=None if snapshot.rtt_s is None else snapshot.rtt_s * 1e3,
        remote_mtu=snapshot.remote_mtu,
        staged=counters.staged if counters else 0,
        refusals={name: number for name, number in snapshot.refusals.items() if number},
        drops=counters.drops if counters else {},
    )


def _routes(instance: Instance) -> tuple[RouteReport, ...]:
    routing = instance.config.routing
    link = instance.config.interface.name
    standing = {route.key for route in facts.routes_into(link)}
    reports = []
    for peer in instance.config.peers:
        for network in peer.networks if peer.enabled else ():
            installed = None
            if peer.route:
                # One that somebody else made, such as the kernel for an address of ours, serves as well.
                wanted = RoutePlan(network, routing.table, routing.metric)
                installed = wanted.key in standing or _leads_into(network, link)
            table = _TABLE_NAMES.get(routing.table, str(routing.table))
            reports.append(RouteReport(str(network), peer.name, table, routing.metric, installed))
    return tuple(reports)


def _leads_into(network: Network, link: str) -> bool:
    route = facts.route_to(network.network_address)
    return route is not None and route[0] == link


def _macs(instance: Instance) -> tuple[MacReport, ...]:
    if instance.config.interface.type != "tap":
        raise ControlError("refused", "a tun link carries no Ethernet addresses")
    if instance.driver.plane is None:
        raise ControlError("refused", "the plane is gone and is being brought back")
    now = boottime()
    return tuple(
        MacReport(listed.mac.hex(":"), listed.vlan, name, now - listed.seen_at)
        for listed in instance.driver.plane.list_macs()
        if (name := instance.driver.name_of(listed.peer_id)) is not None
    )


def _drops(instance: Instance) -> Iterator[DropReport]:
    """Every reason once without a peer (all of them together), then per peer what can be named."""
    device = instance.driver.device
    texts = dict(REFUSAL_TEXTS) | dict(DROP_REASONS)
    plane = instance.driver.plane
    totals = dict(device.refusals)
    for name, number in (plane.drops() if plane else {}).items():
        totals[name] = totals.get(name, 0) + number
    for name, number in totals.items():
        if number:
            yield DropReport(name, texts[name], number, None)
    for peer in instance.config.peers:
        counters = instance.driver.counters(peer.public_key)
        counted = dict(device.snapshot(peer.public_key).refusals) | (counters.drops if counters else {})
        for name, number in counted.items():
            if number:
                yield DropReport(name, texts[name], number, peer.name)


def _offloads(instance: Instance) -> OffloadsReport:
    wanted = instance.config.local.offload
    text = "switched off in local.offload" if wanted == "off" else _NOT_YET
    names = ("udp-gso", "udp-gro", "tun-vnet")
    plane = instance.driver.plane
    return OffloadsReport(
        aead=plane.hello.aead if plane else None,
        workers=len(plane.counters.heartbeats()) if plane else None,
        offloads=tuple(OffloadReport(name, is_active=False, text=text) for name in names),
    )
