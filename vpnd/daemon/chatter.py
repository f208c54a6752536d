"""Keeps the log readable when thousands of peers do the same thing in the same second.

Owns how many lines of one kind may come in a second, and the line that tells of those left out.
"""

from __future__ import annotations

import logging

from vpnd.daemon.journal import Event, about

_log = logging.getLogger(__name__)

LINES_PER_S = 10


class Chatter:
    """Lets the first lines of each second through; `what` names, in the plural, what the lines tell of."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._second = 0
        self._said = 0

    def may_say(self, now: float) -> bool:
        """Tells whether the next line of this kind may be written."""
        if int(now) != self._second:
            left_out = self._said - LINES_PER_S
            if left_out > 0:
                line = "%d more %s, not written one by one"
                _log.info(line, left_out, self._what, extra=about(Event.LEFT_OUT))
            self._second, self._said = int(now), 0
        self._said += 1
        return self._said <= LINES_PER_S
