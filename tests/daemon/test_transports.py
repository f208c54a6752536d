"""UDP sockets as the plane wants them, and what the kernel's refusals are called."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from vpnd.daemon import transports
from vpnd.daemon.transports import close_sockets, open_sockets, serves
from vpnd.endpoint import Endpoint
from vpnd.errors import HostError

ANY4, ANY6 = Endpoint(ip_address("127.0.0.1"), 0), Endpoint(ip_address("::1"), 0)


@pytest.fixture
def kept() -> Iterator[list[socket.socket]]:
    """Sockets that the test opened; closed after it."""
    opened: list[socket.socket] = []
    yield opened
    close_sockets(opened)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def port_of(each: socket.socket) -> int:
    return int(each.getsockname()[1])


def test_one_socket_per_endpoint_each_of_its_family(kept: list[socket.socket]) -> None:
    kept += open_sockets([ANY4, ANY6], 0)
    assert [each.family for each in kept] == [socket.AF_INET, socket.AF_INET6]
    assert [each.getsockname()[0] for each in kept] == ["127.0.0.1", "::1"]


def test_sockets_are_as_the_plane_needs_them(kept: list[socket.socket]) -> None:
    """[C9, D5] Local addresses told, never DF, no forged "too big" believed, IPv6 its own, non-blocking."""
    kept += open_sockets([ANY4, ANY6], 0)
    ipv4, ipv6 = kept
    assert ipv4.getsockopt(socket.IPPROTO_IP, 8) == 1  # IP_PKTINFO
    assert ipv4.getsockopt(socket.IPPROTO_IP, 10) == 5  # IP_MTU_DISCOVER: IP_PMTUDISC_OMIT
    assert ipv6.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO) == 1
    assert ipv6.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    assert ipv6.getsockopt(socket.IPPROTO_IPV6, 23) == 5
    for each in kept:
        assert each.type == socket.SOCK_DGRAM
        assert not each.getblocking()
        assert not os.get_inheritable(each.fileno())
        assert fcntl.fcntl(each.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK


def test_buffers_are_large_where_we_may(kept: list[socket.socket]) -> None:
    """The kernel doubles what is asked for."""
    kept += open_sockets([ANY4], 0)
    if os.geteuid() == 0:
        for option, size in (
            (socket.SO_RCVBUF, transports.RECEIVE_BUFFER_BYTES),
            (socket.SO_SNDBUF, transports.SEND_BUFFER_BYTES),
        ):
            assert kept[0].getsockopt(socket.SOL_SOCKET, option) == 2 * size


def test_without_the_right_to_force_it_buffers_are_what_the_kernel_grants(
    monkeypatch: pytest.MonkeyPatch, kept: list[socket.socket]
) -> None:
    """[I13] A daemon without CAP_NET_ADMIN still starts."""

    class Unprivileged(socket.socket):
        def setsockopt(self, level: int, option: int, value: int) -> None:  # type: ignore[override]
            if level == socket.SOL_SOCKET and option in (32, 33):
                raise PermissionError(errno.EPERM, "Operation not permitted")
            super().setsockopt(level, option, value)

    monkeypatch.setattr(socket, "socket", Unprivileged)
    kept += open_sockets([ANY4], 0)
    assert kept[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 0


def test_the_mark_is_set(kept: list[socket.socket]) -> None:
    """[C16]"""
    if os.geteuid() != 0:
        pytest.skip("SO_MARK needs CAP_NET_ADMIN")
    kept += open_sockets([ANY4, ANY6], 0x5180)
    assert [each.getsockopt(socket.SOL_SOCKET, 36) for each in kept] == [0x5180, 0x5180]


def test_without_endpoints_there_is_an_ephemeral_port_of_each_family(kept: list[socket.socket]) -> None:
    kept += open_sockets([], 0)
    assert [each.getsockname()[0] for each in kept] == ["0.0.0.0", "::"]
    assert all(port_of(each) > 0 for each in kept)


def refusing(monkeypatch: pytest.MonkeyPatch, family: int, number: int) -> None:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            if self.family == family:
                raise OSError(number, os.strerror(number))
            super().bind(address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socket", Refusing)


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_a_machine_without_ipv6_gets_no_ephemeral_ipv6_socket(
    monkeypatch: pytest.MonkeyPatch, kept: list[socket.socket], number: int
) -> None:
    refusing(monkeypatch, socket.AF_INET6, number)
    kept += open_sockets([], 0)
    assert [each.family for each in kept] == [socket.AF_INET]


def test_an_ipv6_endpoint_that_was_asked_for_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left out that the operator wrote."""
    refusing(monkeypatch, socket.AF_INET6, errno.EADDRNOTAVAIL)
    with pytest.raises(HostError):
        open_sockets([ANY4, ANY6], 0)


