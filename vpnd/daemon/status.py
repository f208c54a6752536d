"""How the instance is, gathered into one StatusReport: the source of text, JSON and metrics.

Owns the words for states; findings stand in health.py. Reads everybody, changes nobody.
"""

from __future__ import annotations

from collections.abc import Mapping

from vpnd.config import PeerConfig, show_moment
from vpnd.control import (
    InstanceReport,
    InstanceState,
    LinkReport,
    PeerReport,
    PeerState,
    PlaneReport,
    PreviousKeyReport,
)
from vpnd.daemon import health, wanted
from vpnd.daemon.clock import boottime
from vpnd.daemon.instance import Instance
from vpnd.keys import PublicKey
from vpnd.protocol.constants import Suite
from vpnd.protocol.peer import PeerSnapshot

SUITE_NAMES = {Suite.AES_256_GCM: "aes-256-gcm", Suite.CHACHA20_POLY1305: "chacha20-poly1305"}


def report(instance: Instance, only: PeerConfig | None = None) -> InstanceReport:
    """Gathers the whole status of the instance now, with `only` one of its peers where one is given."""
    config, now = instance.config, boottime()
    peers = tuple(_peer(instance, peer, now) for peer in (config.peers if only is None else (only,)))
    findings = tuple(health.findings(instance))
    interface = config.interface
    return InstanceReport(
        instance=config.instance,
        state=_state(instance),
        uptime_s=now - instance.started_at,
        link=LinkReport(
            interface.name,
            interface.type,
            instance.following.link_mtu,
            tuple(map(str, instance.following.link_addresses)),
        ),
        listen=tuple(map(str, instance.listen_endpoints())),
        public_key=str(instance.secrets.identity.public),
        plane=_plane(instance),
        peers=peers,
        drops=instance.driver.drops(),
        health=findings,
        previous_key=previous_key(
            instance, previous.public if (previous := instance.secrets.previous) else None
        ),
    )


def previous_key(instance: Instance, key: PublicKey | None) -> PreviousKeyReport | None:
    """Tells how long a key that is being replaced holds, ours or a peer's; None where there is none."""
    if key is None:
        return None
    return PreviousKeyReport(str(key), max(0.0, instance.previous_until[key] - boottime()))


def line(instance: Instance) -> str:
    """One line for `systemctl status` and the log."""
    up, enabled = instance.driver.device.tally()
    text = f"{up} of {enabled} peers up"
    waits = ["waits for its addresses"] if instance.following.awaits_addresses else []
    return "; ".join([text, *waits, *instance.failures.values()])


def peer_state(instance: Instance, peer: PeerConfig, snapshot: PeerSnapshot) -> tuple[PeerState, str | None]:
    """Tells the peer's state and, when it is not up, the reason in a few words."""
    if not peer.enabled:
        return "disabled", "its invitation is over" if peer.is_invited else None
    if snapshot.current_index is not None:
        return "up", None
    if snapshot.stage == "handshaking" and snapshot.endpoint is not None:
        tries = f"no answer from {snapshot.endpoint} to {snapshot.attempts} tries"
        return "connecting", tries if snapshot.attempts > 1 else None
    if peer.invited_until is not None:
        return "down", f"is yet to join, until {show_moment(peer.invited_until)}"
    reason = "no session; traffic starts one"
    if snapshot.endpoint is None:
        reason = "waits for its call"
    elif snapshot.stage == "gave-up":
        reason = f"no answer from {snapshot.endpoint}"
    return "down", instance.resolver.error_of(peer.name) or reason


def _peer(instance: Instance, peer: PeerConfig, now: float) -> PeerReport:
    snapshot = instance.driver.device.snapshot(peer.public_key)
    counters = instance.driver.peers.counters(peer.public_key)
    state, reason = peer_state(instance, peer, snapshot)
    endpoint = snapshot.endpoint or peer.endpoint
    return PeerReport(
        name=peer.name,
        public_key=str(peer.public_key),
        state=state,
        reason=reason,
        endpoint=str(endpoint) if endpoint else None,
        handshake_age_s=None if snapshot.last_handshake_at is None else now - snapshot.last_handshake_at,
        handshakes=snapshot.handshakes,
        rtt_ms=None if snapshot.rtt_s is None else snapshot.rtt_s * 1e3,
        rx_bytes=counters.rx_bytes if counters else 0,
        rx_packets=counters.rx_packets if counters else 0,
        tx_bytes=counters.tx_bytes if counters else 0,
        tx_packets=counters.tx_packets if counters else 0,
        suite=SUITE_NAMES[snapshot.suite] if snapshot.suite else None,
        networks=tuple(map(str, peer.networks)),
        drops=_sum(snapshot.refusals, counters.drops if counters else {}),
        path_mtu=snapshot.path_mtu,
    )


def _plane(instance: Instance) -> PlaneReport:
    if instance.driver.plane is None or instance.plane_started_at is None:
        return PlaneReport(None, None, ())
    suites = sorted(SUITE_NAMES[suite] for suite in instance.driver.device.suites())
    backend = instance.driver.plane.hello.aead
    return PlaneReport(
        boottime() - instance.plane_started_at,
        f"{'+'.join(suites)} ({backend})" if suites else backend,
        tuple(name for name, offload in wanted.OFFLOADS.items() if offload & instance.active_offloads),
    )


def _state(instance: Instance) -> InstanceState:
    if instance.failures:
        return "degraded"
    return "starting" if instance.following.awaits_addresses else "up"


def _sum(*counters: Mapping[str, int]) -> dict[str, int]:
    total: dict[str, int] = {}
    for counter in filter(None, counters):
        for name, number in counter.items():
            if number:
                total[name] = total.get(name, 0) + number
    return total
