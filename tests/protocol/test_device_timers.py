"""What happens by itself: rekey, keepalives, probes, expiry, each at its second."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.host import Host, Network, connect, joined, peer_of, share_session
from tests.fakes.wire import Weather
from vpnd.protocol.actions import SendKeepalive
from vpnd.protocol.constants import TIMERS, Control, PacketType

INIT, RESP, DATA = PacketType.HS_INIT, PacketType.HS_RESP, PacketType.DATA
TICK_S = 1.1  # stamps are looked at once a second


def chat(network: Network, left: Host, right: Host, seconds: float, every_s: float = 1.0) -> None:
    """Both sides send a packet every so often."""
    end = network.clock.now + seconds
    number = 0
    while network.clock.now < end:
        left.send(right, b"El%d" % number)
        right.send(left, b"Er%d" % number)
        network.run(min(every_s, end - network.clock.now))
        number += 1


def inits_of(network: Network, host: Host, since: float = 0.0) -> list[float]:
    return [one.sent_at for one in network.wire.of_kind(INIT, since) if one.source == host.address]


def created(host: Host, other: Host) -> float:
    session = host.current(other)
    assert session is not None
    return session.created_at


@pytest.mark.parametrize("seed", range(5))
def test_the_initiator_rekeys_a_used_session_between_110_and_120_seconds(seed: int) -> None:
    """[F7] REKEY_AFTER_TIME with its jitter; the responder does not start one as well."""
    network, left, right = joined(seed=seed)
    connect(network, left, right)
    born = created(left, right)
    chat(network, left, right, 125.0)
    (_, rekey) = inits_of(network, left)
    assert 110.0 <= rekey - born <= 120.0 + TICK_S
    assert inits_of(network, right) == []
    assert not left.plane.drops
    assert len(set(right.received())) == len(right.received())


def test_the_jitter_of_the_rekey_differs_between_sessions() -> None:
    """[F7] A thousand tunnels born together do not rekey together."""
    moments = set()
    for seed in range(8):
        network, left, right = joined(seed=seed)
        connect(network, left, right)
        born = created(left, right)
        chat(network, left, right, 121.0, every_s=5.0)
        moments |= {round(moment - born, 2) for moment in inits_of(network, left)[1:]}
    assert len(moments) > 4


def test_an_unused_session_is_not_rekeyed_and_ends_at_180_seconds() -> None:
    """[F7] Without data there is nothing to renew; REJECT_AFTER_TIME ends the session on both sides."""
    network, left, right = joined()
    left.start()
    network.run(1.0)
    born = created(left, right)
    network.run(born + 179.0 - network.clock.now)
    assert left.current(right) is not None
    network.run(2.0)
    assert left.current(right) is None
    assert right.current(left) is None
    assert len(network.wire.of_kind(INIT)) == 1
    assert left.device.snapshot(right.key).stage == "idle"


def test_a_packet_after_the_end_of_the_session_makes_a_new_one(
    connected: tuple[Network, Host, Host],
) -> None:
    """[F7] The tunnel sleeps and wakes by traffic."""
    network, left, right = connected
    network.run(300.0)
    right.send(left, b"Ewake")
    network.run(1.0)
    assert left.received()[-1] == b"Ewake"
    assert share_session(left, right)


def test_the_responder_rekeys_at_150_seconds_if_the_initiator_does_not(
    connected: tuple[Network, Host, Host],
) -> None:
    """[G3] The initiator's first messages are lost; the responder saves the session's successor."""
    network, left, right = connected
    born = created(right, left)
    network.wire.drop_all(INIT, source=left.address)
    chat(network, left, right, 165.0)
    rekeys = inits_of(network, right)
    assert rekeys
    assert 150.0 <= rekeys[0] - born <= 150.0 + TICK_S
    assert share_session(left, right)
    session = right.current(left)
    assert session is not None
    assert session.is_initiator
    assert right.plane.drops == {}


def test_when_every_rekey_is_lost_traffic_stops_at_180_seconds(
    connected: tuple[Network, Host, Host],
) -> None:
    """[G5] An attacker who drops all handshakes stops traffic but never stretches a key's life."""
    network, left, right = connected
    born = created(left, right)
    network.wire.drop_all(INIT)
    chat(network, left, right, 260.0)
    last = max(one.sent_at for one in network.wire.of_kind(DATA))
    assert 178.0 <= last - born < 180.0
    keys = left.plane.installed_send_keys
    assert len(keys) == 1
    network.wire.heal()
    network.run(8.0)
    assert share_session(left, right)
    assert len(set(left.plane.installed_send_keys)) == 2


