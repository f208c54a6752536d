"""Which session is in which slot, what each may do there, and when it ends."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path

import pytest

from tests.plane import far
from tests.plane.far import Session
from tests.plane.harness import (
    SHORT_FORGED,
    SHORT_MESSAGES,
    SHORT_PREVIOUS_S,
    SHORT_SESSION_S,
    SHORT_UNCONFIRMED_S,
    Far,
    Rig,
    is_sanitized,
    wait_until,
)
from tests.plane.packets import number_of, numbered
from vpnd.errors import PlaneError
from vpnd.plane import events
from vpnd.plane.events import SessionEnded, SessionPlaced, SessionWanted
from vpnd.plane.wire import SessionEnd, SessionSlot

HERE, THERE = "10.1.0.1", "10.2.0.7"
UNCONFIRMED, CURRENT, PREVIOUS = SessionSlot.UNCONFIRMED, SessionSlot.CURRENT, SessionSlot.PREVIOUS


@pytest.fixture
def peer(tun: Rig) -> Far:
    return tun.add_peer(1)


def confirm(rig: Rig, peer: Far, session: Session) -> None:
    """With nothing staged: a keepalive is the answer."""
    peer.send(session.seal(b""))
    peer.receive()
    assert rig.slots().get(session.local_index) in (CURRENT, PREVIOUS)


# ---- slots ----


def test_an_initiators_session_is_current_at_once_and_the_old_one_previous(tun: Rig, peer: Far) -> None:
    first = peer.install()
    second = peer.install()
    third = peer.install()
    assert tun.slots() == {second.local_index: PREVIOUS, third.local_index: CURRENT}
    assert peer.counters().current_index == third.local_index
    placed = [each for each in tun.events() if isinstance(each, SessionPlaced)]
    assert [(each.local_index, each.slot) for each in placed] == [
        (first.local_index, CURRENT),
        (second.local_index, CURRENT),
        (third.local_index, CURRENT),
    ]


def test_a_responders_session_may_receive_but_not_send_until_confirmed(tun: Rig, peer: Far) -> None:
    session = peer.install(is_initiator=False)
    assert tun.slots() == {session.local_index: UNCONFIRMED}
    assert peer.counters().current_index is None
    tun.link.send(numbered(HERE, THERE, 1))
    wait_until(lambda: peer.counters().staged == 1, "the packet staged")
    for local_index in (0, session.local_index):
        with pytest.raises(PlaneError, match="no_session"):
            tun.client.send_control(1, b"\x20\x01", local_index)
    with pytest.raises(PlaneError, match="no_session"):
        tun.client.send_keepalive(1)
    assert far.receive_waiting(peer.socket) == []
    back = numbered(THERE, HERE, 2)
    peer.send(session.seal(back))
    assert tun.link.receive() == back
    assert number_of(session.open(peer.receive()).plaintext) == 1
    assert tun.wait_event(SessionPlaced) == SessionPlaced(1, session.local_index, CURRENT)
    assert peer.counters().current_index == session.local_index


def test_a_confirmation_with_nothing_staged_is_answered_by_a_keepalive(tun: Rig, peer: Far) -> None:
    session = peer.install(is_initiator=False)
    peer.send(session.seal(b""))
    assert session.open(peer.receive()).plaintext == b""
    peer.send(session.seal(b""))
    wait_until(lambda: tun.received() == 2, "the second keepalive in")
    assert tun.slots() == {session.local_index: CURRENT}
    assert far.receive_waiting(peer.socket) == []


def test_a_forged_message_confirms_nothing(tun: Rig, peer: Far) -> None:
    session = peer.install(is_initiator=False)
    keepalive = session.seal(b"")
    peer.send(keepalive[:-1] + bytes([keepalive[-1] ^ 1]))
    tun.wait_drops("data_auth", 1)
    assert tun.slots() == {session.local_index: UNCONFIRMED}


def test_a_confirmation_destroys_the_older_unconfirmed_and_spares_the_newer(tun: Rig, peer: Far) -> None:
    older, newer = peer.install(is_initiator=False), peer.install(is_initiator=False)
    confirm(tun, peer, older)
    assert tun.slots() == {older.local_index: CURRENT, newer.local_index: UNCONFIRMED}
    confirm(tun, peer, newer)
    assert tun.slots() == {older.local_index: PREVIOUS, newer.local_index: CURRENT}
    oldest, youngest = peer.install(is_initiator=False), peer.install(is_initiator=False)
    confirm(tun, peer, youngest)
    assert tun.slots() == {newer.local_index: PREVIOUS, youngest.local_index: CURRENT}
    before = tun.drops().get("data_noidx", 0)
    peer.send(oldest.seal(b""))
    tun.wait_drops("data_noidx", before + 1)


def test_a_third_unconfirmed_session_evicts_the_oldest(tun: Rig, peer: Far) -> None:
    first, second, third = (peer.install(is_initiator=False) for _ in range(3))
    assert tun.slots() == {second.local_index: UNCONFIRMED, third.local_index: UNCONFIRMED}
    ended = tun.wait_event(SessionEnded)
    assert (ended.local_index, ended.reason) == (first.local_index, SessionEnd.REPLACED)
    peer.send(first.seal(b""))
    tun.wait_drops("data_noidx", 1)


def test_unconfirmed_sessions_leave_the_current_one_alone(tun: Rig, peer: Far) -> None:
    current = peer.install()
    for _ in range(5):
        peer.install(is_initiator=False)
    tun.link.send(numbered(HERE, THERE, 1))
    assert number_of(current.open(peer.receive()).plaintext) == 1
    assert tun.slots()[current.local_index] == CURRENT


def test_the_previous_session_still_receives_and_never_sends(tun: Rig, peer: Far) -> None:
    """[G6] Late packets of the old session arrive; ours go under the new one."""
    old, new = peer.install(), peer.install()
    late = numbered(THERE, HERE, 1)
    peer.send(old.seal(late))
    assert tun.link.receive() == late
    tun.link.send(numbered(HERE, THERE, 2))
    assert number_of(new.open(peer.receive()).plaintext) == 2


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("ours_preferred", [True, False])
def test_in_a_collision_the_greater_initiator_key_is_current_on_both_sides(
    tun: Rig, peer: Far, ours_first: bool, ours_preferred: bool
) -> None:
    """[A8] Whichever comes last, the preferred one is current and the other still receives."""
    ours, theirs = far.new_session(), far.new_session()

    def install_ours() -> None:
        peer.install(ours, is_initiator=True, preferred=ours_preferred)

    def install_theirs() -> None:
        peer.install(theirs, is_initiator=False, preferred=not ours_preferred)
        confirm(tun, peer, theirs)

    for install in (install_ours, install_theirs) if ours_first else (install_theirs, install_ours):
        install()
    winner, loser = (ours, theirs) if ours_preferred else (theirs, ours)
    assert tun.slots() == {winner.local_index: CURRENT, loser.local_index: PREVIOUS}
    tun.link.send(numbered(HERE, THERE, 1))
    assert number_of(winner.open(peer.receive()).plaintext) == 1
    late = numbered(THERE, HERE, 2)
    peer.send(loser.seal(late))
    assert tun.link.receive() == late


def test_two_sessions_of_one_sides_initiation_are_no_collision(tun: Rig, peer: Far) -> None:
    peer.install(preferred=True)
    second = peer.install(preferred=False)
    assert tun.slots()[second.local_index] == CURRENT


def test_a_retired_session_is_gone_in_both_directions(tun: Rig, peer: Far) -> None:
    session = peer.install()
    tun.client.retire_session(1, session.local_index)
    assert tun.slots() == {}
    peer.send(session.seal(b""))
    tun.wait_drops("data_noidx", 1)
    tun.link.send(numbered(HERE, THERE, 1))
    assert tun.wait_event(SessionWanted).peer_id == 1
    assert far.receive_waiting(peer.socket) == []


# ---- staging ----


def test_of_a_thousand_packets_without_a_session_the_last_128_leave_in_order(tun: Rig, peer: Far) -> None:
    """[A22] 128 are kept, the oldest go, and the order stays."""
    for number in range(1000):
        tun.link.send(numbered(HERE, THERE, number))
    wait_until(lambda: tun.client.counters.totals().link_rx_packets == 1000, "all read")
    wait_until(lambda: tun.drops().get("staged_overflow") == 872, "the oldest dropped")
    assert peer.counters().staged == 128
    wanted = [each for each in tun.events() if isinstance(each, SessionWanted)]
    assert wanted == [SessionWanted(1)]
    session = peer.install()
    numbers = [number_of(session.open(peer.receive()).plaintext) for _ in range(128)]
    assert numbers == list(range(872, 1000))
    assert peer.counters().staged == 0
    assert far.receive_waiting(peer.socket) == []


def test_staged_packets_leave_on_confirmation_in_order_before_anything_else(tun: Rig, peer: Far) -> None:
    """[A22] As responder: on the first message of the initiator."""
    session = peer.install(is_initiator=False)
    for number in range(20):
        tun.link.send(numbered(HERE, THERE, number))
    wait_until(lambda: peer.counters().staged == 20, "staged")
    peer.send(session.seal(b""))
    numbers = [number_of(session.open(peer.receive()).plaintext) for _ in range(20)]
    assert numbers == list(range(20))


def test_packets_that_keep_coming_do_not_overtake_the_staged_ones(tun: Rig, peer: Far) -> None:
    """[A22] Sessions installed in the middle of a stream, again and again: the order stays the link's."""
    stop = threading.Event()

    def send_all() -> None:
        for number in itertools.count():
            tun.link.send(numbered(HERE, THERE, number))
            if number % 16 == 0 and stop.is_set():
                return

    pump = threading.Thread(target=send_all)
    pump.start()
    numbers: list[int] = []
    try:
        for turn in range(150):
            session = peer.install(is_initiator=turn % 4 == 0)
            wait_until(lambda: peer.counters().staged > 20 or turn % 4 == 0, "staged")  # noqa: B023
            peer.send(session.seal(b""))
            wait_until(lambda: peer.counters().session_messages > 60, "sent")
            tun.client.retire_session(1, session.local_index)
            opened = [session.open(each) for each in far.receive_waiting(peer.socket)]
            assert [each.counter for each in opened] == list(range(len(opened)))
            numbers += [number_of(each.plaintext) for each in opened]
    finally:
        stop.set()
        pump.join()
    assert len(numbers) > 150 * 50
    assert numbers == sorted(numbers)


