"""The rules that lead the machine's packets into the full tunnel's own routing table, and its own past it.

Owns rules of our protocol number with the instance's own two priorities, and no others. So they are found
again without any memory.
"""

from __future__ import annotations

import errno
import socket
import struct
import zlib
from dataclasses import dataclass
from typing import Any

from vpnd.host.link import Step
from vpnd.host.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink, pack_number
from vpnd.host.plan import ROUTE_PROTOCOL, Change, FullTunnelPlan
from vpnd.host.rtnl import fibmsg

# linux/rtnetlink.h, linux/fib_rules.h
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
_FR_ACT_TO_TBL, _FIB_RULE_INVERT = 1, 2
_FRA_PRIORITY, _FRA_FWMARK, _FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_FWMASK, _FRA_PROTOCOL = (
    6,
    10,
    14,
    15,
    16,
    21,
)
_HEADER = struct.Struct("=8BI")  # family, bits of dst, of src, tos, table, 0, 0, action; flags
_BYTE = struct.Struct("=HHB3x")
_ANY_MARK = 0xFFFFFFFF
_NO_SUPPRESSION = 0xFFFFFFFF
_MAIN = 254

# Before the kernel's own rule for "main" (32766) and those that people number down from it.
_FIRST_PRIORITY = 31000
_INSTANCES = 350


@dataclass(frozen=True, slots=True)
class _Rule:
    """One rule. A `mark` is that of packets which it does not concern; 0: it concerns all.

    `spares_default` has it find every route but a default one.
    """

    version: int
    priority: int
    table: int
    mark: int
    spares_default: bool

    def __str__(self) -> str:
        table = "main" if self.table == _MAIN else str(self.table)
        whom = f"not fwmark 0x{self.mark:x} " if self.mark else ""
        rest = " suppress_prefixlength 0" if self.spares_default else ""
        return f"IPv{self.version} {self.priority}: {whom}lookup {table}{rest}"


def rule_steps(netlink: Netlink, instance: str, wanted: FullTunnelPlan | None) -> list[Step]:
    """Gives the steps from our standing rules to the wanted ones; new ones come first."""
    standing = _observe(netlink, instance)
    rules = _wanted(instance, wanted) if wanted is not None else frozenset()
    steps = [_step("add", rule) for rule in sorted(rules - standing, key=str)]
    return steps + [_step("remove", rule) for rule in sorted(standing - rules, key=str)]


def _priorities(instance: str) -> tuple[int, int]:
    first = _FIRST_PRIORITY + 2 * (zlib.crc32(instance.encode()) % _INSTANCES)
    return first, first + 1


def _wanted(instance: str, plan: FullTunnelPlan) -> frozenset[_Rule]:
    first, second = _priorities(instance)
    rules = {_Rule(version, second, plan.table, plan.mark, False) for version in plan.versions}
    if plan.allow_lan:
        # Whatever "main" knows better than by a default route is near, and stays reached as it was.
        rules |= {_Rule(version, first, _MAIN, 0, True) for version in plan.versions}
    return frozenset(rules)


def _observe(netlink: Netlink, instance: str) -> frozenset[_Rule]:
    found = set()
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        for answer in _rules_of(netlink, family):
            priority = answer.get_attr("FRA_PRIORITY")
            if answer.get_attr("FRA_PROTOCOL") != ROUTE_PROTOCOL or priority not in _priorities(instance):
                continue
            suppressed = answer.get_attr("FRA_SUPPRESS_PREFIXLEN")
            found.add(
                _Rule(
                    version,
                    priority,
                    answer.get_attr("FRA_TABLE") or answer["table"],
                    answer.get_attr("FRA_FWMARK") or 0,
                    suppressed not in (None, _NO_SUPPRESSION),
                )
            )
    return frozenset(found)


def _rules_of(netlink: Netlink, family: int) -> list[Any]:
    message = fibmsg()
    message["family"] = family
    try:
        return netlink.dump(message, RTM_GETRULE)
    except OSError as error:
        # A kernel without IPv6, or without rules, has none of ours.
        if error.errno in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
            return []
        raise


def _step(verb: str, rule: _Rule) -> Step:
    def act(netlink: Netlink) -> None:
        if verb == "add":
            netlink.change_raw(_body(rule), RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL)
            return
        try:
            netlink.change_raw(_body(rule), RTM_DELRULE)
        except OSError as error:
            if error.errno != errno.ENOENT:  # somebody was faster
                raise

    return Step(Change("rule", f"{verb} rule {rule}"), act)


def _body(rule: _Rule) -> bytes:
    family = socket.AF_INET if rule.version == 4 else socket.AF_INET6
    table = rule.table if rule.table < 256 else 0
    flags = _FIB_RULE_INVERT if rule.mark else 0
    numbers = [(_FRA_TABLE, rule.table), (_FRA_PRIORITY, rule.priority)]
    if rule.mark:
        numbers += [(_FRA_FWMARK, rule.mark), (_FRA_FWMASK, _ANY_MARK)]
    if rule.spares_default:
        numbers.append((_FRA_SUPPRESS_PREFIXLEN, 0))
    parts = [_HEADER.pack(family, 0, 0, 0, table, 0, 0, _FR_ACT_TO_TBL, flags)]
    parts += [pack_number(kind, value) for kind, value in numbers]
    return b"".join([*parts, _BYTE.pack(5, _FRA_PROTOCOL, ROUTE_PROTOCOL)])
