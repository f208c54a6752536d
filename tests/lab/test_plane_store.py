"""A plane under a service manager is restarted and killed under traffic, both daemons being real."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest

from tests.lab.classical import U_TUNNEL, V_INNER, Classical, build
from tests.lab.namespaces import Lab, eventually
from tests.lab.tools import UdpStream
from tests.lab.vpnd import BIN
from tests.plane.service_manager import ServiceManager

BLOWS = 3
RATE = 1000  # datagrams a second: the queues hold those of a second
BATCH = 64  # what the plane has in its hands at most


@pytest.fixture
def managed(lab: Lab) -> Iterator[tuple[Classical, ServiceManager]]:
    """The classical topology; U's plane is a service manager's."""
    topology = build(lab)
    manager = ServiceManager(topology.u_vpnd.runtime_dir, BIN / "vpnd-plane")
    manager.start()
    with contextlib.ExitStack() as stack:
        stack.callback(manager.abandon)
        topology.start()
        yield topology, manager
        topology.u_vpnd.assert_no_error()
        topology.gateway_vpnd.assert_no_error()


@pytest.mark.parametrize(
    ("how", "losable"), [(signal.SIGTERM, 0), (signal.SIGKILL, BATCH * BLOWS)], ids=["restart", "kill -9"]
)
def test_traffic_goes_on_through_restarts_of_the_plane(
    managed: tuple[Classical, ServiceManager], how: signal.Signals, losable: int
) -> None:
    """[G7] No handshake, the same session, and no packet lost but what a killed plane had in hand."""
    topology, manager = managed
    before = topology.u_vpnd.peer_now("gateway")
    out = UdpStream(topology.u, topology.v, V_INNER, rate=RATE)
    into = UdpStream(topology.v, topology.u, U_TUNNEL, rate=RATE)
    for blow in range(1, BLOWS + 1):
        manager.kill(how)
        manager.start()
        eventually(lambda: topology.u_vpnd.log().count("the plane is back") >= blow, what="vpnd's plane")  # noqa: B023
    lost = [sent - arrived for sent, arrived in (out.stop(), into.stop())]
    after = topology.u_vpnd.peer_now("gateway")
    assert all(0 <= each <= losable for each in lost), lost
    for what in ("session_index", "handshakes"):
        assert after[what] == before[what], what
    assert "starting a plane" not in topology.u_vpnd.log()


def test_daemon_and_plane_killed_together_lose_nothing_that_the_queues_hold(
    managed: tuple[Classical, ServiceManager],
) -> None:
    """[G7] The next plane forwards while there is no daemon yet."""
    topology, manager = managed
    out = UdpStream(topology.u, topology.v, V_INNER, rate=RATE)
    topology.u_vpnd.kill()
    manager.kill(signal.SIGTERM)
    manager.messages.clear()
    manager.start()
    eventually(lambda: "READY=1" in manager.messages, what="the plane being ready")
    sent, arrived = out.stop()
    assert sent == arrived
    topology.u_vpnd.start()
    assert topology.u.pings(V_INNER)
