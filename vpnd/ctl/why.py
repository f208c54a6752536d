"""`vpnctl why PEER`: the checks in order, and what to do about the first that fails.

Owns the printing, and the answer when there is no daemon to ask: what the files say.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from vpnd.control import EXIT_DONE, EXIT_NOT_RUNNING, EXIT_REFUSED, Why
from vpnd.control.reports import WhyReport, WhyStep
from vpnd.ctl.context import Context, Verb
from vpnd.ctl.terminal import Terminal
from vpnd.errors import ConfigError, ControlError


def run(context: Context, arguments: Namespace) -> int:
    """Prints the checks; 0 if none failed, 1 if one did, 3 if the instance does not run."""
    request = Why(arguments.peer)
    try:
        with context.open_one() as client:
            report = client.ask(request, WhyReport)
    except ControlError as error:
        instance = _instance_meant(context)
        if error.code != "not-running" or instance is None:
            raise
        report = _without_daemon(context, instance, arguments.peer)
        _print(context, report)
        return EXIT_NOT_RUNNING
    _print(context, report)
    return EXIT_REFUSED if report.cause else EXIT_DONE


def _print(context: Context, report: WhyReport) -> None:
    if context.as_json:
        context.terminal.print_json(report)
    else:
        context.terminal.print(*_lines(report, context.terminal))


def _lines(report: WhyReport, terminal: Terminal) -> Iterator[str]:
    marks = terminal.marks
    shown = {
        True: terminal.paint(marks.passed, "green"),
        False: terminal.paint(marks.failed, "red"),
        None: terminal.paint(marks.skipped, "dim"),
    }
    width = max((len(step.name) for step in report.findings), default=0)
    margin = " " * (len(marks.passed) + width + 5)
    yield terminal.paint(report.peer, "bold")
    for step in report.findings:
        yield f"  {shown[step.ok]} {step.name:<{width}}  {step.text}".rstrip()
        if step is report.cause and step.remedy:
            yield f"{margin}{marks.arrow} {step.remedy}"


def _instance_meant(context: Context) -> str | None:
    """With nothing running, the only configuration there is must be the one."""
    files = list(context.config_dir.glob("*.toml"))
    return context.instance or (files[0].stem if len(files) == 1 else None)


def _without_daemon(context: Context, instance: str, peer: str) -> WhyReport:
    return WhyReport(peer, (*_check_files(context, instance, peer), _not_running(instance)))


def _check_files(context: Context, instance: str, peer: str) -> Iterator[WhyStep]:
    from vpnd.config import load  # noqa: PLC0415 - see check.py

    file = context.config_file(instance)
    try:
        config = load(instance, file)
    except ConfigError as error:
        for mistake in error.mistakes:
            yield WhyStep(
                "config", False, str(mistake), "correct the file; vpnctl check tells when it is right"
            )
        return
    yield WhyStep("config", True, f"{file} has no mistakes")
    found = next((known for known in config.peers if peer in (known.name, str(known.public_key))), None)
    if found is None:
        yield WhyStep("peer", False, f'there is no peer "{peer}"', f"add [peer.{peer}] to {file}")
    elif not found.enabled:
        yield WhyStep("peer", False, "it is disabled", f"remove enabled = false from [peer.{found.name}]")
    else:
        yield WhyStep("peer", True, "it is configured and enabled")


def _not_running(instance: str) -> WhyStep:
    return WhyStep("daemon", False, f"{instance} is not running", f"systemctl start vpnd@{instance}")


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("peer", metavar="PEER", help="by name or public key")


VERB = Verb("why", "the first thing that keeps a peer from working, and its remedy", _add_arguments, run)
