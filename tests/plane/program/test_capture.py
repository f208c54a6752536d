"""Copies of packets in a ring: what is in them, what a filter keeps out, what is overwritten."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.plane.harness import Rig, wait_until
from tests.plane.packets import frame, ipv4, mac, numbered
from vpnd.errors import PlaneError
from vpnd.plane import wire
from vpnd.plane.wire import CaptureKind, CaptureWay

HERE, THERE = "10.1.0.1", "10.2.0.7"
ALL = CaptureKind.INNER | CaptureKind.OUTER | CaptureKind.DROPS


@dataclass(frozen=True)
class Copy:
    peer: int | None
    size: int
    content: bytes
    is_outer: bool
    way: CaptureWay
    drop: str | None
    remote: str
    local: str


class Ring:
    """The memory of a capture, read as anybody would who was given it."""

    def __init__(self, *, size: int = wire.CAPTURE_SIZE, seals: int = fcntl.F_SEAL_SHRINK) -> None:
        self.fd = os.memfd_create("capture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
        self._view = mmap.mmap(self.fd, size, prot=mmap.PROT_READ)

    def close(self) -> None:
        self._view.close()
        os.close(self.fd)

    def head(self) -> tuple[int, ...]:
        return wire.CAPTURE_HEAD.unpack(self._view)

    def next(self) -> int:
        return self.head()[4]

    def number_at(self, slot: int) -> int:
        place = wire.CAPTURE_HEAD.size + slot * wire.CAPTURE_SLOT.size
        return int(wire.CAPTURE_SLOT.unpack(self._view, place)[0])

    def copies(self) -> list[Copy]:
        """All that is there, the oldest first."""
        found = []
        for slot in range(wire.CAPTURE_SLOTS):
            place = wire.CAPTURE_HEAD.size + slot * wire.CAPTURE_SLOT.size
            fields = wire.CAPTURE_SLOT.unpack(self._view, place)
            if fields[0]:
                found.append((fields[0], _copy(fields)))
        return [copy for _, copy in sorted(found, key=lambda each: each[0])]

    def wait_for(self, count: int) -> list[Copy]:
        """A number is taken first, then its slot is filled: waits until all of them are."""
        numbers = range(max(1, count - wire.CAPTURE_SLOTS + 1), count + 1)

        def is_filled(number: int) -> bool:
            return self.number_at((number - 1) % wire.CAPTURE_SLOTS) == number

        wait_until(lambda: self.next() >= count and all(map(is_filled, numbers)), f"{count} copies")
        return self.copies()


def _copy(fields: tuple[object, ...]) -> Copy:
    _, _, peer, size, kept, is_outer, way, is_dropped, reason, remote, local, content = fields
    assert isinstance(content, bytes)
    assert isinstance(kept, int)
    return Copy(
        peer=None if peer == wire.CAPTURE_EVERY_PEER else int(str(peer)),
        size=int(str(size)),
        content=content[:kept],
        is_outer=bool(is_outer),
        way=CaptureWay(int(str(way))),
        drop=wire.DROP_REASONS[int(str(reason))][0] if is_dropped else None,
        remote=_endpoint(remote),
        local=_endpoint(local),
    )


def _endpoint(packed: object) -> str:
    assert isinstance(packed, bytes)
    return str(wire.unpack_endpoint(packed) or "")


@pytest.fixture
def ring() -> Iterator[Ring]:
    ring = Ring()
    yield ring
    ring.close()


def test_packets_and_datagrams_are_copied_as_they_pass(tun: Rig, ring: Ring) -> None:
    """Each way in its order. A datagram is noted once it has left: its answer may stand before it."""
    peer = tun.add_peer(1)
    session = peer.install()
    tun.client.start_capture(ring.fd, ALL, None)
    out, back = numbered(HERE, THERE, 1, 100), numbered(THERE, HERE, 2, 200)
    tun.link.send(out)
    sealed = peer.receive()
    answer = session.seal(back)
    peer.send(answer)
    assert tun.link.receive() == back
    copies = ring.wait_for(4)
    inner_out, outer_out = (copy for copy in copies if copy.way is CaptureWay.OUT)
    outer_in, inner_in = (copy for copy in copies if copy.way is CaptureWay.IN)
    near, far = str(tun.inventory().sockets[0]), str(peer.endpoint)
    assert inner_out == Copy(1, 100, out, False, CaptureWay.OUT, None, "", "")
    assert outer_out == Copy(1, len(sealed), sealed, True, CaptureWay.OUT, None, far, near)
    assert outer_in == Copy(1, len(answer), answer, True, CaptureWay.IN, None, far, near)
    assert inner_in == Copy(1, 200, back, False, CaptureWay.IN, None, "", "")


def test_a_dropped_packet_is_copied_with_its_reason(tun: Rig, ring: Ring) -> None:
    """Of one that does not authenticate only the header: what follows was tried to be opened."""
    peer = tun.add_peer(1)
    session = peer.install()
    tun.client.start_capture(ring.fd, CaptureKind.DROPS, None)
    foreign, lost = numbered("10.9.9.9", HERE, 1, 60), numbered(HERE, "10.77.0.1", 2, 70)
    forged = bytearray(session.seal(numbered(THERE, HERE, 3, 80)))
    forged[-1] ^= 1
    peer.send(session.seal(foreign))
    assert ring.wait_for(1)[0] == Copy(1, 60, foreign, False, CaptureWay.IN, "data_source", "", "")
    peer.send(bytes(forged))
    copy = ring.wait_for(2)[1]
    assert (copy.drop, copy.is_outer, copy.size, copy.content) == (
        "data_auth",
        True,
        len(forged),
        bytes(forged[:16]),
    )
    tun.link.send(lost)
    copy = ring.wait_for(3)[2]
    assert (copy.drop, copy.peer, copy.way, copy.content) == ("no_peer", None, CaptureWay.OUT, lost)
    peer.send(b"\x0c\0\0\0" + bytes(40))
    assert ring.wait_for(4)[3].drop == "data_noidx"


@pytest.mark.parametrize("kind", list(CaptureKind))
def test_only_what_was_asked_for_is_copied(tun: Rig, ring: Ring, kind: CaptureKind) -> None:
    peer = tun.add_peer(1)
    session = peer.install()
    tun.client.start_capture(ring.fd, kind, None)
    tun.link.send(numbered(HERE, THERE, 1, 100))
    peer.receive()
    peer.send(session.seal(numbered("10.9.9.9", HERE, 1, 60)))
    wait_until(lambda: tun.dropped() == 1, "the drop")
    count = 2 if kind is CaptureKind.OUTER else 1
    told = {(copy.is_outer, copy.drop is not None) for copy in ring.wait_for(count)}
    assert (
        told
        == {
            CaptureKind.INNER: {(False, False)},
            CaptureKind.OUTER: {(True, False)},
            CaptureKind.DROPS: {(False, True)},
        }[kind]
    )


def test_of_one_peer_nothing_of_another_is_copied(tun: Rig, ring: Ring) -> None:
    one, other = tun.add_peer(1), tun.add_peer(2, ["10.3.0.0/16"])
    one.install()
    other.install()
    tun.client.start_capture(ring.fd, ALL, 2)
    tun.link.send(numbered(HERE, THERE, 1, 100))
    one.receive()
    tun.link.send(numbered(HERE, "10.3.0.1", 2, 110))
    other.receive()
    assert {copy.peer for copy in ring.wait_for(2)} == {2}


def test_an_ethernet_frame_is_copied_without_what_the_protocol_puts_around_it(tap: Rig, ring: Ring) -> None:
    peer = tap.add_peer(1, [])
    peer.install()
    tap.client.start_capture(ring.fd, CaptureKind.INNER, None)
    sent = frame(mac(1), mac(2), ipv4(HERE, THERE, bytes(100)))
    tap.link.send(sent)
    peer.receive()
    assert ring.wait_for(1)[0].content == sent


def test_what_is_not_read_in_time_is_overwritten_and_of_a_large_packet_the_beginning_is_kept(
    rig: Rig, ring: Ring
) -> None:
    rig.add_link("tun", mtu=9000)
    rig.add_sockets("127.0.0.1")
    peer = rig.add_peer(1)
    peer.install()
    rig.client.start_capture(ring.fd, CaptureKind.INNER, None)
    count = wire.CAPTURE_SLOTS + 100
    for number in range(count):
        rig.link.send(numbered(HERE, THERE, number, 64))
        peer.receive()
    large = numbered(HERE, THERE, 1, 5000)
    rig.link.send(large)
    copies = ring.wait_for(count + 1)
    assert len(copies) == wire.CAPTURE_SLOTS
    assert ring.number_at(100) == count + 1
    assert (copies[-1].size, copies[-1].content) == (5000, large[: wire.CAPTURE_BYTES])


def test_nothing_is_copied_after_the_end_and_a_second_capture_takes_the_place_of_the_first(
    tun: Rig, ring: Ring
) -> None:
    peer = tun.add_peer(1)
    peer.install()
    descriptors = tun.descriptors()
    second = Ring()
    tun.client.start_capture(ring.fd, ALL, None)
    tun.client.start_capture(second.fd, CaptureKind.INNER, None)
    tun.link.send(numbered(HERE, THERE, 1, 100))
    peer.receive()
    assert (ring.next(), second.next()) == (0, 1)
    tun.client.stop_capture()
    tun.client.stop_capture()
    tun.link.send(numbered(HERE, THERE, 1, 100))
    peer.receive()
    assert second.next() == 1
    assert tun.descriptors() == descriptors, "the plane needs the memory, not the descriptor"
    second.close()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"kinds": 0}, "bad_value"),
        ({"kinds": 8}, "bad_value"),
        ({"peer": 7}, "no_such_peer"),
        ({"size": wire.CAPTURE_SIZE - 1}, "bad_descriptors"),
        ({"size": wire.CAPTURE_SIZE + 1}, "bad_descriptors"),
        ({"seals": fcntl.F_SEAL_GROW}, "bad_descriptors"),
        ({"seals": fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE}, "no_memory"),
    ],
)
def test_a_ring_that_does_not_do_is_refused(tun: Rig, changes: dict[str, int], error: str) -> None:
    """One that could shrink would end the plane by a signal."""
    made = Ring(size=changes.get("size", wire.CAPTURE_SIZE), seals=changes.get("seals", fcntl.F_SEAL_SHRINK))
    with pytest.raises(PlaneError) as caught:
        tun.client.start_capture(made.fd, CaptureKind(changes.get("kinds", 1)), changes.get("peer"))
    assert caught.value.code == error
    made.close()


def test_a_descriptor_that_is_no_memory_is_refused(tun: Rig) -> None:
    reading, writing = os.pipe()
    with pytest.raises(PlaneError, match="descriptors"):
        tun.client.start_capture(writing, CaptureKind.INNER, None)
    os.close(reading)
    os.close(writing)


def test_whoever_writes_into_the_ring_harms_his_own_copies_only(tun: Rig, ring: Ring) -> None:
    """Numbers beyond all bounds: the plane forwards on, and what it writes stays in the ring."""
    peer = tun.add_peer(1)
    session = peer.install()
    tun.client.start_capture(ring.fd, ALL, None)
    with mmap.mmap(ring.fd, wire.CAPTURE_SIZE) as memory:
        memory[:] = os.urandom(wire.CAPTURE_SIZE)
        for number in range(200):
            tun.link.send(numbered(HERE, THERE, number, 100))
            assert session.open(peer.receive()).plaintext
    with pytest.raises(OSError) as caught:
        os.ftruncate(ring.fd, 0)
    assert caught.value.errno == errno.EPERM
