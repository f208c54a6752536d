import asyncio
import struct

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from tests.host.namespace import in_another_namespace, in_namespace, sh
from vpnd.host.link import RTM_SETLINK, observe_link, observe_links
from vpnd.host.netlink import Netlink, split_frames


@in_namespace
def test_the_kernels_own_words_reach_the_error() -> None:
    message = ifinfmsg()
    message["index"], message["attrs"] = 1, [["IFLA_IFNAME", "a/b"]]
    with Netlink() as netlink, pytest.raises(OSError) as caught:
        netlink.change(message, RTM_SETLINK)
    assert caught.value.errno == 22
    message = ifinfmsg()
    sh("ip link add v0 type veth peer name v1")
    message["attrs"] = [["IFLA_IFNAME", "v0"], ["IFLA_MTU", 70000]]
    with Netlink() as netlink, pytest.raises(OSError, match="mtu greater than device maximum"):
        netlink.change(message, RTM_SETLINK)


@in_namespace
def test_it_works_on_the_thread_of_a_running_loop_and_in_its_executor() -> None:
    sh("ip link add v0 type veth peer name v1")

    async def on_the_loop() -> tuple[set[str], set[str]]:
        def look() -> set[str]:
            with Netlink() as netlink:
                return set(observe_links(netlink))

        return look(), await asyncio.to_thread(look)

    here, there = asyncio.run(on_the_loop())
    assert here == {"lo", "v0", "v1"}
    # A new thread of this process inherits the namespace of the thread that starts it.
    assert there == here


@in_namespace
def test_a_conversation_speaks_of_the_namespace_it_was_opened_in() -> None:
    sh("ip link add v0 type veth peer name v1")

    def look() -> bool:
        with Netlink() as netlink:
            return observe_link(netlink, "v0") is None

    assert in_another_namespace(look)
    assert not look()


def test_a_cut_off_message_ends_the_frames() -> None:
    whole = struct.pack("=IHHII", 20, 7, 0, 1, 0) + b"abcd"
    assert [frame.kind for frame in split_frames(whole + whole)] == [7, 7]
    assert [frame.kind for frame in split_frames(whole + whole[:-1])] == [7]
    assert list(split_frames(whole[:15])) == []
    assert list(split_frames(struct.pack("=IHHII", 3, 7, 0, 1, 0))) == []
