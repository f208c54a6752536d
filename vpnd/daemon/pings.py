"""Echoes inside the tunnel that somebody waits for.

Owns the numbers that tell one echo from another. Knows nothing of how they are sent.
"""

from __future__ import annotations

import asyncio
import itertools

from vpnd.keys import PublicKey


class Pings:
    """Matches answers with those who wait for them."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[tuple[PublicKey, int], asyncio.Future[float]] = {}

    def expect(self, peer: PublicKey) -> tuple[int, asyncio.Future[float]]:
        """Gives the number to send and a future of the round trip in seconds; cancel it to wait no longer."""
        number = next(self._numbers)
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting[peer, number] = future
        future.add_done_callback(lambda _: self._waiting.pop((peer, number), None))
        return number, future

    def answered(self, peer: PublicKey, number: int, rtt_s: float) -> None:
        future = self._waiting.get((peer, number))
        if future is not None and not future.done():
            future.set_result(rtt_s)
