"""Two devices on a wire that carries less than the link would like: who asks when, what the plane hears."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.host import OPTIONS, Host, Network, connect, endpoint, joined, peer_of
from tests.fakes.wire import Datagram
from vpnd.protocol.actions import SendControl, SetPeerMtu
from vpnd.protocol.constants import TIMERS, Control, Feature, GoodbyeReason, Slot, Suite
from vpnd.protocol.control_messages import encode_probe
from vpnd.protocol.discovery import around_plaintext
from vpnd.protocol.peer import PeerSnapshot
from vpnd.protocol.sessions import AdoptedSession

ASKING = replace(OPTIONS, features=OPTIONS.features | Feature.PMTU)
IPV4 = 28  # outer headers
SEARCH_S = 3 * TIMERS.path_try_s + 0.5
DATA = b"E" + bytes(99)


def narrow(network: Network, mtu: int) -> None:
    """Data larger than this is swallowed from now on."""

    def swallowed(datagram: Datagram) -> bool:
        return datagram.kind == 0x0C and len(datagram.data) + IPV4 > mtu

    network.wire.drop_rules[:] = [swallowed]


def told(host: Host) -> list[int]:
    return [action.mtu for action in host.actions if isinstance(action, SetPeerMtu)]


def probes(host: Host) -> list[int]:
    """Sizes of the outer packets of the probes that left."""
    sent = [action.payload for action in host.actions if isinstance(action, SendControl)]
    return [len(payload) + 60 for payload in sent if payload[0] == Control.PROBE]


def snapshot(of: Host, peer: Host) -> PeerSnapshot:
    return of.device.snapshot(peer.key)


def meet(mtu: int = 1500, **settings: object) -> tuple[Network, Host, Host]:
    network, left, right = joined(**{"options": ASKING, **settings})  # type: ignore[arg-type]
    narrow(network, mtu)
    connect(network, left, right)
    return network, left, right


def test_both_ends_ask_and_a_path_that_carries_all_limits_nobody() -> None:
    network, left, right = meet()
    network.run(SEARCH_S)
    for here, there in ((left, right), (right, left)):
        assert probes(here) == [1280, 1380, 1400, 1420, 1452, 1472, 1480]
        assert (snapshot(here, there).path_mtu, snapshot(here, there).mtu) == (1480, 0)
        assert told(here) == [0]


def test_the_plane_is_told_what_fits_once_that_is_known() -> None:
    """[D4, D6] Nothing is said while the search runs."""
    network, left, right = meet(1400)
    network.run(1.0)
    assert told(left) == []
    network.run(SEARCH_S)
    assert told(left) == told(right) == [1340]
    assert left.plane.peers[right.key].mtu == 1340
    assert (snapshot(left, right).path_mtu, snapshot(left, right).mtu) == (1400, 1340)


def test_a_responder_that_learns_where_the_peer_is_asks_too() -> None:
    """Its endpoint comes with the session's first message."""
    network, left, right = meet(1400, both_know=False)
    network.run(SEARCH_S)
    assert told(left) == told(right) == [1340]


def test_frames_need_room_for_their_headers() -> None:
    network, left, right = meet(1400, options=replace(ASKING, link_type=Feature.TAP))
    network.run(SEARCH_S)
    assert told(left) == told(right) == [1340 - 19]


def test_frames_that_arrive_in_pieces_may_be_as_large_as_the_link_has_them() -> None:
    """[E9] A bridged network counts on every frame; a packet's sender is told, a frame's is not."""
    for kind, limit in ((Feature.TAP, 0), (Feature.TUN, 1340)):
        network, left, right = meet(1400, options=replace(ASKING, link_type=kind))
        network.run(0.3)
        network.wire.drop_rules.clear()
        here = left.device.snapshot(right.key)
        (asked,) = [
            action.payload
            for action in left.actions
            if isinstance(action, SendControl) and len(action.payload) + 60 == 1420
        ]
        session = left.current(right)
        assert here.path_mtu is None
        assert session is not None
        piece = b"\x22" + asked[1:5] + (1400 - 60).to_bytes(2, "little")
        left.perform(
            left.device.receive_control(
                right.key, session.local_index, right.address, piece, network.clock.now
            )
        )
        network.run(SEARCH_S)
        assert told(left) == [limit]


def test_a_peer_without_the_feature_is_not_asked() -> None:
    network = Network()
    left, right = network.add("left", 1, options=ASKING), network.add("right", 2)
    left.configure(peer_of(right, at=right.address))
    right.configure(peer_of(left))
    narrow(network, 1400)
    connect(network, left, right)
    network.run(SEARCH_S)
    assert probes(left) == probes(right) == []
    assert snapshot(left, right).path_mtu is None