def test_late_packets_of_the_previous_session_are_taken_for_30_seconds(
    connected: tuple[Network, Host, Host],
) -> None:
    """[G6] Accepted at 29 s after the successor's confirmation, refused at 31 s."""
    network, left, right = connected
    held = network.wire.hold(lambda one: one.kind == DATA and b"Elate" in one.data)
    left.send(right, b"Elate 29")
    left.send(right, b"Elate 31")
    network.wire.drop_rules.clear()
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(0.5, until=lambda: right.plane.peers[left.key].previous is not None)
    confirmed = network.clock.now
    chat(network, left, right, confirmed + 29.0 - network.clock.now)
    network.wire.inject(held[0], network.clock.now)
    network.run(0.1)
    assert b"Elate 29" in right.received()
    network.run(confirmed + 31.0 - network.clock.now)
    network.wire.inject(held[1], network.clock.now)
    network.run(0.1)
    assert b"Elate 31" not in right.received()
    assert right.plane.drops == {"data_noidx": 1}


def test_ten_seconds_after_unanswered_data_one_keepalive_leaves(
    connected: tuple[Network, Host, Host],
) -> None:
    """[F7] KEEPALIVE: who received data and sent nothing says so between 10 and 11 s, once."""
    network, left, right = connected
    network.run(30.0)
    left.send(right, b"Eone way")
    network.run(0.1)
    since = right.plane.peers[left.key].stamps.last_data_received
    network.wire.cut()  # no probe comes that the plane would answer
    before = right.count_of(SendKeepalive)
    network.run(since + 9.9 - network.clock.now)
    assert right.count_of(SendKeepalive) == before
    network.run(since + 10.0 + TICK_S - network.clock.now)
    assert right.count_of(SendKeepalive) == before + 1
    network.run(20.0)
    assert right.count_of(SendKeepalive) == before + 1


def test_a_persistent_keepalive_leaves_at_its_interval(connected: tuple[Network, Host, Host]) -> None:
    """[F7, C5] With nothing to send, one empty message every n seconds keeps a NAT open."""
    network, left, right = connected
    left.configure(peer_of(right, at=right.address, keepalive_s=7))
    network.run(20.0)
    before = left.count_of(SendKeepalive)
    network.run(70.0)
    assert 9 <= left.count_of(SendKeepalive) - before <= 10


def test_a_persistent_peer_stays_up_without_traffic() -> None:
    """[F7] Keepalives are no data, yet the session is renewed before it ends, or right after."""
    network, left, right = joined()
    left.configure(peer_of(right, at=right.address, keepalive_s=25))
    left.start()
    network.run(5.0)
    for _ in range(60):
        network.run(10.0)
        network.run(1.5, until=lambda: share_session(left, right))
        assert share_session(left, right)


def test_a_peer_that_becomes_persistent_without_a_session_is_called_at_once(
    connected: tuple[Network, Host, Host],
) -> None:
    """[F7] The session ended unused; a keepalive that is configured then asks for one."""
    network, left, right = connected
    network.run(200.0)
    assert left.current(right) is None
    left.configure(peer_of(right, at=right.address, keepalive_s=25))
    network.run(TICK_S)
    assert share_session(left, right)


def test_a_silent_peer_is_asked_three_times_and_then_a_handshake_starts(
    connected: tuple[Network, Host, Host],
) -> None:
    """[F7, I1] PROBE_PEER: PINGs at 3, 4 and 5 s after unanswered data, a handshake at 6 s."""
    network, left, right = connected
    network.run(30.0)
    network.wire.cut()
    left.send(right, b"Einto the void")
    since = network.clock.now
    network.run(5.9)
    pings = [
        one.sent_at - since
        for one in network.wire.of_kind(DATA, since)
        if one.source == left.address and one.data[16] == Control.PING
    ]
    assert [round(moment) for moment in pings] == [3, 4, 5]
    assert inits_of(network, left, since) == []
    network.run(0.1 + TICK_S)
    (first, *_) = inits_of(network, left, since)
    assert 6.0 <= first - since <= 6.0 + TICK_S