def test_flushed_packets_are_counted_and_a_session_is_wanted_again(tun: Rig, peer: Far) -> None:
    """[A23] After the give-up the queue is empty and the next packet asks again."""
    for number in range(10):
        tun.link.send(numbered(HERE, THERE, number))
    wait_until(lambda: peer.counters().staged == 10, "staged")
    tun.wait_event(SessionWanted)
    tun.client.flush_staged(1)
    assert tun.drops() == {"staged_flushed": 10}
    assert peer.counters().staged == 0
    tun.link.send(numbered(HERE, THERE, 11))
    assert tun.wait_event(SessionWanted) == SessionWanted(1)


def test_removing_a_peer_drops_what_was_staged_for_it(tun: Rig, peer: Far) -> None:
    tun.link.send(numbered(HERE, THERE, 1))
    wait_until(lambda: peer.counters().staged == 1, "staged")
    tun.client.remove_peer(1)
    tun.wait_drops("staged_flushed", 1)


def test_a_session_without_an_endpoint_drops_what_it_would_send(tun: Rig) -> None:
    peer = tun.add_peer(1, knows_endpoint=False)
    tun.link.send(numbered(HERE, THERE, 1))
    assert tun.wait_event(SessionWanted) == SessionWanted(1)
    session = peer.install()
    assert number_of(session.open(peer.receive()).plaintext) == 1


