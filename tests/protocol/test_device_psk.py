"""Preshared keys: equal, missing, different, and rolled over under traffic."""

from __future__ import annotations

import pytest

from tests.fakes.host import Host, Network, connect, joined, peer_of, share_session
from vpnd.keys import Secret
from vpnd.protocol.actions import SendDatagram
from vpnd.protocol.constants import TIMERS, PacketType

OLD, NEW = bytes(range(32)), bytes(range(100, 132))


def psk(raw: bytes) -> Secret:
    return Secret.copy_of(raw)


def test_equal_preshared_keys_work() -> None:
    """[A16] Both have the same key: up."""
    network, left, right = joined(psk=psk(OLD))
    connect(network, left, right)


@pytest.mark.parametrize("theirs", [bytes(32), NEW], ids=["missing", "different"])
def test_unequal_preshared_keys_are_counted_at_the_responder_within_one_try(theirs: bytes) -> None:
    """[A16] The responder names the reason at the first message and stays silent."""
    network, left, right = joined(psk=psk(OLD), right_psk=psk(theirs))
    left.start()
    network.run(0.5)
    assert right.device.refusals == {"hs_box_params": 1}
    assert right.device.snapshot(left.key).last_refusal == "hs_box_params"
    assert right.count_of(SendDatagram) == 0


def roll(host: Host, other: Host, psk_now: bytes, psk_before: bytes | None) -> None:
    previous = None if psk_before is None else psk(psk_before)
    host.configure(peer_of(other, at=other.address, psk=psk(psk_now), previous_preshared_key=previous))


@pytest.mark.parametrize("left_first", [True, False])
def test_a_roll_over_under_traffic_loses_no_packet(left_first: bool) -> None:
    """[A16] One side has the new key first; rekeys between both configurations work on the old one."""
    network, left, right = joined(psk=psk(OLD))
    connect(network, left, right)
    count = 0

    def talk(seconds: float) -> None:
        nonlocal count
        for _ in range(int(seconds * 10)):
            left.send(right, b"E%d" % count)
            right.send(left, b"E%d" % count)
            count += 1
            network.run(0.1)

    early, late = (left, right) if left_first else (right, left)
    talk(1.0)
    roll(early, late, NEW, OLD)
    talk(1.0)
    for host, other in ((left, right), (right, left)):
        host.perform(host.device.reconnect(other.key, network.clock.now))
        talk(3.0)
        assert share_session(left, right)
    roll(late, early, NEW, OLD)
    talk(1.0)
    for host, other in ((left, right), (right, left)):
        host.perform(host.device.reconnect(other.key, network.clock.now))
        talk(3.0)
        assert share_session(left, right)
    assert left.received() == [b"E%d" % number for number in range(count)]
    assert right.received()[1:] == [b"E%d" % number for number in range(count)]


def test_the_previous_key_is_refused_after_an_hour() -> None:
    """[A16] A roll-over ends: whoever still has only the old key is refused and named."""
    network, left, right = joined(psk=psk(OLD))
    roll(right, left, NEW, OLD)
    left.start()
    network.run(1.0)
    assert share_session(left, right)
    network.run(TIMERS.psk_roll_s + 10.0)
    since = network.clock.now
    left.send(right)
    network.run(0.5)
    assert right.device.refusals["hs_box_params"] >= 1
    assert network.wire.of_kind(PacketType.HS_RESP, since) == []


def test_a_changed_preshared_key_makes_a_new_session(connected: tuple[Network, Host, Host]) -> None:
    """[A16] Both sides get a key while connected: the next session is made with it."""
    network, left, right = connected
    old = left.current(right)
    for host, other in ((left, right), (right, left)):
        host.configure(peer_of(other, at=other.address, psk=psk(NEW)))
    network.run(1.0)
    left.send(right, b"Ewith the key")
    network.run(3.0)
    assert right.received()[-1] == b"Ewith the key"
    assert share_session(left, right)
    assert old is not None