def test_a_rekey_does_not_ask_again() -> None:
    network, left, right = meet(1400)
    network.run(SEARCH_S)
    asked = len(probes(left))
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(SEARCH_S)
    assert left.device.snapshot(right.key).handshakes == 2
    assert len(probes(left)) == asked


def test_a_search_that_learnt_nothing_is_repeated_with_the_next_session() -> None:
    network, left, right = meet(1000)
    network.run(SEARCH_S)
    assert (probes(left), told(left), snapshot(left, right).path_mtu) == ([1280] * 3, [], None)
    narrow(network, 1400)
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(SEARCH_S)
    assert told(left) == [1340]


def test_a_search_is_repeated_after_ten_minutes() -> None:
    network, left, right = meet(1400)
    for host, other in ((left, right), (right, left)):
        host.configure(replace(peer_of(other, at=other.address), keepalive_s=20))
    network.run(SEARCH_S)
    narrow(network, 1500)
    network.run(TIMERS.path_raise_s + 1.0)
    assert told(left) == [1340, 1360, 1392, 1412, 0]


def stream(network: Network, left: Host, right: Host, seconds: float) -> None:
    """Large packets from left to right; right answers each that comes, as TCP does."""
    end = network.clock.now + seconds
    seen = len(right.received())
    while network.clock.now < end:
        mtu = left.plane.peers[right.key].mtu or ASKING.mtu
        left.send(right, b"E" + bytes(mtu - 1))
        network.run(0.2)
        if len(right.received()) > seen:
            seen = len(right.received())
            right.send(left, DATA)


def test_a_path_that_swallows_all_of_a_sudden_is_found_out_within_three_seconds() -> None:
    """[D4] First above 1400, then above 1280, and each time the data go on."""
    network, left, right = meet()
    stream(network, left, right, 10.0)
    assert told(left) == [0]
    for mtu in (1400, 1280):
        narrow(network, mtu)
        changed_at, before = network.clock.now, len(right.received())
        while len(right.received()) == before:
            stream(network, left, right, 0.2)
            assert network.clock.now < changed_at + 3.0
        stream(network, left, right, 10.0)
        assert snapshot(left, right).path_mtu == mtu
        assert told(left)[-1] == mtu - 60
    network.run(1.0)
    assert right.received()[-1] == b"E" + bytes(1219)


def test_beside_a_talk_that_goes_on_it_is_found_out_within_half_a_minute() -> None:
    """[D4] Small packets are answered all the time, so that nothing looks silent."""
    network, left, right = meet()
    network.run(SEARCH_S)
    narrow(network, 1400)
    for _ in range(70):
        left.send(right, DATA)
        network.run(0.1)
        right.send(left, DATA)
        network.run(0.4)
    assert told(left) == [0, 1220, 1320, 1340]


def test_silence_of_the_whole_path_is_no_word_about_its_size() -> None:
    network, left, right = meet(1400)
    stream(network, left, right, 10.0)
    network.run(0.1)
    network.wire.cut()
    for _ in range(2):
        left.send(right, DATA)
        network.run(0.3)
    network.run(5.0)
    assert probes(left)[-4:] == [1400, 1280, 1280, 1280]
    assert told(left) == [1340]


def test_a_stream_that_nobody_answers_is_looked_at_every_half_minute() -> None:
    """It was never answered, so that silence says nothing."""
    network, left, right = meet()
    network.run(10.0)
    asked = len(probes(left))
    for _ in range(650):
        left.send(right, DATA)
        network.run(0.1)
    assert probes(left)[asked:] == [1480, 1280] * 2
    assert told(left) == [0]


def test_the_last_word_of_a_talk_casts_no_doubt() -> None:
    network, left, right = meet()
    network.run(10.0)
    asked = len(probes(left))
    right.send(left, DATA)
    network.run(0.1)
    left.send(right, DATA)
    network.run(9.0)
    assert len(probes(left)) == asked


def test_slow_answers_cast_doubt_every_five_seconds_at_most() -> None:
    network, left, right = meet()
    network.run(10.0)
    asked = len(probes(left))
    for _ in range(20):
        for _ in range(5):
            left.send(right, DATA)
            network.run(0.2)
        right.send(left, DATA)
        network.run(0.1)
    assert 3 <= probes(left)[asked:].count(1480) <= 5
    assert told(left) == [0]