# ---- limits, lowered ----


def test_an_unconfirmed_session_ends_by_itself(short: Rig) -> None:
    """[F7, G6] Destroyed after its time, and counted as unknown from then on."""
    peer = short.add_peer(1)
    installed = time.monotonic()
    session = peer.install(is_initiator=False)
    ended = short.wait_event(SessionEnded)
    assert time.monotonic() - installed >= SHORT_UNCONFIRMED_S
    assert (ended.local_index, ended.reason) == (session.local_index, SessionEnd.AGE)
    assert short.slots() == {}


def test_the_previous_session_ends_by_itself_after_its_successor_was_confirmed(short: Rig) -> None:
    """[G6] Accepted while it lives, refused afterwards."""
    peer = short.add_peer(1)
    old, new = peer.install(), peer.install()
    confirmed = time.monotonic()
    peer.send(new.seal(b""))
    peer.send(old.seal(numbered(THERE, HERE, 1)))
    short.link.receive()
    assert short.wait_event(SessionEnded).local_index == old.local_index
    assert time.monotonic() - confirmed >= SHORT_PREVIOUS_S
    assert short.slots() == {new.local_index: CURRENT}
    peer.send(old.seal(numbered(THERE, HERE, 2)))
    short.wait_drops("data_noidx", 1)


def test_no_session_outlives_its_age_although_nobody_rekeys(short: Rig) -> None:
    """[G5] Traffic stops at the age; nothing leaves under the old key."""
    peer = short.add_peer(1)
    session = peer.install()
    installed = time.monotonic()
    numbers = 0
    while time.monotonic() - installed < SHORT_SESSION_S + 0.5:
        short.link.send(numbered(HERE, THERE, numbers))
        peer.send(session.seal(numbered(THERE, HERE, numbers)))
        numbers += 1
        time.sleep(0.02)
    ended = short.wait_event(SessionEnded)
    assert (ended.local_index, ended.reason) == (session.local_index, SessionEnd.AGE)
    assert short.wait_event(SessionWanted) == SessionWanted(1)
    sent: list[bytes] = []
    delivered: list[bytes] = []

    def refused() -> int:
        return short.drops().get("data_expired", 0) + short.drops().get("data_noidx", 0)

    def all_told() -> bool:
        sent.extend(far.receive_waiting(peer.socket))
        delivered.extend(short.link.receive_all())
        staged = peer.counters().staged
        return len(sent) + staged == len(delivered) + refused() == numbers

    wait_until(all_told, "each sent or staged, each delivered or refused")
    assert all(session.opens(each) for each in sent)
    assert 0 < len(sent) < numbers
    assert refused() > 0


