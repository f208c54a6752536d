"""The connection to the plane: order, waiting, loss and floods, against a scripted plane."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.plane.scripted import (
    ENDPOINT,
    KEY,
    ScriptedPlane,
    counters_memory,
    greeted_client,
    open_descriptors,
    scripted_plane,
)
from vpnd.errors import PlaneError
from vpnd.plane import events, wire
from vpnd.plane.channel import DATAGRAMS_KEPT_MAX, GATHERED_MAX, frames_of
from vpnd.plane.client import PlaneClient
from vpnd.plane.wire import WireType


@pytest.fixture
def plane() -> Iterator[ScriptedPlane]:
    with scripted_plane() as plane:
        yield plane


@pytest.fixture
def client(plane: ScriptedPlane) -> Iterator[PlaneClient]:
    with greeted_client(plane) as client:
        yield client


def test_events_that_come_before_an_answer_are_kept_in_order(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    wanted = wire.PEER_EVENT.pack(5)
    placed = wire.SESSION_EVENT.pack(5, 77, 2, 0)
    plane.say(WireType.EVENT_SESSION_WANTED, wanted)
    plane.say(WireType.EVENT_SESSION_PLACED, placed)
    plane.answer(WireType.FLUSH_STAGED)
    plane.say(WireType.EVENT_SESSION_ENDED, wire.SESSION_EVENT.pack(5, 77, 0, 1))
    client.flush_staged(5)
    assert client.read_events() == [
        events.SessionWanted(5),
        events.SessionPlaced(5, 77, wire.SessionSlot.CURRENT),
        events.SessionEnded(5, 77, wire.SessionEnd.AGE),
    ]
    assert client.read_events() == []


def test_every_event_is_read_as_its_value(plane: ScriptedPlane, client: PlaneClient) -> None:
    source = wire.pack_endpoint(ENDPOINT)
    plane.say(WireType.EVENT_DATAGRAM, wire.DATAGRAM_EVENT.pack(1_500_000_000, 9, source) + b"\x08abc")
    plane.say(WireType.EVENT_CONTROL, wire.CONTROL_EVENT.pack(2_000_000_000, 1, 2, source) + b"\x20\x01")
    plane.say(WireType.EVENT_PEER_ROAMED, wire.ROAMED_EVENT.pack(1, 2, source))
    plane.say(WireType.EVENT_LINK_FAILED, wire.FAILED_EVENT.pack(77))
    plane.say(WireType.EVENT_SOCKET_FAILED, wire.FAILED_EVENT.pack(9))
    assert client.read_events() == [
        events.DatagramEvent(ENDPOINT, b"\x08abc", 9, 1.5),
        events.ControlEvent(1, 2, ENDPOINT, b"\x20\x01", 2.0),
        events.PeerRoamed(1, ENDPOINT, wire.RoamState.FAILED),
        events.LinkFailed(77),
        events.SocketFailed(9),
    ]


def test_an_event_of_unknown_type_is_an_error_and_not_skipped(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    plane.say(0x40FF)
    with pytest.raises(PlaneError, match="0x40ff"):
        client.read_events()


def test_a_request_nobody_waits_for_is_refused_by_an_event(plane: ScriptedPlane, client: PlaneClient) -> None:
    plane.say(WireType.SEND_DATAGRAM | wire.REPLY, error=13)
    client.send_keepalive(1, wait=False)
    client.send_datagram(ENDPOINT, b"\x08", wait=False)
    assert [plane.hear()[:2], plane.hear()[:2]] == [
        (WireType.SEND_KEEPALIVE, 0),
        (WireType.SEND_DATAGRAM, 0),
    ]
    assert client.read_events() == [events.RequestRefused("send_datagram", "no_socket")]


def test_no_answer_in_time_is_a_timeout_and_the_late_answer_disturbs_nothing(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    with pytest.raises(PlaneError) as caught:
        client.remove_peer(1)
    assert caught.value.code == "timeout"
    plane.answer(WireType.REMOVE_PEER)
    plane.answer(WireType.REMOVE_PEER, error=7)
    with pytest.raises(PlaneError) as caught:
        client.remove_peer(1)
    assert caught.value.code == "no_such_peer"


def test_a_plane_that_closes_is_gone_for_requests_and_events(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    plane.say(WireType.EVENT_SESSION_WANTED, wire.PEER_EVENT.pack(5))
    plane.socket.close()
    with pytest.raises(PlaneError) as caught:
        client.remove_peer(1)
    assert caught.value.code == "gone"
    assert client.read_events() == [events.SessionWanted(5), events.PlaneGone()]


def test_an_answer_to_another_request_of_the_same_number_is_an_error(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    plane.answer(WireType.STOP)
    with pytest.raises(PlaneError) as caught:
        client.remove_peer(1)
    assert caught.value.code == "bad_reply"


@pytest.mark.parametrize("message", [b"\x01", wire.HEADER.pack(0x4003, 0, 0, 99)])
def test_a_message_that_lies_about_its_length_is_an_error(
    plane: ScriptedPlane, client: PlaneClient, message: bytes
) -> None:
    plane.socket.send(message)
    with pytest.raises(PlaneError) as caught:
        client.read_events()
    assert caught.value.code == "bad_reply"


def test_descriptors_nobody_asked_for_are_closed(plane: ScriptedPlane, client: PlaneClient) -> None:
    descriptor = counters_memory()
    plane.answer(WireType.REMOVE_PEER, descriptors=(descriptor, descriptor))
    before = open_descriptors()
    client.remove_peer(1)
    assert open_descriptors() == before
    os.close(descriptor)


def test_requests_nobody_waits_for_leave_together_and_before_one_that_is_waited_for(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    plane.answer(WireType.REMOVE_PEER)
    with client.gathering():
        client.send_keepalive(1, wait=False)
        client.send_datagram(ENDPOINT, b"\x08", wait=False)
        with pytest.raises(BlockingIOError):
            plane.hear()
        client.remove_peer(1)
        client.send_keepalive(2, wait=False)
    heard = [list(frames_of(plane.socket.recv(wire.MESSAGE_MAX))) for _ in range(3)]
    assert [[kind for kind, *_ in each] for each in heard] == [
        [WireType.SEND_KEEPALIVE, WireType.SEND_DATAGRAM],
        [WireType.REMOVE_PEER],
        [WireType.SEND_KEEPALIVE],
    ]
    assert [sequence for each in heard for _, sequence, _, _ in each] == [0, 0, 2, 0]
    client.send_keepalive(3, wait=False)
    assert plane.hear()[0] == WireType.SEND_KEEPALIVE


def test_changes_made_together_are_waited_for_once(plane: ScriptedPlane, client: PlaneClient) -> None:
    plane.say(WireType.EVENT_SESSION_WANTED, wire.PEER_EVENT.pack(5))
    plane.answer(WireType.INVENTORY)
    with client.together():
        client.remove_peer(1)
        client.set_peer(2, KEY, [], None)
    heard = [list(frames_of(plane.socket.recv(wire.MESSAGE_MAX))) for _ in range(2)]
    assert [[(kind, sequence) for kind, sequence, *_ in each] for each in heard] == [
        [(WireType.REMOVE_PEER, 0), (WireType.SET_PEER, 0)],
        [(WireType.INVENTORY, 2)],
    ]
    assert client.read_events() == [events.SessionWanted(5)]
    plane.answer(WireType.REMOVE_PEER, error=7)
    with pytest.raises(PlaneError):
        client.remove_peer(1)


def test_the_first_refusal_of_changes_made_together_is_told_at_their_end(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    """And is no event besides; afterwards each is waited for again."""
    plane.say(WireType.REMOVE_PEER | wire.REPLY, error=7)
    plane.say(WireType.SET_PEER | wire.REPLY, error=13)
    plane.answer(WireType.INVENTORY)

    def change() -> None:
        with client.together():
            client.remove_peer(1)
            client.set_peer(2, KEY, [], None)
            client.remove_peer(3)

    with pytest.raises(PlaneError) as caught:
        change()
    assert caught.value.code == "no_such_peer"
    assert len(list(frames_of(plane.socket.recv(wire.MESSAGE_MAX)))) == 3
    assert client.read_events() == []
    plane.answer(WireType.REMOVE_PEER)
    client.remove_peer(1)


def test_what_is_gathered_leaves_before_it_is_much(plane: ScriptedPlane, client: PlaneClient) -> None:
    """A handshake's answer shall not wait for a hundred others."""
    size = wire.HEADER.size + wire.PEER_REQUEST.size
    with client.gathering():
        for _ in range(GATHERED_MAX // size + 1):
            client.send_keepalive(1, wait=False)
        first = plane.socket.recv(wire.MESSAGE_MAX)
    assert GATHERED_MAX <= len(first) < GATHERED_MAX + size
    with pytest.raises(BlockingIOError):
        plane.socket.recv(wire.MESSAGE_MAX)


def test_what_is_too_long_to_go_with_the_rest_goes_after_it(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    with client.gathering():
        client.send_keepalive(1, wait=False)
        client.send_datagram(ENDPOINT, bytes(wire.MESSAGE_MAX - 60), wait=False)
    assert plane.hear()[0] == WireType.SEND_KEEPALIVE
    assert plane.hear()[0] == WireType.SEND_DATAGRAM


def test_many_events_of_one_message_are_read_in_order(plane: ScriptedPlane, client: PlaneClient) -> None:
    bodies = [wire.PEER_EVENT.pack(number) for number in range(7)]
    header = wire.HEADER.pack(WireType.EVENT_SESSION_WANTED, 0, 0, wire.PEER_EVENT.size)
    plane.socket.send(b"".join(header + body for body in bodies))
    assert client.read_events(3) == [events.SessionWanted(number) for number in range(3)]
    assert client.has_events
    plane.socket.close()
    rest = client.read_events()
    assert rest == [*(events.SessionWanted(number) for number in range(3, 7)), events.PlaneGone()]


def test_a_full_socket_is_waited_for_and_events_are_read_meanwhile(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    def fill() -> None:
        for _ in range(100_000):
            client.send_keepalive(1, wait=False)

    plane.say(WireType.EVENT_SESSION_WANTED, wire.PEER_EVENT.pack(5))
    with pytest.raises(PlaneError) as caught:
        fill()
    assert caught.value.code == "timeout"
    assert events.SessionWanted(5) in client.read_events()


def tell_datagrams(plane: ScriptedPlane, numbers: range) -> None:
    for number in numbers:
        body = wire.DATAGRAM_EVENT.pack(0, 0, wire.pack_endpoint(ENDPOINT)) + bytes([number % 256])
        plane.say(WireType.EVENT_DATAGRAM, body)


def test_no_more_events_than_asked_for_and_the_rest_later_in_order(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    tell_datagrams(plane, range(5))
    plane.answer(WireType.FLUSH_STAGED)
    client.flush_staged(1)
    tell_datagrams(plane, range(5, 8))
    assert client.has_events
    read = [client.read_events(3) for _ in range(4)]
    assert [len(each) for each in read] == [3, 3, 2, 0]
    datagrams = [event for each in read for event in each if isinstance(event, events.DatagramEvent)]
    assert [each.data[0] for each in datagrams] == list(range(8))
    assert not client.has_events


def test_a_flood_while_a_request_waits_is_kept_up_to_a_bound_and_the_rest_counted(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    for start in range(0, DATAGRAMS_KEPT_MAX + 200, 100):
        tell_datagrams(plane, range(start, start + 100))
        plane.answer(WireType.FLUSH_STAGED)
        client.flush_staged(1)
    came = client.read_events()
    assert len(came) == DATAGRAMS_KEPT_MAX
    overflowed = -(-(DATAGRAMS_KEPT_MAX + 200) // 100) * 100 - DATAGRAMS_KEPT_MAX
    assert client.drops() == {"hs_queue_full": overflowed}


def test_a_reader_of_all_events_gets_them_all_however_many_wait(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    """What was kept to the bound takes nothing from what still waits in the socket."""
    for start in range(0, DATAGRAMS_KEPT_MAX, 64):
        tell_datagrams(plane, range(start, start + 64))
        plane.answer(WireType.FLUSH_STAGED)
        client.flush_staged(1)
    tell_datagrams(plane, range(100))
    assert len(client.read_events()) == DATAGRAMS_KEPT_MAX + 100
    assert client.drops() == {}