def test_without_data_nothing_is_asked() -> None:
    network, left, right = meet()
    left.configure(replace(peer_of(right, at=right.address), keepalive_s=10))
    network.run(SEARCH_S)
    asked = len(probes(left))
    network.run(100.0)
    assert len(probes(left)) == asked


def test_a_restarted_daemon_keeps_what_the_plane_has() -> None:
    """Sessions taken over do not tell their features: the next handshake has the path asked anew."""
    network, left, right = meet(1400)
    network.run(SEARCH_S)
    left.kill()
    left.boot()
    network.run(1.0)
    assert left.plane.peers[right.key].mtu == 1340
    assert snapshot(left, right).mtu == 1340
    narrow(network, 1500)
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(SEARCH_S)
    assert left.plane.peers[right.key].mtu == 0


def test_a_plane_that_lost_it_is_told_again() -> None:
    network, left, right = meet(1400)
    network.run(SEARCH_S)
    left.plane.set_peer_mtu(right.key, 0)
    left.device.adopt(right.key, [], None, network.clock.now, mtu=0)
    left.start()
    assert left.plane.peers[right.key].mtu == 1340


def test_a_peer_that_moved_is_asked_again_once_it_is_proven() -> None:
    network, left, right = meet(1400)
    network.run(10.0)
    asked = len(probes(left))
    right.address = endpoint("192.0.2.77")
    narrow(network, 1500)
    right.send(left, DATA)
    network.run(0.9)
    assert len(probes(left)) == asked
    network.run(SEARCH_S)
    assert told(left) == [1340, 0]


def test_a_session_from_another_address_has_its_path_asked() -> None:
    """The configuration moved the peer: a handshake follows, and the search with it."""
    network, left, right = meet(1400)
    network.run(SEARCH_S)
    narrow(network, 1500)
    right.address = endpoint("192.0.2.77")
    left.configure(peer_of(right, at=right.address))
    network.run(SEARCH_S)
    assert told(left) == [1340, 0]


def test_the_next_session_without_the_feature_lifts_the_limit() -> None:
    """The peer went back to a version that cannot be asked."""
    network, left, right = meet(1400)
    network.run(SEARCH_S)
    right.options = OPTIONS
    right.kill_plane()
    right.kill()
    right.boot()
    network.run(2.0)
    assert told(left) == [1340, 0]
    assert snapshot(left, right).path_mtu is None


def test_a_search_ends_with_its_session() -> None:
    network, left, right = meet(1400)
    right.say_goodbye(GoodbyeReason.SHUTDOWN)
    network.run(0.2)
    asked = len(probes(left))
    network.run(5.0)
    assert len(probes(left)) == asked
    assert told(left) == []


def test_answers_without_a_question_are_ignored() -> None:
    """[H13] A faulty peer cannot make its own path small or large."""
    network, left, right = meet()
    network.run(SEARCH_S)
    for number in range(50):
        payload = b"\x22" + number.to_bytes(4, "little") + b"\x64\0"
        right.perform([SendControl(left.key, payload)])
    network.run(1.0)
    assert told(left) == [0]


def test_without_an_endpoint_nothing_can_be_asked_or_told() -> None:
    """A session taken over from a plane that was told no endpoint."""
    network, left, right = joined(options=ASKING, left_knows=False)
    now = network.clock.now
    session = AdoptedSession(7, 8, Suite(1), Slot.CURRENT, is_initiator=True, preferred=True, created_at=now)
    left.device.adopt(right.key, [session], None, now, mtu=1340)
    assert left.device.start(now) == []
    answer = b"\x22" + bytes(4) + b"\0\5"
    assert left.device.receive_control(right.key, 7, right.address, answer, now) == []
    assert left.device.snapshot(right.key).mtu == 1340


@pytest.mark.parametrize(("address", "around"), [("192.0.2.1", 60), ("2001:db8::1", 80)])
def test_what_stands_around_a_plaintext_depends_on_the_outer_family(address: str, around: int) -> None:
    assert around_plaintext(endpoint(address)) == around
    assert len(encode_probe(1, 1280 - around)) == 1280 - around


def test_a_link_smaller_than_its_share_of_the_path_is_not_limited() -> None:
    """An MTU of 1000 needs datagrams of 1060 bytes, and no more is asked for."""
    network, left, _ = meet(1400, options=replace(ASKING, mtu=1000))
    network.run(SEARCH_S)
    assert probes(left) == [1060]
    assert told(left) == [0]
