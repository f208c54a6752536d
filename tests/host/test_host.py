import asyncio
import ipaddress
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.host.namespace import (
    a_veth,
    addresses,
    in_another_namespace,
    in_namespace,
    link,
    machine,
    make_read_only,
    routes,
    sh,
)
from tests.host.plans import a_link, a_plan, a_route, a_site
from vpnd.errors import HostError
from vpnd.host import Host, HostPlan, LinkPlan, RoutePlan, open_link


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "site")


def a_busy_machine() -> None:
    """Another program's links, routes, rules and tables, which must come out unharmed."""
    a_veth()
    sh(
        "ip addr add 192.0.2.1/24 dev v0 && ip -6 addr add 2001:db8::1/64 dev v0 nodad"
        " && ip route add 10.0.0.0/8 dev v0 metric 50 && ip -6 route add fd00::/16 dev v0"
        " && ip route add 10.66.0.0/16 dev v0 proto 176 && ip rule add fwmark 7 table 77"
        " && ip tuntap add dev tap-other mode tap && nft add table inet other"
    )


@in_namespace
def test_after_apply_and_remove_the_machine_is_as_before(host: Host, tmp_path: Path) -> None:
    """[E11] Links, addresses, routes, rules, nftables and sysctls before and after are equal."""
    a_busy_machine()
    before = machine()
    host.apply(a_site())
    assert machine() != before
    host.remove("site")
    assert machine() == before
    assert list((tmp_path / "site").iterdir()) == []
    assert host.remove("site") == ()


@in_namespace
def test_what_was_applied_outlives_its_process_and_another_one_finds_nothing_to_do(tmp_path: Path) -> None:
    """[E11] The next process after an exit or a kill takes over what stands."""
    a_busy_machine()
    Host(tmp_path / "site").apply(a_site())
    before = machine()
    later = Host(tmp_path / "site")
    assert later.apply(a_site()) == ()
    assert machine() == before


@in_namespace
def test_the_dry_run_changes_nothing_and_names_what_apply_then_does(host: Host, tmp_path: Path) -> None:
    a_busy_machine()
    before = machine()
    foreseen = host.difference(a_site())
    assert machine() == before
    assert not (tmp_path / "site").exists()
    assert host.apply(a_site()) == foreseen
    assert host.difference(a_site()) == ()


@in_namespace
def test_a_renamed_link_is_cleaned_up_under_its_old_name(host: Host) -> None:
    a_busy_machine()
    before = machine()
    host.apply(a_site())
    renamed = a_site()
    renamed = replace(renamed, link=replace(renamed.link, name="vpn-new"))
    changes = host.apply(renamed)
    assert str(changes[0]) == "link: delete vpn-site"
    assert host.difference(renamed) == ()
    assert "vpn-site" not in sh("ip -br link") + sh("nft list ruleset")
    assert {route.split()[1] for route in routes()} == {"vpn-new", "v0"}
    host.remove("site")
    assert machine() == before


@in_namespace
def test_a_lost_record_still_leaves_the_link_and_the_table_removable(host: Host, tmp_path: Path) -> None:
    host.apply(a_plan(a_link("10.0.0.1/24", name="odd"), masquerade=("10.0.0.0/24",)))
    (tmp_path / "site" / "host.json").unlink()
    host.remove("site")
    assert "odd" not in sh("ip -br link")
    assert sh("nft list ruleset") == ""


@in_namespace
def test_a_removal_spares_what_took_the_place_of_ours(host: Host) -> None:
    host.apply(a_plan(a_link("10.0.0.1/24")))
    sh("ip link del vpn-site && ip link add vpn-site type veth peer name v1")
    assert host.remove("site") == ()
    assert link("vpn-site")["linkinfo"]["info_kind"] == "veth"


@in_namespace
def test_a_removal_of_another_instance_spares_ours(tmp_path: Path) -> None:
    Host(tmp_path / "site").apply(a_site())
    before = machine()
    assert Host(tmp_path / "other").remove("other") == ()
    assert machine() == before


@in_namespace
def test_a_link_that_is_held_open_can_be_removed(host: Host) -> None:
    descriptors = open_link(a_link())
    try:
        host.apply(a_site())
        assert "LOWER_UP" in link("vpn-site")["flags"]
        host.remove("site")
        assert "vpn-site" not in sh("ip -br link")
    finally:
        os.close(descriptors[0])


@in_namespace
def test_a_failed_start_can_be_removed_and_leaves_nothing(host: Host) -> None:
    """[E11] After a start that failed half-way a removal leads back to the machine before it."""
    a_busy_machine()
    before = machine()
    site = a_site()
    with pytest.raises(HostError, match="mtu 70000"):
        host.apply(replace(site, link=replace(site.link, mtu=70000)))
    host.remove("site")
    assert machine() == before


@in_namespace
def test_the_old_plan_leads_back_from_a_failed_new_one(host: Host) -> None:
    a_busy_machine()
    old = a_site()
    host.apply(old)
    before = machine()
    new = replace(old, routes=frozenset(), forward=False, link=replace(old.link, mtu=1300, txqueuelen=1))
    with pytest.raises(HostError):
        host.apply(replace(new, link=replace(new.link, mtu=70000, addresses=())))
    host.apply(old)
    assert machine() == before


@in_namespace
def test_a_foreign_route_in_the_way_stops_the_plan_before_its_first_change(
    host: Host, tmp_path: Path
) -> None:
    a_busy_machine()
    before = machine()
    plan = a_site()
    with pytest.raises(HostError, match="through v0, protocol boot"):
        host.apply(replace(plan, routes=plan.routes | {a_route("10.0.0.0/8")}))
    assert machine() == before
    assert not (tmp_path / "site").exists()


