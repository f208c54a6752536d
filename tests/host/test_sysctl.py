import errno
import json
from pathlib import Path

import pytest

from tests.host.namespace import a_veth, in_namespace, machine, make_read_only, set_sysctl, sh, sysctl
from tests.host.plans import a_link, a_plan
from vpnd.errors import HostError
from vpnd.host import Host, HostPlan
from vpnd.host.sysctl import IPV6_ALL, Sysctls

V4 = a_link("10.255.0.1/30")
V6 = a_link("fd00:ff::1/64")
HAS_PER_LINK_IPV6 = Path("/proc/sys/net/ipv6/conf/all/force_forwarding").exists()


class OlderKernel(Sysctls):
    """The real tree as kernels before 6.17 show it."""

    def read(self, key: str) -> str | None:
        return None if key.endswith("/force_forwarding") else super().read(key)


class NoIpv6(Sysctls):
    def read(self, key: str) -> str | None:
        return None if key.startswith("net/ipv6/") else super().read(key)


def settle(host: Host, plan: HostPlan) -> None:
    host.apply(plan)
    assert host.difference(plan) == ()
    assert host.apply(plan) == ()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "site")


@in_namespace
def test_ipv4_forwarding_is_set_per_link_and_put_back(host: Host) -> None:
    a_veth()
    set_sysctl("net/ipv4/conf/v1/forwarding", "1")
    before = machine()
    settle(host, a_plan(V4, forward=True))
    assert [sysctl(f"net/ipv4/conf/{link}/forwarding") for link in ("v0", "v1", "vpn-site", "lo")] == [
        *"1110"
    ]
    assert sysctl("net/ipv4/ip_forward") == "0"
    assert sysctl("net/ipv6/conf/v0/forwarding") == "0", "no IPv6 in the plan"
    settle(host, a_plan(V4, forward=False))
    assert [sysctl(f"net/ipv4/conf/{link}/forwarding") for link in ("v0", "v1", "vpn-site")] == [*"010"]
    host.remove("site")
    assert machine() == before


@in_namespace
def test_the_dry_run_names_the_forwarding_of_a_link_that_is_yet_to_be_made(host: Host) -> None:
    changes = [str(change) for change in host.difference(a_plan(V4, forward=True))]
    assert "sysctl: set net.ipv4.conf.vpn-site.forwarding from 0 to 1" in changes


@in_namespace
def test_previous_values_are_recorded_before_the_change(host: Host, tmp_path: Path) -> None:
    a_veth()
    seen: list[str] = []

    class Watching(Sysctls):
        def write(self, key: str, value: str) -> None:
            record = json.loads((tmp_path / "site" / "host.json").read_text())["sysctls"]
            if key.endswith("forwarding"):
                seen.append(key)
                assert record[key] == {"previous": "0", "set": "1"}
            super().write(key, value)

    Host(tmp_path / "site", Watching()).apply(a_plan(V4, forward=True))
    assert "net/ipv4/conf/v0/forwarding" in seen


@in_namespace
def test_previous_values_that_cannot_be_recorded_are_kept_and_written_later(tmp_path: Path) -> None:
    """[I12] A full disk stops no packet, and costs the way back only if we also die before there is room."""
    a_veth()
    file = tmp_path / "site" / "host.json"
    file.parent.mkdir()
    sh(f"mount -t tmpfs -o size=4k none {file.parent}")
    (file.parent / "filler").write_bytes(bytes(4096))
    host = Host(file.parent)
    plan = a_plan(V4, forward=True)
    assert host.make_way(plan, is_held=False) == ()
    (warning,) = host.warnings
    assert "host.json: No space left on device" in warning
    host.apply(plan)
    assert host.warnings == ()
    assert sysctl("net/ipv4/conf/v0/forwarding") == "1"
    assert not host.write_record()
    assert host.has_unwritten
    assert [entry.name for entry in file.parent.iterdir()] == ["filler"]
    (file.parent / "filler").unlink()
    assert host.write_record()
    assert not host.has_unwritten
    assert json.loads(file.read_text())["sysctls"]["net/ipv4/conf/v0/forwarding"]["previous"] == "0"
    Host(file.parent).remove("site")
    assert sysctl("net/ipv4/conf/v0/forwarding") == "0"


