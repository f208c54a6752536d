"""`vpnctl monitor [PEER]`: events as they happen, one JSON object a line.

Owns the patience with a daemon that goes away: that is told as an event, and where it stays away
by the exit status. All other events are the daemon's.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from dataclasses import replace

from vpnd.control import Monitor
from vpnd.control.events import Away, event_time
from vpnd.ctl.client import Client
from vpnd.ctl.context import Context, Verb
from vpnd.errors import ControlError

_AWAY = ("not-running", "no-such-instance")
_RETRY_S = 0.1


def run(context: Context, arguments: Namespace) -> int:
    """Prints events until it is interrupted; raises "not-running" where the daemon stays away."""
    request = Monitor(arguments.peer)
    client = context.open_one()
    context = replace(context, instance=client.instance)
    while True:
        with client:
            _follow(context, client, request)
        client = _reopen(context, arguments.wait)


def _follow(context: Context, client: Client, request: Monitor) -> None:
    """Prints the events of one daemon until it goes away, and that it did.

    One that is about to end may still take a connection: it says nothing, and neither do we.
    """
    has_begun = False
    try:
        for event in client.stream(request, timeout_s=None):
            _print(context, event)
            has_begun = True
    except ControlError as error:
        if error.code not in _AWAY:
            raise
        if has_begun:
            _print(context, Away(event_time(time.time()), client.instance, str(error)))


def _reopen(context: Context, wait_s: float) -> Client:
    deadline = context.clock() + wait_s
    while True:
        context.sleep(_RETRY_S)
        try:
            return context.open_one()
        except ControlError as error:
            if error.code not in _AWAY or context.clock() >= deadline:
                raise


def _print(context: Context, event: object) -> None:
    context.terminal.print_json_line(event)
    context.terminal.out.flush()


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "peer", nargs="?", metavar="PEER", help="leave out events of other peers; by name or public key"
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds to wait for a daemon that went away (default 30)",
    )


VERB = Verb("monitor", "events as they happen, one JSON object a line", _add_arguments, run)
