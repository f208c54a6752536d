"""Those who watch: what a slow reader loses, who is too many, what a filter leaves out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

from vpnd.control.events import LogEvent, Lost, event_time
from vpnd.daemon.feed import READERS_LIMIT, WAITING_LIMIT, Feed, FeedEvent, Reader
from vpnd.errors import ControlError

NOW = event_time(0)


def event(text: str, peer: str | None = None) -> LogEvent:
    return LogEvent(NOW, "site", peer, "info", "roamed", "0" * 32, text)


def lost(count: int) -> Lost:
    return Lost(NOW, "site", count)


def quiet() -> None:
    pass


async def take(events: AsyncIterator[FeedEvent | Lost], count: int) -> list[str | int]:
    """Gives the next texts, and a number where so many were lost."""
    got: list[str | int] = []
    while len(got) < count:
        each = await asyncio.wait_for(anext(events), 5)
        got.append(each.count if isinstance(each, Lost) else each.text)  # type: ignore[union-attr]
    return got


def test_a_reader_gets_what_came_in_its_order_and_then_waits() -> None:
    async def story() -> None:
        reader = Reader(None)
        events = reader.events(lost)
        reader.put(event("a"))
        reader.put(event("b"))
        assert await take(events, 2) == ["a", "b"]
        waiting = asyncio.ensure_future(take(events, 1))
        await asyncio.sleep(0)
        assert not waiting.done()
        reader.put(event("c"))
        assert await waiting == ["c"]

    asyncio.run(story())


def test_one_who_does_not_read_loses_the_oldest_and_is_told_how_many() -> None:
    async def story() -> None:
        reader = Reader(None)
        for number in range(WAITING_LIMIT + 7):
            reader.put(event(str(number)))
        events = reader.events(lost)
        assert await take(events, 3) == [7, "7", "8"]
        for number in range(3):
            reader.put(event(f"late {number}"))
        assert await take(events, 2) == [1, "10"]  # two had been read, three came

    asyncio.run(story())


def test_with_a_peer_the_events_of_others_are_left_out() -> None:
    async def story() -> None:
        reader = Reader("berlin")
        for each in (event("a", "lyon"), event("b", "berlin"), event("c")):
            reader.put(each)
        assert await take(reader.events(lost), 2) == ["b", "c"]

    asyncio.run(story())


def test_work_is_only_done_while_somebody_watches() -> None:
    told: list[str] = []
    feed = Feed(lambda: told.append("begins"), lambda: told.append("ends"))
    with feed.reader(None):
        with feed.reader("berlin"):
            pass
        assert told == ["begins"]
    assert told == ["begins", "ends"]


def test_more_than_may_watch_are_refused_until_one_leaves() -> None:
    feed = Feed(quiet, quiet)
    with ExitStack() as readers:
        for _ in range(READERS_LIMIT):
            readers.enter_context(feed.reader(None))
        with pytest.raises(ControlError, match="16 monitors run already"):
            readers.enter_context(feed.reader(None))
    with feed.reader(None):
        pass
