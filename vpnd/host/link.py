"""The link's own state: kind, MTU, queue length, MAC, addresses, up.

Owns the comparison of a standing link with its plan and the steps between the two. Knows
rtnetlink; does not open /dev/net/tun and holds no descriptor.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vpnd.errors import HostError
from vpnd.host.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink, attribute
from vpnd.host.plan import Change, Interface, LinkPlan, Network
from vpnd.host.rtnl import ifaddrmsg, ifinfmsg

# linux/rtnetlink.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
_RTEXT_FILTER_SKIP_STATS = 1 << 3

# linux/if.h, linux/if_tun.h, linux/if_addr.h, linux/if_link.h (IN6_ADDR_GEN_MODE_*)
IFF_UP, IFF_LOWER_UP = 0x1, 0x10000
_IFA_F_PERMANENT = 0x80
_KINDS = {1: "tun", 2: "tap"}
_GENERATE_EUI64, _GENERATE_NONE, _GENERATE_RANDOM = 0, 1, 3

_LINK_LOCAL = ipaddress.IPv6Network("fe80::/64")


@dataclass(frozen=True, slots=True)
class Step:
    """A change together with the deed that makes it; the deed raises OSError or HostError."""

    change: Change
    act: Callable[[Netlink], None]


@dataclass(frozen=True, slots=True)
class ObservedLink:
    """A link as the kernel shows it; `kind` is "tun", "tap", or what else the kernel calls it.

    `queues` counts the open ones. `generates` is the kernel's way to a link-local address
    (IN6_ADDR_GEN_MODE_*), None where the link has no IPv6. `master` is the index of its bridge or the like.
    """

    index: int
    name: str
    kind: str
    owner: int | None
    group: int | None
    is_multi_queue: bool
    is_persistent: bool
    queues: int
    mtu: int
    txqueuelen: int
    mac: bytes | None
    is_up: bool
    has_carrier: bool
    alias: str
    generates: int | None
    master: int | None

    @property
    def is_tun_or_tap(self) -> bool:
        return self.kind in ("tun", "tap")


def observe_links(netlink: Netlink) -> dict[str, ObservedLink]:
    """Gives all links of this network namespace by name."""
    message = ifinfmsg()
    message["attrs"] = [["IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS]]
    return {link.name: link for link in map(link_of_message, netlink.dump(message, RTM_GETLINK))}


def observe_link(netlink: Netlink, name: str) -> ObservedLink | None:
    """Gives one link, or None where there is none of that name."""
    message = ifinfmsg()
    message["attrs"] = [["IFLA_IFNAME", name], ["IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS]]
    try:
        return link_of_message(netlink.get(message, RTM_GETLINK))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def link_of_message(message: Any) -> ObservedLink:
    """Reads a decoded RTM_NEWLINK."""
    tun = attribute(message, "IFLA_LINKINFO", "IFLA_INFO_DATA")
    kernel_kind = attribute(message, "IFLA_LINKINFO", "IFLA_INFO_KIND") or ""
    is_tun = kernel_kind == "tun"
    mac = message.get_attr("IFLA_ADDRESS")
    return ObservedLink(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=_KINDS.get(attribute(tun, "IFLA_TUN_TYPE"), kernel_kind) if is_tun else kernel_kind,
        owner=attribute(tun, "IFLA_TUN_OWNER") if is_tun else None,
        group=attribute(tun, "IFLA_TUN_GROUP") if is_tun else None,
        is_multi_queue=is_tun and bool(attribute(tun, "IFLA_TUN_MULTI_QUEUE")),
        is_persistent=is_tun and bool(attribute(tun, "IFLA_TUN_PERSIST")),
        queues=_open_queues(tun) if is_tun else 0,
        mtu=message.get_attr("IFLA_MTU"),
        txqueuelen=message.get_attr("IFLA_TXQLEN"),
        mac=bytes.fromhex(mac.replace(":", "")) if mac else None,
        is_up=bool(message["flags"] & IFF_UP),
        has_carrier=bool(message["flags"] & IFF_LOWER_UP),
        alias=message.get_attr("IFLA_IFALIAS") or "",
        generates=attribute(message, "IFLA_AF_SPEC", "AF_INET6", "IFLA_INET6_ADDR_GEN_MODE"),
        master=message.get_attr("IFLA_MASTER"),
    )


def _open_queues(tun: Any) -> int:
    # A multi-queue link counts its queues; a single one only says that it has a user, by its carrier.
    counted = [attribute(tun, name) for name in ("IFLA_TUN_NUM_QUEUES", "IFLA_TUN_NUM_DISABLED_QUEUES")]
    return sum(count for count in counted if count)


def observe_addresses(netlink: Netlink, index: int) -> frozenset[Interface]:
    """Gives the addresses of one link; one with a far end of its own shows as its near end's /32 or /128."""
    return frozenset(address for address, _ in _observe_addresses(netlink, index))


