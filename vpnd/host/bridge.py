"""The bridge that the link is a port of: made where it is missing, left and removed again if it is ours.

Owns the port's membership and the bridges we made. Changes nothing else of a bridge: its addresses,
its other ports and its settings are the operator's.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vpnd.errors import HostError
from vpnd.host.link import (
    IFF_UP,
    RTM_NEWLINK,
    RTM_SETLINK,
    ObservedLink,
    Step,
    delete_link,
)
from vpnd.host.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink
from vpnd.host.plan import Change, LinkPlan
from vpnd.host.rtnl import ifinfmsg


@dataclass(frozen=True, slots=True)
class BridgeSteps:
    """The steps before the link's own and those after, and the bridges to be remembered; True: ours."""

    before: tuple[Step, ...]
    after: tuple[Step, ...]
    joined: dict[str, bool]


def bridge_steps(
    links: Mapping[str, ObservedLink],
    standing: ObservedLink | None,
    plan: LinkPlan,
    joined: Mapping[str, bool],
    forsaken: Iterable[str],
) -> BridgeSteps:
    """Gives the steps from the bridge that the link is in to the planned one.

    `joined` are the bridges that we joined before. One that the plan has no more is left, and deleted if
    it was ours and has no other port than the link and the `forsaken` ones, which are deleted too. A bridge
    that somebody else put the link into is none of our business. Raises HostError where the name is another
    kind of link's.
    """
    left, kept = _leave_others(links, standing, plan, joined, {plan.name, *forsaken})
    if plan.bridge is None:
        return BridgeSteps((), tuple(left), kept)
    bridge = links.get(plan.bridge)
    _check_bridge(bridge)
    kept[plan.bridge] = bridge is None or joined.get(plan.bridge, False)
    join = _set_master(plan.name, f"joins {plan.bridge}", plan.bridge)
    is_in = standing is not None and bridge is not None and standing.master == bridge.index
    return BridgeSteps(
        () if bridge is not None else (_create(plan.bridge),), (*([] if is_in else [join]), *left), kept
    )


def _leave_others(
    links: Mapping[str, ObservedLink],
    standing: ObservedLink | None,
    plan: LinkPlan,
    joined: Mapping[str, bool],
    ours: set[str],
) -> tuple[list[Step], dict[str, bool]]:
    steps: list[Step] = []
    kept: dict[str, bool] = {}
    for name, is_ours in joined.items():
        former = links.get(name)
        if name == plan.bridge or former is None:
            continue
        if plan.bridge is None and standing is not None and standing.master == former.index:
            steps.append(_set_master(plan.name, f"leaves {name}", None))
        if is_ours and is_free(links, former, ours):
            steps.append(delete_link(name))
            kept[name] = True  # until it is gone
    return steps, kept


def _check_bridge(standing: ObservedLink | None) -> None:
    if standing is not None and standing.kind != "bridge":
        kind = f"a {standing.kind} link" if standing.kind else "a link of the hardware or the kernel"
        raise HostError(
            f"join bridge {standing.name}", f"it is {kind}, no bridge; choose another [interface] bridge"
        )


def is_free(links: Mapping[str, ObservedLink], bridge: ObservedLink, ours: set[str]) -> bool:
    """Tells whether a bridge still is one, and has no port but ours."""
    return bridge.kind == "bridge" and not any(
        link.master == bridge.index and link.name not in ours for link in links.values()
    )


def _create(name: str) -> Step:
    def act(netlink: Netlink) -> None:
        message = ifinfmsg()
        kind = {"attrs": [["IFLA_INFO_KIND", "bridge"]]}
        message["attrs"] = [["IFLA_IFNAME", name], ["IFLA_LINKINFO", kind]]
        message["change"], message["flags"] = IFF_UP, IFF_UP
        try:
            netlink.change(message, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            remedy = "this kernel has no bridges; load its module: modprobe bridge"
            raise HostError(f"create bridge {name}", remedy) from error

    return Step(Change("bridge", f"create {name}"), act)


def _set_master(link: str, words: str, bridge: str | None) -> Step:
    def act(netlink: Netlink) -> None:
        message = ifinfmsg()
        message["index"] = socket.if_nametoindex(link)
        master = 0 if bridge is None else socket.if_nametoindex(bridge)
        message["attrs"] = [["IFLA_MASTER", master]]
        netlink.change(message, RTM_SETLINK)

    return Step(Change("bridge", f"{link} {words}"), act)
