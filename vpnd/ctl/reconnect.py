"""`vpnctl reconnect PEER`: a new handshake now, whatever the timers say."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from vpnd.control import EXIT_DONE, Reconnect
from vpnd.control.reports import ReconnectReport
from vpnd.ctl.context import Context, Verb


def run(context: Context, arguments: Namespace) -> int:
    """Returns when the handshake has begun, not when it is done; `vpnctl wait` does that."""
    with context.open_one() as client:
        report = client.ask(Reconnect(arguments.peer), ReconnectReport)
    if context.as_json:
        context.terminal.print_json(report)
    else:
        place = f" with {report.endpoint}" if report.endpoint else ""
        context.terminal.print(f"{report.peer}: handshake begun{place}")
    return EXIT_DONE


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("peer", metavar="PEER", help="by name or public key")


VERB = Verb("reconnect", "a new handshake now", _add_arguments, run)
