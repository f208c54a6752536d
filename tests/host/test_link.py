import fcntl
import os
from pathlib import Path

import pytest

from tests.host.namespace import (
    addresses,
    in_namespace,
    link,
    link_locals,
    make_read_only,
    routes,
    set_sysctl,
    sh,
    sysctl,
)
from tests.host.plans import a_link, a_plan, a_route
from vpnd.errors import HostError
from vpnd.host import Host, HostPlan, open_link
from vpnd.host.tun import TUNSETPERSIST

IPV6_CONF = "net/ipv6/conf/vpn-site"


def settle(host: Host, plan: HostPlan) -> None:
    host.apply(plan)
    assert host.difference(plan) == ()
    assert host.apply(plan) == ()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "site")


@in_namespace
def test_a_tun_link_stands_as_planned_and_a_second_apply_changes_nothing(host: Host) -> None:
    settle(host, a_plan(a_link("10.255.0.1/30", "fd00:ff::1/64", mtu=1380, txqueuelen=777)))
    shown = link("vpn-site")
    assert (shown["mtu"], shown["txqlen"], "UP" in shown["flags"]) == (1380, 777, True)
    assert shown["linkinfo"]["info_data"]["type"] == "tun"
    assert shown["linkinfo"]["info_data"]["persist"] is True
    assert shown["ifalias"] == "vpnd site"
    assert addresses("vpn-site") == {"10.255.0.1/30", "fd00:ff::1/64"}
    assert sysctl(f"{IPV6_CONF}/accept_ra") == "0"


@in_namespace
def test_a_tap_link_has_its_mac_before_it_comes_up(host: Host) -> None:
    mac = bytes.fromhex("0276706e0001")
    descriptors = open_link(a_link(type="tap"))
    try:
        settle(host, a_plan(a_link("10.8.0.1/20", type="tap", mac=mac)))
        assert link("vpn-site")["address"] == "02:76:70:6e:00:01"
        assert link_locals("vpn-site") == {"fe80::76:70ff:fe6e:1"}
        assert "brd 10.8.15.255" in sh("ip addr show dev vpn-site")
    finally:
        os.close(descriptors[0])


@in_namespace
def test_a_new_mac_renews_the_link_local_address(host: Host) -> None:
    descriptors = open_link(a_link(type="tap"))
    try:
        settle(host, a_plan(a_link("fd00::1/64", type="tap", mac=bytes.fromhex("0276706e0001"))))
        settle(host, a_plan(a_link("fd00::1/64", type="tap", mac=bytes.fromhex("0276706e0002"))))
        assert link_locals("vpn-site") == {"fe80::76:70ff:fe6e:2"}
        assert addresses("vpn-site") == {"fd00::1/64"}
    finally:
        os.close(descriptors[0])


@in_namespace
def test_two_tun_links_have_different_link_local_addresses(tmp_path: Path) -> None:
    """Link-local addresses over TUN are unique without being configured."""
    held: list[int] = []
    try:
        for name in ("vpn-a", "vpn-b"):
            held += open_link(a_link(name=name))
            plan = a_plan(a_link("10.0.0.1/32", name=name), instance=name)
            settle(Host(tmp_path / name), plan)
        (one,), (other,) = link_locals("vpn-a"), link_locals("vpn-b")
        assert one != other
    finally:
        for descriptor in held:
            os.close(descriptor)


@in_namespace
@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_a_planned_link_local_address_replaces_the_kernels_and_gives_way(host: Host, kind: str) -> None:
    descriptors = open_link(a_link(type=kind))
    try:
        settle(host, a_plan(a_link("fd00::1/64", type=kind)))
        (kernels,) = link_locals("vpn-site")
        settle(host, a_plan(a_link("fd00::1/64", "fe80::1/64", type=kind)))
        assert link_locals("vpn-site") == {"fe80::1"}
        settle(host, a_plan(a_link("fd00::1/64", type=kind)))
        (again,) = link_locals("vpn-site") - {"fe80::1"}
        assert kind == "tun" or again == kernels
    finally:
        os.close(descriptors[0])


