"""A StatusReport as text for collectors: OpenMetrics, and Prometheus's own older format.

Owns metric names, types and help texts. Knows no socket: vpnctl prints the text, the
daemon may serve it. Specification: OpenMetrics 1.0.0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from vpnd.control.status import OFFLOADS, InstanceReport, PeerReport, StatusReport

Sample = tuple[Mapping[str, str], float | None]


@dataclass(frozen=True, slots=True)
class _Family:
    """One metric: `samples` of an instance; `suffix` is what the type appends to the name."""

    name: str
    type: str
    help: str
    samples: Callable[[InstanceReport], Iterator[Sample]]
    unit: str = ""

    @property
    def suffix(self) -> str:
        return {"counter": "_total", "info": "_info"}.get(self.type, "")


def to_openmetrics(report: StatusReport) -> str:
    """Gives one exposition for all instances, "# EOF" included; an unknown value has no sample."""
    lines = [line for family in _FAMILIES for line in (*_head(family), *_samples(family, report))]
    return "".join(f"{line}\n" for line in (*lines, "# EOF"))


def to_prometheus(report: StatusReport) -> str:
    """Gives the same samples in Prometheus's text format 0.0.4, for what does not read the newer one.

    It knows neither units nor the types info and stateset, and names a counter with its suffix.
    """
    return "".join(
        f"{line}\n" for family in _FAMILIES for line in (*_plain_head(family), *_samples(family, report))
    )


def metric_names() -> tuple[str, ...]:
    """Gives the names of all samples there may be."""
    return tuple(family.name + family.suffix for family in _FAMILIES)


def _head(family: _Family) -> Iterator[str]:
    yield f"# TYPE {family.name} {family.type}"
    if family.unit:
        yield f"# UNIT {family.name} {family.unit}"
    yield f"# HELP {family.name} {family.help}"


def _plain_head(family: _Family) -> Iterator[str]:
    name = family.name + family.suffix
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {'counter' if family.type == 'counter' else 'gauge'}"


def _samples(family: _Family, report: StatusReport) -> Iterator[str]:
    for instance in report.instances:
        for labels, value in family.samples(instance):
            if value is not None:
                joined = ",".join(f'{name}="{_escape(text)}"' for name, text in labels.items())
                yield f"{family.name}{family.suffix}{{{joined}}} {_number(value)}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def _per_peer(value: Callable[[PeerReport], float | None]) -> Callable[[InstanceReport], Iterator[Sample]]:
    def samples(instance: InstanceReport) -> Iterator[Sample]:
        for peer in instance.peers:
            yield {"instance": instance.instance, "peer": peer.name}, value(peer)

    return samples


def _instance_info(instance: InstanceReport) -> Iterator[Sample]:
    link, plane = instance.link, instance.plane
    yield (
        {
            "instance": instance.instance,
            "public_key": instance.public_key,
            "state": instance.state,
            "link": link.name if link else "",
            "link_type": link.type if link else "",
            "aead": (plane.aead or "") if plane else "",
        },
        1,
    )


def _peer_info(instance: InstanceReport) -> Iterator[Sample]:
    for peer in instance.peers:
        labels = {
            "instance": instance.instance,
            "peer": peer.name,
            "public_key": peer.public_key,
            "endpoint": peer.endpoint or "",
            "suite": peer.suite or "",
        }
        yield labels, 1


def _peer_states(instance: InstanceReport) -> Iterator[Sample]:
    for peer in instance.peers:
        for state in ("up", "connecting", "down", "disabled"):
            labels = {"instance": instance.instance, "peer": peer.name, "vpnd_peer_state": state}
            yield labels, int(peer.state == state)


def _uptime(instance: InstanceReport) -> Iterator[Sample]:
    yield {"instance": instance.instance}, instance.uptime_s


def _plane_uptime(instance: InstanceReport) -> Iterator[Sample]:
    yield {"instance": instance.instance}, instance.plane.uptime_s if instance.plane else None


def _offloads(instance: InstanceReport) -> Iterator[Sample]:
    for offload in OFFLOADS if instance.plane else ():
        labels = {"instance": instance.instance, "offload": offload}
        yield labels, int(instance.plane is not None and offload in instance.plane.offload)


def _drops(instance: InstanceReport) -> Iterator[Sample]:
    for reason, packets in instance.drops.items():
        yield {"instance": instance.instance, "reason": reason}, packets


def _peer_drops(instance: InstanceReport) -> Iterator[Sample]:
    for peer in instance.peers:
        for reason, packets in peer.drops.items():
            yield {"instance": instance.instance, "peer": peer.name, "reason": reason}, packets


def _findings(instance: InstanceReport) -> Iterator[Sample]:
    yield {"instance": instance.instance}, len(instance.health)


def _findings_by_code(instance: InstanceReport) -> Iterator[Sample]:
    for (code, level), count in Counter((each.code, each.level) for each in instance.health).items():
        yield {"instance": instance.instance, "code": code, "level": level}, count


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds / 1000, 9)


_FAMILIES = (
    _Family("vpnd_instance", "info", "What the instance is.", _instance_info),
    _Family("vpnd_uptime_seconds", "gauge", "Time since the daemon started.", _uptime, "seconds"),
    _Family(
        "vpnd_plane_uptime_seconds", "gauge", "Time since the packet mover started.", _plane_uptime, "seconds"
    ),
    _Family("vpnd_offload_active", "gauge", "1 while the kernel's offload is in use.", _offloads),
    _Family("vpnd_health_findings", "gauge", "Findings that wait for the operator.", _findings),
    _Family("vpnd_health_finding", "gauge", "How many findings there are with this code.", _findings_by_code),
    _Family("vpnd_drops", "counter", "Packets dropped, by reason, with and without a peer.", _drops),
    _Family("vpnd_peer", "info", "What the peer is.", _peer_info),
    _Family(
        "vpnd_peer_up",
        "gauge",
        "1 while the peer has a working session.",
        _per_peer(lambda peer: int(peer.state == "up")),
    ),
    _Family("vpnd_peer_state", "stateset", "The peer's state.", _peer_states),
    _Family(
        "vpnd_peer_receive_bytes",
        "counter",
        "Inner bytes received from the peer.",
        _per_peer(lambda peer: peer.rx_bytes),
        "bytes",
    ),
    _Family(
        "vpnd_peer_receive_packets",
        "counter",
        "Inner packets received from the peer.",
        _per_peer(lambda peer: peer.rx_packets),
    ),
    _Family(
        "vpnd_peer_transmit_bytes",
        "counter",
        "Inner bytes sent to the peer.",
        _per_peer(lambda peer: peer.tx_bytes),
        "bytes",
    ),
    _Family(
        "vpnd_peer_transmit_packets",
        "counter",
        "Inner packets sent to the peer.",
        _per_peer(lambda peer: peer.tx_packets),
    ),
    _Family(
        "vpnd_peer_handshakes",
        "counter",
        "Handshakes completed with the peer.",
        _per_peer(lambda peer: peer.handshakes),
    ),
    _Family(
        "vpnd_peer_handshake_age_seconds",
        "gauge",
        "Time since the last handshake.",
        _per_peer(lambda peer: peer.handshake_age_s),
        "seconds",
    ),
    _Family(
        "vpnd_peer_rtt_seconds",
        "gauge",
        "Last measured round trip.",
        _per_peer(lambda peer: _seconds(peer.rtt_ms)),
        "seconds",
    ),
    _Family(
        "vpnd_peer_path_mtu_bytes",
        "gauge",
        "Largest outer packet that was seen to arrive at the peer.",
        _per_peer(lambda peer: peer.path_mtu),
        "bytes",
    ),
    _Family("vpnd_peer_drops", "counter", "Packets of the peer dropped, by reason.", _peer_drops),
)
