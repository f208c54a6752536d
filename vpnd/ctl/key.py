"""`vpnctl key gen|pub|psk`: keys and the files they live in.

Owns where a secret may be printed: to a pipe or a file, never to a terminal, where it would
stay in the scrollback. Needs no daemon.
"""

from __future__ import annotations

import binascii
import io
import os
import stat
from argparse import ArgumentParser, Namespace
from pathlib import Path

from vpnd.control import EXIT_DONE
from vpnd.ctl.context import Context, Verb
from vpnd.ctl.terminal import Terminal
from vpnd.errors import ControlError
from vpnd.keys import (
    Identity,
    Secret,
    decode_secret,
    generate_secret,
    read_key_file,
    write_key_file,
)

_LINE_LIMIT = 4096  # bytes read from a pipe; a key line has 45


def run(context: Context, arguments: Namespace) -> int:
    match arguments.do:
        case "gen":
            _generate(context, arguments.file)
        case "psk":
            _generate_shared(context, arguments.file)
        case _:
            _print_public(context, _read(context, arguments.file))
    return EXIT_DONE


def _generate(context: Context, file: Path | None) -> None:
    secret = generate_secret()
    if file is None:
        _print_secret(context.terminal, secret)
        return
    write_key_file(file, secret)
    _print_public(context, secret)


def _generate_shared(context: Context, file: Path | None) -> None:
    secret = generate_secret()
    if file is None:
        _print_secret(context.terminal, secret)
    else:
        write_key_file(file, secret)


def _read(context: Context, file: Path | None) -> Secret:
    if file is not None and file != Path("-"):
        return read_key_file(file)
    content = bytearray(_LINE_LIMIT)
    del content[context.stdin.readinto(content) :]
    return decode_secret(content, Path("standard input"))


def _print_public(context: Context, secret: Secret) -> None:
    public = Identity.from_private(secret).public
    if context.as_json:
        context.terminal.print_json({"public_key": str(public)})
    else:
        context.terminal.print(str(public))


def _print_secret(terminal: Terminal, secret: Secret) -> None:
    """Raises ControlError on a terminal; warns where others could read what standard output becomes."""
    if terminal.out.isatty():
        raise ControlError("usage", "a secret is not shown on a terminal; give a FILE, or pipe it")
    if _is_open_to_others(terminal):
        terminal.print_error(
            "vpnctl: others may read the file this goes to; umask 077 before, or give a FILE"
        )
    terminal.out.flush()
    terminal.out.buffer.write(binascii.b2a_base64(secret.buffer()))
    terminal.out.flush()


def _is_open_to_others(terminal: Terminal) -> bool:
    try:
        status = os.fstat(terminal.out.fileno())
    except (OSError, io.UnsupportedOperation):
        return False
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o077)


def _add_arguments(parser: ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="do", required=True, metavar="gen|pub|psk")
    for name, text in (
        ("gen", "make a private key; with FILE prints its public key"),
        ("pub", "print the public key of a private one"),
        ("psk", "make a preshared key or a knock"),
    ):
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument(
            "file", nargs="?", type=Path, metavar="FILE", help="default: a pipe; pub takes - too"
        )


VERB = Verb("key", "make keys: gen, pub, psk", _add_arguments, run)
