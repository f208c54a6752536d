"""vpnctl: the table of verbs, the global options, and what becomes of errors.

Owns the command line and the exit status. Verbs raise; here is where it is caught and told.
"""

from __future__ import annotations

import gc
import io
import os
import sys
import time
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Collection, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import cast

from vpnd import __version__
from vpnd.control import EXIT_CONFIG, EXIT_DONE, EXIT_REFUSED, exit_code_of
from vpnd.ctl.context import CONFIG_DIR, RUNTIME_DIR, Context, Verb
from vpnd.ctl.terminal import Terminal
from vpnd.errors import ConfigError, ControlError, VpndError

# In the order of the help; each is a module beside this one.
VERBS = (
    "status",
    "show",
    "why",
    "ping",
    "top",
    "monitor",
    "pcap",
    "metrics",
    "key",
    "peer",
    "join",
    "check",
    "reload",
    "reconnect",
    "wait",
)
# The report of ten thousand peers would else be searched for garbage hundreds of times.
_OBJECTS_UNTIL_GC = 200_000
_INTERRUPTED = 130  # what a shell reports for SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command of the process's own arguments and streams; gives the exit status."""
    gc.set_threshold(_OBJECTS_UNTIL_GC)
    arguments = parse(sys.argv[1:] if argv is None else argv)
    terminal = Terminal.of(sys.stdout, sys.stderr, os.environ, may_colour=not arguments.no_color)
    context = Context(
        terminal=terminal,
        runtime_dir=arguments.runtime_dir,
        config_dir=arguments.config_dir,
        instance=arguments.instance,
        as_json=arguments.json,
        environment=os.environ,
        stdin=cast(io.BufferedIOBase, sys.stdin.buffer),
        clock=time.monotonic,
        sleep=time.sleep,
    )
    try:
        code = execute(context, arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    return code


def parse(argv: Sequence[str]) -> Namespace:
    """Reads the arguments; global options may stand before or after the verb. Exits with 2 if it cannot."""
    parser = ArgumentParser(prog="vpnctl", description="Asks and directs vpnd.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"vpnctl {__version__}")
    _add_globals(parser, is_default=True)
    verbs = parser.add_subparsers(metavar="VERB", title="verbs")
    for verb in load_verbs(set(argv).intersection(VERBS) or VERBS):
        sub = verbs.add_parser(verb.name, help=verb.help, description=verb.help, allow_abbrev=False)
        verb.add_arguments(sub)
        for each in (sub, *_nested(sub)):
            _add_globals(each, is_default=False)
        sub.set_defaults(run=verb.run)
    arguments = parser.parse_args(argv)
    if "run" not in arguments:
        (status,) = load_verbs({"status"})
        arguments.run = status.run
    return arguments


def load_verbs(names: Collection[str] = VERBS) -> Iterator[Verb]:
    """Gives the verbs of these names. What one needs is imported with it alone: status is asked often."""
    for name in VERBS:
        if name in names:
            yield import_module(f"vpnd.ctl.{name}").VERB


def _nested(parser: ArgumentParser) -> Iterator[ArgumentParser]:
    """The parsers of a verb's own verbs, as those of key and peer."""
    for action in parser._actions:
        if isinstance(action.choices, dict):
            yield from action.choices.values()


def _add_globals(parser: ArgumentParser, *, is_default: bool) -> None:
    """A verb's own parser sets nothing that was not given, lest it undo what stood before the verb."""
    parser.add_argument(
        "-i",
        "--instance",
        metavar="INSTANCE",
        default=None if is_default else SUPPRESS,
        help="may be left out where one instance runs",
    )
    parser.add_argument(
        "--runtime-dir",
        type=Path,
        metavar="DIR",
        default=RUNTIME_DIR if is_default else SUPPRESS,
        help=f"the folder of running instances (default {RUNTIME_DIR})",
    )
    parser.add_argument(
        "--config-dir",
        type=Path,
        metavar="DIR",
        default=CONFIG_DIR if is_default else SUPPRESS,
        help=f"the folder of configurations (default {CONFIG_DIR})",
    )
    for option, text in (("--json", "print JSON"), ("--no-color", "print without colour")):
        default = False if is_default else SUPPRESS
        parser.add_argument(option, action="store_true", default=default, help=text)


def execute(context: Context, arguments: Namespace) -> int:
    """Runs the verb; an error becomes a status and a text on standard error, under --json an object too."""
    try:
        return cast(int, arguments.run(context, arguments))
    except ControlError as error:
        return _report(context, error.code, str(error), exit_code_of(error.code))
    except ConfigError as error:
        return _report(context, "config", str(error), EXIT_CONFIG)
    except VpndError as error:
        return _report(context, "refused", str(error), EXIT_REFUSED)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _report(context: Context, code: str, text: str, exit_code: int) -> int:
    if context.as_json:
        context.terminal.print_json({"error": {"code": code, "text": text}})
    # Mistakes of a configuration are lines an editor can jump to; nothing may stand before them.
    prefix = "" if code == "config" else "vpnctl: "
    context.terminal.print_error(*(f"{prefix}{line}" for line in text.splitlines()))
    return exit_code
