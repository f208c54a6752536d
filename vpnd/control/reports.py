"""The answers to everything but status: one frozen dataclass per kind of answer.

Owns their shapes; field names are the JSON keys. Ages are seconds, round trips milliseconds,
addresses and keys are text as an operator writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vpnd.control.status import PreviousKeyReport


@dataclass(frozen=True, slots=True)
class PeerDetail:
    """What `show peers` tells of one peer beyond the status: its configuration and its handshakes.

    `stage` is the protocol's own word; `refusals` counts messages refused in its name.
    """

    name: str
    public_key: str
    state: str
    reason: str | None
    endpoint: str | None
    configured_endpoint: str | None
    networks: tuple[str, ...]
    keepalive_s: int
    padding: str | None
    suite: str | None
    session_index: int | None
    stage: str
    attempts: int
    handshakes: int
    handshake_age_s: float | None
    last_refusal: str | None
    last_refusal_age_s: float | None
    rtt_ms: float | None
    remote_mtu: int | None
    staged: int
    refusals: Mapping[str, int]
    drops: Mapping[str, int]
    previous_key: PreviousKeyReport | None = None


@dataclass(frozen=True, slots=True)
class PeersReport:
    peers: tuple[PeerDetail, ...]


@dataclass(frozen=True, slots=True)
class RouteReport:
    """One prefix behind a peer. `installed` is what the kernel says; None where `route = false`."""

    prefix: str
    peer: str
    table: str
    metric: int
    installed: bool | None


@dataclass(frozen=True, slots=True)
class RoutesReport:
    routes: tuple[RouteReport, ...]


@dataclass(frozen=True, slots=True)
class GroupReport:
    """One group. `refused` counts the packets lately refused to its members, by all their groups together."""

    name: str
    allow: tuple[str, ...]
    peers: tuple[str, ...]
    refused: int


@dataclass(frozen=True, slots=True)
class GroupsReport:
    """All groups; `others` are the peers in none, which may begin nothing once there is a group."""

    groups: tuple[GroupReport, ...]
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MacReport:
    """One address behind a peer of a TAP link; `vlan` 0 is untagged.

    A static one has no age, and holds in every VLAN.
    """

    mac: str
    vlan: int
    peer: str
    age_s: float | None


@dataclass(frozen=True, slots=True)
class MacsReport:
    macs: tuple[MacReport, ...]


@dataclass(frozen=True, slots=True)
class LeaseReport:
    """The addresses of the pool that one key has.

    "fixed": by the configuration; "given" by the daemon; "kept" for a peer that is configured no more,
    for `released_age_s` now.
    """

    peer: str
    public_key: str
    addresses: tuple[str, ...]
    state: Literal["given", "fixed", "kept"]
    released_age_s: float | None


@dataclass(frozen=True, slots=True)
class LeasesReport:
    leases: tuple[LeaseReport, ...]


@dataclass(frozen=True, slots=True)
class SettingReport:
    """One key by its dotted path with the value in force, as TOML; "(…)" says in words that it has none."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class ConfigReport:
    """Every setting in force, defaults included; key files by their path, never by their content."""

    files: tuple[str, ...]
    settings: tuple[SettingReport, ...]


@dataclass(frozen=True, slots=True)
class DropReport:
    """Packets or messages dropped for one reason; `peer` is None where no peer can be named."""

    reason: str
    text: str
    packets: int
    peer: str | None


@dataclass(frozen=True, slots=True)
class DropsReport:
    drops: tuple[DropReport, ...]


@dataclass(frozen=True, slots=True)
class OffloadReport:
    """One offload; `text` says why it is off, or what is to be said of one that is on."""

    name: str
    is_active: bool
    text: str


@dataclass(frozen=True, slots=True)
class OffloadsReport:
    """How packets are moved; `workers` threads each way."""

    aead: str | None
    workers: int | None
    offloads: tuple[OffloadReport, ...]


@dataclass(frozen=True, slots=True)
class WhyStep:
    """One check: passed, failed, or None where it could not be made or does not apply."""

    name: str
    ok: bool | None
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class WhyReport:
    """The checks in the order in which one breaks the next."""

    peer: str
    findings: tuple[WhyStep, ...]

    @property
    def cause(self) -> WhyStep | None:
        """The first check that failed."""
        return next((step for step in self.findings if step.ok is False), None)


@dataclass(frozen=True, slots=True)
class PingEcho:
    """One echo, numbered from 1; a round trip of None was not answered in time."""

    event: Literal["echo"] = field(default="echo", kw_only=True)
    sequence: int
    size: int
    endpoint: str | None
    rtt_ms: float | None


@dataclass(frozen=True, slots=True)
class PingSummary:
    """The last line of a ping."""

    event: Literal["summary"] = field(default="summary", kw_only=True)
    peer: str
    sent: int
    received: int
    rtt_min_ms: float | None
    rtt_mean_ms: float | None
    rtt_max_ms: float | None

    @classmethod
    def of(cls, peer: str, echoes: tuple[PingEcho, ...]) -> PingSummary:
        """Sums up what was sent so far."""
        times = [echo.rtt_ms for echo in echoes if echo.rtt_ms is not None]
        if not times:
            return cls(peer, len(echoes), 0, None, None, None)
        return cls(peer, len(echoes), len(times), min(times), sum(times) / len(times), max(times))


@dataclass(frozen=True, slots=True)
class ReloadChange:
    """One difference: what is added, removed or changed ("peer berlin", "route 10.0.0.0/8"), and how."""

    action: Literal["add", "remove", "change"]
    what: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """What a reload did, or in a dry run would do; no changes: the files say what already is."""

    dry_run: bool
    changes: tuple[ReloadChange, ...]


@dataclass(frozen=True, slots=True)
class ReconnectReport:
    """A handshake was begun towards `endpoint`."""

    peer: str
    endpoint: str | None


@dataclass(frozen=True, slots=True)
class WaitReport:
    """These peers are up."""

    peers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MetricsReport:
    """OpenMetrics text, its "# EOF" line included."""

    text: str
