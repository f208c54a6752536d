"""`vpnctl peer add|remove|block|unblock|invite NAME`: the running daemon and a peer's own file, together.

Owns which file is meant, and what is said of peers that stand in the main file: that one is the
operator's, and never rewritten.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from vpnd.config.parse import parse_network, parse_peer_endpoint, parse_peer_name, parse_public_key
from vpnd.config.peerfiles import block_file, line_of_peer, peer_file, set_enabled, write_keys
from vpnd.control import EXIT_DONE, ReloadReport
from vpnd.ctl import invite
from vpnd.ctl.context import Context, Verb
from vpnd.ctl.peerfile import change_file, locked
from vpnd.ctl.reload import print_changes
from vpnd.errors import ControlError

T = TypeVar("T")


def run(context: Context, arguments: Namespace) -> int:
    """Returns when the daemon follows the changed file; else both are as before."""
    name: str = arguments.name
    _read("NAME", parse_peer_name, name)
    if arguments.do == "invite":
        return invite.run(context, arguments)
    with context.open_one() as client:
        main = context.config_file(client.instance)
        with locked(context.config_dir):
            path, text = _CHANGES[arguments.do](main, name, arguments)
            report = change_file(client, path, text)
    _print(context, name, path, report)
    return EXIT_DONE


def _add(main: Path, name: str, arguments: Namespace) -> tuple[Path, str]:
    path = peer_file(main, name)
    line = _line_in(main, name)
    if line is not None or path.exists():
        place = path if line is None else f"{main}:{line}"
        raise ControlError("refused", f"{name} stands in {place}; edit that, then vpnctl reload")
    if block_file(main, name).exists():
        raise ControlError("refused", f"{block_file(main, name)} blocks {name}; remove that file first")
    networks = [str(_read("--network", parse_network, each)) for each in arguments.network]
    keys: dict[str, str | int | bool | list[str]] = {
        "public_key": str(_read("--public-key", parse_public_key, arguments.public_key)),
        "networks": networks,
    }
    if arguments.endpoint is not None:
        keys["endpoint"] = str(_read("--endpoint", parse_peer_endpoint, arguments.endpoint))
    if arguments.preshared_key is not None:
        keys["preshared_key"] = str(arguments.preshared_key.absolute())
    if arguments.keepalive is not None:
        keys["keepalive"] = arguments.keepalive
    return path, write_keys(keys)


def _remove(main: Path, name: str, _: Namespace) -> tuple[Path, None]:
    path = peer_file(main, name)
    if path.exists():
        return path, None
    line = _line_of_known(main, name)
    raise ControlError("refused", f"{name} stands in {main}:{line}; remove it there, then vpnctl reload")


def _block(main: Path, name: str, _: Namespace) -> tuple[Path, str]:
    path = peer_file(main, name)
    if path.exists():
        return path, _with_enabled(path, enabled=False)
    line = _line_of_known(main, name)
    text = f"# {name}, who stands in {main}:{line}, is blocked while this file is here: vpnctl peer unblock\n"
    return block_file(main, name), text


def _unblock(main: Path, name: str, _: Namespace) -> tuple[Path, str | None]:
    if block_file(main, name).exists():
        return block_file(main, name), None
    path = peer_file(main, name)
    if path.exists():
        return path, _with_enabled(path, enabled=True)
    line = _line_of_known(main, name)
    text = f"{name} is not blocked by vpnctl; if it is disabled, that stands in {main}:{line}"
    raise ControlError("refused", text)


def _with_enabled(path: Path, *, enabled: bool) -> str:
    try:
        return set_enabled(path.read_text(encoding="utf-8"), enabled)
    except OSError as error:
        raise ControlError("refused", f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ControlError("config", f"{path}: {error}") from None


def _line_of_known(main: Path, name: str) -> int:
    line = _line_in(main, name)
    if line is None:
        text = f"neither {main} nor {peer_file(main, name)} has a peer {name}"
        raise ControlError("no-such-peer", text)
    return line


def _line_in(main: Path, name: str) -> int | None:
    try:
        return line_of_peer(main.read_text(encoding="utf-8"), name)
    except OSError as error:
        # The daemon was started with another --config; what we would write it would never read.
        raise ControlError("refused", f"{main}: {error.strerror}; give the --config-dir of vpnd") from None
    except ValueError:
        raise ControlError("config", f"{main}: not UTF-8 text") from None


def _read(option: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise ControlError("usage", f"{option}: {error}") from None


def _print(context: Context, name: str, path: Path, report: ReloadReport) -> None:
    if context.as_json:
        file = str(path) if path.exists() else None
        context.terminal.print_json({"peer": name, "file": file, "changes": report.changes})
    else:
        print_changes(context.terminal, report)


_CHANGES: dict[str, Callable[[Path, str, Namespace], tuple[Path, str | None]]] = {
    "add": _add,
    "remove": _remove,
    "block": _block,
    "unblock": _unblock,
}


def _add_arguments(parser: ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="do", required=True, metavar="|".join([*_CHANGES, "invite"]))
    adding = verbs.add_parser("add", help="write its file and let it in")
    adding.add_argument("name", metavar="NAME")
    adding.add_argument("--public-key", required=True, metavar="KEY")
    adding.add_argument(
        "--network", action="append", default=[], metavar="PREFIX", help="behind the peer; may be repeated"
    )
    adding.add_argument("--endpoint", metavar="ENDPOINT", help="where to call it")
    adding.add_argument("--preshared-key", type=Path, metavar="FILE")
    adding.add_argument("--keepalive", type=int, metavar="SECONDS")
    for name, text in (
        ("remove", "remove its file and end its sessions"),
        ("block", "end its sessions now and let it in no more, without a word to it"),
        ("unblock", "let it in again"),
    ):
        verbs.add_parser(name, help=text, description=text).add_argument("name", metavar="NAME")
    text = "print a one-time token by which it joins"
    invite.add_arguments(verbs.add_parser("invite", help=text, description=text))


VERB = Verb(
    "peer", "change one peer, here and in its file: add, remove, block, unblock, invite", _add_arguments, run
)
