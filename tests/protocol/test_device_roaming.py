"""Endpoints that move, cookies under load, and the limits of what a source may ask."""

from __future__ import annotations

from tests.fakes.forge import cookie_in, mac2
from tests.fakes.host import Host, Network, endpoint, joined, peer_of, share_session
from tests.fakes.wire import Datagram
from vpnd.protocol.actions import SendDatagram
from vpnd.protocol.constants import PacketType

INIT, RESP, COOKIE, DATA = PacketType.HS_INIT, PacketType.HS_RESP, PacketType.COOKIE, PacketType.DATA
Pair = tuple[Network, Host, Host]


def test_the_responder_follows_a_moved_initiator_with_the_next_packet(connected: Pair) -> None:
    """[C1] The source changed; the answer goes there, and the device's snapshot says so."""
    network, left, right = connected
    left.address = endpoint("198.51.100.7", 4000)
    left.send(right, b"Efrom elsewhere")
    network.run(0.1)
    right.send(left, b"Efound you")
    network.run(0.1)
    assert left.received()[-1] == b"Efound you"
    assert right.device.snapshot(left.key).endpoint == left.address


def test_an_old_delayed_packet_does_not_turn_the_endpoint_back(connected: Pair) -> None:
    """[C3] Of two packets the later sent counts, not the later arrived."""
    network, left, right = connected
    old_address = left.address
    held = network.wire.hold(lambda one: one.kind == DATA and b"Eold" in one.data)
    left.send(right, b"Eold")
    left.address = endpoint("198.51.100.7", 4000)
    left.send(right, b"Enew")
    network.run(0.1)
    network.wire.inject(held[0], network.clock.now)
    network.run(0.1)
    assert held[0].source == old_address
    assert right.received()[-1] == b"Eold"
    assert right.plane.peers[left.key].endpoint == left.address


def test_a_rekey_goes_to_where_the_peer_moved(connected: Pair) -> None:
    """[C1] The responder's own handshake uses the endpoint that the plane learned."""
    network, left, right = connected
    left.address = endpoint("198.51.100.7", 4000)
    left.send(right)
    network.run(0.1)
    since = network.clock.now
    right.perform(right.device.reconnect(left.key, network.clock.now))
    network.run(1.0)
    assert {one.destination for one in network.wire.of_kind(INIT, since)} == {left.address}
    assert share_session(left, right)


def test_replies_from_another_address_of_the_responder_work() -> None:
    """[C11] The response's source becomes the endpoint."""
    network, left, right = joined()
    other = endpoint("198.51.100.20")
    real = right.address
    left.send(right, b"Easymmetric")
    network.run(0.005)
    right.address = other
    network.wire.inject(Datagram(left.address, other, network.wire.captured[0].data), network.clock.now)
    network.run(1.0)
    assert right.received() == [b"Easymmetric"]
    assert left.plane.peers[right.key].endpoint == other
    assert left.device.snapshot(right.key).endpoint == other
    assert real != other


def test_under_load_a_cookie_is_asked_for_and_the_handshake_costs_one_more_round_trip() -> None:
    """[H5] The same message comes back with mac2 within 0.1 s and is answered."""
    network, left, right = joined()
    right.queue_depth = 65
    left.send(right, b"Eunder load")
    took = network.run(5.0, until=lambda: bool(right.received()))
    assert took <= 0.16
    first, second = network.wire.of_kind(INIT)
    assert first.data[:-16] == second.data[:-16]
    assert first.data[-16:] == bytes(16) != second.data[-16:]
    assert right.device.refusals["hs_cookie_sent"] == 1
    assert len(network.wire.of_kind(COOKIE)) == 1
    assert len(network.wire.of_kind(COOKIE)[0].data) == 64


def test_a_cookie_is_used_at_once_for_the_next_two_minutes() -> None:
    """[H5] The next first message carries mac2 from the start; after 120 s it no longer does."""
    network, left, right = joined()
    right.queue_depth = 65
    left.send(right)
    network.run(1.0)
    network.run(60.0)
    since = network.clock.now
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(1.0)
    (again,) = network.wire.of_kind(INIT, since)
    assert again.data[-16:] != bytes(16)
    network.run(120.0)
    since = network.clock.now
    left.perform(left.device.reconnect(right.key, network.clock.now))
    assert network.wire.of_kind(INIT, since)[0].data[-16:] == bytes(16)


