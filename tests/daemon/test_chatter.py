"""The log when thousands do the same in one second."""

from __future__ import annotations

import logging

import pytest

from vpnd.daemon.chatter import LINES_PER_S, Chatter


def test_the_first_lines_of_a_second_are_written_and_the_rest_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    chatter = Chatter("peers that moved")
    assert [chatter.may_say(5.0 + number / 2000) for number in range(1000)].count(True) == LINES_PER_S
    assert caplog.messages == []
    assert chatter.may_say(6.0)
    assert caplog.messages == [f"{1000 - LINES_PER_S} more peers that moved, not written one by one"]


def test_a_quiet_log_is_left_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    chatter = Chatter("peers that moved")
    assert all(chatter.may_say(float(second)) for second in range(100))
    assert caplog.messages == []