def observe_networks(netlink: Netlink, links: Container[int]) -> frozenset[Network]:
    """Gives the networks that the machine is in by these links."""
    found = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        message = ifaddrmsg()
        message["family"] = family
        for answer in netlink.dump(message, RTM_GETADDR):
            if answer["index"] in links:
                address = answer.get_attr("IFA_ADDRESS") or answer.get_attr("IFA_LOCAL")
                found.add(ipaddress.ip_network(f"{address}/{answer['prefixlen']}", strict=False))
    return frozenset(found)


def observe_governed_addresses(
    netlink: Netlink, index: int, wanted: Container[Interface]
) -> frozenset[Interface]:
    """Gives those addresses of a link that a plan with the `wanted` ones decides about.

    One with a lifetime was leased: it belongs to the client that renews it, unless the plan has it too.
    """
    return frozenset(
        address
        for address, is_leased in _observe_addresses(netlink, index)
        if not is_leased or address in wanted
    )


def _observe_addresses(netlink: Netlink, index: int) -> Iterator[tuple[Interface, bool]]:
    for family in (socket.AF_INET, socket.AF_INET6):
        message = ifaddrmsg()
        message["family"], message["index"] = family, index
        for answer in netlink.dump(message, RTM_GETADDR):
            if answer["index"] == index:
                flags = answer.get_attr("IFA_FLAGS") or answer["flags"]
                yield address_of_message(answer), not flags & _IFA_F_PERMANENT


def address_of_message(message: Any) -> Interface:
    """Reads a decoded RTM_NEWADDR or RTM_DELADDR."""
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return ipaddress.ip_interface(f"{address}/{message['prefixlen']}")


def check_link(standing: ObservedLink, plan: LinkPlan) -> None:
    """Raises HostError where the name belongs to a link that is not the plan's own kind or owner."""
    step = f"take link {plan.name}"
    remedy = f"choose another [interface] name, or delete it: ip link delete {plan.name}"
    if not standing.is_tun_or_tap:
        kind = f"a {standing.kind} link" if standing.kind else "a link of the hardware or the kernel"
        raise HostError(step, f"the name is taken by {kind}, neither TUN nor TAP; {remedy}")
    if standing.kind != plan.type:
        raise HostError(
            step,
            f'it stands as type "{standing.kind}", and "{plan.type}" is wanted; '
            f"stop the instance, then {remedy}",
        )
    for word, has, wants in (
        ("owner", standing.owner, plan.owner),
        ("group", standing.group, plan.group),
    ):
        if has is not None and has != wants:
            wanted = "none" if wants is None else str(wants)
            raise HostError(step, f"its {word} is {has}, and {wanted} is wanted; {remedy}")


def has_room(standing: ObservedLink, plan: LinkPlan) -> bool:
    """Tells whether the link takes as many queues as planned: it is made for one or for any number."""
    return standing.is_multi_queue or plan.queues == 1


def link_steps(
    standing: ObservedLink | None, addresses: Iterable[Interface], plan: LinkPlan, alias: str
) -> list[Step]:
    """Gives the steps from what stands to the plan; of a missing link, those after its creation."""
    steps: list[Step] = []
    is_up = standing is not None and standing.is_up
    if is_up and _needs_restart(standing, plan):
        # Only a link that comes up makes its link-local address, from the MAC it has then.
        steps.append(_set(plan.name, "down", state="down"))
        is_up = False
    if standing is None or standing.alias != alias:
        steps.append(_set(plan.name, f'alias "{alias}"', IFLA_IFALIAS=alias))
    if standing is None or standing.mtu != plan.mtu:
        steps.append(_set(plan.name, f"mtu {plan.mtu}", IFLA_MTU=plan.mtu))
    if standing is None or standing.txqueuelen != plan.txqueuelen:
        steps.append(_set(plan.name, f"txqueuelen {plan.txqueuelen}", IFLA_TXQLEN=plan.txqueuelen))
    if _wants_mac(standing, plan):
        assert plan.mac is not None
        mac = plan.mac.hex(":")
        steps.append(_set(plan.name, f"mac {mac}", IFLA_ADDRESS=mac))
    mode = _wanted_generation(standing, plan)
    if mode is not None:
        words = "off" if mode == _GENERATE_NONE else "on"
        steps.append(_set(plan.name, f"kernel's own link-local address {words}", generates=mode))
    steps += _address_steps(frozenset(addresses), plan)
    if not is_up:
        steps.append(_set(plan.name, "up", state="up"))
    return steps


