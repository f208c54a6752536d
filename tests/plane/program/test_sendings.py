"""Datagrams of one size leave in one sending, and one by one where the kernel does not cut."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plane.harness import (
    Far,
    Rig,
    plane_program,
    running_rig,
    wait_until,
)
from tests.plane.large_tunnel import (
    AROUND,
    BODY,
    PARTIAL,
    Large,
    gather,
    gather_until,
    joined_to,
    parcels,
    take_runs,
)
from tests.plane.leaves import flows
from tests.plane.leaves.flows import UDP, Headers
from tests.plane.leaves.offloads import LargeFrame, large
from tests.plane.namespace import Namespace
from tests.plane.refusing_kernel import RefusingKernel
from vpnd.plane import wire
from vpnd.plane.wire import Offload


@pytest.fixture
def tunnel(tun: Rig) -> Iterator[Large]:
    with joined_to(tun) as made:
        yield made


def test_equal_datagrams_leave_in_one_sending(tunnel: Large) -> None:
    """[D11]"""
    assert gather(tunnel, [30 * 1000], 1000) == [[1000 + AROUND] * 30]


def test_the_last_of_a_sending_may_be_shorter(tunnel: Large) -> None:
    """[D11] The next one begins another."""
    gather_until(tunnel, [5 * 1000 + 300, 3 * 1000], 1000, [[1000] * 5 + [300], [1000] * 3])


def test_a_longer_one_begins_another_sending(tunnel: Large) -> None:
    """[D11]"""
    sizes = [400, 400, 1000, 1000, 400, 1000]
    gather_until(tunnel, sizes, 1400, [[400] * 2, [1000, 1000, 400], [1000]])


def test_no_sending_has_more_datagrams_than_every_kernel_takes(tunnel: Large) -> None:
    """[D11] 64 of them."""
    assert [len(group) for group in gather(tunnel, [120 * 100], 100)] == [64, 56]


def test_no_sending_is_larger_than_a_datagram_may_be(tunnel: Large) -> None:
    """[D11, D2] 65,507 bytes: the largest frame that the link can bring takes two."""
    groups = gather(tunnel, [65535 - 28], 1392)
    assert len(groups) == 2
    assert all(sum(group) <= 65507 for group in groups)
    assert sum(groups[0]) + 1392 + AROUND > 65507


def test_without_the_offload_each_datagram_leaves_by_itself(tunnel: Large) -> None:
    """[D11]"""
    tunnel.rig.client.set_options(1024, 300, Offload.ALL & ~Offload.UDP_GSO)
    assert gather(tunnel, [30 * 1000], 1000) == [[1000 + AROUND]] * 30


# ---- refused ----


def gso_error(peer: Far) -> int:
    """The errno by which the path to the peer last refused a run, as the shared counters have it."""
    places = wire.PEER_COUNTERS.offsets["gso_error"]
    at = wire.COUNTERS_HEAD.size + peer.peer_id * wire.PEER_COUNTERS.size + places[0]
    return int.from_bytes(peer.rig.client.counters._map[at : at + 4], "little")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RefusingKernel:
    """For a plane that is started after it."""
    kernel = RefusingKernel(tmp_path)
    for name, value in kernel.environment().items():
        monkeypatch.setenv(name, value)
    return kernel


@pytest.mark.parametrize("error", [errno.EIO, errno.EINVAL, errno.EMSGSIZE])
def test_a_refused_run_is_sent_one_by_one_until_the_path_has_had_its_rest(
    kernel: RefusingKernel, namespace: Namespace, error: int
) -> None:
    """[D12] Nothing is lost, only this peer does without, the counters say why, and it comes back."""
    with running_rig(namespace, plane_program()) as rig:
        rig.add_link("tun")
        rig.add_sockets("127.0.0.1")
        with joined_to(rig) as made:
            other = rig.add_peer(2, ["10.3.0.0/16"], address="127.0.0.3")
            other_session = other.install(features=PARTIAL)
            take_runs(other.socket)
            kernel.refuse(error, made.peer.endpoint.port)
            assert gather(made, [20 * 1000], 1000) == [[1000 + AROUND]] * 20
            assert kernel.refused() == 1
            assert gso_error(made.peer) == error
            assert gather(made, [20 * 1000], 1000) == [[1000 + AROUND]] * 20
            assert kernel.refused() == 1
            headers = Headers(protocol=UDP)
            elsewhere = flows.with_header_checksum(
                headers.packet(BODY[:5000])[:16] + bytes((10, 3, 0, 1)) + headers.packet(BODY[:5000])[20:]
            )
            sum_there = flows.pseudo_sum(elsewhere, UDP, len(elsewhere) - 20)
            frame = large(headers, BODY[:5000], 1000)
            made.frames.send(
                LargeFrame(flows.with_field(elsewhere, 26, sum_there), 1, frame.gso_type, 1000, 20, 6, 28)
            )
            ((_, group),) = parcels(other.socket, 5)
            assert [len(other_session.open(each).plaintext) for each in group] == [1028] * 5
            assert gso_error(other) == 0
            kernel.refuse(0, 0)
            kernel.jump(31)
            assert gather(made, [20 * 1000], 1000) == [[1000 + AROUND] * 20]
            wait_until(lambda: gso_error(made.peer) == 0, "the path's refusal being forgotten")


def test_a_path_narrower_than_a_datagram_gets_fragments_one_by_one(
    tunnel: Large, namespace: Namespace
) -> None:
    """[D12] The real refusal: the kernel cuts no run into datagrams that it would have to fragment."""
    route = ("127.0.0.2/32", "dev", "lo", "table", "local", "mtu", "1000")
    namespace.run("ip", "route", "add", "local", *route)
    try:
        assert gather(tunnel, [20 * 1300], 1300) == [[1300 + AROUND]] * 20
        assert gso_error(tunnel.peer) in (errno.EINVAL, errno.EMSGSIZE)
    finally:
        namespace.run("ip", "route", "del", "local", *route)
