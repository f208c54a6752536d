"""The instance's one nftables table, "inet vpnd-<instance>": made, changed and removed as a whole.

Owns the comparison of the standing table with the wanted one, and the way between them. What stands in it
is decided elsewhere; nothing beside it is ever touched.

A packet meets the old rules or the new ones. For rules the kernel sees to that itself. What a set holds may
be missing for a moment after the transaction that brought it, and before it is gone with the one that takes
it: so sets come before the rules that ask them, and go after those. A set whose content may change
therefore has a name made of it.
"""

from __future__ import annotations

import ipaddress
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vpnd.errors import HostError
from vpnd.host.link import Step
from vpnd.host.netlink import Netlink
from vpnd.host.nft import has_nft, listing, run_script
from vpnd.host.plan import Change

# nft knows no names where the machine has no /etc/protocols: rules are written with these.
PROTOCOL_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132}
_COMMENT_BYTES = 120  # the kernel keeps 128, the closing zero included
_FOREIGN = "not ours"
_NOT_ENTERED = ("", "", "", "")  # a chain without a hook

_Key = tuple[str, ...]  # kind and name, of a chain also how it is entered
_Content = dict[_Key, object]

Bounds = tuple[int, int]  # the first and the last number of a range
Element = tuple["Bounds | str", ...]  # a bound for each part of the key; in a map the verdict comes last


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule and what it is for; `words` become its comment."""

    text: str
    words: str

    @property
    def comment(self) -> str:
        """What the standing rule is known by: every release of nft prints expressions differently."""
        words = re.sub(r"[^ -~]|[\"\\]", "?", f"{zlib.crc32(self.text.encode()):08x} {self.words}")
        return f"vpnd {words}"[:_COMMENT_BYTES]

    def __str__(self) -> str:
        return f'{self.text} comment "{self.comment}"'


@dataclass(frozen=True, slots=True)
class Hook:
    """Where the kernel enters a chain."""

    type: str
    name: str
    priority: str
    number: int  # of the priority

    def __str__(self) -> str:
        return f"type {self.type} hook {self.name} priority {self.priority}; policy accept;"


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in their order, entered by a hook or from another chain."""

    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None

    @property
    def key(self) -> _Key:
        hook = self.hook
        entered = (hook.type, hook.name, str(hook.number), "accept") if hook else _NOT_ENTERED
        return ("chain", self.name, *entered)


@dataclass(frozen=True, slots=True)
class Collection:
    """A set or a map. `elements` of None are the kernel's to fill."""

    kind: str
    name: str
    header: str
    elements: tuple[tuple[str, Element], ...] | None

    @property
    def key(self) -> _Key:
        return self.kind, self.name


@dataclass(frozen=True, slots=True)
class Table:
    """All that shall stand in the table; `words` tell an operator what it does."""

    collections: tuple[Collection, ...]
    chains: tuple[Chain, ...]
    words: str

    def __bool__(self) -> bool:
        return bool(self.chains)


def table_name(instance: str) -> str:
    """Names the instance's table, in the family inet."""
    return f"vpnd-{instance}"


def table_steps(instance: str, link: str, wanted: Table, *, may_stand: bool) -> list[Step]:
    """Gives the step from the standing table to the wanted one, if they differ.

    An empty one is no table. `may_stand` is False where none of ours can be there: then nft is not
    asked, and need not be installed.
    """
    if not wanted and not may_stand:
        return []
    name = _checked(table_name(instance), link)
    standing = _standing(name)
    if not wanted:
        return [] if standing is None else [_remove(name)]
    scripts = _scripts(name, standing, wanted)
    if not scripts:
        return []
    words = "replace" if standing is not None else "make"
    return [_run_step(scripts, f"{words} table inet {name}: {wanted.words}")]


def has_chain(instance: str, chain: str) -> bool:
    """Tells whether the instance's table stands and has this chain. HostError."""
    standing = _standing(_checked(table_name(instance), "lo")) or {}
    return any(key[:2] == ("chain", chain) for key in standing)


def removal_steps(instance: str) -> list[Step]:
    """Gives the step that removes the instance's table, if nft is there and shows one."""
    if not has_nft():
        return []
    name = _checked(table_name(instance), "lo")
    return [] if _standing(name) is None else [_remove(name)]


def _remove(name: str) -> Step:
    # "add" first, so that a table that went away in between is no error.
    return _run_step([f"add table inet {name}\ndelete table inet {name}\n"], f"remove table inet {name}")


def _run_step(scripts: Sequence[str], words: str) -> Step:
    def act(netlink: Netlink) -> None:  # noqa: ARG001 - every step's deed takes the open conversation
        for script in scripts:
            run_script(f"nftables: {words}", script)

    return Step(Change("nftables", words), act)


def _checked(name: str, link: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name):
        raise HostError(
            f"nftables: table inet {name}", "nft takes letters, digits, '_', '.' and '-' in a table's name"
        )
    if not re.fullmatch(r"[^\s\"*\\/]{1,15}", link):
        raise HostError(f"nftables: table inet {name}", f"nft cannot match a link named {link!r}")
    return name


# -- the way from one table to another --