def test_a_cookie_of_another_address_is_worth_nothing() -> None:
    """[H5, H7] The message with a good mac2, from another port, gets another cookie and no answer."""
    network, left, right = joined()
    right.queue_depth = 65
    left.start()
    network.run(0.3)
    proven = network.wire.of_kind(INIT)[1].data
    network.run(15.0)
    before = right.device.refusals["hs_cookie_sent"]
    elsewhere = endpoint("198.51.100.7", 4000)
    fresh = right.device.receive(
        proven[:-1] + bytes([proven[-1] ^ 1]), left.address, network.clock.now, queue_depth=65
    )
    moved = right.device.receive(proven, elsewhere, network.clock.now, queue_depth=65)
    for actions in (fresh, moved):
        assert [type(action) for action in actions] == [SendDatagram]
    assert right.device.refusals["hs_cookie_sent"] == before + 2


def test_a_cookie_is_worth_nothing_after_240_seconds_however_quiet_it_was() -> None:
    """[H7] The previous secret lives 120 s after its own end, not after the birth of the next."""
    network, left, right = joined()
    left.start()
    message = network.wire.captured[0].data
    start = network.clock.now

    def answer_to(initiation: bytes, moment: float) -> int:
        (*_, action) = right.device.receive(initiation, left.address, moment, queue_depth=65)
        assert isinstance(action, SendDatagram)
        return action.datagram[0]

    (reply,) = right.device.receive(message, left.address, start, queue_depth=65)
    assert isinstance(reply, SendDatagram)
    left.device.receive(reply.datagram, right.address, start)
    network.run(0.2)
    proven = network.wire.of_kind(INIT)[1].data
    assert answer_to(message, start + 239.0) == COOKIE
    assert answer_to(proven, start + 241.0) == COOKIE


def test_a_cookie_that_a_restarted_responder_does_not_know_costs_one_retry() -> None:
    """[H7] Its mac2 is refused, and the next try leaves without."""
    network, left, right = joined()
    right.queue_depth = 65
    left.send(right)
    network.run(1.0)
    right.kill()
    right.boot()
    right.queue_depth = 0
    left.perform(left.device.reconnect(right.key, network.clock.now))
    since = network.clock.now
    network.run(2.0)
    assert [one.data[-16:] == bytes(16) for one in network.wire.of_kind(INIT, since)] == [False, True]
    assert right.device.refusals["cookie_bad"] == 1
    assert share_session(left, right)


def test_load_holds_for_a_second_after_the_queue_is_short_again() -> None:
    """[H4] Not one message decides: under load stays for 1 s."""
    network, left, right = joined()
    left.start()
    message = network.wire.captured[0].data
    now = network.clock.now
    right.device.receive(message, left.address, now, queue_depth=65)
    (cookie,) = right.device.receive(message, left.address, now + 0.9, queue_depth=0)
    assert isinstance(cookie, SendDatagram)
    assert cookie.datagram[0] == COOKIE
    answer = right.device.receive(message, left.address, now + 2.0, queue_depth=0)
    assert [action.datagram[0] for action in answer if isinstance(action, SendDatagram)] == [RESP]


def proven_initiations(network: Network, left: Host, right: Host, count: int) -> list[bytes]:
    """Different first messages of one peer, all with a good mac2 for its address."""
    made = []
    for _ in range(count):
        left.perform(left.device.reconnect(right.key, network.clock.now))
        made.append(network.wire.captured[-1].data)
    (reply,) = right.device.receive(made[0], left.address, network.clock.now, queue_depth=65)
    assert isinstance(reply, SendDatagram)
    cookie = cookie_in(reply.datagram, made[0], right.key)
    return [one[:-16] + mac2(one, cookie) for one in made]


def test_under_load_a_source_with_cookies_gets_five_at_once_and_twenty_a_second() -> None:
    """[H5] The token bucket per source stands behind the cookie; another source has its own."""
    network, left, right = joined()
    messages = proven_initiations(network, left, right, 100)
    now = network.clock.now
    for message in messages[:10]:
        right.device.receive(message, left.address, now, queue_depth=65)
    assert right.device.refusals["hs_ratelimited"] == 5
    for number, message in enumerate(messages[10:90]):
        right.device.receive(message, left.address, now + 1.0 + number / 40, queue_depth=65)
    assert 5 + 34 <= right.device.refusals["hs_ratelimited"] <= 5 + 36
    third = network.add("third", 3)
    third.configure(peer_of(right, at=right.address))
    (other,) = proven_initiations(network, third, right, 1)
    before = right.device.refusals["hs_ratelimited"]
    right.device.receive(other, third.address, now + 3.0, queue_depth=65)
    assert right.device.refusals["hs_ratelimited"] == before
