"""StatusReport: how an instance is, the one source of status text, JSON and metrics.

Owns the shape of vpnd.status/1 (control.schema.json describes the same in JSON Schema) and
what "healthy" means. Field names are the JSON keys; within /1 keys are only ever added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from vpnd.errors import ControlError

STATUS_SCHEMA: Literal["vpnd.status/1"] = "vpnd.status/1"
OFFLOADS = ("udp-gso", "udp-gro", "tun-vnet")

InstanceState = Literal["starting", "up", "degraded", "stopping"]
PeerState = Literal["up", "connecting", "down", "disabled"]
FindingLevel = Literal["warning", "notice"]


@dataclass(frozen=True, slots=True)
class LinkReport:
    """The kernel interface; `addresses` with their prefix lengths, as in "10.255.0.1/30"."""

    name: str
    type: Literal["tun", "tap"]
    mtu: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlaneReport:
    """The packet mover; `aead` is printed as it stands, such as "aes-256-gcm (ipsec-mb)". None: not known.

    `offload` are those of OFFLOADS that are active.
    """

    uptime_s: float | None
    aead: str | None
    offload: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PeerReport:
    """One peer; None where there is nothing to know yet.

    `reason` is one short line, for people, why the peer is not up. `endpoint` is the present
    outer address, or the configured name while it has none. Bytes and packets are inner ones.
    `path_mtu` is the largest outer IP packet that was seen to arrive there.
    """

    name: str
    public_key: str
    state: PeerState
    reason: str | None
    endpoint: str | None
    handshake_age_s: float | None
    handshakes: int
    rtt_ms: float | None
    rx_bytes: int
    rx_packets: int
    tx_bytes: int
    tx_packets: int
    suite: str | None
    networks: tuple[str, ...]
    drops: Mapping[str, int]
    path_mtu: int | None


@dataclass(frozen=True, slots=True)
class PreviousKeyReport:
    """A static key that is being replaced, and for how long it still holds; 0: no longer."""

    public_key: str
    left_s: float


@dataclass(frozen=True, slots=True)
class HealthFinding:
    """Something an operator should know: a stable code, one sentence, what to do about it.

    A "warning" waits for somebody, a "notice" is good to know. `peer` is the one that it is about, if one.
    """

    code: str
    text: str
    remedy: str
    level: FindingLevel = "warning"
    peer: str | None = None


@dataclass(frozen=True, slots=True)
class InstanceReport:
    """One running daemon. `drops` counts every dropped packet by reason, those of peers included."""

    instance: str
    state: InstanceState
    uptime_s: float
    link: LinkReport | None
    listen: tuple[str, ...]
    public_key: str
    plane: PlaneReport | None
    peers: tuple[PeerReport, ...]
    drops: Mapping[str, int]
    health: tuple[HealthFinding, ...]
    previous_key: PreviousKeyReport | None = None

    def with_only(self, peer: str) -> InstanceReport:
        """Keeps one peer, by name or public key. Raises ControlError "no-such-peer"."""
        kept = tuple(report for report in self.peers if peer in (report.name, report.public_key))
        if not kept:
            raise no_such_peer(self.instance, peer, tuple(report.name for report in self.peers))
        return replace(self, peers=kept)


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The whole answer: one instance from a daemon, all of them from vpnctl."""

    schema: Literal["vpnd.status/1"] = field(default=STATUS_SCHEMA, kw_only=True)
    instances: tuple[InstanceReport, ...]


@dataclass(frozen=True, slots=True)
class PeerHealth:
    """The little of a PeerReport that tells whether it is well."""

    state: PeerState


@dataclass(frozen=True, slots=True)
class InstanceHealth:
    """The little of an InstanceReport that tells whether it is well."""

    state: InstanceState
    peers: tuple[PeerHealth, ...]
    health: tuple[HealthFinding, ...]


@dataclass(frozen=True, slots=True)
class StatusHealth:
    """The little of a StatusReport that a reader needs who passes the rest on as it stands."""

    schema: Literal["vpnd.status/1"] = field(default=STATUS_SCHEMA, kw_only=True)
    instances: tuple[InstanceHealth, ...]


def is_healthy(instance: InstanceReport | InstanceHealth) -> bool:
    """Every enabled peer is up and nothing waits for the operator."""
    peers_fine = all(peer.state in ("up", "disabled") for peer in instance.peers)
    return peers_fine and instance.state == "up" and all(each.level == "notice" for each in instance.health)


def no_such_peer(instance: str, peer: str, known: tuple[str, ...]) -> ControlError:
    """Makes the error for a name nobody has, with up to ten names that somebody has."""
    names = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
    return ControlError("no-such-peer", f'{instance} has no peer "{peer}"; it has {names or "none"}')