def _scripts(name: str, standing: _Content | None, table: Table) -> list[str]:
    """Gives the transactions, in order; none where the wanted table stands."""
    wanted, present = _content(table), standing or {}
    if standing == wanted:
        return []
    if _is_bent(present, wanted):
        anew = _declaration(name, table.collections, table.chains)
        return [f"add table inet {name}\ndelete table inet {name}\n{anew}"]
    fresh = [each for each in table.collections if each.key not in present]
    aside = [chain for chain in table.chains if chain.hook is None and chain.key not in present]
    changed = [
        chain for chain in table.chains if chain not in aside and present.get(chain.key) != wanted[chain.key]
    ]
    unwanted = [key for key in present if key not in wanted]
    ended = [key[1] for key in unwanted if key[0] == "chain"]
    return [
        *([_declaration(name, fresh, aside)] if fresh or aside else []),
        _switch(name, changed, ended),
        *([_clearance(name, unwanted)] if unwanted else []),
    ]


def _is_bent(present: _Content, wanted: _Content) -> bool:
    """Tells whether somebody brought things that are not in our manner: then everything is made anew."""
    ours = {key[:2]: key for key in wanted}
    return any(
        key[0] not in ("set", "map", "chain")
        or ours.get(key[:2], key) != key
        or (key[0] != "chain" and key in wanted and wanted[key] != content)
        for key, content in present.items()
    )


def _declaration(name: str, collections: Sequence[Collection], chains: Sequence[Chain]) -> str:
    parts = []
    for each in collections:
        listed = ""
        if each.elements:
            elements = ",\n      ".join(text for text, _ in each.elements)
            listed = f" elements = {{\n      {elements}\n    }}"
        parts.append(f"  {each.kind} {each.name} {{ {each.header}{listed} }}\n")
    for chain in chains:
        hook = f"    {chain.hook}\n" if chain.hook else ""
        rules = "".join(f"    {rule}\n" for rule in chain.rules)
        parts.append(f"  chain {chain.name} {{\n{hook}{rules}  }}\n")
    return f"table inet {name} {{\n{''.join(parts)}}}\n"


def _switch(name: str, changed: Sequence[Chain], unwanted: Sequence[str]) -> str:
    """Gives chains their new rules, and ends those of unwanted chains."""
    lines = [f"add table inet {name}\n"]
    lines += [f"flush chain inet {name} {chain}\n" for chain in unwanted]
    for chain in changed:
        hook = f"{{ {chain.hook} }}" if chain.hook else ""
        lines.append(f"add chain inet {name} {chain.name} {hook}\nflush chain inet {name} {chain.name}\n")
        lines += [f"add rule inet {name} {chain.name} {rule}\n" for rule in chain.rules]
    return "".join(lines)


def _clearance(name: str, unwanted: Sequence[tuple[str, ...]]) -> str:
    """Deletes what no rule asks any more; maps lose their elements first, which lead to chains."""
    order = {"map": 0, "set": 1, "chain": 2}
    lines = []
    for kind, each, *_ in sorted(unwanted, key=lambda key: order[key[0]]):
        lines.append(f"flush {kind} inet {name} {each}\ndelete {kind} inet {name} {each}\n")
    return "".join(lines)


# -- what a table holds, in one form for the wanted and the standing one --


def _content(table: Table) -> _Content:
    content: _Content = {}
    for each in table.collections:
        elements = None if each.elements is None else frozenset(element for _, element in each.elements)
        content[each.key] = elements
    for chain in table.chains:
        content[chain.key] = [rule.comment for rule in chain.rules]
    return content


def _standing(name: str) -> _Content | None:
    """Gives what stands, None where there is no table. What is not in our manner is told as foreign."""
    step = f"nftables: list table inet {name}"
    tables = listing(step, "tables", "inet")
    if not any(entry.get("table", {}).get("name") == name for entry in tables):
        return None
    content: _Content = {}
    rules: dict[str, list[str]] = {}
    for entry in listing(step, "table", "inet", name):
        ((kind, value),) = entry.items()
        match kind:
            case "metainfo" | "table":
                continue
            case "rule":
                rules.setdefault(value["chain"], []).append(value.get("comment", _FOREIGN))
            case "chain":
                entered = (str(value.get(key, "")) for key in ("type", "hook", "prio", "policy"))
                content["chain", value["name"], *entered] = rules.setdefault(value["name"], [])
            case "set" | "map":
                content[kind, value["name"]] = _elements(value)
            case _:
                content[kind, _FOREIGN] = None
    return content


def _elements(collection: Mapping[str, Any]) -> frozenset[Element] | None:
    if "timeout" in collection:
        return None  # filled by packets
    return frozenset(map(_element, collection.get("elem", ())))


def _element(value: Any) -> Element:
    try:
        match value:
            case [key, {"jump": {"target": str(chain)}}]:  # of a map
                return (*_element(key), chain)
            case {"concat": [*parts]}:
                return tuple(map(_bounds, parts))
            case _:
                return (_bounds(value),)
    except (KeyError, TypeError, ValueError):
        return (_FOREIGN,)


def _bounds(value: Any) -> Bounds:
    match value:
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            network = ipaddress.ip_network(f"{address}/{length}")
            return int(network[0]), int(network[-1])
        case {"range": [first, last]}:
            return _number(first), _number(last)
        case _:
            return _number(value), _number(value)


def _number(value: Any) -> int:
    if isinstance(value, int):
        return value
    return PROTOCOL_NUMBERS[value] if value in PROTOCOL_NUMBERS else int(ipaddress.ip_address(value))
