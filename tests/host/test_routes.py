from pathlib import Path

import pytest

from tests.host.namespace import in_namespace, routes, sh
from tests.host.plans import a_link, a_plan, a_route
from vpnd.errors import HostError
from vpnd.host import ROUTE_PROTOCOL, Host, HostPlan


def settle(host: Host, plan: HostPlan) -> None:
    host.apply(plan)
    assert host.difference(plan) == ()
    assert host.apply(plan) == ()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "site")


def another_link() -> None:
    sh("ip link add v0 type veth peer name v1 && ip addr add 10.9.0.1/24 dev v0 && ip link set v0 up")


LINK = a_link("10.255.0.1/30", "fd00:ff::1/64")


@in_namespace
def test_routes_of_both_families_and_several_tables_carry_our_protocol_number(host: Host) -> None:
    plan = a_plan(
        LINK,
        a_route("10.20.0.0/16"),
        a_route("10.20.0.7/32", metric=0),
        a_route("0.0.0.0/0", table=1000),
        a_route("::/0", table=1000, metric=0),
        a_route("fd00:20::/48", table=77),
    )
    settle(host, plan)
    assert routes() == {
        "10.20.0.0/16 vpn-site 254 50",
        "10.20.0.7/32 vpn-site 254 0",
        "0.0.0.0/0 vpn-site 1000 50",
        "::/0 vpn-site 1000 1024",
        "fd00:20::/48 vpn-site 77 50",
    }
    assert ROUTE_PROTOCOL == 176


@in_namespace
def test_a_changed_plan_costs_only_its_own_routes(host: Host) -> None:
    settle(host, a_plan(LINK, a_route("10.20.0.0/16"), a_route("10.30.0.0/16"), a_route("fd00:20::/48")))
    changed = a_plan(
        LINK, a_route("10.30.0.0/16"), a_route("fd00:20::/48", metric=60), a_route("10.40.0.0/16")
    )
    assert [str(change) for change in host.apply(changed)] == [
        "route: remove 10.20.0.0/16 table main metric 50 from vpn-site",
        "route: remove fd00:20::/48 table main metric 50 from vpn-site",
        "route: add 10.40.0.0/16 table main metric 50 into vpn-site",
        "route: add fd00:20::/48 table main metric 60 into vpn-site",
    ]
    assert host.difference(changed) == ()


@in_namespace
@pytest.mark.parametrize(
    ("foreign", "wanted"),
    [
        ("10.20.0.0/16 dev v0 metric 50 proto static", a_route("10.20.0.0/16")),
        ("unreachable fd00:20::/48 metric 50", a_route("fd00:20::/48")),
        ("10.20.0.0/16 dev v0 metric 50 table 1000", a_route("10.20.0.0/16", table=1000)),
        ("10.20.0.0/16 dev v0 metric 50 proto 176", a_route("10.20.0.0/16")),
    ],
)
def test_a_foreign_route_of_the_same_prefix_and_metric_is_refused_and_left_alone(
    host: Host, foreign: str, wanted: object
) -> None:
    another_link()
    family = "-6 " if "fd00" in foreign else ""
    sh(f"ip {family}route add {foreign}")
    before = sh("ip route show table all; ip -6 route show table all; ip -br addr")
    plan = a_plan(LINK, a_route("10.99.0.0/16"), wanted)  # type: ignore[arg-type]
    for refused in (host.difference, host.apply):
        with pytest.raises(HostError, match=r"a route that is not ours.*\[routing\] metric"):
            refused(plan)
    assert sh("ip route show table all; ip -6 route show table all; ip -br addr") == before


@in_namespace
def test_the_foreign_route_is_named_with_its_link_and_protocol(host: Host) -> None:
    another_link()
    sh("ip route add 10.20.0.0/16 dev v0 metric 50 proto static")
    with pytest.raises(HostError, match=r"10.20.0.0/16 table main metric 50.*through v0, protocol static"):
        host.apply(a_plan(LINK, a_route("10.20.0.0/16")))


@in_namespace
def test_a_foreign_route_of_another_metric_lives_beside_ours(host: Host) -> None:
    another_link()
    sh("ip route add 10.20.0.0/16 dev v0 metric 60 && ip -6 route add fd00:20::/48 dev v0 metric 60")
    settle(host, a_plan(LINK, a_route("10.20.0.0/16"), a_route("fd00:20::/48")))
    settle(host, a_plan(LINK))
    assert "10.20.0.0/16 dev v0" in sh("ip route")
    assert "fd00:20::/48 dev v0" in sh("ip -6 route")


@in_namespace
def test_foreign_routes_into_our_link_stay(host: Host) -> None:
    settle(host, a_plan(LINK, a_route("10.20.0.0/16")))
    sh("ip route add 10.77.0.0/16 dev vpn-site proto static")
    settle(host, a_plan(LINK))
    assert "10.77.0.0/16 dev vpn-site proto static" in sh("ip route")


@in_namespace
def test_the_kernels_own_route_of_the_links_subnet_serves_as_ours(host: Host) -> None:
    settle(host, a_plan(a_link("10.255.0.1/24")))
    settle(host, a_plan(a_link("10.255.0.1/24"), a_route("10.255.0.0/24", metric=0), a_route("10.20.0.0/16")))
    assert routes() == {"10.20.0.0/16 vpn-site 254 50"}


@in_namespace
def test_routes_flushed_by_hand_come_back(host: Host) -> None:
    plan = a_plan(LINK, a_route("10.20.0.0/16"), a_route("fd00:20::/48"))
    settle(host, plan)
    before = routes()
    sh("ip link set vpn-site down && ip link set vpn-site up")
    settle(host, plan)
    assert routes() == before


@in_namespace
def test_five_hundred_routes_are_added_and_removed(host: Host) -> None:
    many = [a_route(f"10.{high}.{low}.0/24") for high in range(100, 110) for low in range(50)]
    settle(host, a_plan(LINK, *many))
    assert len(routes()) == 500
    settle(host, a_plan(LINK, many[0]))
    assert routes() == {"10.100.0.0/24 vpn-site 254 50"}