@in_namespace
def test_previous_values_are_put_back_from_memory_where_the_disk_never_took_them(tmp_path: Path) -> None:
    a_veth()
    (tmp_path / "site").mkdir()
    make_read_only(str(tmp_path / "site"))
    host = Host(tmp_path / "site")
    host.apply(a_plan(V4, forward=True))
    host.apply(a_plan(V4, forward=False))
    assert sysctl("net/ipv4/conf/v0/forwarding") == "0"


@in_namespace
def test_a_value_that_someone_changed_since_is_left_alone(host: Host) -> None:
    a_veth()
    settle(host, a_plan(V4, forward=True))
    set_sysctl("net/ipv4/conf/v0/forwarding", "0")
    set_sysctl("net/ipv4/conf/v0/forwarding", "1")
    set_sysctl("net/ipv4/conf/v1/forwarding", "0")
    assert [change.step for change in host.remove("site")] == ["sysctl", "link"]
    assert [sysctl(f"net/ipv4/conf/{link}/forwarding") for link in ("v0", "v1")] == ["0", "0"]


@in_namespace
def test_a_link_that_comes_later_is_taken_in_and_one_that_went_is_forgotten(
    host: Host, tmp_path: Path
) -> None:
    plan = a_plan(V4, forward=True)
    settle(host, plan)
    a_veth()
    assert len(host.difference(plan)) == 2
    settle(host, plan)
    sh("ip link del v0")
    settle(host, plan)
    record = json.loads((tmp_path / "site" / "host.json").read_text())["sysctls"]
    assert set(record) == {"net/ipv4/conf/vpn-site/forwarding"}


@in_namespace
@pytest.mark.skipif(not HAS_PER_LINK_IPV6, reason="needs force_forwarding, of Linux 6.17")
def test_ipv6_forwarding_is_per_link_where_the_kernel_can(host: Host) -> None:
    a_veth()
    before = machine()
    settle(host, a_plan(V6, forward=True))
    assert sysctl("net/ipv6/conf/v0/force_forwarding") == "1"
    assert sysctl("net/ipv6/conf/vpn-site/force_forwarding") == "1"
    assert sysctl(IPV6_ALL) == "0"
    assert sysctl("net/ipv4/conf/v0/forwarding") == "0", "no IPv4 in the plan"
    host.remove("site")
    assert machine() == before


@in_namespace
def test_on_older_kernels_ipv6_forwarding_is_the_machines_and_links_go_on_hearing_routers(
    tmp_path: Path,
) -> None:
    a_veth()
    set_sysctl("net/ipv6/conf/v1/accept_ra", "0")
    set_sysctl("net/ipv6/conf/v1/forwarding", "1")
    before = machine()
    host = Host(tmp_path / "site", OlderKernel())
    settle(host, a_plan(V6, forward=True))
    assert sysctl(IPV6_ALL) == "1"
    assert sysctl("net/ipv6/conf/v0/accept_ra") == "2"
    assert sysctl("net/ipv6/conf/v1/accept_ra") == "0"
    assert sysctl("net/ipv6/conf/vpn-site/accept_ra") == "0"
    sh("ip link add v2 type veth peer name v3")
    settle(host, a_plan(V6, forward=True))
    sh("ip link del v2")
    host.remove("site")
    assert machine() == before


@in_namespace
@pytest.mark.parametrize("kernel", [OlderKernel, Sysctls])
def test_a_machine_that_forwards_ipv6_already_is_not_touched(tmp_path: Path, kernel: type[Sysctls]) -> None:
    a_veth()
    set_sysctl(IPV6_ALL, "1")
    before = machine()
    host = Host(tmp_path / "site", kernel())
    settle(host, a_plan(V6, forward=True))
    assert json.loads((tmp_path / "site" / "host.json").read_text())["sysctls"] == {}
    host.remove("site")
    assert machine() == before


