"""`vpnctl show TOPIC`: one topic of a running instance in full.

Owns the printing of each topic's report; a topic is a row of the table at the end.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vpnd.control import EXIT_DONE, TOPICS, Show
from vpnd.control.reports import (
    ConfigReport,
    DropsReport,
    GroupsReport,
    LeasesReport,
    MacsReport,
    OffloadsReport,
    PeerDetail,
    PeersReport,
    RoutesReport,
)
from vpnd.ctl.context import Context, Verb
from vpnd.ctl.format import format_age, format_left, format_milliseconds, table


def run(context: Context, arguments: Namespace) -> int:
    """Prints the topic; an empty one is told, not left blank."""
    kind, lines = _TOPICS[arguments.topic]
    with context.open_one() as client:
        report = client.ask(Show(arguments.topic), kind)
    if context.as_json:
        context.terminal.print_json(report)
    else:
        context.terminal.print(*(list(lines(report)) or [f"no {arguments.topic}"]))
    return EXIT_DONE


def _peers(report: PeersReport) -> Iterator[str]:
    for number, peer in enumerate(report.peers):
        if number:
            yield ""
        yield peer.name
        for name, value in _details(peer):
            if value:
                yield f"  {name:<14}{value}"


def _details(peer: PeerDetail) -> Iterator[tuple[str, str]]:
    yield "public key", peer.public_key
    if peer.previous_key is not None:
        yield "previous key", f"{peer.previous_key.public_key}, {format_left(peer.previous_key.left_s)}"
    yield "state", peer.state + (f", {peer.reason}" if peer.reason else "")
    yield "endpoint", _endpoint(peer)
    yield "networks", " ".join(peer.networks)
    yield "suite", peer.suite or ""
    yield "session", "" if peer.session_index is None else f"0x{peer.session_index:08x}"
    yield "handshake", f"{peer.stage}, attempt {peer.attempts}" if peer.attempts else peer.stage
    yield "handshakes", f"{peer.handshakes}, last {format_age(peer.handshake_age_s)}"
    yield "rtt", format_milliseconds(peer.rtt_ms)
    yield "keepalive", f"every {peer.keepalive_s} s" if peer.keepalive_s else "off"
    yield "padding", peer.padding or ""
    yield "remote mtu", "" if peer.remote_mtu is None else str(peer.remote_mtu)
    yield "staged", f"{peer.staged} packets" if peer.staged else ""
    if peer.last_refusal:
        yield "last refusal", f"{peer.last_refusal}, {format_age(peer.last_refusal_age_s)}"
    yield "refusals", _counts(peer.refusals)
    yield "drops", _counts(peer.drops)


def _endpoint(peer: PeerDetail) -> str:
    if peer.configured_endpoint and peer.configured_endpoint != peer.endpoint:
        return f"{peer.endpoint or 'not known'} (configured {peer.configured_endpoint})"
    return peer.endpoint or "not known; it has to call"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _routes(report: RoutesReport) -> Iterator[str]:
    words = {True: "yes", False: "MISSING", None: "not wanted"}
    rows = [
        (route.prefix, route.peer, route.table, str(route.metric), words[route.installed])
        for route in report.routes
    ]
    if rows:
        yield from table(("PREFIX", "PEER", "TABLE", "METRIC", "INSTALLED"), rows)


def _groups(report: GroupsReport) -> Iterator[str]:
    rows = [
        (group.name, str(len(group.peers)), str(group.refused), " ".join(group.allow) or "nothing")
        for group in report.groups
    ]
    if rows:
        yield from table(("GROUP", "PEERS", "REFUSED", "ALLOWED"), rows)
    for group in report.groups:
        yield f"{group.name}: {' '.join(group.peers) or 'nobody'}"
    if report.others:
        yield f"in no group, and may begin nothing: {' '.join(report.others)}"


def _macs(report: MacsReport) -> Iterator[str]:
    rows = [
        (mac.mac, "all", mac.peer, "static")
        if mac.age_s is None
        else (mac.mac, str(mac.vlan or "-"), mac.peer, format_age(mac.age_s))
        for mac in report.macs
    ]
    if rows:
        yield from table(("MAC", "VLAN", "PEER", "SEEN"), rows)


def _leases(report: LeasesReport) -> Iterator[str]:
    rows = []
    for lease in report.leases:
        state = "given"
        if lease.state == "fixed":
            state = "fixed by networks"
        elif lease.released_age_s is not None:
            state = f"kept, peer gone {format_age(lease.released_age_s)}"
        rows.append((lease.peer, " ".join(lease.addresses), state))
    if rows:
        yield from table(("PEER", "ADDRESSES", "STATE"), rows)


def _config(report: ConfigReport) -> Iterator[str]:
    for file in report.files:
        yield f"# {file}"
    for setting in report.settings:
        comment = "# " if setting.value.startswith("(") else ""
        yield f"{comment}{setting.key} = {setting.value}"


def _drops(report: DropsReport) -> Iterator[str]:
    ordered = sorted(report.drops, key=lambda drop: (-drop.packets, drop.reason, drop.peer or ""))
    rows = [(drop.reason, str(drop.packets), drop.peer or "-", drop.text) for drop in ordered]
    if rows:
        yield from table(("REASON", "PACKETS", "PEER", "MEANING"), rows)


def _offload(report: OffloadsReport) -> Iterator[str]:
    yield f"aead     {report.aead or 'unknown'}"
    yield f"workers  {'unknown' if report.workers is None else report.workers}"
    rows = [(item.name, "on" if item.is_active else "off", item.text) for item in report.offloads]
    if rows:
        yield from table(("OFFLOAD", "STATE", "WHY"), rows)


_TOPICS: Mapping[str, tuple[type[Any], Callable[[Any], Iterator[str]]]] = {
    "peers": (PeersReport, _peers),
    "routes": (RoutesReport, _routes),
    "groups": (GroupsReport, _groups),
    "macs": (MacsReport, _macs),
    "leases": (LeasesReport, _leases),
    "config": (ConfigReport, _config),
    "drops": (DropsReport, _drops),
    "offload": (OffloadsReport, _offload),
}


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("topic", choices=TOPICS, metavar="TOPIC", help="one of " + ", ".join(TOPICS))


VERB = Verb("show", "one topic: " + ", ".join(TOPICS), _add_arguments, run)
