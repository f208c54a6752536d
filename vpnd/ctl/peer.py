"""`vpnctl peer add|remove|rename|rekey|block|unblock|invite NAME`: daemon and a peer's own file, together.

Owns which file is meant, and what is said of peers that stand in the main file: that one is the
operator's, and never rewritten.
"""

from __future__ import annotations

import contextlib
import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from vpnd.config.parse import parse_network, parse_peer_endpoint, parse_peer_name, parse_public_key
from vpnd.config.peerfiles import Value, block_file, line_of_peer, peer_file, set_keys, write_keys
from vpnd.control import EXIT_DONE, Status, StatusReport
from vpnd.control.reports import ReloadReport
from vpnd.ctl import invite
from vpnd.ctl.client import Client
from vpnd.ctl.context import Context, Verb
from vpnd.ctl.peerfile import change_file, locked, rename_file
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
            if arguments.do == "rename":
                name, path, report = _rename(client, main, name, arguments.new)
            else:
                path, text = _CHANGES[arguments.do](main, name, arguments, client)
                report = change_file(client, path, text)
    _print(context, name, path, report)
    return EXIT_DONE


def _add(main: Path, name: str, arguments: Namespace, _: Client) -> tuple[Path, str]:
    path = _free_file(main, name)
    networks = [str(_read("--network", parse_network, each)) for each in arguments.network]
    keys: dict[str, Value] = {
        "public_key": str(_read("--public-key", parse_public_key, arguments.public_key)),
        "networks": networks,
    }
    if arguments.group:
        keys["groups"] = arguments.group
    if arguments.endpoint is not None:
        keys["endpoint"] = str(_read("--endpoint", parse_peer_endpoint, arguments.endpoint))
    if arguments.preshared_key is not None:
        keys["preshared_key"] = str(arguments.preshared_key.absolute())
    if arguments.keepalive is not None:
        keys["keepalive"] = arguments.keepalive
    return path, write_keys(keys)


def _free_file(main: Path, name: str) -> Path:
    """The file of a peer that is yet to be."""
    path = peer_file(main, name)
    line = _line_in(main, name)
    if line is not None or path.exists():
        place = path if line is None else f"{main}:{line}"
        raise ControlError("refused", f"{name} stands in {place}; edit that, then vpnctl reload")
    if block_file(main, name).exists():
        raise ControlError("refused", f"{block_file(main, name)} blocks {name}; remove that file first")
    return path


def _own_file(main: Path, name: str, what: str) -> Path:
    """The file of a peer that has one; `what` is to be done in the main file for one that has none."""
    path = peer_file(main, name)
    if not path.exists():
        line = _line_of_known(main, name)
        raise ControlError("refused", f"{name} stands in {main}:{line}; {what} there, then vpnctl reload")
    return path


def _remove(main: Path, name: str, *_: object) -> tuple[Path, None]:
    return _own_file(main, name, "remove it"), None


def _rename(client: Client, main: Path, name: str, new: str) -> tuple[str, Path, ReloadReport]:
    _read("NEW", parse_peer_name, new)
    path, target = _own_file(main, name, "rename it"), _free_file(main, new)
    if block_file(main, name).exists():
        raise ControlError("refused", f"{block_file(main, name)} blocks {name}; vpnctl peer unblock {name}")
    return new, target, rename_file(client, path, target)


def _rekey(main: Path, name: str, arguments: Namespace, client: Client) -> tuple[Path, str]:
    """The key before is a stranger's from then on, unless it was asked that both hold for a while."""
    path = _own_file(main, name, "change its key")
    key = _read("--public-key", parse_public_key, arguments.public_key)
    previous = _present_key(client, path, name) if arguments.overlap else None
    if previous == str(key):
        raise ControlError("refused", f"{name} has this key already")
    # Of who was invited the file has no key yet that counts; from now on it has, and need not say so.
    keys = {"public_key": str(key), "previous_public_key": previous, "invited_until": None}
    return path, _edited(path, keys).removeprefix(invite.HEAD)


def _present_key(client: Client, path: Path, name: str) -> str:
    """By which the peer is known: of one that was invited and joined, the daemon alone has it."""
    (peer,) = client.ask(Status(name), StatusReport).instances[0].peers
    with _mistakes_told(path):
        keys = tomllib.loads(path.read_text(encoding="utf-8"))
    if "invited_until" in keys and keys.get("public_key") == peer.public_key:
        raise ControlError("refused", f"{name} is yet to join and has no key that could hold on")
    return peer.public_key


def _block(main: Path, name: str, *_: object) -> tuple[Path, str]:
    path = peer_file(main, name)
    if path.exists():
        return path, _edited(path, {"enabled": False})
    line = _line_of_known(main, name)
    text = f"# {name}, who stands in {main}:{line}, is blocked while this file is here: vpnctl peer unblock\n"
    return block_file(main, name), text


def _unblock(main: Path, name: str, *_: object) -> tuple[Path, str | None]:
    if block_file(main, name).exists():
        return block_file(main, name), None
    path = peer_file(main, name)
    if path.exists():
        return path, _edited(path, {"enabled": True})
    line = _line_of_known(main, name)
    text = f"{name} is not blocked by vpnctl; if it is disabled, that stands in {main}:{line}"
    raise ControlError("refused", text)


def _edited(path: Path, keys: Mapping[str, Value | None]) -> str:
    with _mistakes_told(path):
        return set_keys(path.read_text(encoding="utf-8"), keys)


@contextlib.contextmanager
def _mistakes_told(path: Path) -> Iterator[None]:
    try:
        yield
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


_CHANGES: dict[str, Callable[[Path, str, Namespace, Client], tuple[Path, str | None]]] = {
    "add": _add,
    "remove": _remove,
    "rekey": _rekey,
    "block": _block,
    "unblock": _unblock,
}


def _add_arguments(parser: ArgumentParser) -> None:
    words = [*_CHANGES, "rename", "invite"]
    verbs = parser.add_subparsers(dest="do", required=True, metavar="|".join(words))
    adding = verbs.add_parser("add", help="write its file and let it in")
    adding.add_argument("name", metavar="NAME")
    adding.add_argument("--public-key", required=True, metavar="KEY")
    adding.add_argument(
        "--network", action="append", default=[], metavar="PREFIX", help="behind the peer; may be repeated"
    )
    adding.add_argument(
        "--group", action="append", default=[], metavar="GROUP", help="what it may reach; may be repeated"
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
    text = "give it another public key; its sessions end"
    rekeying = verbs.add_parser("rekey", help=text, description=text)
    rekeying.add_argument("name", metavar="NAME")
    rekeying.add_argument("--public-key", required=True, metavar="KEY")
    rekeying.add_argument(
        "--overlap",
        action="store_true",
        help="the key before holds too for local.key_overlap; no session ends",
    )
    text = "give it another name; its sessions stay"
    renaming = verbs.add_parser("rename", help=text, description=text)
    renaming.add_argument("name", metavar="NAME")
    renaming.add_argument("new", metavar="NEW")
    text = "print a one-time token by which it joins"
    invite.add_arguments(verbs.add_parser("invite", help=text, description=text))


VERB = Verb(
    "peer",
    "change one peer, here and in its file: add, remove, rekey, block, invite and more",
    _add_arguments,
    run,
)