def test_a_peer_that_answers_probes_is_left_alone(connected: tuple[Network, Host, Host]) -> None:
    """[F7] One-way traffic for a minute: the plane's answers suffice, no handshake starts."""
    network, left, right = connected
    since = network.clock.now
    for number in range(60):
        left.send(right, b"E%d" % number)
        network.run(1.0)
    assert inits_of(network, left, since) == []
    assert share_session(left, right)


def test_two_to_the_32_messages_start_a_rekey(connected: tuple[Network, Host, Host]) -> None:
    """[F7, B4] REKEY_AFTER_MESSAGES: the plane's count decides, not the clock."""
    network, left, right = connected
    session = left.current(right)
    assert session is not None
    session.counter = TIMERS.rekey_after_messages - 2
    left.send(right)
    network.run(2.0)
    assert len(inits_of(network, left)) == 1
    left.send(right)
    network.run(TICK_S + 0.1)
    assert len(inits_of(network, left)) == 2
    renewed = left.current(right)
    assert renewed is not None
    assert renewed is not session


def test_two_to_the_42_bytes_start_a_rekey_on_the_responders_side_too(
    connected: tuple[Network, Host, Host],
) -> None:
    """[F7, B4] REKEY_AFTER_BYTES: either side starts."""
    network, left, right = connected
    session = right.current(left)
    assert session is not None
    network.run(1.0)
    session.bytes_sent = TIMERS.rekey_after_bytes - 1
    right.send(left)
    network.run(TICK_S + 0.1)
    assert len(inits_of(network, right)) == 1
    renewed = right.current(left)
    assert renewed is not None
    assert renewed is not session


@pytest.mark.parametrize("seed", range(3))
def test_rekeys_in_bad_weather_never_let_a_session_grow_older_than_180_seconds(seed: int) -> None:
    """[G2] At 30 % loss with reordering and doubling for ten minutes: loss is the wire's, no more."""
    weather = Weather(delay_s=0.02, jitter_s=0.05, loss=0.3, duplicate=0.2)
    network, left, right = joined(seed=seed, weather=weather)
    left.send(right)
    network.run(60.0, until=lambda: share_session(left, right))
    begun = network.clock.now
    sent = 0
    while network.clock.now < begun + 600.0:
        left.send(right, b"E%d" % sent)
        sent += 1
        network.run(0.5)
        session = left.current(right)
        assert session is not None
        assert network.clock.now - session.created_at < 180.0
    lost = [one for one in network.wire.dropped if one.kind == DATA and one.data[16:17] == b"E"]
    network.run(5.0)
    arrived = {packet for packet in right.received() if packet != b"Epacket"}
    assert len(arrived) >= sent - len(lost) - sent // 100


def test_next_deadline_is_never_in_the_past_for_long(connected: tuple[Network, Host, Host]) -> None:
    """[F7] After a tick at its deadline a device asks for a later moment: the driver never spins."""
    network, left, _ = connected
    for _ in range(200):
        deadline = left.device.next_deadline(network.clock.now)
        if deadline is not None and deadline <= network.clock.now:
            left.wake()
            again = left.device.next_deadline(network.clock.now)
            assert again is None or again > network.clock.now
        network.run(1.37)


def test_with_injected_timers_rekeys_follow_each_other_without_loss() -> None:
    """[G1] A session every two seconds, for half a minute of packets, and none is lost."""
    timers = replace(TIMERS, rekey_after_s=2.0, rekey_jitter_s=0.2, rekey_responder_s=3.0)
    network, left, right = joined(timers=timers)
    connect(network, left, right)
    for number in range(1500):
        left.send(right, b"El%d" % number)
        right.send(left, b"Er%d" % number)
        network.run(0.02)
    network.run(1.0)
    assert len(network.wire.of_kind(INIT)) >= 9
    assert right.received()[1:] == [b"El%d" % number for number in range(1500)]
    assert left.received() == [b"Er%d" % number for number in range(1500)]
    assert not left.plane.drops
    assert not right.plane.drops
