"""`vpnctl wait [--peer PEER] [--timeout S]`: returns when the tunnel is up.

Owns the patience: an instance that is not running yet, or restarts meanwhile, is waited for.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from vpnd.control import EXIT_DONE, Wait
from vpnd.control.reports import WaitReport
from vpnd.ctl.client import ANSWER_TIMEOUT_S
from vpnd.ctl.context import Context, Verb
from vpnd.errors import ControlError

_RETRY_S = 0.1


def run(context: Context, arguments: Namespace) -> int:
    """Prints who is up; 6 when the time is over first."""
    request = Wait(arguments.peer, arguments.timeout)
    report = _wait(context, request)
    if context.as_json:
        context.terminal.print_json(report)
    else:
        context.terminal.print("up: " + (" ".join(report.peers) or "no peer is enabled"))
    return EXIT_DONE


def _wait(context: Context, request: Wait) -> WaitReport:
    deadline = context.clock() + request.timeout_s
    while True:
        remaining = max(0.0, deadline - context.clock())
        try:
            with context.open_one() as client:
                answer_s = remaining + ANSWER_TIMEOUT_S
                return client.ask(Wait(request.peer, remaining), WaitReport, timeout_s=answer_s)
        except ControlError as error:
            if error.code not in ("not-running", "no-such-instance"):
                raise
            if remaining == 0:
                raise ControlError("timed-out", f"timed out after {request.timeout_s:g} s: {error}") from None
        context.sleep(min(_RETRY_S, remaining))


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--peer", metavar="PEER", help="this peer instead of every enabled one")
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="S", help="seconds to wait (default 30)"
    )


VERB = Verb("wait", "return when up", _add_arguments, run)
