"""Wall clocks that lie, and a boot clock that jumps because the machine slept."""

from __future__ import annotations

import pytest

from tests.fakes.host import Host, Network, connect, joined, share_session
from vpnd.protocol.constants import PacketType

INIT = PacketType.HS_INIT
HOUR, YEAR = 3600.0, 365 * 86400.0
Pair = tuple[Network, Host, Host]


def restart(host: Host, *, offset_s: float, keep_state: bool = True) -> None:
    host.kill()
    host.kill_plane()
    if not keep_state:
        host.stored_timestamp_ns = 0
    host.wall.offset_s = offset_s
    host.boot()


@pytest.mark.parametrize("offset", [-HOUR, -10 * YEAR, -57 * YEAR], ids=["hour", "ten years", "1970"])
def test_a_clock_set_back_does_not_stop_a_handshake(connected: Pair, offset: float) -> None:
    """[F1] The stored timestamp carries on where the clock can not."""
    network, left, right = connected
    restart(left, offset_s=offset)
    network.run(0.5)
    assert share_session(left, right)
    assert right.device.refusals.get("hs_stale", 0) == 0


def test_a_timestamp_stored_a_minute_too_early_is_made_good_by_slack(connected: Pair) -> None:
    """[F1] The state file missed the last writes: the slack after it covers them."""
    network, left, right = connected
    network.run(100.0)
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(1.0)
    left.kill()
    left.kill_plane()
    left.stored_timestamp_ns -= 60_000_000_000
    left.wall.offset_s = -HOUR
    left.boot()
    network.run(0.5)
    assert share_session(left, right)
    assert right.device.refusals.get("hs_stale", 0) == 0


def test_a_clock_set_back_while_running_does_not_stop_a_handshake(connected: Pair) -> None:
    """[F1, F6] A step of the wall clock changes nothing of sessions, and timestamps go on rising."""
    network, left, right = connected
    left.wall.offset_s = -YEAR
    before = left.current(right)
    left.send(right, b"Eafter the step")
    network.run(1.0)
    assert left.current(right) is before
    assert b"Eafter the step" in right.received()
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(1.0)
    assert left.current(right) is not before
    assert share_session(left, right)


def test_a_clock_forward_ten_years_and_back_works(connected: Pair) -> None:
    """[F3] The future timestamp is remembered, and exceeded after the clock is right again."""
    network, left, right = connected
    restart(left, offset_s=10 * YEAR)
    network.run(0.5)
    assert share_session(left, right)
    restart(left, offset_s=0.0)
    network.run(0.5)
    assert share_session(left, right)
    assert right.device.refusals.get("hs_stale", 0) == 0


def test_state_lost_and_clock_back_is_refused_as_stale(connected: Pair) -> None:
    """[F2] Without its memory and with an old clock the initiator looks like a replay."""
    network, left, right = connected
    network.run(20.0)
    restart(left, offset_s=-HOUR, keep_state=False)
    network.run(0.5)
    assert right.device.refusals["hs_stale"] == 1
    assert right.device.snapshot(left.key).last_refusal == "hs_stale"


def test_state_lost_and_clock_back_heals_when_the_other_side_calls(connected: Pair) -> None:
    """[F2] The other side's timestamps are its own: its handshake works."""
    network, left, right = connected
    network.run(20.0)
    restart(left, offset_s=-HOUR, keep_state=False)
    right.send(left, b"Ecalling")
    network.run(15.0)
    assert share_session(left, right)


def test_timestamps_rise_by_a_coarse_tick_even_in_one_instant() -> None:
    """[F4] Many first messages at one wall clock time: each is later than the one before, 2^24 ns grid."""
    network, left, right = joined()
    seen = [left.device.last_timestamp_ns]
    for _ in range(50):
        left.perform(left.device.reconnect(right.key, network.clock.now))
        seen.append(left.device.last_timestamp_ns)
    used = [stamp for stamp in seen[1:] if stamp]
    assert used == sorted(used)
    assert all(stamp % 2**24 == 0 for stamp in used)
    assert len(network.wire.of_kind(INIT)) >= 1


def test_the_responder_accepts_each_of_two_initiations_made_in_one_tick() -> None:
    """[F4] The second first message of the same 17 ms is newer, not stale."""
    network, left, right = joined()
    connect(network, left, right)
    left.wall.offset_s = -(network.clock.now - 1000.0)
    for _ in range(5):
        left.wall.offset_s -= 0.03
        left.perform(left.device.reconnect(right.key, network.clock.now))
        network.run(0.03)
    network.run(3.0)
    assert right.device.refusals.get("hs_stale", 0) == 0
    assert share_session(left, right)


def sleep(network: Network, host: Host, seconds: float) -> None:
    """The machine sleeps: nothing of it runs, then BOOTTIME has jumped and the driver says so."""
    others = [other for other in network.hosts if other is not host]
    network.hosts[:] = others
    network.run(seconds)
    network.hosts.insert(0, host)
    host.plane.expire(network.clock.now)
    host.drain_events()
    host.perform(host.device.resumed(network.clock.now))


def test_after_ten_seconds_of_sleep_the_old_session_goes_on(connected: Pair) -> None:
    """[F5] The first packet after a nap passes at once."""
    network, left, right = connected
    network.run(5.0)
    sleep(network, left, 10.0)
    left.send(right, b"Eawake")
    network.run(0.05)
    assert right.received()[-1] == b"Eawake"


@pytest.mark.parametrize("seconds", [200.0, HOUR])
def test_after_a_long_sleep_packets_pass_in_one_round_trip_and_never_under_an_old_key(
    connected: Pair, seconds: float
) -> None:
    """[F5] BOOTTIME counted the sleep: old sessions are dead, a new one is made at once."""
    network, left, right = connected
    old_keys = set(left.plane.installed_send_keys)
    sleep(network, left, seconds)
    since = network.clock.now
    left.send(right, b"Eawake")
    took = network.run(5.0, until=lambda: b"Eawake" in right.received())
    assert took <= 0.05
    session = left.current(right)
    assert session is not None
    assert session.send_key not in old_keys
    assert session.created_at >= since


def test_resume_calls_only_peers_that_were_active_lately(connected: Pair) -> None:
    """[F5] A peer unheard of for longer than 180 s is not woken."""
    network, left, _right = connected
    network.run(400.0)
    assert left.device.resumed(network.clock.now) == []


def test_a_changed_network_asks_active_peers_whether_they_are_there(connected: Pair) -> None:
    """[C12, F5] A route changed: a PING goes out, the answer comes, no handshake is made."""
    network, left, _right = connected
    network.run(5.0)
    inits = len(network.wire.of_kind(INIT))
    left.perform(left.device.network_changed(network.clock.now))
    sent = [one for one in network.wire.of_kind(0x0C) if one.data[16] == 0x27]
    assert len(sent) == 1
    network.run(10.0)
    assert len(network.wire.of_kind(INIT)) == inits
