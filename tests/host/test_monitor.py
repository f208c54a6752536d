import os
import select
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import vpnd.host.monitor as module
from tests.host.namespace import a_veth, in_another_namespace, in_namespace, sh
from tests.host.plans import a_link
from vpnd.host import AddressesChanged, LinkGone, Monitor, MonitorEvent, RoutesChanged, open_link

survey = module._survey


def news(monitor: Monitor) -> list[MonitorEvent]:
    """What the monitor has to tell: the kernel has queued it before the command that caused it ended."""
    return monitor.read()


def awaited(monitor: Monitor, event: MonitorEvent) -> bool:
    """Whether the event comes; a carrier is told by the kernel in its own time."""
    while select.select([monitor], [], [], 5)[0]:
        if event in monitor.read():
            return True
    return False


@contextmanager
def watching() -> Iterator[Monitor]:
    a_veth()
    sh("sysctl -q net.ipv6.conf.v0.disable_ipv6=1 net.ipv6.conf.v1.disable_ipv6=1")
    with Monitor() as monitor:
        monitor.read()
        yield monitor


@in_namespace
def test_a_quiet_machine_is_no_news_and_the_descriptor_is_not_readable() -> None:
    with watching() as monitor:
        assert news(monitor) == []
        assert select.select([monitor], [], [], 0)[0] == []
        sh("ip addr add 10.0.0.1/24 dev v0")
        assert select.select([monitor], [], [], 1)[0] == [monitor]


@in_namespace
def test_an_address_that_comes_or_goes_names_its_link() -> None:
    with watching() as monitor:
        sh("ip addr add 10.0.0.1/24 dev v0")
        assert AddressesChanged(frozenset({"v0"})) in news(monitor)
        sh("ip addr del 10.0.0.1/24 dev v0")
        assert AddressesChanged(frozenset({"v0"})) in news(monitor)


@in_namespace
def test_the_renewal_of_an_address_is_no_news() -> None:
    with watching() as monitor:
        sh("ip addr add 10.0.0.1/24 dev v0 valid_lft 100 preferred_lft 100")
        news(monitor)
        sh("ip addr change 10.0.0.1/24 dev v0 valid_lft 200 preferred_lft 200")
        assert AddressesChanged(frozenset({"v0"})) not in news(monitor)


@in_namespace
def test_a_deleted_link_is_named() -> None:
    """The link deleted under the daemon is told by its name."""
    with watching() as monitor:
        for descriptor in open_link(a_link()):
            os.close(descriptor)
        assert LinkGone("vpn-site") not in news(monitor)
        sh("ip link del vpn-site")
        assert LinkGone("vpn-site") in news(monitor)
        assert news(monitor) == []


@in_namespace
def test_a_link_renamed_or_replaced_between_two_reads_is_gone() -> None:
    """A link that vanishes and returns with another index is told both times."""
    with watching() as monitor:
        sh("ip link set v0 down && ip link set v0 name w0")
        assert LinkGone("v0") in news(monitor)
        sh("ip link del w0 && ip link add w0 type veth peer name v1")
        assert {LinkGone("w0"), LinkGone("v1")} <= set(news(monitor))


@in_namespace
def test_a_route_that_comes_or_goes_is_told_once_and_our_own_new_ones_are_not() -> None:
    """A route that returns is told at once."""
    with watching() as monitor:
        sh(
            "ip route add 10.1.0.0/16 dev v0; ip route add 10.2.0.0/16 dev v0"
            "; ip -6 route add fd00::/64 dev lo"
        )
        assert news(monitor) == [RoutesChanged()]
        sh("ip route add unreachable 10.3.0.0/16")
        assert news(monitor) == [RoutesChanged()]
        sh("ip route add 10.4.0.0/16 dev v0 proto 176")
        assert news(monitor) == []
        sh("ip route del 10.4.0.0/16 dev v0 proto 176")
        assert news(monitor) == [RoutesChanged()]
        sh("ip route add multicast 224.0.0.0/8 dev v0")
        assert news(monitor) == []


@in_namespace
def test_a_link_that_loses_or_regains_its_carrier_changes_the_ways_out() -> None:
    with watching() as monitor:
        sh("ip link set v1 down")
        assert awaited(monitor, RoutesChanged())
        sh("ip link set v1 up")
        assert awaited(monitor, RoutesChanged())


@in_namespace
def test_a_link_that_enters_or_leaves_a_bridge_changes_the_ways_out() -> None:
    with watching() as monitor:
        sh("ip link add br0 type bridge")
        for change in ("master br0", "nomaster"):
            news(monitor)
            sh(f"ip link set v0 {change}")
            assert awaited(monitor, RoutesChanged())


@in_namespace
def test_a_change_of_a_link_that_moves_no_packet_is_no_news() -> None:
    with watching() as monitor:
        sh("ip link set v0 txqueuelen 77 && ip link set v0 alias x && ip link set v0 mtu 1400")
        assert news(monitor) == []


@in_namespace
def test_lost_news_are_made_up_for_by_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    with watching() as monitor:
        for descriptor in open_link(a_link()):
            os.close(descriptor)
        sh("ip addr add 10.0.0.1/24 dev v0")
        news(monitor)
        looks: list[object] = []

        def counted_survey() -> object:
            looks.append(survey())
            return looks[-1]

        monkeypatch.setattr(module, "_survey", counted_survey)
        # More than the socket's buffer holds, in one child process.
        flood = "".join(
            f"route add 10.{high}.{low}.0/24 dev v0\n" for high in range(50, 80) for low in range(250)
        )
        sh("ip -batch -", stdin=flood)
        sh("ip link del vpn-site && ip addr del 10.0.0.1/24 dev v0 && ip addr add 10.0.0.2/24 dev v0")
        assert news(monitor) == [LinkGone("vpn-site"), AddressesChanged(frozenset({"v0"})), RoutesChanged()]
        assert looks


@in_namespace
def test_a_monitor_keeps_watching_the_namespace_it_was_made_in() -> None:
    with watching() as monitor:
        sh("ip addr add 10.0.0.1/24 dev v0")
        assert AddressesChanged(frozenset({"v0"})) in in_another_namespace(monitor.read)
