"""Network namespaces of a test's own, and a look at all that the host room may touch."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest

P = ParamSpec("P")
R = TypeVar("R")

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000
_libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def in_thread(body: Callable[[], R]) -> R:
    """Runs `body` in a thread of its own and gives back what it gives or raises."""
    outcome: list[R] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(body())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]


def in_namespace(test: Callable[P, R]) -> Callable[P, R]:
    """Runs the test in a new network namespace with lo up, alone in it.

    The namespace is a thread's (unshare works per thread, and sockets, /proc/sys and child
    processes follow the thread), so it has no name and vanishes with it, whatever happens.
    """

    @functools.wraps(test)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if os.geteuid() != 0:
            pytest.skip("needs root: makes network namespaces")

        def body() -> R:
            check(_libc.unshare(CLONE_NEWNET | CLONE_NEWNS))
            check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
            sh("ip link set lo up")
            return test(*args, **kwargs)

        return in_thread(body)

    return wrapped


def in_another_namespace(body: Callable[[], R]) -> R:
    """Runs `body` in a further network namespace, from within a test."""

    def run() -> R:
        check(_libc.unshare(CLONE_NEWNET))
        return body()

    return in_thread(run)


def make_read_only(path: str) -> None:
    """Makes a folder read-only in the test's own mount namespace."""
    name = path.encode()
    check(_libc.mount(name, name, None, _MS_BIND, None))
    check(_libc.mount(name, name, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY, None))


def sh(command: str, stdin: str = "") -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, input=stdin, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def a_veth() -> None:
    """Another program's pair of links, v0 and v1, up.

    Without link-local addresses, which come in their own time. v1 comes up first, so that v0 has
    its carrier at once; the kernel tells v1 of its own a little later, which is waited for.
    """
    sh("ip link add v0 type veth peer name v1")
    sh("ip link set v0 addrgenmode none && ip link set v1 addrgenmode none")
    sh("ip link set v1 up && ip link set v0 up")
    for _ in range(1000):
        if all(link(name)["operstate"] == "UP" for name in ("v0", "v1")):
            return
    raise AssertionError("v0 and v1 have no carrier")


def sysctl(key: str) -> str:
    return (Path("/proc/sys") / key).read_text().strip()


def set_sysctl(key: str, value: str) -> None:
    (Path("/proc/sys") / key).write_text(value)


def link(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sh(f"ip -d -j link show dev {name}"))[0]
    return found


def addresses(name: str) -> set[str]:
    """The addresses of a link as "10.0.0.1/24", without the kernel's own link-local one."""
    infos = json.loads(sh(f"ip -j addr show dev {name}"))[0]["addr_info"]
    return {f"{info['local']}/{info['prefixlen']}" for info in infos if not info["local"].startswith("fe80:")}


def link_locals(name: str) -> set[str]:
    infos = json.loads(sh(f"ip -j -6 addr show dev {name} scope link"))
    return {info["local"] for entry in infos for info in entry.get("addr_info", []) if info}


def routes() -> set[str]:
    """Our routes, as "prefix dev link table metric"."""
    found = set()
    for family in ("-4", "-6"):
        for route in json.loads(sh(f"ip {family} -N -j route show table all proto 176") or "[]"):
            table = route.get("table", "254")
            prefix = {"default": "0.0.0.0/0" if family == "-4" else "::/0"}.get(route["dst"], route["dst"])
            if "/" not in prefix:
                prefix += "/32" if family == "-4" else "/128"
            found.add(f"{prefix} {route['dev']} {table} {route.get('metric', 0)}")
    return found


def machine() -> dict[str, Any]:
    """All that the host room may touch, as it is now, without what changes by itself."""
    links = json.loads(sh("ip -d -j addr show"))
    for entry in links:
        # The carrier of a TUN or TAP link follows its descriptors with a delay of the kernel's own.
        entry["flags"] = sorted(set(entry["flags"]) - {"NO-CARRIER", "LOWER_UP"})
        entry.pop("operstate", None)
        for info in entry["addr_info"]:
            info.pop("valid_life_time", None)
            info.pop("preferred_life_time", None)
    sysctls: dict[str, str] = {}
    for root in (Path("/proc/sys/net/ipv4"), Path("/proc/sys/net/ipv6")):
        for file in sorted([*root.glob("ip_forward"), *root.glob("conf/*/*")]):
            try:
                sysctls[str(file)] = file.read_text()
            except OSError:
                continue
    return {
        "links": links,
        "routes": sorted(sh("ip -N route show table all").replace(" linkdown", "").splitlines()),
        # A link's multicast route comes with its carrier.
        "routes6": sorted(
            line
            for line in sh("ip -N -6 route show table all").replace(" linkdown", "").splitlines()
            if "ff00::/8" not in line
        ),
        "rules": json.loads(sh("ip -j rule show")) + json.loads(sh("ip -6 -j rule show")),
        "nft": sh("nft list ruleset"),
        "sysctls": sysctls,
    }