def test_a_session_stops_at_its_message_limit_and_a_new_one_is_wanted(short: Rig) -> None:
    """[B4] The counter never reaches the limit; what is over goes nowhere under the old key.

    A batch is sent on one session whole, so the end may come up to a batch early.
    """
    peer = short.add_peer(1)
    session = peer.install()
    for number in range(SHORT_MESSAGES + 50):
        short.link.send(numbered(HERE, THERE, number))
    ended = short.wait_event(SessionEnded)
    assert (ended.local_index, ended.reason) == (session.local_index, SessionEnd.MESSAGES)
    assert short.wait_event(SessionWanted) == SessionWanted(1)
    counters: list[int] = []

    def all_told() -> bool:
        counters.extend(session.open(each).counter for each in far.receive_waiting(peer.socket))
        waiting = peer.counters().staged + short.drops().get("staged_overflow", 0)
        return len(counters) + waiting == SHORT_MESSAGES + 50

    wait_until(all_told, "each sent, staged or counted")
    assert counters == list(range(len(counters)))
    assert SHORT_MESSAGES - 128 < len(counters) <= SHORT_MESSAGES


def test_too_many_forgeries_end_the_session(short: Rig) -> None:
    peer = short.add_peer(1)
    session = peer.install()
    sealed = session.seal(b"")
    forged = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for _ in range(SHORT_FORGED):
        peer.send(forged)
    ended = short.wait_event(SessionEnded)
    assert (ended.local_index, ended.reason) == (session.local_index, SessionEnd.FORGED)
    assert short.slots() == {}


# ---- keys in memory ----


def _memory_holds(pid: int, needles: list[bytes]) -> list[int]:
    """How often each needle stands in the memory of a process."""
    found = [0] * len(needles)
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, mode, *_ = line.split()
            if not mode.startswith("r") or "[v" in line:
                continue
            start, end = (int(each, 16) for each in span.split("-"))
            if "vpnd-sessions" in line or "vpnd-counters" in line:
                end = min(end, start + (8 << 20))  # the rest was never touched
            for chunk in _chunks(memory, start, end):
                found = [count + chunk.count(needle) for count, needle in zip(found, needles, strict=True)]
    return found


def _chunks(memory: object, start: int, end: int) -> list[bytes]:
    chunks = []
    for at in range(start, end, 4 << 20):
        try:
            memory.seek(at)  # type: ignore[attr-defined]
            chunks.append(memory.read(min(4 << 20, end - at) + 64))  # type: ignore[attr-defined]
        except OSError:
            continue
    return chunks


@pytest.mark.parametrize("suite", [far.AES_256_GCM, far.CHACHA20_POLY1305])
def test_no_key_is_left_in_memory_when_its_session_is_gone(tun: Rig, suite: int) -> None:
    """[G6] A scan of the whole process finds living keys and none of a retired session."""
    if is_sanitized():
        pytest.skip("a sanitizer keeps freed memory aside and maps terabytes")
    peer, other = tun.add_peer(1), tun.add_peer(2, ["10.3.0.0/16"], address="127.0.0.3")
    sessions = [peer.install(suite=suite) for _ in range(6)]  # four of them pushed out
    sessions.append(other.install(suite=suite))
    tun.link.send(numbered(HERE, THERE, 1))
    peer.receive()
    peer.send(sessions[5].seal(numbered(THERE, HERE, 2)))
    tun.link.receive()
    needles = [key[:32] for each in sessions for key in (each.from_plane, each.to_plane)]
    found = _memory_holds(tun.pid, needles)
    assert found[:8] == [0] * 8
    assert all(found[8:])
    tun.client.remove_peer(1)
    tun.client.retire_session(2, sessions[6].local_index)
    assert _memory_holds(tun.pid, needles) == [0] * len(needles)


def test_events_of_one_session_come_in_the_order_of_its_life(short: Rig) -> None:
    peer = short.add_peer(1)
    session = peer.install(is_initiator=False)
    peer.send(session.seal(b""))
    wait_until(lambda: short.slots() == {}, "its age reached", SHORT_SESSION_S + 2)
    life = [each for each in short.events() if isinstance(each, SessionPlaced | SessionEnded)]
    assert life == [
        SessionPlaced(1, session.local_index, CURRENT),
        SessionEnded(1, session.local_index, SessionEnd.AGE),
    ]
    assert not [each for each in short.events() if isinstance(each, events.LinkFailed)]