def test_a_taken_port_is_named_with_its_remedy(kept: list[socket.socket]) -> None:
    """[I9] And what was opened before it is closed again."""
    kept += open_sockets([ANY4], 0)
    taken = Endpoint(ANY4.address, port_of(kept[0]))
    before = descriptors()
    with pytest.raises(HostError) as caught:
        open_sockets([ANY6, taken], 0)
    assert caught.value.step == f"bind udp {taken}"
    assert "another program has the port" in caught.value.cause
    assert descriptors() == before


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EADDRNOTAVAIL, "no interface of this machine has the address"),
        (errno.EACCES, "CAP_NET_BIND_SERVICE"),
        (errno.EPERM, "CAP_NET_ADMIN"),
        (errno.ENOBUFS, "No buffer space available"),
        (errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_every_refusal_of_the_kernel_has_words(
    monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    """[I9]"""
    refusing(monkeypatch, socket.AF_INET, number)
    before = descriptors()
    with pytest.raises(HostError, match=words):
        open_sockets([ANY4], 0)
    assert descriptors() == before


def test_sockets_serve_what_they_are_bound_to() -> None:
    """[I6] A reload opens new ones only where they do not."""
    one, two = Endpoint(ip_address("192.0.2.1"), 5180), Endpoint(ip_address("::"), 5180)
    assert serves([one, two], [two, one])
    assert not serves([one], [one, two])
    assert not serves([one, two], [one])
    assert not serves([], [one])


def test_each_worker_has_a_socket_on_every_port(kept: list[socket.socket]) -> None:
    """Those of one endpoint stand together, an ephemeral port is the same for all of them."""
    kept += open_sockets([ANY4, ANY6], 0, 3)
    assert [each.family for each in kept] == 3 * [socket.AF_INET] + 3 * [socket.AF_INET6]
    assert len({port_of(each) for each in kept[:3]}) == len({port_of(each) for each in kept[3:]}) == 1


def test_what_comes_from_one_source_stays_with_one_socket_and_all_have_their_share(
    kept: list[socket.socket],
) -> None:
    kept += open_sockets([ANY4], 0, 2)
    seen: dict[int, set[int]] = {}
    for number in range(200):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(3):
                sender.sendto(number.to_bytes(2), ("127.0.0.1", port_of(kept[0])))
    for place, each in enumerate(kept):
        with contextlib.suppress(BlockingIOError):
            while True:
                seen.setdefault(int.from_bytes(each.recv(16)), set()).add(place)
    assert len(seen) == 200
    assert all(len(places) == 1 for places in seen.values())
    assert set().union(*seen.values()) == {0, 1}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_of_ours_is_not_shared_with_another_instance(kept: list[socket.socket], workers: int) -> None:
    """[I9] However many sockets the two have on it; and nothing stays open."""
    kept += open_sockets([ANY4], 0, workers)
    taken = Endpoint(ANY4.address, port_of(kept[0]))
    before = descriptors()
    for others in (1, 2):
        with pytest.raises(HostError, match="another program has the port"):
            open_sockets([taken], 0, others)
    assert descriptors() == before


def test_a_port_that_we_hold_is_taken_over_by_other_sockets(kept: list[socket.socket]) -> None:
    """[I6] Nothing that comes meanwhile is missed: the new stand before the old go."""
    old = open_sockets([ANY4], 0)
    bound = Endpoint(ANY4.address, port_of(old[0]))
    kept += open_sockets([bound], 0, 2, held=[bound])
    close_sockets(old)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"here", bound.to_sockaddr())
    readable, _, _ = select.select(kept, (), (), 5)
    assert [each.recv(16) for each in readable] == [b"here"]


def test_as_many_sockets_as_workers_serve_an_endpoint() -> None:
    one, two = Endpoint(ip_address("192.0.2.1"), 5180), Endpoint(ip_address("::"), 5180)
    assert serves([one, one, two, two], [one, two], 2)
    assert not serves([one, two], [one, two], 2)
    assert not serves([one, one, two, two], [one, two], 1)
    assert not serves([one, one, two], [one, two], 2)
    assert serves([two, two], [], 2)
    assert not serves([two, two], [], 1)


def test_any_ephemeral_ports_serve_a_configuration_without_ports() -> None:
    """[I6] Also only one family's, where the machine has no other."""
    v4, v6 = Endpoint(ip_address("0.0.0.0"), 40000), Endpoint(ip_address("::"), 40001)
    assert serves([v4, v6], [])
    assert serves([v4], [])
    assert not serves([], [])
    assert not serves([Endpoint(ip_address("192.0.2.1"), 40000)], [])