@in_namespace
def test_addresses_not_in_the_plan_go_and_secondary_ones_survive_their_primary(host: Host) -> None:
    settle(host, a_plan(a_link("10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24")))
    sh("ip addr add 192.0.2.1/24 dev vpn-site && ip addr add fd00:bad::1/64 dev vpn-site")
    settle(host, a_plan(a_link("10.0.0.2/24", "10.0.0.3/24", "fd00::1/64")))
    assert addresses("vpn-site") == {"10.0.0.2/24", "10.0.0.3/24", "fd00::1/64"}


@in_namespace
def test_a_leased_address_is_left_to_the_client_that_renews_it(host: Host) -> None:
    """What DHCP gave has a lifetime; one that the plan has too stays when the lease is over."""
    settle(host, a_plan(a_link("10.0.0.1/24", type="tap")))
    sh("ip addr add 192.0.2.1/24 dev vpn-site valid_lft 3600 preferred_lft 3600")
    sh("ip addr add 2001:db8::7/64 dev vpn-site valid_lft 3600 preferred_lft 3600")
    settle(host, a_plan(a_link("10.0.0.2/24", type="tap")))
    assert addresses("vpn-site") == {"10.0.0.2/24", "192.0.2.1/24", "2001:db8::7/64"}
    assert host.apply(a_plan(a_link("10.0.0.2/24", "192.0.2.1/24", type="tap"))) == ()


@in_namespace
def test_a_link_turned_down_and_bent_by_hand_is_put_right(host: Host) -> None:
    plan = a_plan(a_link("10.0.0.1/24", "fd00::1/64"))
    settle(host, plan)
    sh("ip link set vpn-site down mtu 1300 txqueuelen 9 && ip addr flush dev vpn-site")
    changes = [str(change) for change in host.difference(plan)]
    assert changes == [
        "link: vpn-site mtu 1420",
        "link: vpn-site txqueuelen 1000",
        "address: add 10.0.0.1/24 to vpn-site",
        "address: add fd00::1/64 to vpn-site",
        "link: vpn-site up",
    ]
    settle(host, plan)


@in_namespace
def test_disabled_ipv6_is_named_with_its_remedy(host: Host) -> None:
    set_sysctl("net/ipv6/conf/default/disable_ipv6", "1")
    with pytest.raises(
        HostError, match=r"add fd00::1/64 to vpn-site.*net\.ipv6\.conf\.vpn-site\.disable_ipv6=0"
    ):
        host.apply(a_plan(a_link("fd00::1/64")))
    settle(host, a_plan(a_link("10.0.0.1/24")))


@in_namespace
def test_a_tun_link_comes_up_where_proc_sys_is_read_only_and_a_tap_link_says_what_it_lacks(
    host: Host,
) -> None:
    make_read_only("/proc/sys")
    settle(host, a_plan(a_link("10.0.0.1/24")))
    host.remove("site")
    with pytest.raises(HostError, match=r"accept_ra to 0.*ReadWritePaths=/proc/sys/net/ipv6/conf"):
        host.apply(a_plan(a_link("10.0.0.1/24", type="tap")))


@in_namespace
def test_a_mtu_that_the_kernel_refuses_is_named_with_the_changes_made_before(host: Host) -> None:
    with pytest.raises(HostError, match=r"link: vpn-site mtu 70000: Invalid argument.*mtu greater") as caught:
        host.apply(a_plan(a_link("10.0.0.1/24", mtu=70000)))
    assert [change.step for change in caught.value.done][:1] == ["link"]  # type: ignore[attr-defined]


@in_namespace
def test_a_link_of_one_queue_gives_way_to_one_of_several_with_all_that_stood_on_it(host: Host) -> None:
    settle(host, a_plan(a_link("10.0.0.1/24", "fd00::1/64"), a_route("10.20.0.0/16")))
    before = link("vpn-site")["ifindex"]
    plan = a_plan(a_link("10.0.0.1/24", "fd00::1/64", queues=2), a_route("10.20.0.0/16"))
    changes = [str(change) for change in host.difference(plan)]
    assert changes[:2] == [
        "link: delete vpn-site: it was made for one queue, 2 are wanted",
        "link: create tun link vpn-site of 2 queues",
    ]
    settle(host, plan)
    shown = link("vpn-site")
    assert shown["ifindex"] != before
    assert shown["linkinfo"]["info_data"]["multi_queue"] is True
    assert addresses("vpn-site") == {"10.0.0.1/24", "fd00::1/64"}
    assert routes() == {"10.20.0.0/16 vpn-site 254 50"}
    assert sysctl(f"{IPV6_CONF}/accept_ra") == "0"


