"""How large a datagram the path to a peer carries: found by probes, never by hearsay (section 9.4, RFC 8899).

Owns the search, its repetition, and the proof that a path began to swallow what it used to carry.
Sizes are those of outer IP packets. Knows no peer and no session; believes nothing but answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from vpnd.protocol.constants import PATH_BASE, PATH_PROBE_MAX, PATH_SIZES, PATH_TRIES


@dataclass(frozen=True, slots=True)
class Pace:
    """How long an answer is waited for, and when a search that found less than all is repeated."""

    wait_s: float
    raise_s: float


@dataclass(frozen=True, slots=True)
class Ask:
    """A probe of this size is to leave."""

    probe_id: int
    size: int


@dataclass(frozen=True, slots=True)
class Asleep:
    """Nobody to ask."""


@dataclass(frozen=True, slots=True)
class Searching:
    """`size` is being tried, by these probes so far."""

    size: int
    probe_ids: tuple[int, ...]
    next_at: float


@dataclass(frozen=True, slots=True)
class Settled:
    """The search is over; it is taken up again at `raise_at`."""

    raise_at: float


@dataclass(frozen=True, slots=True)
class Doubting:
    """What the path carried is asked for again, beside the least that every path carries.

    Where only the small probes come through, the path swallows the large ones; where none does,
    the peer is away, which says nothing about sizes. So after the first try each waits for the other:
    a large probe is sent again once a small one came through, and no small one after that.
    """

    raise_at: float
    large_ids: tuple[int, ...] = ()
    base_ids: tuple[int, ...] = ()
    is_alive: bool = False
    next_at: float = -math.inf

    @property
    def is_over(self) -> bool:
        return len(self.large_ids if self.is_alive else self.base_ids) >= PATH_TRIES


State = Asleep | Searching | Settled | Doubting


@dataclass(slots=True)
class PathMtu:
    """What is known of one path: `carried` is the largest size that came through, None before any did.

    `limit` is the size that data must obey; None: any. It stays None until a search has ended below
    what data may need, so that nothing is lost for the sake of the search.
    """

    limit: int | None = None
    carried: int | None = None
    is_cut: bool = False  # what is larger than that was last seen to arrive in pieces
    state: State = field(default_factory=Asleep)
    doubted_at: float = -math.inf  # when `doubt` was last called
    _target: int = 0
    _too_large: int = 0  # the least size known to be so
    _checked_at: float = -math.inf
    _last_id: int = 0

    @property
    def due_at(self) -> float:
        """When `run` has something to do."""
        match self.state:
            case Searching(next_at=at) | Doubting(next_at=at) | Settled(raise_at=at):
                return at
            case _:
                return math.inf

    @property
    def is_asleep(self) -> bool:
        return isinstance(self.state, Asleep)

    @property
    def is_settled(self) -> bool:
        return isinstance(self.state, Settled) and self.carried is not None

    @property
    def found(self) -> int | None:
        """What a search has found to be carried; None before the first one ended."""
        return self.carried if isinstance(self.state, Settled | Doubting) else self.limit

    @property
    def checked_at(self) -> float:
        """Since when `doubt` could be called; never, where the path carries nothing that could get lost."""
        return self._checked_at if self.is_settled and (self.carried or 0) > PATH_BASE else math.inf

    def knows(self, largest: int) -> bool:
        """Tells whether the path was asked, or is being asked, for datagrams of up to this size."""
        is_of_use = isinstance(self.state, Searching) or self.carried is not None
        return not self.is_asleep and is_of_use and self._target == min(largest, PATH_PROBE_MAX)

    def begin(self, largest: int, now: float, pace: Pace) -> list[Ask]:
        """Searches from the ground, for data of up to `largest` bytes; a limit holds until it ends."""
        self._target = min(largest, PATH_PROBE_MAX)
        # Answers to an earlier run of ours must not be taken for answers to this one.
        self._last_id = max(self._last_id, int(now * 1000))
        self.carried, self.is_cut = None, False
        return self._search_above(0, self._target + 1, now, pace)

    def sleep(self, *, forget: bool = False) -> None:
        """Stops asking; the limit holds on unless the path is to be forgotten."""
        self.state = Asleep()
        if forget:
            self.limit = self.carried = None

    def forget_at(self, moment: float) -> None:
        """The path is another one, to be asked from the ground then; the limit holds until it was."""
        self.carried, self.state = None, Settled(moment)

    def adopt_limit(self, limit: int) -> None:
        """Takes a limit that an earlier run found, unless we know better."""
        if self.carried is None and self.limit is None:
            self.limit = limit

    def answered(self, probe_id: int, came: int, now: float, pace: Pace) -> list[Ask]:
        """Takes an answer: the size that came in one piece, which is the probe's own or less."""
        match self.state:
            case Searching(size=size, probe_ids=ids) if probe_id in ids:
                if came >= size:
                    return self._passed(size, now, pace)
                self.is_cut = True
                return self._refused(size, came, now, pace)
            case Doubting(large_ids=ids, raise_at=raise_at) if probe_id in ids:
                if came < (self.carried or 0):
                    self.is_cut = True
                    return self._lost(now, pace)
                self.state, self._checked_at = Settled(raise_at), now
            case Doubting(base_ids=ids) as doubting if probe_id in ids:
                self.state = replace(doubting, is_alive=True)
            case _:
                pass
        return []

    def run(self, now: float, pace: Pace) -> list[Ask]:
        """Does what is due at `due_at`: the next try, a verdict, a new search."""
        match self.state:
            case Searching(size=size, probe_ids=ids):
                if len(ids) < PATH_TRIES:
                    return self._try(size, ids, now, pace)
                self.is_cut = False
                return self._refused(size, 0, now, pace)
            case Doubting(raise_at=raise_at, is_alive=is_alive) as doubting:
                if not doubting.is_over:
                    return self._doubt(doubting, now, pace)
                if is_alive:
                    self.is_cut = False
                    return self._lost(now, pace)
                self.state, self._checked_at = Settled(raise_at), now
                return []
            case _:
                return self._search_above(self.carried or 0, self._target + 1, now, pace)

    def doubt(self, now: float, pace: Pace) -> list[Ask]:
        """Asks whether the path still carries what it did; `checked_at` is not never."""
        assert isinstance(self.state, Settled)
        self.doubted_at = now
        return self._doubt(Doubting(self.state.raise_at), now, pace)

    # --- steps ---

    def _sizes_between(self, above: int, below: int) -> list[int]:
        """The sizes worth asking for, in rising order; the greatest is all that data can need."""
        sizes = [size for size in (PATH_BASE, *PATH_SIZES) if size < self._target]
        return [size for size in (*sizes, self._target) if above < size < below]

    def _search_above(self, carried: int, too_large: int, now: float, pace: Pace) -> list[Ask]:
        """Tries the next size; where there is none, the search is over."""
        self._too_large = too_large
        larger = self._sizes_between(carried, too_large)
        if larger:
            return self._try(larger[0], (), now, pace)
        self._settle(now, pace)
        return []

    def _passed(self, size: int, now: float, pace: Pace) -> list[Ask]:
        self.carried = size
        if self.limit is not None:
            self.limit = max(self.limit, size)
        return self._search_above(size, self._too_large, now, pace)

    def _refused(self, size: int, piece: int, now: float, pace: Pace) -> list[Ask]:
        """A size did not pass; the piece of it that did is worth a question of its own."""
        if self.carried is not None and self.carried < piece:
            self._too_large = size
            return self._try(piece, (), now, pace)
        self._settle(now, pace)
        return []

    def _settle(self, now: float, pace: Pace) -> None:
        """Ends a search. Where not even the least came through, nothing was learnt and nothing changes."""
        is_all = self.carried == self._target
        if self.carried is not None:
            self.limit = None if is_all else self.carried
        self.state = Settled(math.inf if is_all else now + pace.raise_s)
        self._checked_at = now

    def _lost(self, now: float, pace: Pace) -> list[Ask]:
        """The path swallows what it carried: back to the ground, and up again from there."""
        assert self.carried is not None
        too_large = self.carried
        self.limit = self.carried = PATH_BASE
        return self._search_above(PATH_BASE, too_large, now, pace)

    def _try(self, size: int, tried: tuple[int, ...], now: float, pace: Pace) -> list[Ask]:
        asked = self._ask(size)
        self.state = Searching(size, (*tried, asked.probe_id), now + pace.wait_s)
        return [asked]

    def _doubt(self, doubting: Doubting, now: float, pace: Pace) -> list[Ask]:
        assert self.carried is not None
        is_first, is_alive = not doubting.base_ids, doubting.is_alive
        large = [self._ask(self.carried)] if is_first or is_alive else []
        base = [] if is_alive else [self._ask(PATH_BASE)]
        self.state = replace(
            doubting,
            large_ids=(*doubting.large_ids, *(each.probe_id for each in large)),
            base_ids=(*doubting.base_ids, *(each.probe_id for each in base)),
            next_at=now + pace.wait_s,
        )
        return [*large, *base]

    def _ask(self, size: int) -> Ask:
        self._last_id = (self._last_id + 1) & 0xFFFF_FFFF
        return Ask(self._last_id, size)
