"""`vpnctl top`: a live table of instances and peers.

Owns the asking, the rates, which are differences of two reports, and the order of the rows. How it
looks stands in picture.py, which needs the library rich; where that is missing a message says so.
"""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vpnd.control import EXIT_DONE, PeerReport, StatusReport
from vpnd.ctl.context import Context, Verb
from vpnd.ctl.status import gather_status
from vpnd.errors import ControlError

_LEAST_INTERVAL_S = 0.1
_ORDERS = ("traffic", "name", "state", "drops")
_STATE_ORDER = ("connecting", "down", "up", "disabled")


@dataclass(frozen=True, slots=True)
class Row:
    """A peer with its bytes and drops each second since the report before; None at first."""

    instance: str
    peer: PeerReport
    rx_rate: float | None
    tx_rate: float | None
    drop_rate: float | None

    @property
    def traffic(self) -> float:
        return (self.rx_rate or 0.0) + (self.tx_rate or 0.0)


@dataclass(frozen=True, slots=True)
class Frame:
    """What one picture shows."""

    report: StatusReport
    rows: tuple[Row, ...]
    errors: tuple[ControlError, ...]


Seen = Mapping[tuple[str, str], PeerReport]


def run(context: Context, arguments: Namespace) -> int:
    """Draws until it is interrupted, or `-n` times."""
    if arguments.interval < _LEAST_INTERVAL_S:
        raise ControlError("usage", f"-d: {arguments.interval:g} is below {_LEAST_INTERVAL_S:g}")
    try:
        from vpnd.ctl import picture  # noqa: PLC0415 - it needs what may be missing, and only here
    except ModuleNotFoundError as error:
        raise ControlError("refused", "top needs the library rich: apt install python3-rich") from error
    with contextlib.suppress(KeyboardInterrupt):
        picture.show(context.terminal, _frames(context, arguments))
    return EXIT_DONE


def _frames(context: Context, arguments: Namespace) -> Iterator[Frame]:
    """Gives one frame after the other, with the wait between them; without `-n` there is no end."""
    before: Seen = {}
    asked_at, given = 0.0, 0
    while True:
        now = context.clock()
        report, errors = _ask(context)
        yield Frame(report, rank(rates(report, before, now - asked_at), arguments.sort), errors)
        before = {(each.instance, peer.public_key): peer for each in report.instances for peer in each.peers}
        asked_at, given = now, given + 1
        if given == arguments.count:
            return
        context.sleep(arguments.interval)


def _ask(context: Context) -> tuple[StatusReport, tuple[ControlError, ...]]:
    """Asks all; that nobody runs is something to show too, since they may come back."""
    try:
        return gather_status(context, None)
    except ControlError as error:
        if error.code != "not-running":
            raise
        return StatusReport(()), (error,)


def rates(report: StatusReport, before: Seen, elapsed_s: float) -> list[Row]:
    """Compares with the report before. A counter that began anew has no rate this time."""
    return [
        _row(instance.instance, peer, before.get((instance.instance, peer.public_key)), elapsed_s)
        for instance in report.instances
        for peer in instance.peers
    ]


def _row(instance: str, peer: PeerReport, before: PeerReport | None, elapsed_s: float) -> Row:
    if before is None:
        return Row(instance, peer, None, None, None)
    return Row(
        instance,
        peer,
        _rate(peer.rx_bytes, before.rx_bytes, elapsed_s),
        _rate(peer.tx_bytes, before.tx_bytes, elapsed_s),
        _rate(sum(peer.drops.values()), sum(before.drops.values()), elapsed_s),
    )


def _rate(now: int, before: int, elapsed_s: float) -> float | None:
    return None if now < before or elapsed_s <= 0 else (now - before) / elapsed_s


def rank(rows: list[Row], order: str) -> tuple[Row, ...]:
    """Sorts by one of _ORDERS, the largest or the worst first; equal rows stand by name."""
    rows = sorted(rows, key=lambda row: (row.instance, row.peer.name))
    match order:
        case "traffic":
            rows.sort(key=lambda row: -row.traffic)
        case "state":
            rows.sort(key=lambda row: _STATE_ORDER.index(row.peer.state))
        case "drops":
            rows.sort(key=lambda row: -(row.drop_rate or 0.0))
    return tuple(rows)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-d", dest="interval", type=float, default=1.0, metavar="S", help="seconds between (default 1)"
    )
    parser.add_argument("-n", dest="count", type=int, default=None, metavar="N", help="end after N pictures")
    parser.add_argument("--sort", choices=_ORDERS, default="traffic", help="first rows (default traffic)")


VERB = Verb("top", "a live table of peers and their traffic", _add_arguments, run)