@in_namespace
def test_without_the_capability_the_refused_change_is_named(host: Host, tmp_path: Path) -> None:
    host.apply(a_plan(a_link()))
    script = (
        "import sys; from pathlib import Path; from vpnd.host import *; from vpnd.errors import HostError\n"
        f"try: Host(Path('{tmp_path}/site')).apply(HostPlan('site', LinkPlan('vpn-site', 'tun', mtu=1300)))\n"
        "except HostError as error: print(error)\n"
    )
    said = sh(f"capsh --drop=cap_net_admin -- -c 'PYTHONPATH={Path.cwd()} {sys.executable} -'", stdin=script)
    assert said.startswith("link: vpn-site mtu 1300: Operation not permitted")
    assert "CAP_NET_ADMIN" in said


@in_namespace
def test_it_works_on_a_loops_own_thread_and_in_its_executor(host: Host) -> None:
    async def apply() -> None:
        assert host.apply(a_site()) != ()
        assert await asyncio.to_thread(host.apply, a_site()) == ()
        assert await asyncio.to_thread(host.remove, "site") != ()

    asyncio.run(apply())
    assert "vpn-site" not in sh("ip -br link")


@in_namespace
def test_a_full_flow_in_another_namespace_does_not_touch_this_one(host: Host) -> None:
    before = machine()
    in_another_namespace(lambda: host.apply(a_plan(a_link("10.0.0.1/24"))))
    assert machine() == before


_addresses = st.lists(
    st.sampled_from(
        ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.2/32", "10.1.0.1/31", "fd00::1/64", "fd00::2/64", "fe80::5/64"]
    ),
    max_size=4,
    unique=True,
)
_networks = ["10.2.0.0/16", "10.2.3.0/24", "10.0.0.9/32", "fd01::/48", "fd01::1/128"]
_routes = st.frozensets(
    st.builds(
        a_route, st.sampled_from(_networks), st.sampled_from([254, 99, 5000]), st.sampled_from([0, 50])
    ),
    max_size=6,
)


@st.composite
def _plans(draw: st.DrawFn) -> HostPlan:
    chosen = LinkPlan(
        name=draw(st.sampled_from(["vpn-site", "vpn-two"])),
        type="tap",
        addresses=tuple(map(ipaddress.ip_interface, draw(_addresses))),
        mtu=draw(st.sampled_from([1280, 1420])),
        txqueuelen=draw(st.sampled_from([500, 1000])),
        mac=draw(st.sampled_from([bytes.fromhex("0276706e0001"), bytes.fromhex("0276706e0002")])),
        bridge=draw(st.sampled_from([None, "br0", "br1"])),
    )
    hidden = draw(st.sets(st.sampled_from(_networks), max_size=2))
    return HostPlan(
        "site",
        chosen,
        draw(_routes),
        draw(st.booleans()),
        tuple(ipaddress.ip_network(one) for one in sorted(hidden)),
    )


def _shown(plan: RoutePlan, name: str) -> str:
    return f"{plan.prefix} {name} {plan.table} {plan.key[2]}"


@in_namespace
def test_any_sequence_of_plans_ends_in_the_last_and_a_removal_in_the_beginning() -> None:
    """[E11] Whatever plans follow each other, the machine equals the last, and then the first state."""
    a_busy_machine()
    before = machine()

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(_plans(), min_size=1, max_size=4))
    def any_sequence(plans: list[HostPlan]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            host = Host(Path(folder) / "site")
            for plan in plans:
                host.apply(plan)
                assert host.difference(plan) == ()
                name = plan.link.name
                planned = {str(one) for one in plan.link.addresses}
                shown = link(name)
                assert addresses(name) == {one for one in planned if not one.startswith("fe80:")}
                assert (shown["mtu"], shown["txqlen"]) == (plan.link.mtu, plan.link.txqueuelen)
                assert shown["address"] == (plan.link.mac or b"").hex(":")
                assert shown.get("master") == plan.link.bridge
                ours = {route for route in routes() if " v0 " not in route}
                assert ours == {_shown(route, name) for route in plan.routes}
                assert ("vpnd-site" in sh("nft list tables")) == bool(plan.masquerade)
            host.remove("site")
            assert machine() == before

    any_sequence()


@in_namespace
def test_a_removal_goes_on_after_a_refusal_and_keeps_the_record_for_the_next(
    host: Host, tmp_path: Path
) -> None:
    a_busy_machine()
    before = machine()
    host.apply(a_site())
    sh("mount --bind /bin/false $(command -v nft)")
    with pytest.raises(HostError, match="nftables: list table inet vpnd-site: nft says: 1"):
        host.remove("site")
    assert "vpn-site" not in sh("ip -br link")
    assert (tmp_path / "site" / "host.json").exists()
    sh("umount $(command -v nft)")
    assert [str(change) for change in host.remove("site")] == ["nftables: remove table inet vpnd-site"]
    assert machine() == before


@in_namespace
def test_a_sysctl_that_cannot_be_put_back_does_not_keep_the_link(host: Host) -> None:
    site = a_site()
    a_busy_machine()
    host.apply(replace(site, masquerade=()))
    make_read_only("/proc/sys/net/ipv6/conf")
    with pytest.raises(HostError, match="Read-only file system") as caught:
        host.remove("site")
    assert "link: delete vpn-site" not in str(caught.value)
    assert "vpn-site" not in sh("ip -br link")
