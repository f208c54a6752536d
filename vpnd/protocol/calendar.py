"""When each peer falls due.

Owns the order of those moments. A peer has one at most; a new one takes the place of the one before.
"""

from __future__ import annotations

import heapq
import math

from vpnd.protocol.peer import Peer


class Calendar:
    """Moments in seconds of CLOCK_BOOTTIME; `Peer.due_at` is the one that holds."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Peer]] = []
        self._count = 0

    def put(self, peer: Peer, due_at: float) -> None:
        """Sets a peer's moment; infinity takes it out."""
        if due_at == peer.due_at:
            return
        peer.due_at = due_at
        if due_at < math.inf:
            self._count += 1  # breaks ties, since peers have no order
            heapq.heappush(self._entries, (due_at, self._count, peer))

    def earliest(self) -> float:
        """Tells the next moment of all; infinity where there is none."""
        while self._entries:
            due_at, _, peer = self._entries[0]
            if peer.due_at == due_at:
                return due_at
            heapq.heappop(self._entries)  # another came in its place
        return math.inf

    def pop_due(self, now: float) -> Peer | None:
        """Takes out the peer whose moment was first, if that has come."""
        if self.earliest() > now:
            return None
        peer = heapq.heappop(self._entries)[2]
        peer.due_at = math.inf
        return peer
