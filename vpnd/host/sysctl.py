"""Forwarding between the link and the machine's other links, and the other sysctls we set.

Owns which switches of /proc/sys/net are wanted, their previous values and their way back.
Reads rp_filter for others to see and never changes it.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vpnd.errors import HostError
from vpnd.host.link import RTM_SETLINK, Step
from vpnd.host.netlink import Netlink
from vpnd.host.plan import Change
from vpnd.host.state import SavedSysctl

_IPV4, _IPV6 = "net/ipv4/conf", "net/ipv6/conf"
IPV6_ALL = f"{_IPV6}/all/forwarding"

# linux/rtnetlink.h, linux/if_link.h, linux/ip.h
_IFLA_AF_SPEC, _IFLA_INET_CONF, _DEVCONF_FORWARDING = 26, 1, 1


class Sysctls:
    """The tree under /proc/sys, as the calling thread's network namespace shows it."""

    def __init__(self, root: Path = Path("/proc/sys")) -> None:
        self._root = root

    def read(self, key: str) -> str | None:
        """Gives the value of a key such as "net/ipv4/conf/eth0/forwarding"; None where there is none."""
        try:
            return (self._root / key).read_text().strip()
        except OSError:
            return None

    def is_writable(self, key: str) -> bool:
        """Tells without writing whether `write` would be let in."""
        try:
            with (self._root / key).open("r+b"):
                return True
        except OSError:
            return False

    def write(self, key: str, value: str) -> None:
        """Sets a key; content if the link it belongs to has gone. HostError names the way out.

        Where /proc/sys is read-only (a hardened unit, a container), IPv4 forwarding of a link is
        set over netlink, for which the kernel has a door; for the others it has none.
        """
        try:
            with (self._root / key).open("r+b", buffering=0) as file:
                file.write(value.encode())
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            family, _, rest = key.rpartition("conf/")
            link, _, name = rest.partition("/")
            if family == "net/ipv4/" and name == "forwarding" and link not in ("all", "default"):
                _set_ipv4_forwarding(link, int(value))
                return
            raise HostError(
                f"sysctl: set {_spoken(key)} to {value}", _read_only_remedy(error, key)
            ) from error


def _read_only_remedy(error: OSError, key: str) -> str:
    folder = key.partition("/conf/")[0]
    return (
        f"{error.strerror}; set it on the machine with sysctl -w, "
        f"or let the unit write there: ReadWritePaths=/proc/sys/{folder}/conf"
    )


def _spoken(key: str) -> str:
    # sysctl(8) takes slashes too, and must where a link's own name has a dot.
    return key if "." in key else key.replace("/", ".")


