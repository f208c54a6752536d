"""The link as a port of a bridge: joined, made if missing, and gone again only if it was ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.host.namespace import in_namespace, link, sh
from tests.host.plans import a_link, a_plan
from vpnd.errors import HostError
from vpnd.host import Host, HostPlan, facts

TAP = a_plan(a_link(type="tap"))


def bridged(name: str) -> HostPlan:
    return a_plan(a_link(type="tap", bridge=name))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "site")


def links() -> set[str]:
    return {line.split(": ")[1].split("@")[0] for line in sh("ip -o link show").splitlines()}


@in_namespace
def test_a_missing_bridge_is_made_and_goes_with_the_instance(host: Host, tmp_path: Path) -> None:
    changes = [str(change) for change in host.apply(bridged("br0"))]
    assert changes[0] == "bridge: create br0"
    assert changes[-1] == "bridge: vpn-site joins br0"
    assert host.apply(bridged("br0")) == ()
    assert link("vpn-site")["master"] == facts.bridge_of("vpn-site") == "br0"
    assert "UP" in link("br0")["flags"]
    # By the record alone, as after a crash.
    assert Host(tmp_path / "site").difference(bridged("br0")) == ()
    Host(tmp_path / "site").remove("site")
    assert not {"br0", "vpn-site"} & links()
    assert facts.bridge_of("vpn-site") is None


@in_namespace
def test_a_bridge_of_the_operators_stays_with_its_ports(host: Host) -> None:
    sh("ip link add br0 type bridge")
    sh("ip link add eth9 type veth peer name eth8")
    sh("ip link set eth9 master br0")
    host.apply(bridged("br0"))
    assert link("vpn-site")["master"] == "br0"
    host.remove("site")
    assert link("eth9")["master"] == "br0"


@in_namespace
def test_a_bridge_of_ours_that_got_other_ports_stays_with_a_warning(host: Host) -> None:
    host.apply(bridged("br0"))
    sh("ip link add eth9 type veth peer name eth8")
    sh("ip link set eth9 master br0")
    host.remove("site")
    assert host.warnings == ("bridge br0 has other ports by now and stays; delete it by hand",)
    assert link("eth9")["master"] == "br0"


@in_namespace
def test_another_bridge_is_joined_and_the_former_one_removed_if_it_was_ours(host: Host) -> None:
    sh("ip link add br1 type bridge")
    host.apply(bridged("br0"))
    host.apply(bridged("br1"))
    assert link("vpn-site")["master"] == "br1"
    assert "br0" not in links()
    host.apply(TAP)
    assert "master" not in link("vpn-site")
    assert "br1" in links()
    assert host.apply(TAP) == ()


@in_namespace
def test_a_link_that_gets_another_name_leaves_no_bridge_behind(host: Host) -> None:
    host.apply(bridged("br0"))
    host.apply(a_plan(a_link(name="vpn-two", type="tap")))
    assert not {"br0", "vpn-site"} & links()


@in_namespace
def test_a_bridge_that_the_operator_chose_by_hand_is_left_alone(host: Host) -> None:
    host.apply(TAP)
    sh("ip link add br7 type bridge")
    sh("ip link set vpn-site master br7")
    assert host.apply(TAP) == ()
    assert link("vpn-site")["master"] == "br7"


@in_namespace
def test_a_port_that_was_taken_out_goes_back(host: Host) -> None:
    host.apply(bridged("br0"))
    sh("ip link set vpn-site nomaster")
    assert [str(change) for change in host.apply(bridged("br0"))] == ["bridge: vpn-site joins br0"]
    sh("ip link delete br0")
    assert len(host.apply(bridged("br0"))) == 2
    host.remove("site")
    assert "br0" not in links()


@in_namespace
def test_a_name_of_another_kind_is_refused_before_anything_is_touched(host: Host) -> None:
    sh("ip link add br0 type veth peer name br9")
    with pytest.raises(HostError, match="join bridge br0: it is a veth link, no bridge"):
        host.apply(bridged("br0"))
    assert "vpn-site" not in links()
