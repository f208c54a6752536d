"""`vpnctl metrics`: the status for a collector, as text or as the answer to one HTTP request.

Owns which format is meant. The text is vpnd.control's, HTTP stands in http.py.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping

from vpnd.control import EXIT_DONE, StatusReport, exit_code_of
from vpnd.control.metrics import to_openmetrics, to_prometheus
from vpnd.ctl import http
from vpnd.ctl.context import Context, Verb
from vpnd.ctl.status import gather_status
from vpnd.errors import ControlError

_FORMATS: Mapping[str, Callable[[StatusReport], str]] = {
    "openmetrics": to_openmetrics,
    "prometheus": to_prometheus,
}
_CONTENT_TYPES = {
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
    "prometheus": "text/plain; version=0.0.4; charset=utf-8",
}


def run(context: Context, arguments: Namespace) -> int:
    """Prints one exposition for all instances meant; --json makes no difference to it."""
    if arguments.http:
        return _serve(context)
    report, errors = gather_status(context, None)
    context.terminal.out.write(_FORMATS[arguments.format](report))
    for error in errors:
        context.terminal.print_error(f"vpnctl: {error}")
    return exit_code_of(errors[0].code) if errors else EXIT_DONE


def _serve(context: Context) -> int:
    """Answers one request on standard input; a scrape that found nobody is an error of the scrape."""
    request = http.read_request(context.stdin)
    if request is None:
        http.answer(context.terminal.out.buffer, 400, "no request that is understood here\n")
    elif request.path.partition("?")[0] not in ("/", "/metrics"):
        http.answer(context.terminal.out.buffer, 404, "it is /metrics\n")
    else:
        wanted = "openmetrics" if "application/openmetrics-text" in request.accept else "prometheus"
        try:
            report, errors = gather_status(context, None)
        except ControlError as error:
            http.answer(context.terminal.out.buffer, 503, f"{error}\n")
            return EXIT_DONE
        for silent in errors:
            context.terminal.print_error(f"vpnctl: {silent}")
        text, kind = _FORMATS[wanted](report), _CONTENT_TYPES[wanted]
        http.answer(context.terminal.out.buffer, 200, text, kind)
    return EXIT_DONE


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        choices=tuple(_FORMATS),
        default="openmetrics",
        help="openmetrics (default), or prometheus for the textfile collector",
    )
    parser.add_argument(
        "--http", action="store_true", help="answer one HTTP request on standard input, for a socket unit"
    )


VERB = Verb("metrics", "the status for a collector of metrics", _add_arguments, run)
