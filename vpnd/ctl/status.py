"""`vpnctl status [PEER]`: how the instances are, as a table or as vpnd.status/1.

Owns the wording and the columns; the figures come from the daemons.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

from vpnd.control import (
    EXIT_DONE,
    EXIT_REFUSED,
    STATUS_SCHEMA,
    InstanceHealth,
    InstanceReport,
    PeerReport,
    Status,
    StatusHealth,
    StatusReport,
    exit_code_of,
    is_healthy,
)
from vpnd.ctl.context import Context, Verb
from vpnd.ctl.format import (
    abbreviate,
    format_age,
    format_bytes,
    format_duration,
    format_left,
    format_milliseconds,
    table,
)
from vpnd.ctl.terminal import Terminal
from vpnd.endpoint import Endpoint, parse_endpoint
from vpnd.errors import ControlError

T = TypeVar("T", StatusReport, StatusHealth)
Errors: TypeAlias = tuple[ControlError, ...]

_NETWORKS_SHOWN = 4
_HEADERS = ("PEER", "STATE", "ENDPOINT", "HANDSHAKE", "RTT", "RX", "TX", "NETWORKS")
_WIDTHS = (8, 5, 20, 9, 6, 8, 8, 0)
_NETWORKS_WIDTH = 15
_STATES = ("up", "connecting", "down", "disabled")
STATE_COLOURS = {
    "up": "green",
    "starting": "yellow",
    "connecting": "yellow",
    "degraded": "red",
    "down": "red",
    "disabled": "dim",
    "stopping": "yellow",
}


def run(context: Context, arguments: Namespace) -> int:
    """Prints the status; 0 if all that was asked for is up, 1 if something is not."""
    peer = getattr(arguments, "peer", None)
    is_fine, errors = (_print_json if context.as_json else _print_text)(context, peer)
    for error in errors:
        context.terminal.print_error(f"vpnctl: {error}")
    if errors:
        return exit_code_of(errors[0].code)
    return EXIT_DONE if is_fine else EXIT_REFUSED


def gather_status(context: Context, peer: str | None) -> tuple[StatusReport, Errors]:
    """Asks every instance meant; one that errs does not hide the others.

    With a peer, instances without it are left out. Raises the first error if nobody answered well.
    """
    answers, errors = _ask_all(context, peer, StatusReport)
    return StatusReport(tuple(instance for _, report in answers for instance in report.instances)), errors


def _print_text(context: Context, peer: str | None) -> tuple[bool, Errors]:
    report, errors = gather_status(context, peer)
    for number, instance in enumerate(report.instances):
        context.terminal.print(*([""] if number else []), *_lines(instance, context.terminal))
    return _is_fine(report.instances, peer), errors


def _print_json(context: Context, peer: str | None) -> tuple[bool, Errors]:
    """Passes on what the daemons say as they say it, also what a later one tells that we do not know."""
    answers, errors = _ask_all(context, peer, StatusHealth)
    told = [instance for answer, _ in answers for instance in answer["instances"]]
    context.terminal.print_json({"schema": STATUS_SCHEMA, "instances": told})
    return _is_fine([instance for _, health in answers for instance in health.instances], peer), errors


def _ask_all(context: Context, peer: str | None, kind: type[T]) -> tuple[list[tuple[Any, T]], Errors]:
    """Gives each instance's answer, as JSON and read as a `kind`."""
    answers: list[tuple[Any, T]] = []
    errors: list[ControlError] = []
    for client in context.open_all():
        with client:
            try:
                answer = client.ask_json(Status(peer))
                answers.append((answer, client.read(kind, answer)))
            except ControlError as error:
                errors.append(error)
    if not answers and errors:
        raise errors[0]
    return answers, tuple(error for error in errors if error.code != "no-such-peer")


def _is_fine(instances: Sequence[InstanceReport | InstanceHealth], peer: str | None) -> bool:
    if peer is None:
        return all(map(is_healthy, instances))
    return all(found.state == "up" for instance in instances for found in instance.peers)


