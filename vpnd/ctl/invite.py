"""`vpnctl peer invite NAME`: a peer that is yet to join, and the token with which it does.

Owns what a token says: where the hub is, which addresses are the peer's or that the pool gives them, what it
reaches through the tunnel.
"""

from __future__ import annotations

import re
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from vpnd.config import Config, IPInterface, IPNetwork, is_assigned, is_inside, load, show_moment
from vpnd.config.parse import parse_network, parse_peer_endpoint
from vpnd.config.peerfiles import peer_file, write_keys
from vpnd.control import EXIT_DONE, Status, StatusReport
from vpnd.ctl.context import Context
from vpnd.ctl.peerfile import change_file, locked
from vpnd.ctl.qr import draw
from vpnd.enrol.token import Terms, Token
from vpnd.errors import ControlError
from vpnd.keys import Identity, PublicKey, Secret, generate_secret, read_key_file

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_EXPIRES_MAX_S = 366 * 86400
HEAD = "# Invited by vpnctl. public_key is that of the token: once the peer joined, vpnd knows its own.\n"


def run(context: Context, arguments: Namespace) -> int:
    """Prints the token once the hub knows its key; the token alone on standard output, for a pipe."""
    name: str = arguments.name
    expires = int(time.time()) + _duration_s(arguments.expires)
    with context.open_one() as client, locked(context.config_dir):
        report = client.ask(Status(), StatusReport).instances[0]
        main = context.config_file(client.instance)
        config = load(client.instance, main)
        path = _file_for(main, config, name)
        networks = _networks(config, arguments.network, name)
        terms = _terms(config, networks, arguments, expires)
        once = generate_secret()
        token = Token(PublicKey.from_base64(report.public_key), once, _knock(config), terms)
        # Drawn before anything is changed: where it cannot be, nothing was.
        shown = draw(token.encode()) if arguments.qr else []
        changed = change_file(client, path, _text(once, networks, arguments.group, expires))
    if context.as_json:
        context.terminal.print_json(
            {
                "peer": name,
                "file": str(path),
                "changes": changed.changes,
                "token": token.encode(),
                "expires": show_moment(expires),
            }
        )
        return EXIT_DONE
    context.terminal.print(token.encode(), *shown)
    until = show_moment(expires)
    context.terminal.print_error(f"{name} may join until {until}, there by: vpnctl join -  (and this line)")
    return EXIT_DONE


def _file_for(main: Path, config: Config, name: str) -> Path:
    """The file of a peer that is new, or was invited before: the token then is another."""
    path = peer_file(main, name)
    known = next((peer for peer in config.peers if peer.name == name), None)
    if known is not None and not (known.is_invited and path.exists()):
        place = config.place_of(f"peer.{name}.public_key")
        raise ControlError("refused", f"{name} is a peer already, at {place}; remove it there to invite it")
    return path


def _text(once: Secret, networks: Sequence[IPNetwork], groups: Sequence[str], expires: float) -> str:
    keys = {"public_key": str(Identity.from_private(once).public), "networks": list(map(str, networks))}
    if groups:
        keys["groups"] = list(groups)
    return f"{HEAD}{write_keys(keys)}invited_until = {show_moment(expires)}\n"


def _terms(config: Config, networks: Sequence[IPNetwork], arguments: Namespace, expires: float) -> Terms:
    takes_pushes = config.pool is not None and is_assigned(networks, config.pool)
    reached = _reached(config, arguments.route, takes_pushes=takes_pushes)
    return Terms(
        name=config.instance,
        endpoint=_endpoint(config, arguments.endpoint),
        expires=expires,
        link_type=config.interface.type,
        mtu=config.interface.mtu,
        addresses=() if takes_pushes else tuple(str(net) for net in networks if net.num_addresses == 1),
        networks=tuple(map(str, reached)),
        is_assigned=takes_pushes,
        route=not takes_pushes or bool(arguments.route) or not _is_told_all(config),
    )