@in_namespace
def test_a_kernel_without_ipv6_forwards_ipv4(tmp_path: Path) -> None:
    a_veth()
    host = Host(tmp_path / "site", NoIpv6())
    settle(host, a_plan(a_link("10.255.0.1/30", "fd00::1/64"), forward=True))
    assert sysctl("net/ipv4/conf/v0/forwarding") == "1"


@in_namespace
@pytest.mark.parametrize("kernel", [OlderKernel, Sysctls])
@pytest.mark.parametrize("first", ["a", "b"])
def test_the_last_of_two_instances_to_go_puts_the_values_back(
    tmp_path: Path, kernel: type[Sysctls], first: str
) -> None:
    a_veth()
    before = machine()
    hosts = {name: Host(tmp_path / name, kernel()) for name in ("a", "b")}
    plans = {
        name: a_plan(
            a_link(f"10.0.{n}.1/24", f"fd00:{n}::1/64", name=f"vpn-{name}"), forward=True, instance=name
        )
        for n, name in enumerate(hosts)
    }
    for name, host in hosts.items():
        settle(host, plans[name])
    settle(hosts["a"], plans["a"])
    for name in sorted(hosts, key=lambda name: name != first):
        # What the other one still needs is there until the last goes.
        assert sysctl("net/ipv4/conf/v0/forwarding") == "1"
        hosts[name].remove(name)
    assert machine() == before


@in_namespace
def test_where_proc_sys_is_read_only_ipv4_forwarding_goes_over_netlink(host: Host) -> None:
    a_veth()
    before = machine()
    make_read_only("/proc/sys")
    settle(host, a_plan(V4, forward=True))
    assert sysctl("net/ipv4/conf/v0/forwarding") == "1"
    assert sysctl("net/ipv4/conf/vpn-site/forwarding") == "1"
    host.remove("site")
    assert machine() == before


@in_namespace
def test_where_proc_sys_is_read_only_ipv6_forwarding_says_what_it_lacks(host: Host) -> None:
    a_veth()
    make_read_only("/proc/sys")
    with pytest.raises(HostError, match=r"Read-only file system.*ReadWritePaths=/proc/sys/net/ipv6/conf"):
        host.apply(a_plan(V6, forward=True))


@in_namespace
def test_rp_filter_is_never_changed(host: Host) -> None:
    a_veth()
    set_sysctl("net/ipv4/conf/all/rp_filter", "1")
    set_sysctl("net/ipv4/conf/v0/rp_filter", "1")
    settle(host, a_plan(V4, forward=True))
    assert [sysctl(f"net/ipv4/conf/{name}/rp_filter") for name in ("all", "v0", "vpn-site")] == [
        "1",
        "1",
        "0",
    ]


def test_a_link_that_vanished_takes_its_switch_along_without_an_error(tmp_path: Path) -> None:
    Sysctls(tmp_path).write("net/ipv4/conf/gone/forwarding", "1")
    assert list(tmp_path.iterdir()) == []


def test_a_value_the_kernel_refuses_is_an_error_of_its_own() -> None:
    with pytest.raises(OSError) as caught:
        Sysctls().write("net/ipv4/conf/lo/rp_filter", "not a number")
    assert caught.value.errno == errno.EINVAL


@in_namespace
def test_a_machine_that_does_not_hold_still_is_given_up_on_with_the_last_change(tmp_path: Path) -> None:
    class Stubborn(Sysctls):
        def write(self, key: str, value: str) -> None:
            """Takes the value and forgets it."""

    with pytest.raises(HostError, match=r"settle link vpn-site: someone else.*accept_ra to 0"):
        Host(tmp_path / "site", Stubborn()).apply(a_plan(V4))