def _lines(instance: InstanceReport, terminal: Terminal) -> Iterator[str]:
    indent = " " * (len(instance.instance) + 2)
    yield "  ".join((terminal.paint(instance.instance, "bold"), _first_line(instance, terminal)))
    yield indent + _second_line(instance, terminal)
    if instance.previous_key is not None:
        left = format_left(instance.previous_key.left_s)
        yield f"{indent}previous key {instance.previous_key.public_key} {left}"
    for finding in instance.health:
        remedy = f" {terminal.marks.arrow} {finding.remedy}" if finding.remedy else ""
        mark, colour = ("!", "red") if finding.level == "warning" else ("*", "yellow")
        yield indent + terminal.paint(f"{mark} {finding.code}: {finding.text}", colour) + remedy
    if instance.peers:
        yield from _peer_lines(instance.peers, terminal)


def _first_line(instance: InstanceReport, terminal: Terminal) -> str:
    state = terminal.paint(instance.state, STATE_COLOURS[instance.state])
    parts = [f"{state} {format_duration(instance.uptime_s)}"]
    if instance.link is None:
        parts.append("no link")
    else:
        addresses = " ".join(instance.link.addresses)
        parts.append(f"{instance.link.type} {instance.link.name}" + (f"  {addresses}" if addresses else ""))
        parts.append(f"mtu {instance.link.mtu}")
    if instance.listen:
        parts.append("udp " + " ".join(_shorten_listen(instance.listen)))
    return "   ".join(parts)


def _shorten_listen(listen: tuple[str, ...]) -> list[str]:
    """Any address of a port is told by the port alone; what says the same is said once."""
    shown: dict[str, None] = {}
    for text in listen:
        try:
            endpoint = parse_endpoint(text)
        except ValueError:
            shown[text] = None
            continue
        is_any = isinstance(endpoint, Endpoint) and endpoint.address.is_unspecified
        shown[str(endpoint.port) if is_any else text] = None
    return list(shown)


def _second_line(instance: InstanceReport, terminal: Terminal) -> str:
    parts: list[str] = []
    if instance.plane is None:
        parts.append("no plane")
    else:
        parts.append(instance.plane.aead or "aead unknown")
        parts.append("offload " + (" ".join(instance.plane.offload) or "off"))
        if instance.plane.uptime_s is not None:
            parts.append(f"plane up {format_duration(instance.plane.uptime_s)}")
    counts = {state: sum(peer.state == state for peer in instance.peers) for state in _STATES}
    counted = " ".join(f"{count} {state}" for state, count in counts.items() if count)
    parts.append(f"peers {counted or 'none'}")
    return f" {terminal.marks.dot} ".join(parts)


def _peer_lines(peers: tuple[PeerReport, ...], terminal: Terminal) -> Iterator[str]:
    lines = table(_HEADERS, [_cells(peer) for peer in peers], _WIDTHS)
    yield terminal.paint(lines[0], "bold")
    name_width = max(_WIDTHS[0], *(len(peer.name) for peer in peers)) + 2
    for peer, line in zip(peers, lines[1:], strict=True):
        name, rest = line[:name_width], line[name_width:] + _reason(peer)
        yield name + terminal.paint(peer.state, STATE_COLOURS[peer.state]) + rest[len(peer.state) :]


def _reason(peer: PeerReport) -> str:
    """Long networks push their own row's reason aside, not that of every row."""
    padding = " " * (_NETWORKS_WIDTH - len(_networks(peer)))
    return f"{padding}  {peer.reason}" if peer.reason else ""


def _networks(peer: PeerReport) -> str:
    return abbreviate(peer.networks, _NETWORKS_SHOWN) or "-"


def _cells(peer: PeerReport) -> tuple[str, ...]:
    return (
        peer.name,
        peer.state,
        peer.endpoint or "-",
        format_age(peer.handshake_age_s),
        format_milliseconds(peer.rtt_ms),
        format_bytes(peer.rx_bytes),
        format_bytes(peer.tx_bytes),
        _networks(peer),
    )


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("peer", nargs="?", metavar="PEER", help="only this peer, by name or public key")


VERB = Verb("status", "how the instances and their peers are", _add_arguments, run)
