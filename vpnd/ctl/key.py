"""`vpnctl key gen|pub|psk|rotate|seal`: keys and the files they live in.

Owns where a secret may be printed: to a pipe or a file, never to a terminal, where it would
stay in the scrollback. Needs no daemon.
"""

from __future__ import annotations

import binascii
import io
import json
import os
import re
import stat
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path

from vpnd.control import EXIT_DONE
from vpnd.ctl.context import Context, Verb
from vpnd.ctl.seal import SEALED_WITH, seal
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

_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*")  # of a credential; a unit ends it at a colon
_LINE_LIMIT = 4096  # bytes read from a pipe; a key line has 45


def run(context: Context, arguments: Namespace) -> int:
    match arguments.do:
        case "gen":
            _generate(context, arguments.file)
        case "psk":
            _generate_shared(context, arguments.file)
        case "rotate":
            _rotate(context, arguments.old, arguments.new)
        case "seal":
            _seal(context, arguments)
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


def _rotate(context: Context, old: Path, new: Path) -> None:
    """Makes the key that comes after `old`, and says what is to be written where; nothing is in force yet."""
    before = Identity.from_private(read_key_file(old)).public
    secret = generate_secret()
    write_key_file(new, secret)
    after = Identity.from_private(secret).public
    files = {"private_key": str(new.absolute()), "previous_private_key": str(old.absolute())}
    keys = {"public_key": str(after), "previous_public_key": str(before)}
    if context.as_json:
        context.terminal.print_json(keys | files)
        return
    # The key alone goes to standard output, as from gen; what is left is for people.
    context.terminal.print(str(after))
    context.terminal.print_error(
        "on the other machines, in the entry of this one, then vpnctl reload:",
        *_toml(keys),
        "here, in [local], then vpnctl reload:",
        *_toml(files),
        "once key_overlap is over, see vpnctl status, remove the previous ones.",
    )


def _toml(values: Mapping[str, str]) -> list[str]:
    return [f"    {key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]


def _seal(context: Context, arguments: Namespace) -> None:
    file: Path = arguments.file
    name: str = arguments.name or file.name
    if not _NAME.fullmatch(name):
        raise ControlError(
            "usage", f'"{name}" is no name for a credential; give one by --name, such as site.key'
        )
    seal(_read(context, file), name, arguments.out, arguments.with_key)
    setting = f"{name}:{arguments.out.absolute()}"
    if context.as_json:
        context.terminal.print_json({"name": name, "load_credential_encrypted": setting})
    else:
        context.terminal.print(f"LoadCredentialEncrypted={setting}")


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
    verbs = parser.add_subparsers(dest="do", required=True, metavar="gen|pub|psk|rotate|seal")
    for name, text in (
        ("gen", "make a private key; with FILE prints its public key"),
        ("pub", "print the public key of a private one"),
        ("psk", "make a preshared key or a knock"),
    ):
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument(
            "file", nargs="?", type=Path, metavar="FILE", help="default: a pipe; pub takes - too"
        )
    text = "make the private key that replaces another, and say what to write where"
    rotate = verbs.add_parser("rotate", help=text, description=text)
    rotate.add_argument("old", type=Path, metavar="FILE", help="the private key in use")
    rotate.add_argument("new", type=Path, metavar="NEW", help="the file to make")
    text = "seal a key for this machine's systemd; prints the line for the unit"
    sealing = verbs.add_parser("seal", help=text, description=text)
    sealing.add_argument("file", type=Path, metavar="FILE", help="the key; - is a pipe")
    sealing.add_argument("out", type=Path, metavar="OUT", help="the file to make")
    sealing.add_argument("--name", help="of the credential (default: that of FILE)")
    sealing.add_argument("--with-key", choices=SEALED_WITH, default="host", help="default: host")


VERB = Verb("key", "make keys: gen, pub, psk, rotate, seal", _add_arguments, run)