def _is_told_all(config: Config) -> bool:
    """Tells whether a peer of the pool needs no more routes than its address and what is pushed bring."""
    pool = () if config.pool is None else config.pool.networks
    leads_everywhere = any(route.prefixlen == 0 for route in config.push.routes)
    return not leads_everywhere and all(
        any(is_inside(own, each) for each in pool) for own in _own_networks(config)
    )


def _networks(config: Config, wanted: Sequence[str], name: str) -> list[IPNetwork]:
    if wanted:
        try:
            return [parse_network(text) for text in wanted]
        except ValueError as error:
            raise ControlError("usage", f"--network: {error}") from None
    if config.interface.type == "tap" or config.pool is not None:
        return []
    others = [peer for peer in config.peers if peer.name != name]
    taken = {network for peer in others for network in peer.networks}
    own = {address.ip for address in config.interface.addresses}
    found = [_free(address, taken, own) for address in config.interface.addresses if _has_room(address)]
    if not found:
        raise ControlError("usage", "the link has no address in a network with room; give --network PREFIX")
    return found


def _has_room(address: IPInterface) -> bool:
    return address.network.num_addresses > 2 and not address.ip.is_link_local


def _free(link: IPInterface, taken: set[IPNetwork], own: Container[object]) -> IPNetwork:
    """The first address of the link's network that is nobody's."""
    width = link.max_prefixlen
    singles = {network.network_address for network in taken if network.prefixlen == width}
    wide = [
        network
        for network in taken
        if network.version == link.version and link.network.prefixlen < network.prefixlen < width
    ]
    for address in link.network.hosts():
        if address not in own and address not in singles and not any(address in each for each in wide):
            return parse_network(f"{address}/{width}")
    raise ControlError("refused", f"every address of {link.network} is a peer's; give --network PREFIX")


def _reached(config: Config, routes: Iterable[str], *, takes_pushes: bool) -> list[IPNetwork]:
    """What the peer sends into the tunnel: the link's networks, what is pushed, what the operator adds."""
    try:
        added = [parse_network(text) for text in routes]
    except ValueError as error:
        raise ControlError("usage", f"--route: {error}") from None
    own = [] if config.interface.type == "tap" else _own_networks(config)
    pushed: Iterable[IPNetwork] = ()
    if takes_pushes and config.pool is not None:
        pushed = (*config.pool.networks, *config.push.routes)
    return list(dict.fromkeys([*own, *pushed, *added]))


def _own_networks(config: Config) -> list[IPNetwork]:
    return [each.network for each in config.interface.addresses if not each.ip.is_link_local]


def _endpoint(config: Config, wanted: str | None) -> str:
    if wanted is None:
        for listen in config.local.listen:
            if not listen.address.is_unspecified and not listen.address.is_loopback:
                return str(listen)
        text = "this machine listens on every address; give the one to call by --endpoint NAME:PORT"
        raise ControlError("usage", text)
    try:
        return str(parse_peer_endpoint(wanted))
    except ValueError as error:
        raise ControlError("usage", f"--endpoint: {error}") from None


def _knock(config: Config) -> Secret | None:
    return None if config.local.knock is None else read_key_file(config.local.knock)


def _duration_s(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    seconds = int(found[1]) * _UNITS_S[found[2]] if found else 0
    if not 0 < seconds <= _EXPIRES_MAX_S:
        raise ControlError("usage", f'--expires: "{text}" is no time such as 30m, 24h or 7d, up to 366d')
    return seconds


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--expires", default="24h", metavar="TIME", help="such as 30m, 24h, 7d (default 24h)")
    parser.add_argument(
        "--network",
        action="append",
        default=[],
        metavar="PREFIX",
        help="default: from the pool, else a free address of the link",
    )
    parser.add_argument(
        "--group", action="append", default=[], metavar="GROUP", help="what it may reach; may be repeated"
    )
    parser.add_argument(
        "--route", action="append", default=[], metavar="PREFIX", help="what else the peer reaches through us"
    )
    parser.add_argument("--endpoint", metavar="ENDPOINT", help="where the peer calls us")
    parser.add_argument("--qr", action="store_true", help="draw the token as a QR code too")
