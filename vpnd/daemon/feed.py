"""Events on their way to those who watch: each reader has a bounded queue of its own.

Owns the bound, and the count of what a slow reader lost. Knows nothing of what an event tells.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from vpnd.control.events import HealthEvent, LogEvent, Lost, PeerEvent
from vpnd.errors import ControlError

READERS_LIMIT = 16
WAITING_LIMIT = 1024  # events that one reader may be behind; some 300 bytes each

FeedEvent = PeerEvent | LogEvent | HealthEvent


class Reader:
    """One who watches; with `peer` nothing about other peers comes to it."""

    def __init__(self, peer: str | None) -> None:
        self._peer = peer
        self._waiting: deque[FeedEvent] = deque()
        self._lost = 0
        self._has_news = asyncio.Event()

    def put(self, event: FeedEvent) -> None:
        """Queues the event; where the queue is full, the oldest is lost."""
        if self._peer is not None and event.peer not in (None, self._peer):
            return
        if len(self._waiting) >= WAITING_LIMIT:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(event)
        self._has_news.set()

    async def events(self, lost: Callable[[int], Lost]) -> AsyncIterator[FeedEvent | Lost]:
        """Gives the events without end; before the next one after a gap, what `lost` makes of its size."""
        while True:
            await self._has_news.wait()
            if self._lost:
                count, self._lost = self._lost, 0
                yield lost(count)
            elif self._waiting:
                yield self._waiting.popleft()
            else:
                self._has_news.clear()


class Feed:
    """All who watch; `begins` is called when the first one comes, `ends` when the last has gone."""

    def __init__(self, begins: Callable[[], None], ends: Callable[[], None]) -> None:
        self._readers: set[Reader] = set()
        self._begins = begins
        self._ends = ends

    def publish(self, event: FeedEvent) -> None:
        for reader in self._readers:
            reader.put(event)

    @contextmanager
    def reader(self, peer: str | None) -> Iterator[Reader]:
        """Makes a reader for as long as the block lasts. Raises ControlError where there are too many."""
        if len(self._readers) >= READERS_LIMIT:
            raise ControlError("refused", f"{READERS_LIMIT} monitors run already; end one of them")
        if not self._readers:
            self._begins()
        reader = Reader(peer)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            if not self._readers:
                self._ends()
