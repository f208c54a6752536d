"""Reads [groups.NAME], and checks that peers and groups name each other rightly.

Owns the language of `allow`: what a group's members may begin to talk to.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from vpnd.config.names import SECTION_KEYS
from vpnd.config.parse import parse_network, parse_peer_name
from vpnd.config.peers import ReadPeer
from vpnd.config.reader import Placed, Table, show_text
from vpnd.config.values import AllowRule, GroupConfig, Protocol

_WITH_PORTS: Final = ("tcp", "udp", "sctp")
_PORT_MAX: Final = 65535
_SERVICE = re.compile(r"[a-z]*[g-z]", re.IGNORECASE)
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class ReadGroups:
    """All groups as read; `peers` are the names that each of them holds, with their places."""

    configs: tuple[GroupConfig, ...]
    table: Table
    peers: tuple[tuple[Placed[str], ...], ...]


def read_groups(table: Table, link_type: str) -> ReadGroups:
    """Reads every [groups.NAME] under [groups]."""
    if link_type == "tap" and table.keys:
        text = 'need a link of type "tun": on "tap" a peer may send from any inner address'
        table.reading.mistake(table.place(), text)
    read = tuple(_read_each(table))
    return ReadGroups(tuple(config for config, _ in read), table, tuple(peers for _, peers in read))


def _read_each(table: Table) -> Iterator[tuple[GroupConfig, tuple[Placed[str], ...]]]:
    for name in table.keys:
        if name in SECTION_KEYS["groups"] and not isinstance(table.raw(name), dict):
            table.wrong(name, "a group has a name; write its keys under [groups.NAME]")
            continue
        try:
            parse_group_name(name)
        except ValueError as error:
            table.wrong(name, str(error))
        group = table.table(name)
        if group.broken:
            continue
        group.check_names(SECTION_KEYS["groups"])
        if "allow" not in group:
            group.wrong("allow", "missing; a group that may begin nothing has allow = []")
        rules = tuple(rule.value for rule in group.each("allow", parse_allow_rule))
        peers = group.each("peers", str)
        yield GroupConfig(name, rules, tuple(peer.value for peer in peers)), peers


def parse_group_name(text: str) -> str:
    try:
        return parse_peer_name(text)
    except ValueError as error:
        raise ValueError(str(error).replace("name a peer", "name a group")) from None


def parse_allow_rule(text: str) -> AllowRule:
    """A network, a service, or a network, a colon and a service; "any" is everything."""
    if text == "any":
        return AllowRule(None, None, None)
    head, colon, tail = text.rpartition(":")
    # What follows the last colon of an IPv6 network has none of the letters of a service's name.
    if not _SERVICE.match(tail):
        return AllowRule(parse_network(text), None, None)
    protocol, ports = _parse_service(text, tail)
    return AllowRule(parse_network(head) if colon else None, protocol, ports)


def _parse_service(text: str, service: str) -> tuple[Protocol, tuple[int, int] | None]:
    word, slash, ports = service.partition("/")
    protocol = next((known for known in get_args(Protocol) if known == word), None)
    if protocol is None:
        known = ", ".join(map(show_text, get_args(Protocol)))
        raise ValueError(f"{show_text(text)}: {show_text(word)} is none of {known}")
    if not slash:
        return protocol, None
    if protocol not in _WITH_PORTS:
        raise ValueError(f"{show_text(text)}: {protocol} has no ports")
    found = _PORTS.fullmatch(ports)
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= low <= high <= _PORT_MAX:
        raise ValueError(f"{show_text(text)}: a port is 1 to {_PORT_MAX}, a range such as 8000-8100")
    return protocol, (low, high)


def check_groups(groups: ReadGroups, peers: Sequence[ReadPeer], peer_names: Collection[str]) -> None:
    """Notes names that stand for nothing; `peer_names` has those of peers with mistakes as well."""
    if not groups.table.broken:
        for peer in peers:
            _check_names(peer.groups, groups.table.keys, "group")
    for named in groups.peers:
        _check_names(named, peer_names, "peer")


def _check_names(named: Iterable[Placed[str]], known: Collection[str], kind: str) -> None:
    for placed in named:
        if placed.value not in known:
            near = difflib.get_close_matches(placed.value, known, n=1)
            hint = f"; did you mean {show_text(near[0])}?" if near else ""
            text = f"there is no {kind} {show_text(placed.value)}{hint}"
            placed.table.reading.mistake(placed.place, text)