@in_namespace
def test_a_link_of_several_queues_stays_for_a_plan_of_one(host: Host) -> None:
    settle(host, a_plan(a_link("10.0.0.1/24", queues=2)))
    before = link("vpn-site")["ifindex"]
    assert host.make_way(a_plan(a_link("10.0.0.1/24")), is_held=False) == ()
    settle(host, a_plan(a_link("10.0.0.1/24")))
    assert link("vpn-site")["ifindex"] == before


@in_namespace
def test_way_is_made_only_where_there_is_no_room_and_also_while_we_hold_the_link(host: Host) -> None:
    wide = a_plan(a_link("10.0.0.1/24", queues=2))
    assert host.make_way(wide, is_held=False) == ()
    settle(host, a_plan(a_link("10.0.0.1/24")))
    descriptors = open_link(a_link())
    try:
        (change,) = host.make_way(wide, is_held=True)
        assert change.detail == "delete vpn-site: it was made for one queue, 2 are wanted"
        assert "vpn-site" not in sh("ip -br link")
        assert host.make_way(wide, is_held=True) == ()
    finally:
        os.close(descriptors[0])
    os.close(open_link(wide.link)[0])


@in_namespace
def test_way_is_not_made_through_a_link_that_another_holds_or_owns(host: Host, tmp_path: Path) -> None:
    settle(host, a_plan(a_link("10.0.0.1/24")))
    wide = a_plan(a_link("10.0.0.1/24", queues=2))
    descriptors = open_link(a_link())
    try:
        with pytest.raises(HostError, match="replace link vpn-site: another process holds it"):
            host.make_way(wide, is_held=False)
    finally:
        os.close(descriptors[0])
    with pytest.raises(HostError, match="belongs to vpnd's instance site"):
        Host(tmp_path / "other").make_way(a_plan(a_link(queues=2), instance="other"), is_held=False)
    assert "vpn-site" in sh("ip -br link")


@in_namespace
def test_a_link_without_its_alias_is_removed_all_the_same(host: Host, tmp_path: Path) -> None:
    """[E11] Its maker died between its birth and the first change."""
    assert host.make_way(a_plan(a_link()), is_held=False) == ()
    os.close(open_link(a_link())[0])
    Host(tmp_path / "site").remove("site")
    assert "vpn-site" not in sh("ip -br link")


@in_namespace
def test_links_of_others_are_refused_before_anything_is_touched(host: Host) -> None:
    sh("ip link add vpn-site type veth peer name v1")
    before = sh("ip -d addr")
    for refused in (host.difference, host.apply):
        with pytest.raises(HostError, match="taken by a veth link"):
            refused(a_plan(a_link("10.0.0.1/24")))
    assert sh("ip -d addr") == before


@in_namespace
def test_a_link_of_another_instance_is_refused(host: Host, tmp_path: Path) -> None:
    settle(host, a_plan(a_link("10.0.0.1/24")))
    with pytest.raises(HostError, match="belongs to vpnd's instance site"):
        Host(tmp_path / "other").apply(a_plan(a_link("10.0.0.1/24"), instance="other"))


@in_namespace
def test_a_link_of_another_type_is_refused(host: Host) -> None:
    settle(host, a_plan(a_link(type="tap")))
    with pytest.raises(HostError, match='stands as type "tap", and "tun" is wanted'):
        host.apply(a_plan(a_link(type="tun")))


@in_namespace
def test_a_link_that_lives_only_as_long_as_its_program_is_refused(host: Host) -> None:
    descriptors = open_link(a_link())
    try:
        fcntl.ioctl(descriptors[0], TUNSETPERSIST, 0)
        with pytest.raises(HostError, match="another program made it for as long as it runs"):
            host.apply(a_plan(a_link()))
    finally:
        os.close(descriptors[0])
