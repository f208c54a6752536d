"""How it is measured what handshakes cost."""

from __future__ import annotations

import time

from vpnd.daemon.handshake_cpu import MESSAGES_PER_NOTE, HandshakeCpu


def work() -> None:
    """Spends some CPU time."""
    sum(number * number for number in range(20_000))


def measured(kinds: str) -> list[float]:
    """Notes of a run of events: "h" is a handshake message, anything else is another event."""
    notes: list[float] = []
    spent = HandshakeCpu(lambda seconds, _: notes.append(seconds))
    for kind in kinds:
        spent.before(is_handshake=kind == "h")
        work()
    spent.note()
    return notes


def test_a_run_of_handshakes_is_one_note_of_all_that_it_took() -> None:
    began = time.thread_time()
    (note,) = measured("hhh")
    whole = time.thread_time() - began
    assert 0.0 < note <= whole


def test_other_events_are_not_counted_and_end_the_run() -> None:
    assert len(measured("hh-h--")) == 2
    assert measured("----") == []


def test_a_long_run_is_noted_while_it_lasts() -> None:
    assert len(measured("h" * (2 * MESSAGES_PER_NOTE + 1))) == 3
