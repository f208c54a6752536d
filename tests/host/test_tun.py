import fcntl
import os
import struct
import sys
from pathlib import Path

import pytest

from tests.host.namespace import in_namespace, in_thread, link, sh
from tests.host.plans import a_link
from vpnd.errors import HostError
from vpnd.host import VNET_HEADER_BYTES, open_link

TUNGETIFF, TUNGETVNETHDRSZ = 0x800454D2, 0x800454D7


def close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def data(name: str) -> object:
    return link("vpn-site")["linkinfo"]["info_data"][name]


@in_namespace
@pytest.mark.parametrize(("kind", "flag"), [("tun", 0x0001), ("tap", 0x0002)])
def test_a_queue_has_a_vnet_header_of_ten_bytes_and_no_packet_information(kind: str, flag: int) -> None:
    descriptors = open_link(a_link(type=kind))
    try:
        request = fcntl.ioctl(descriptors[0], TUNGETIFF, bytes(40))
        name, flags = struct.unpack("16sH22x", request)
        (size,) = struct.unpack("i", fcntl.ioctl(descriptors[0], TUNGETVNETHDRSZ, bytes(4)))
        assert name.rstrip(b"\0") == b"vpn-site"
        assert flags & 0x0003 == flag
        assert flags & 0x1000, "IFF_NO_PI"
        assert flags & 0x4000, "IFF_VNET_HDR"
        assert not flags & 0x0100, "one queue, no IFF_MULTI_QUEUE"
        assert size == VNET_HEADER_BYTES == 10
        assert not os.get_inheritable(descriptors[0])
    finally:
        close(descriptors)


@in_namespace
def test_the_link_outlives_its_descriptors_and_can_be_opened_again() -> None:
    plan = a_link(owner=65534, group=100)
    close(open_link(plan))
    before = link("vpn-site")
    close(open_link(plan))
    assert link("vpn-site")["ifindex"] == before["ifindex"]
    data = before["linkinfo"]["info_data"]
    assert (data["type"], data["persist"], data["user"], data["group"]) == ("tun", True, "nobody", "users")


@in_namespace
def test_an_ownerless_link_is_given_the_owner_and_another_owner_is_refused() -> None:
    close(open_link(a_link()))
    close(open_link(a_link(owner=3_000_000_001)))
    assert link("vpn-site")["linkinfo"]["info_data"]["user"] in ("3000000001", 3_000_000_001)
    with pytest.raises(
        HostError, match=r"its owner is 3000000001, and 1001 is wanted.*ip link delete vpn-site"
    ):
        open_link(a_link(owner=1001))
    with pytest.raises(HostError, match="its owner is 3000000001, and none is wanted"):
        open_link(a_link())


@in_namespace
def test_another_group_is_refused() -> None:
    close(open_link(a_link(group=100)))
    with pytest.raises(HostError, match="its group is 100, and 101 is wanted"):
        open_link(a_link(group=101))


@in_namespace
def test_another_type_is_refused() -> None:
    close(open_link(a_link(type="tap")))
    with pytest.raises(HostError, match=r'type "tap", and "tun" is wanted.*ip link delete vpn-site'):
        open_link(a_link(type="tun"))
    assert link("vpn-site")["linkinfo"]["info_data"]["type"] == "tap"


@in_namespace
def test_a_name_of_another_kind_of_link_is_refused() -> None:
    sh("ip link add vpn-site type veth peer name v1")
    with pytest.raises(HostError, match="the name is taken by a veth link, neither TUN nor TAP"):
        open_link(a_link())
    with pytest.raises(HostError, match="taken by a link of the hardware or the kernel"):
        open_link(a_link(name="lo"))


@in_namespace
def test_a_link_held_by_someone_is_busy() -> None:
    descriptors = open_link(a_link())
    try:
        with pytest.raises(HostError, match="another process holds vpn-site"):
            open_link(a_link())
    finally:
        close(descriptors)


@in_namespace
def test_queues_share_one_link_and_do_not_mix_with_a_single_one() -> None:
    close(open_link(a_link()))
    with pytest.raises(HostError, match=r"made for one queue and 2 are asked for.*ip link delete vpn-site"):
        open_link(a_link(queues=2))
    sh("ip link delete vpn-site")
    descriptors = open_link(a_link(queues=2))
    try:
        assert len(descriptors) == 2
        assert data("multi_queue") is True
        with pytest.raises(HostError, match="2 of its queues are open"):
            open_link(a_link(queues=2))
    finally:
        close(descriptors)


@in_namespace
def test_a_link_of_several_queues_takes_any_number_also_beside_those_that_are_held() -> None:
    held = open_link(a_link(queues=2))
    index = link("vpn-site")["ifindex"]
    for queues in (4, 1):
        opened = open_link(a_link(queues=queues), held=len(held))
        close(held)
        held = opened
        assert (len(held), data("numqueues")) == (queues, queues)
    close(held)
    close(open_link(a_link()))
    assert link("vpn-site")["ifindex"] == index
    assert data("multi_queue") is True


@in_namespace
@pytest.mark.parametrize("name", ["with/slash", "with space"])
def test_a_name_the_kernel_does_not_take_is_named(name: str) -> None:
    with pytest.raises(HostError, match=f"takes no tun link under the name '{name}'"):
        open_link(a_link(name=name))


@in_namespace
def test_a_refused_owner_leaves_no_link_behind() -> None:
    with pytest.raises(HostError, match="Invalid argument"):
        open_link(a_link(owner=0xFFFFFFFF))
    assert "vpn-site" not in sh("ip -br link")


@in_namespace
def test_a_missing_tun_device_names_the_kernel_module() -> None:
    sh("mount -t tmpfs none /dev/net")
    with pytest.raises(HostError, match=r"/dev/net/tun is missing.*modprobe tun"):
        open_link(a_link())


@in_namespace
def test_a_tun_device_of_a_missing_driver_names_the_kernel_module() -> None:
    sh("mount -t tmpfs none /dev/net && mknod /dev/net/tun c 10 254")
    with pytest.raises(HostError, match="modprobe tun"):
        open_link(a_link())


@in_namespace
def test_without_the_capability_it_is_asked_for() -> None:
    script = (
        "import sys; from vpnd.host import open_link, LinkPlan; from vpnd.errors import HostError\n"
        "try: open_link(LinkPlan('vpn-site', 'tun'))\n"
        "except HostError as error: print(error)\n"
    )
    said = in_thread(lambda: sh(f"capsh --drop=cap_net_admin -- -c '{python()} -'", stdin=script))
    assert "needs CAP_NET_ADMIN" in said


def python() -> str:
    return f"PYTHONPATH={Path.cwd()} {sys.executable}"
