"""`vpnctl ping PEER`: echoes between the two daemons, inside the tunnel.

Owns the printing; the daemon sends and measures. Interrupted, it still sums up.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from vpnd.control import EXIT_DONE, EXIT_REFUSED, Ping
from vpnd.control.reports import PingEcho, PingSummary
from vpnd.ctl.client import Client
from vpnd.ctl.context import Context, Verb
from vpnd.ctl.format import format_milliseconds


def run(context: Context, arguments: Namespace) -> int:
    """Prints every echo and the sum; 0 if any was answered."""
    request = Ping(arguments.peer, arguments.count, arguments.size)
    echoes: list[PingEcho] = []
    with context.open_one() as client:
        try:
            for echo in _echoes(client, request):
                echoes.append(echo)
                _print_echo(context, request.peer, echo)
        except KeyboardInterrupt:
            context.terminal.print("")
    summary = PingSummary.of(request.peer, tuple(echoes))
    _print_summary(context, summary)
    return EXIT_DONE if summary.received else EXIT_REFUSED


def _echoes(client: Client, request: Ping) -> Iterator[PingEcho]:
    """Gives the echoes up to the line that is none."""
    for answer in client.stream(request):
        if isinstance(answer, dict) and answer.get("event") == "summary":
            return
        yield client.read(PingEcho, answer)


def _print_echo(context: Context, peer: str, echo: PingEcho) -> None:
    terminal = context.terminal
    if context.as_json:
        terminal.print_json_line(echo)
    elif echo.rtt_ms is None:
        terminal.print(f"no answer from {peer}: seq={echo.sequence}")
    else:
        place = f" ({echo.endpoint})" if echo.endpoint else ""
        time = format_milliseconds(echo.rtt_ms)
        terminal.print(f"{echo.size} bytes from {peer}{place}: seq={echo.sequence} time={time}")
    terminal.out.flush()


def _print_summary(context: Context, summary: PingSummary) -> None:
    if context.as_json:
        context.terminal.print_json_line(summary)
        return
    lost = summary.sent - summary.received
    share = f"{100 * lost / summary.sent:.0f}%" if summary.sent else "0%"
    context.terminal.print(f"{summary.peer}: {summary.sent} sent, {summary.received} received, {share} lost")
    if summary.received:
        times = (summary.rtt_min_ms, summary.rtt_mean_ms, summary.rtt_max_ms)
        context.terminal.print("rtt min/mean/max " + " / ".join(map(format_milliseconds, times)))


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("peer", metavar="PEER", help="by name or public key")
    parser.add_argument(
        "-c", dest="count", type=int, default=5, metavar="N", help="echoes to send (default 5)"
    )
    parser.add_argument(
        "-s", dest="size", type=int, default=56, metavar="SIZE", help="bytes in each (default 56)"
    )


VERB = Verb("ping", "echo inside the tunnel between the daemons", _add_arguments, run)