def _set_ipv4_forwarding(link: str, value: int) -> None:
    setting = struct.pack("=HHI", 8, _DEVCONF_FORWARDING, value)
    for kind in (_IFLA_INET_CONF, socket.AF_INET, _IFLA_AF_SPEC):
        setting = struct.pack("=HH", 4 + len(setting), kind) + setting
    # struct ifinfomsg: family, padding, type, index, flags, change.
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, socket.if_nametoindex(link), 0, 0) + setting
    with Netlink() as netlink:
        netlink.change_raw(body, RTM_SETLINK)


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What forwarding takes: the values to set in order, and those that change along with them."""

    wanted: Mapping[str, str]
    affected: Mapping[str, str]


NO_FORWARDING = Forwarding({}, {})


def wanted_forwarding(sysctls: Sysctls, links: Iterable[str], families: Iterable[int]) -> Forwarding:
    """Gives the switches that forwarding through all of `links` takes for the IP versions in use.

    IPv4 asks the incoming link alone. IPv6 asks the whole machine, or, since Linux 6.17, the
    incoming link's force_forwarding. Where only the whole machine can be asked, its links
    would stop to hear router advertisements, which may be where its default route comes from:
    those that listen are told to go on (accept_ra = 2).
    """
    wanted: dict[str, str] = {}
    affected: dict[str, str] = {}
    names = sorted(link for link in links if link != "lo")
    if 4 in families:
        wanted.update({f"{_IPV4}/{link}/forwarding": "1" for link in names})
    whole = sysctls.read(IPV6_ALL) if 6 in families else None
    if whole is not None and sysctls.read(f"{_IPV6}/default/force_forwarding") is not None:
        if whole == "0":
            wanted.update({f"{_IPV6}/{link}/force_forwarding": "1" for link in names})
    elif whole is not None:
        wanted.update({f"{_IPV6}/{link}/accept_ra": "2" for link in names if _hears_routers(sysctls, link)})
        wanted[IPV6_ALL] = "1"
        affected.update({f"{_IPV6}/{link}/forwarding": "1" for link in ["default", "lo", *names]})
    return Forwarding(wanted, affected)


def _hears_routers(sysctls: Sysctls, link: str) -> bool:
    accepts, forwards = (sysctls.read(f"{_IPV6}/{link}/{name}") for name in ("accept_ra", "forwarding"))
    # A 2 is the operator's or our own earlier answer: kept wanted, so that ours is not taken back.
    return accepts == "2" or (accepts == "1" and forwards == "0" and sysctls.read(IPV6_ALL) == "0")


def record_forwarding(
    sysctls: Sysctls,
    forwarding: Forwarding,
    saved: Mapping[str, SavedSysctl],
    siblings: Mapping[str, SavedSysctl],
) -> dict[str, SavedSysctl]:
    """Gives the previous values to keep for the wanted switches.

    A value that stands already is not ours, except where another instance of vpnd set it: then
    what was before that one is kept, so that the last of them to go puts it back.
    """
    known = {**siblings, **saved}
    record: dict[str, SavedSysctl] = {}
    for key, value in forwarding.wanted.items():
        present = _present(sysctls, key)
        if key in known:
            record[key] = known[key]
        elif present is not None and present != value:
            record[key] = SavedSysctl(previous=present, set=value)
    if IPV6_ALL in record:
        for key, value in forwarding.affected.items():
            present = sysctls.read(key)
            if key in known:
                record[key] = known[key]
            elif present is not None and IPV6_ALL not in known:
                # Even where it stands already: the way back of the machine-wide switch clears it.
                record[key] = SavedSysctl(previous=present, set=value)
    return record


def forwarding_steps(sysctls: Sysctls, forwarding: Forwarding) -> list[Step]:
    """Gives the steps that set what is wanted and does not stand."""
    return [
        _write(sysctls, key, value, f"set {_spoken(key)} from {present} to {value}")
        for key, value in forwarding.wanted.items()
        if (present := _present(sysctls, key)) not in (None, value)
    ]


def _present(sysctls: Sysctls, key: str) -> str | None:
    """Gives a key's value; of a link that is yet to be made, what it will start with."""
    value = sysctls.read(key)
    if value is None:
        family, _, rest = key.rpartition("/conf/")
        value = sysctls.read(f"{family}/conf/default/{rest.rpartition('/')[2]}")
    return value


def restore_steps(
    sysctls: Sysctls, saved: Mapping[str, SavedSysctl], siblings: Mapping[str, SavedSysctl]
) -> list[Step]:
    """Gives the steps that put previous values back, but for those that another instance needs.

    A value that is no longer what we set was changed by someone else since: it stays.
    """
    ours = {key: value for key, value in saved.items() if key not in siblings}
    if IPV6_ALL in siblings:
        ours = {key: value for key, value in ours.items() if not key.startswith(f"{_IPV6}/")}
    standing = {key: value for key, value in ours.items() if sysctls.read(key) == value.set}
    # The machine-wide switch comes first, because the kernel copies it into every link's own.
    order = sorted(standing, key=lambda key: (key != IPV6_ALL, "/default/" not in key, key))
    return [
        _write(sysctls, key, standing[key].previous, f"put {_spoken(key)} back to {standing[key].previous}")
        for key in order
    ]


def _write(sysctls: Sysctls, key: str, value: str, words: str) -> Step:
    def act(netlink: Netlink) -> None:  # noqa: ARG001 - every step's deed takes the open conversation
        sysctls.write(key, value)

    return Step(Change("sysctl", words), act)


def router_advertisement_steps(sysctls: Sysctls, link: str, link_type: str) -> list[Step]:
    """Gives the step after which the link takes no address or route from router advertisements.

    On TUN no stranger's advertisement passes the check of inner sources: there it is a second
    lock, left open where /proc/sys is read-only. On TAP it is the only one.
    """
    key = f"{_IPV6}/{link}/accept_ra"
    if _present(sysctls, key) in (None, "0"):
        return []
    openable = key if sysctls.read(key) is not None else f"{_IPV6}/default/accept_ra"
    if link_type == "tun" and not sysctls.is_writable(openable):
        return []
    return [_write(sysctls, key, "0", f"set {_spoken(key)} to 0")]
