"""A seeded wire that loses, doubles, delays, reorders, damages and re-addresses datagrams.

Owns what lies between two outer addresses and a capture of everything that was put on it.
Refuses to know what a datagram means, but for its first byte as a test's filter.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

from vpnd.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Datagram:
    """One UDP datagram with the outer addresses the receiver will see."""

    source: Endpoint
    destination: Endpoint
    data: bytes
    sent_at: float = 0.0

    @property
    def kind(self) -> int:
        return self.data[0] if self.data else -1


@dataclass(frozen=True, slots=True)
class Weather:
    """What the wire does to a datagram; probabilities from 0 to 1, seconds."""

    delay_s: float = 0.01
    jitter_s: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    readdress: float = 0.0


CALM = Weather()

Rule = Callable[[Datagram], bool]


@dataclass(slots=True)
class Wire:
    """All paths between the machines. The same seed gives the same fate to the same traffic."""

    seed: int = 0
    weather: Weather = CALM
    captured: list[Datagram] = field(default_factory=list)
    drop_rules: list[Rule] = field(default_factory=list)
    dropped: list[Datagram] = field(default_factory=list)
    _random: random.Random = field(init=False)
    _flying: list[tuple[float, int, Datagram]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def send(self, source: Endpoint, destination: Endpoint, data: bytes, now: float) -> None:
        """Puts a datagram on the wire; what becomes of it is the weather's matter."""
        datagram = Datagram(source, destination, data, now)
        self.captured.append(datagram)
        if self._is_dropped_by_rule(datagram) or self._chance(self.weather.loss):
            self.dropped.append(datagram)
            return
        copies = 2 if self._chance(self.weather.duplicate) else 1
        for _ in range(copies):
            self._fly(self._harm(datagram), now)

    def inject(self, datagram: Datagram, now: float, after_s: float = 0.0) -> None:
        """Lets an attacker's datagram arrive as it is, `after_s` from now."""
        heapq.heappush(self._flying, (now + after_s, next(self._numbers), datagram))

    def next_arrival(self) -> float | None:
        return self._flying[0][0] if self._flying else None

    def arrivals(self, now: float) -> list[Datagram]:
        """Takes what has arrived until now, in the order of arrival."""
        arrived = []
        while self._flying and self._flying[0][0] <= now:
            arrived.append(heapq.heappop(self._flying)[2])
        return arrived

    def drop_next(self, kind: int, times: int = 1, source: Endpoint | None = None) -> None:
        """Loses the next `times` datagrams of a type (and of a source, if given)."""
        left = [times]

        def rule(datagram: Datagram) -> bool:
            if left[0] == 0 or datagram.kind != kind or source not in (None, datagram.source):
                return False
            left[0] -= 1
            return True

        self.drop_rules.append(rule)

    def drop_all(self, kind: int, source: Endpoint | None = None) -> None:
        """Loses every datagram of a type from now on, until `heal`."""
        self.drop_rules.append(lambda datagram: datagram.kind == kind and source in (None, datagram.source))

    def hold(self, rule: Rule) -> list[Datagram]:
        """Keeps back what `rule` names; the list fills as it does, and `inject` lets it go on."""
        held: list[Datagram] = []

        def keep(datagram: Datagram) -> bool:
            if rule(datagram):
                held.append(datagram)
                return True
            return False

        self.drop_rules.append(keep)
        return held

    def cut(self) -> None:
        """Loses everything until `heal`."""
        self.drop_rules.append(lambda _: True)

    def heal(self) -> None:
        """No more loss of any kind, and nothing else unpleasant."""
        self.drop_rules.clear()
        self.weather = CALM

    def of_kind(self, kind: int, since: float = 0.0) -> list[Datagram]:
        """What was put on the wire of one type, whether or not it arrived."""
        return [datagram for datagram in self.captured if datagram.kind == kind and datagram.sent_at >= since]

    def _is_dropped_by_rule(self, datagram: Datagram) -> bool:
        # Every rule sees every datagram, since rules count.
        verdicts = [rule(datagram) for rule in self.drop_rules]
        return any(verdicts)

    def _fly(self, datagram: Datagram, now: float) -> None:
        delay = self.weather.delay_s + self._random.random() * self.weather.jitter_s
        heapq.heappush(self._flying, (now + delay, next(self._numbers), datagram))

    def _harm(self, datagram: Datagram) -> Datagram:
        if self._chance(self.weather.corrupt):
            data = bytearray(datagram.data)
            data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
            datagram = replace(datagram, data=bytes(data))
        if self._chance(self.weather.readdress):
            port = self._random.randrange(1024, 65536)
            datagram = replace(datagram, source=replace(datagram.source, port=port))
        return datagram

    def _chance(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability
