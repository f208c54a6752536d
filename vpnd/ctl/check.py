"""`vpnctl check [FILE]`: reads a configuration as the daemon would and prints every mistake.

Owns which files are meant; reading and judging them is vpnd.config's. Needs no daemon.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from vpnd.control import EXIT_CONFIG, EXIT_DONE
from vpnd.ctl.context import Context, Verb, check_instance_name
from vpnd.errors import ConfigError, ControlError, Mistake

_CREDENTIALS = "CREDENTIALS_DIRECTORY"  # where systemd puts a unit's credentials


def run(context: Context, arguments: Namespace) -> int:
    """Prints one line per sound file, one per mistake on standard error; 78 if there is any."""
    results = [
        (instance, file, _check(context, instance, file)) for instance, file in _files(context, arguments)
    ]
    if context.as_json:
        context.terminal.print_json([_as_json(*result) for result in results])
    for _, file, mistakes in results:
        context.terminal.print_error(*map(str, mistakes))
        if not mistakes and not context.as_json:
            context.terminal.print(f"{file}: no mistakes")
    return EXIT_CONFIG if any(mistakes for _, _, mistakes in results) else EXIT_DONE


def _files(context: Context, arguments: Namespace) -> list[tuple[str, Path]]:
    if arguments.file is not None:
        instance = context.instance or arguments.file.stem
        check_instance_name(instance)
        return [(instance, arguments.file)]
    if context.instance is not None:
        check_instance_name(context.instance)
        return [(context.instance, context.config_file(context.instance))]
    files = sorted(context.config_dir.glob("*.toml"))
    if not files:
        raise ControlError("no-such-instance", f"{context.config_dir} holds no configuration (*.toml)")
    return [(file.stem, file) for file in files]


def _check(context: Context, instance: str, file: Path) -> tuple[Mistake, ...]:
    # No other command shall wait for these to be imported.
    from vpnd.config import load, read_secrets  # noqa: PLC0415

    credentials = context.environment.get(_CREDENTIALS)
    try:
        config = load(instance, file)
        read_secrets(config, Path(credentials) if credentials else None)
    except ConfigError as error:
        return error.mistakes
    return ()


def _as_json(instance: str, file: Path, mistakes: tuple[Mistake, ...]) -> dict[str, Any]:
    return {"instance": instance, "file": str(file), "mistakes": mistakes}


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="default: that of -i, or all in the folder"
    )


VERB = Verb("check", "read a configuration as the daemon would", _add_arguments, run)
