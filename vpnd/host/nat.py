"""Masquerade through one nftables table of the instance's own, replaced and removed as a whole.

Owns the table "inet vpnd-<instance>" and nothing beside it. Speaks to the kernel through nft(8).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from typing import Any

from vpnd.errors import HostError
from vpnd.host.link import Step
from vpnd.host.netlink import Netlink
from vpnd.host.plan import Change, Network

_CHAIN = "hide-sources"
# Where Debian keeps nft, which a service's or a user's PATH may lack.
_PLACES = "/usr/sbin:/sbin:/usr/local/sbin"
_NFT_TIMEOUT_S = 10


def table_name(instance: str) -> str:
    """Names the instance's table, in the family inet."""
    return f"vpnd-{instance}"


def nat_steps(instance: str, link: str, networks: Iterable[Network], *, may_stand: bool) -> list[Step]:
    """Gives the step from the standing table to one that masquerades `networks`, if they differ.

    Without networks the table is removed. `may_stand` is False where none of ours can be there:
    then nft is not asked, and need not be installed.
    """
    wanted = tuple(dict.fromkeys(networks))
    if not wanted and not may_stand:
        return []
    name = _checked(table_name(instance), link)
    standing = _standing_rules(name)
    if not wanted:
        return [] if standing is None else [_remove(name)]
    rules = [_comment(network, link) for network in wanted]
    if standing == rules:
        return []
    script = _ruleset(name, link, wanted)
    words = "replace" if standing is not None else "make"
    hidden = ", ".join(map(str, wanted))
    return [
        _run_step(script, f"{words} table inet {name}: masquerade {hidden} behind links other than {link}")
    ]


def removal_steps(instance: str) -> list[Step]:
    """Gives the step that removes the instance's table, if nft is there and shows one."""
    if _program() is None:
        return []
    name = _checked(table_name(instance), "lo")
    return [] if _standing_rules(name) is None else [_remove(name)]


def _remove(name: str) -> Step:
    # "add" first, so that a table that went away in between is no error.
    return _run_step(f"add table inet {name}\ndelete table inet {name}\n", f"remove table inet {name}")


def _run_step(script: str, words: str) -> Step:
    def act(netlink: Netlink) -> None:  # noqa: ARG001 - every step's deed takes the open conversation
        _nft(f"nat: {words}", "-f", "-", script=script)

    return Step(Change("nat", words), act)


def _checked(name: str, link: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name):
        raise HostError(
            f"nat: table inet {name}", "nft takes letters, digits, '_', '.' and '-' in a table's name"
        )
    if not re.fullmatch(r"[^\s\"*\\/]{1,15}", link):
        raise HostError(f"nat: table inet {name}", f"nft cannot match a link named {link!r}")
    return name


def _ruleset(name: str, link: str, networks: Iterable[Network]) -> str:
    """Replaces the whole table in one transaction.

    "lo" is left out beside our own link: a machine that speaks to its own inner address does
    so through lo, and must see the source it used.
    """
    rules = "".join(
        f'    {_source_match(network)} oifname != "lo" oifname != "{link}" masquerade '
        f'comment "{_comment(network, link)}"\n'
        for network in networks
    )
    return (
        f"add table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n  chain {_CHAIN} {{\n"
        f"    type nat hook postrouting priority srcnat; policy accept;\n{rules}  }}\n}}\n"
    )


def _source_match(network: Network) -> str:
    if network.prefixlen == 0:
        return "meta nfproto ipv4" if network.version == 4 else "meta nfproto ipv6"
    return f"{'ip' if network.version == 4 else 'ip6'} saddr {network}"


def _comment(network: Network, link: str) -> str:
    return f"vpnd: {network} not by {link}"


def _standing_rules(name: str) -> list[str] | None:
    """Gives the comments of the table's rules, which say what each does; None where there is no table.

    Comments are compared, not expressions, because every release of nft prints those a little
    differently. A rule without one, a second chain or another hook shows as a foreign entry.
    """
    step = f"nat: list table inet {name}"
    tables = _entries(_nft(step, "-j", "list", "tables", "inet"))
    if not any(entry.get("table", {}).get("name") == name for entry in tables):
        return None
    rules: list[str] = []
    for entry in _entries(_nft(step, "-j", "list", "table", "inet", name)):
        if "rule" in entry:
            masquerades = any("masquerade" in part for part in entry["rule"].get("expr", []))
            rules.append(entry["rule"].get("comment", "") if masquerades else "")
        elif not (entry.keys() & {"metainfo", "table"} or _is_our_chain(entry.get("chain", {}))):
            rules.append("")
    return rules


def _is_our_chain(chain: dict[str, Any]) -> bool:
    return (chain.get("name"), chain.get("type"), chain.get("hook")) == (_CHAIN, "nat", "postrouting")


def _entries(text: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(text)["nftables"] if text.strip() else []
    return entries


def _program() -> str | None:
    return shutil.which("nft") or shutil.which("nft", path=_PLACES)


def _nft(step: str, *arguments: str, script: str = "") -> str:
    program = _program()
    if program is None:
        raise HostError(step, "nft is not installed; masquerade needs the package nftables")
    try:
        done = subprocess.run(
            [program, *arguments],
            input=script,
            capture_output=True,
            text=True,
            timeout=_NFT_TIMEOUT_S,
            check=False,
            env={"LC_ALL": "C", "PATH": _PLACES},
        )
    except subprocess.TimeoutExpired:
        raise HostError(step, f"nft gave no answer in {_NFT_TIMEOUT_S} s") from None
    if done.returncode != 0:
        said = done.stderr.strip() or str(done.returncode)
        if "Operation not permitted" in said:
            said = "Operation not permitted; vpnd needs CAP_NET_ADMIN in this network namespace"
        raise HostError(step, f"nft says: {said}")
    return done.stdout
