"""`vpnctl reload [--dry-run]`: the daemon reads its files again; what changed is printed.

Owns the printing. The daemon applies everything or nothing.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from vpnd.control import EXIT_DONE, Reload
from vpnd.control.reports import ReloadReport
from vpnd.ctl.context import Context, Verb
from vpnd.ctl.terminal import Terminal

_TIMEOUT_S = 120.0  # a thousand routes through netlink and a rollback of them
_SIGNS = {"add": "+", "remove": "-", "change": "~"}


def run(context: Context, arguments: Namespace) -> int:
    """Waits until the files are in force and prints the differences; mistakes in them exit 78."""
    with context.open_one() as client:
        report = client.ask(Reload(arguments.dry_run), ReloadReport, timeout_s=_TIMEOUT_S)
    if context.as_json:
        context.terminal.print_json(report)
        return EXIT_DONE
    print_changes(context.terminal, report)
    return EXIT_DONE


def print_changes(terminal: Terminal, report: ReloadReport) -> None:
    """Prints one line per difference."""
    for change in report.changes:
        detail = f": {change.detail}" if change.detail else ""
        terminal.print(f"{_SIGNS[change.action]} {change.what}{detail}")
    if not report.changes:
        terminal.print("nothing to change")
    elif report.dry_run:
        terminal.print("dry run: nothing was changed")


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print the differences, change nothing")


VERB = Verb("reload", "apply the files", _add_arguments, run)
