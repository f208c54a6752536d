"""`vpnctl join TOKEN [NAME]`: this machine makes its key, tells a hub, and has a tunnel to it.

Owns the order: the key first, so that no failure loses it, the configuration once the hub knows it.
What a token says came from elsewhere, and is read as strictly as a file of the operator's.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path

from vpnd.config import load, show_moment
from vpnd.config.parse import parse_interface_address, parse_network, parse_peer_endpoint, parse_public_key
from vpnd.config.peers import PUSHABLE
from vpnd.config.sections import ASSIGNED
from vpnd.control import EXIT_DONE
from vpnd.ctl.context import Context, Verb, check_instance_name
from vpnd.durable import sync
from vpnd.endpoint import Endpoint, EndpointName
from vpnd.enrol.token import Terms, Token, decode_token
from vpnd.errors import ConfigError, ControlError
from vpnd.keys import Identity, generate_secret, read_key_file, write_key_file

_TOKEN_LIMIT = 16384  # bytes read from standard input
_KEEPALIVE_S = 25  # a joining machine is behind some NAT as often as not


def run(context: Context, arguments: Namespace) -> int:
    """Returns when the hub knows this machine, the configuration stands, and the unit was started."""
    token = decode_token(_text(context, arguments.token))
    name: str = arguments.name or token.terms.name
    check_instance_name(name)
    if time.time() >= token.terms.expires:
        raise ControlError(
            "refused", f"the token expired at {show_moment(token.terms.expires)}; ask for another"
        )
    file = context.config_file(name)
    if file.exists():
        raise ControlError("refused", f"{file} exists already; give another NAME")
    text, key_file, knock_file = _configuration(context, name, token)
    with _draft(name, file, text) as draft:
        identity, is_new = _own_identity(key_file)
        if token.knock is not None and not knock_file.exists():
            _make_folder(knock_file.parent)
            write_key_file(knock_file, token.knock)
        # Imported here: the protocol would make every vpnctl start later.
        from vpnd.enrol.enrol import enrol  # noqa: PLC0415

        enrol(token, identity, _resolve(token.terms), may_be_known=not is_new)
        draft.replace(file)
        sync(file.parent)
    if not arguments.no_start:
        _start(name)
    if context.as_json:
        context.terminal.print_json({"instance": name, "file": str(file), "public_key": str(identity.public)})
    else:
        context.terminal.print(f"{name}: joined; {file} is written")
    return EXIT_DONE


def _text(context: Context, given: str) -> str:
    if given != "-":
        return given
    return context.stdin.read(_TOKEN_LIMIT).decode("ascii", "replace")


def _configuration(context: Context, name: str, token: Token) -> tuple[str, Path, Path]:
    """The file's text, and where it has key and knock lie. Raises ControlError for terms that cannot be."""
    folder = context.config_dir.absolute() / "keys"
    key_file, knock_file = folder / f"{name}.key", folder / name / "knock"
    local = {"private_key": str(key_file)} | ({} if token.knock is None else {"knock": str(knock_file)})
    try:
        sections = _sections(token, local)
    except ValueError as error:
        raise ControlError("refused", f"the token says what cannot be: {error}") from None
    lines = ["# Written by vpnctl join."]
    for section, keys in sections.items():
        lines += ["", f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    return "\n".join(lines) + "\n", key_file, knock_file


def _sections(token: Token, local: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """Raises ValueError for what no configuration may hold."""
    terms = token.terms
    parse_public_key(str(token.hub))
    networks = [parse_network(text) for text in terms.networks]
    hub: dict[str, object] = {
        "public_key": str(token.hub),
        "endpoint": str(parse_peer_endpoint(terms.endpoint)),
        "networks": list(map(str, networks)),
        "keepalive": _KEEPALIVE_S,
    }
    addresses: object = [str(parse_interface_address(text)) for text in terms.addresses]
    if terms.is_assigned:
        addresses = ASSIGNED
        hub |= {"accept": PUSHABLE, "route": terms.route}
    sections: dict[str, Mapping[str, object]] = {
        "interface": {"type": terms.link_type, "mtu": terms.mtu, "addresses": addresses},
        "local": local,
        f"peer.{json.dumps(terms.name)}": hub,
    }
    if terms.link_type == "tun" and any(network.prefixlen == 0 for network in networks):
        # A route to everything without it would lead the tunnel into itself.
        sections["routing"] = {"full_tunnel": True}
    return sections


def _own_identity(key_file: Path) -> tuple[Identity, bool]:
    """Makes this machine's key, or takes the one of a join that did not come to its end."""
    if key_file.exists():
        return Identity.from_private(read_key_file(key_file)), False
    _make_folder(key_file.parent)
    secret = generate_secret()
    write_key_file(key_file, secret)
    return Identity.from_private(secret), True


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ControlError(_code_of(error), f"{folder}: {error.strerror}") from None


def _resolve(terms: Terms) -> Endpoint:
    endpoint = parse_peer_endpoint(terms.endpoint)
    if isinstance(endpoint, Endpoint):
        return endpoint
    return _look_up(endpoint)


def _look_up(name: EndpointName) -> Endpoint:
    try:
        found = socket.getaddrinfo(name.host, name.port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise ControlError("refused", f"{name.host} does not resolve: {error.strerror}") from None
    return Endpoint(ip_address(found[0][4][0]), name.port)


@contextlib.contextmanager
def _draft(name: str, file: Path, text: str) -> Iterator[Path]:
    """Writes the configuration under a name that nothing reads, once it is known to be free of mistakes."""
    draft = file.with_name(f".{file.name}.new")
    try:
        with draft.open("w", encoding="utf-8") as stream:
            stream.write(text)
            os.fchmod(stream.fileno(), 0o644)  # it holds no secret, and the daemon is another user
        sync(draft)
        load(name, draft)
        yield draft
    except ConfigError as error:
        raise ControlError("refused", f"this machine cannot have what the token says: {error}") from None
    except OSError as error:
        raise ControlError(_code_of(error), f"{error.filename}: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)


def _start(name: str) -> None:
    command = ["systemctl", "enable", "--now", f"vpnd@{name}.service"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ControlError(
            "refused", f"joined, but {command[0]}: {error.strerror}; start vpnd yourself"
        ) from None
    if done.returncode != 0:
        what = done.stderr.strip() or f"exit status {done.returncode}"
        raise ControlError("refused", f"joined, but {' '.join(command)}: {what}")


def _code_of(error: OSError) -> str:
    return "not-permitted" if isinstance(error, PermissionError) else "refused"


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "token", metavar="TOKEN", help="- reads it from standard input, out of sight of other users"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the instance here (default: the hub's)")
    parser.add_argument("--no-start", action="store_true", help="write the files, start nothing")


VERB = Verb("join", "join a hub by the token it invites with", _add_arguments, run)
