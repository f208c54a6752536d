"""Rules and the kill switch of a full tunnel, by what the kernel then says of packets."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import pytest

from tests.host.namespace import a_veth, in_namespace, machine, sh
from tests.host.plans import a_link, a_plan, a_route
from vpnd.host import FullTunnelPlan, Host, HostPlan

MARK, TABLE = 0x76706E, 5180
SO_MARK = 36


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "site")


def a_full_tunnel(*, allow_lan: bool = True, kill_switch: bool = False, both: bool = True) -> HostPlan:
    versions = frozenset({4, 6}) if both else frozenset({4})
    routes = [a_route("0.0.0.0/0", TABLE), a_route("::/0", TABLE)]
    return a_plan(
        a_link("10.8.0.2/24", "fd00:8::2/64"),
        *routes[: len(versions)],
        full_tunnel=FullTunnelPlan(MARK, TABLE, versions, allow_lan, kill_switch),
    )


def an_uplink() -> None:
    """v0 with a network, and a default route of each IP version to somebody in it."""
    a_veth()
    sh("ip addr add 192.0.2.1/24 dev v0 && ip addr add 2001:db8::1/64 dev v0 nodad")
    for version, router in (("-4", "192.0.2.9"), ("-6", "2001:db8::9")):
        sh(f"ip {version} neigh add {router} lladdr 02:00:00:00:00:09 dev v0")
        sh(f"ip {version} route add default via {router}")


def way(address: str, mark: int = 0) -> str:
    words = sh(f"ip route get {address} mark {mark}").split()
    return words[words.index("dev") + 1]


def settle(host: Host, plan: HostPlan) -> None:
    host.apply(plan)
    assert host.difference(plan) == ()


@in_namespace
def test_everything_but_the_marked_goes_into_the_link(host: Host) -> None:
    an_uplink()
    for allow_lan, near in ((True, "v0"), (False, "vpn-site"), (True, "v0")):
        settle(host, a_full_tunnel(allow_lan=allow_lan))
        for far, lan in (("198.51.100.1", "192.0.2.7"), ("2001:db8:f::1", "2001:db8::7")):
            assert (way(far), way(far, MARK)) == ("vpn-site", "v0")
            assert (way(lan), way(lan, MARK)) == (near, "v0")
    settle(host, a_full_tunnel(both=False))
    assert (way("198.51.100.1"), way("2001:db8:f::1")) == ("vpn-site", "v0")


@in_namespace
def test_all_of_it_is_undone_and_rules_of_others_stay(host: Host) -> None:
    an_uplink()
    sh("ip rule add priority 31000 lookup 7 && ip -6 rule add priority 100 fwmark 3 lookup 7")
    before = machine()
    settle(host, a_full_tunnel(kill_switch=True))
    Host(Path("/nowhere/site")).remove("other")
    assert host.difference(a_full_tunnel(kill_switch=True)) == ()
    settle(host, a_plan(a_link("10.8.0.2/24")))
    assert "0x76706e" not in sh("ip rule && ip -6 rule && nft list ruleset")
    settle(host, a_full_tunnel(kill_switch=True))
    # Found again without a memory.
    for file in host._file.parent.glob("*"):
        file.unlink()
    host.remove("site")
    assert machine() == before


# What comes out at the far end of the uplink, by what it was sent as.
SEEN = """
table netdev seen {
    chain c {
        type filter hook ingress device v1 priority 0;
        udp dport 9 counter comment "far"
        udp dport 10 counter comment "marked"
        udp dport 11 counter comment "near"
    }
}
"""


def seen() -> dict[str, int]:
    entries = json.loads(sh("nft -j list table netdev seen"))["nftables"]
    return {
        entry["rule"]["comment"]: part["counter"]["packets"]
        for entry in entries
        if "rule" in entry
        for part in entry["rule"]["expr"]
        if "counter" in part
    }


def send(address: str, port: int = 9, mark: int = 0) -> None:
    """Sends two datagrams by the uplink, whatever the routes say; the machine may refuse."""
    version = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(version, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"v0")
        if mark:
            sender.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        for _ in range(2):
            with contextlib.suppress(OSError):
                sender.sendto(b"x", (address, port))


@in_namespace
def test_with_the_kill_switch_only_the_marked_and_near_networks_leave(host: Host) -> None:
    an_uplink()
    sh("nft -f -", stdin=SEEN)
    settle(host, a_full_tunnel(kill_switch=True))
    for far, lan in (("198.51.100.1", "192.0.2.9"), ("2001:db8:f::1", "2001:db8::9")):
        send(far)
        send(far, 10, MARK)
        send(lan, 11)
    assert seen() == {"far": 0, "marked": 4, "near": 4}
    settle(host, a_full_tunnel(kill_switch=True, allow_lan=False))
    send("192.0.2.9", 11)
    send("2001:db8::9", 11)
    assert seen()["near"] == 4
    # The link goes, and with it its routes: nothing turns to the uplink.
    sh("ip link del vpn-site")
    send("198.51.100.1")
    assert seen()["far"] == 0
    host.remove("site")
    send("198.51.100.1")
    assert seen()["far"] == 2
