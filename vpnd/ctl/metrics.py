"""`vpnctl metrics`: the status as OpenMetrics text, for a collector's textfile or a scrape."""

from __future__ import annotations

from argparse import Namespace

from vpnd.control import EXIT_DONE, exit_code_of, to_openmetrics
from vpnd.ctl.context import Context, Verb, no_arguments
from vpnd.ctl.status import gather_status


def run(context: Context, arguments: Namespace) -> int:
    """Prints one exposition for all instances meant; --json makes no difference to it."""
    del arguments
    report, errors = gather_status(context, None)
    context.terminal.out.write(to_openmetrics(report))
    for error in errors:
        context.terminal.print_error(f"vpnctl: {error}")
    return exit_code_of(errors[0].code) if errors else EXIT_DONE


VERB = Verb("metrics", "OpenMetrics text", no_arguments, run)
