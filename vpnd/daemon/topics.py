"""The answers to `vpnctl show`: one report per topic.

Owns the gathering; the shapes are control's. Reads everybody, changes nobody.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, datetime

from vpnd.config import PeerConfig, describe
from vpnd.control import Topic
from vpnd.control.reports import (
    ConfigReport,
    DropReport,
    DropsReport,
    LeaseReport,
    LeasesReport,
    MacReport,
    MacsReport,
    OffloadReport,
    OffloadsReport,
    PeerDetail,
    PeersReport,
    RouteReport,
    RoutesReport,
    SettingReport,
)
from vpnd.daemon import permits, status, wanted
from vpnd.daemon.clock import boottime
from vpnd.daemon.instance import Instance
from vpnd.errors import ControlError
from vpnd.host import facts
from vpnd.host.plan import Network, RoutePlan
from vpnd.plane.inventory import Inventory
from vpnd.plane.wire import DROP_REASONS, Offload
from vpnd.protocol.constants import PaddingMode
from vpnd.protocol.refusals import REFUSAL_TEXTS

_TABLE_NAMES = {254: "main", 253: "default", 255: "local"}
GSO_AGAIN_S = 30  # after which the plane tries a path again that refused (c/sender.c)
_NAMES_SHOWN = 5

# What a link may be granted, by its bit (linux/if_tun.h). Those for UDP came with Linux 6.2.
_LINK_OFFLOADS = {"csum": 0x01, "tso4": 0x02, "tso6": 0x04, "tso_ecn": 0x08, "uso4": 0x20, "uso6": 0x40}


async def report(instance: Instance, topic: Topic) -> object:  # noqa: PLR0911 - one for each topic
    """Gathers the topic's report. Raises ControlError."""
    match topic:
        case "peers":
            return PeersReport(tuple(_peer(instance, peer) for peer in instance.config.peers))
        case "routes":
            return RoutesReport(await asyncio.to_thread(_routes, instance))
        case "groups":
            refused = await asyncio.to_thread(permits.refused_lately, instance.config)
            return permits.groups_report(instance.config, refused)
        case "macs":
            return MacsReport(_macs(instance))
        case "config":
            settings = tuple(SettingReport(*setting) for setting in describe(instance.config))
            return ConfigReport(tuple(map(str, instance.config.files)), settings)
        case "leases":
            return LeasesReport(tuple(_leases(instance)))
        case "drops":
            return DropsReport(tuple(_drops(instance)))
        case "offload":
            return _offloads(instance)


def _peer(instance: Instance, peer: PeerConfig) -> PeerDetail:
    snapshot = instance.driver.device.snapshot(peer.public_key)
    counters = instance.driver.peers.counters(peer.public_key)
    state, reason = status.peer_state(instance, peer, snapshot)
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
        previous_key=status.previous_key(instance, peer.previous_public_key),
    )


def _routes(instance: Instance) -> tuple[RouteReport, ...]:
    routing = instance.config.routing
    link = instance.config.interface.name
    standing = {route.key for route in facts.routes_into(link)}
    reports = []
    for peer in instance.config.peers:
        pushed = instance.following.pushes.accepted_of(instance.config, peer).routes
        for network in dict.fromkeys((*peer.networks, *pushed)) if peer.enabled else ():
            installed = None
            if peer.route or network in pushed:
                # One that somebody else made, such as the kernel for an address of ours, serves as well.
                route = RoutePlan(network, routing.table, routing.metric)
                installed = route.key in standing or _leads_into(network, link)
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
        MacReport(
            listed.mac.hex(":"),
            listed.vlan,
            name,
            None if listed.is_static else now - listed.seen_at,
        )
        for listed in instance.driver.plane.list_macs()
        if (name := instance.driver.peers.name_of(listed.peer_id)) is not None
    )


def _leases(instance: Instance) -> Iterator[LeaseReport]:
    """The peers that have addresses of the pool, then those that left and whose addresses are kept."""
    book = instance.leases
    for peer in instance.config.peers:
        given = book.given.get(peer.public_key)
        if given:
            is_fixed = peer.public_key not in book.leases
            addresses = tuple(str(address.ip) for address in given)
            yield LeaseReport(
                peer.name, str(peer.public_key), addresses, "fixed" if is_fixed else "given", None
            )
    for key, lease in book.leases.items():
        if lease.released_at is not None:
            age_s = max(0.0, (datetime.now(UTC) - lease.released_at).total_seconds())
            yield LeaseReport(lease.name, str(key), tuple(map(str, lease.addresses)), "kept", age_s)


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
        counters = instance.driver.peers.counters(peer.public_key)
        counted = {**device.snapshot(peer.public_key).refusals, **(counters.drops if counters else {})}
        for name, number in counted.items():
            if number:
                yield DropReport(name, texts[name], number, peer.name)


def _offloads(instance: Instance) -> OffloadsReport:
    plane = instance.driver.plane
    if plane is None:
        text = "the plane is gone and is being brought back"
        return OffloadsReport(
            None, None, tuple(OffloadReport(name, is_active=False, text=text) for name in wanted.OFFLOADS)
        )
    inventory = plane.inventory()
    return OffloadsReport(
        aead=plane.hello.aead,
        workers=inventory.queues or None,
        offloads=tuple(
            OffloadReport(
                name, bool(offload & inventory.offloads.active), _explain(instance, offload, inventory)
            )
            for name, offload in wanted.OFFLOADS.items()
        ),
    )


def _explain(instance: Instance, offload: Offload, inventory: Inventory) -> str:
    """Tells why an offload is off, or what is to be said of one that is on."""
    offloads = inventory.offloads
    if not offload & offloads.wanted:
        return "switched off in local.offload"
    if offload in offloads.errors:
        return f"refused by the kernel: {os.strerror(offloads.errors[offload])}"
    is_of_link = offload is Offload.TUN_VNET
    if not offload & offloads.active:
        return "no link yet" if is_of_link else "no socket yet"
    if offload is Offload.UDP_GSO:
        return _refusing_paths(instance)
    if not is_of_link:
        return ""
    granted = [name for name, bit in _LINK_OFFLOADS.items() if bit & offloads.link]
    missing = [name for name in _LINK_OFFLOADS if name not in granted]
    return " ".join(granted) + (f"; not granted: {' '.join(missing)}" if missing else "")


def _refusing_paths(instance: Instance) -> str:
    """Tells whose paths refuse runs of datagrams; the plane sends these singly and tries again later."""
    refusing: dict[int, list[str]] = {}
    for peer in instance.config.peers:
        counters = instance.driver.peers.counters(peer.public_key)
        if counters is not None and counters.gso_error:
            refusing.setdefault(counters.gso_error, []).append(peer.name)
    texts = []
    for error, names in refusing.items():
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        texts.append(f"refused on the way to {', '.join(names[:_NAMES_SHOWN])}{more} ({os.strerror(error)})")
    return "; ".join([*texts, f"tried again after {GSO_AGAIN_S} s"]) if texts else ""