def _needs_restart(standing: ObservedLink | None, plan: LinkPlan) -> bool:
    mode = _wanted_generation(standing, plan)
    return _wants_mac(standing, plan) or mode in (_GENERATE_EUI64, _GENERATE_RANDOM)


def _wants_mac(standing: ObservedLink | None, plan: LinkPlan) -> bool:
    if plan.type != "tap" or plan.mac is None:
        return False
    return standing is None or standing.mac != plan.mac


def _wanted_generation(standing: ObservedLink | None, plan: LinkPlan) -> int | None:
    """Gives the mode to set: none beside a link-local address of the plan's own, else the kernel's way.

    The kernel's way is unique by itself: from the MAC (TAP), or random (TUN, which has none).
    """
    generates = standing.generates if standing is not None else _GENERATE_EUI64
    if generates is None:
        return None
    if _has_own_link_local(plan):
        return _GENERATE_NONE if generates != _GENERATE_NONE else None
    if generates != _GENERATE_NONE:
        return None
    return _GENERATE_EUI64 if plan.type == "tap" else _GENERATE_RANDOM


def _has_own_link_local(plan: LinkPlan) -> bool:
    return any(address.version == 6 and address.ip in _LINK_LOCAL for address in plan.addresses)


def _address_steps(standing: frozenset[Interface], plan: LinkPlan) -> list[Step]:
    wanted = frozenset(plan.addresses)
    extra = standing - wanted
    if not _has_own_link_local(plan):
        extra = frozenset(
            address for address in extra if not (address.version == 6 and address.ip in _LINK_LOCAL)
        )
    steps = [_remove_address(plan.name, address) for address in sorted(extra, key=str)]
    # The order of the plan is kept: the first address of a subnet is the one the kernel speaks with.
    steps += [_add_address(plan, address) for address in plan.addresses if address not in standing]
    return steps


def _remove_address(link: str, address: Interface) -> Step:
    def act(netlink: Netlink) -> None:
        try:
            netlink.change(_address_message(link, address), RTM_DELADDR)
        except OSError as error:
            # Gone with the primary address of its subnet, a step earlier.
            if error.errno != errno.EADDRNOTAVAIL:
                raise

    return Step(Change("address", f"remove {address} from {link}"), act)


def _add_address(plan: LinkPlan, address: Interface) -> Step:
    def act(netlink: Netlink) -> None:
        message = _address_message(plan.name, address)
        if plan.type == "tap" and address.version == 4 and address.network.prefixlen < 31:
            message["attrs"].append(["IFA_BROADCAST", str(address.network.broadcast_address)])
        try:
            netlink.change(message, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL)
        except OSError as error:
            if address.version == 6 and error.errno in (errno.EACCES, errno.EPERM, errno.EOPNOTSUPP):
                raise HostError(
                    f"address: add {address} to {plan.name}", _ipv6_remedy(plan, error)
                ) from error
            raise

    return Step(Change("address", f"add {address} to {plan.name}"), act)


def _ipv6_remedy(plan: LinkPlan, error: OSError) -> str:
    return (
        f"{error.strerror}; IPv6 may be disabled on this machine: "
        f"sysctl net.ipv6.conf.default.disable_ipv6=0 net.ipv6.conf.{plan.name}.disable_ipv6=0"
    )


def _address_message(link: str, address: Interface) -> Any:
    message = ifaddrmsg()
    message["family"] = socket.AF_INET if address.version == 4 else socket.AF_INET6
    message["index"], message["prefixlen"] = socket.if_nametoindex(link), address.network.prefixlen
    message["attrs"] = [["IFA_LOCAL", str(address.ip)], ["IFA_ADDRESS", str(address.ip)]]
    return message


def _set(link: str, words: str, *, state: str = "", generates: int | None = None, **attributes: Any) -> Step:
    def act(netlink: Netlink) -> None:
        message = ifinfmsg()
        message["index"] = socket.if_nametoindex(link)
        message["attrs"] = [[name, value] for name, value in attributes.items()]
        if state:
            message["change"], message["flags"] = IFF_UP, IFF_UP if state == "up" else 0
        if generates is not None:
            inet6 = {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", generates]]}
            message["attrs"].append(["IFLA_AF_SPEC", {"attrs": [["AF_INET6", inet6]]}])
        netlink.change(message, RTM_SETLINK)

    return Step(Change("link", f"{link} {words}"), act)


def delete_link(name: str) -> Step:
    """Gives the step that deletes a link, with its addresses and routes; content if it is gone."""

    def act(netlink: Netlink) -> None:
        message = ifinfmsg()
        message["attrs"] = [["IFLA_IFNAME", name]]
        try:
            netlink.change(message, RTM_DELLINK)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    return Step(Change("link", f"delete {name}"), act)
