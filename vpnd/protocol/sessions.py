"""Sessions of one peer as the decider knows them: which exist, since when, in which slot.

Owns the mirror of the plane's slots and the table of live indices. Holds no keys: those
went to the plane with the session's birth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vpnd.errors import RejectedMessage
from vpnd.protocol.constants import (
    INDEX_DRAWS_MAX,
    INDEX_LIVE_MAX,
    UNCONFIRMED_MAX,
    PaddingMode,
    Slot,
    Suite,
)


@dataclass(frozen=True, slots=True)
class AdoptedSession:
    """A session that the plane held already when we came."""

    local_index: int
    remote_index: int
    suite: Suite
    slot: Slot
    is_initiator: bool
    preferred: bool
    created_at: float


@dataclass(slots=True, eq=False)
class Session:
    """Keys and counters in the plane, born of one handshake; here only what decisions need."""

    local_index: int
    remote_index: int
    suite: Suite
    is_initiator: bool
    created_at: float
    rekey_at: float
    slot: Slot = Slot.UNCONFIRMED
    placed_at: float = 0.0
    features: int = 0
    padding: PaddingMode | None = None
    remote_mtu: int | None = None
    remote_epoch: bytes | None = None
    is_downgraded: bool = False  # both ends know a higher version than its handshake's
    is_adopted: bool = False  # what was agreed at its birth is not known
    pushed: bytes | None = None  # parameters that its response carried for the peer


@dataclass(slots=True)
class Slots:
    """The places a peer's sessions are in. `waiting` has, oldest first, those not yet placed:
    the responder's unconfirmed ones, and the initiator's until the plane says where it put them.
    """

    current: Session | None = None
    previous: Session | None = None
    waiting: list[Session] = field(default_factory=list)

    def __iter__(self) -> Iterator[Session]:
        yield from self.waiting
        if self.current is not None:
            yield self.current
        if self.previous is not None:
            yield self.previous

    def find(self, local_index: int) -> Session | None:
        return next((session for session in self if session.local_index == local_index), None)

    def is_usable(self) -> bool:
        """Tells whether packets can leave: now, or as soon as the plane has placed our session."""
        return self.current is not None or any(session.is_initiator for session in self.waiting)

    def add(self, session: Session) -> Session | None:
        """Adds a session to `waiting`; gives the oldest unconfirmed one back if it must go for it."""
        self.waiting.append(session)
        unconfirmed = [other for other in self.waiting if not other.is_initiator]
        if len(unconfirmed) <= UNCONFIRMED_MAX:
            return None
        self.waiting.remove(unconfirmed[0])
        return unconfirmed[0]

    def place(self, session: Session, slot: Slot, now: float) -> list[Session]:
        """Follows the plane; gives the sessions that lost their slot by this, already removed."""
        if slot is Slot.UNCONFIRMED or session.slot is slot:
            return []
        self.remove(session)
        session.slot, session.placed_at = slot, now
        displaced = self.previous
        if slot is Slot.PREVIOUS:
            self.previous = session
        else:
            if self.current is not None:
                self.current.slot, self.current.placed_at = Slot.PREVIOUS, now
                self.previous = self.current
            else:
                displaced = None
            self.current = session
        return [] if displaced is None else [displaced]

    def remove(self, session: Session) -> None:
        if self.current is session:
            self.current = None
        elif self.previous is session:
            self.previous = None
        else:
            self.waiting.remove(session)


class IndexTable:
    """Local indices in use and whose they are; draws new ones at random (section 8, Index)."""

    def __init__(self, random_bytes: Callable[[int], bytes], capacity: int = INDEX_LIVE_MAX) -> None:
        self._random_bytes = random_bytes
        self._capacity = capacity
        self._owners: dict[int, object] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def draw(self) -> int:
        """An index that is not in use; it is by `claim`. Raises RejectedMessage("idx_exhausted")."""
        if len(self._owners) < self._capacity:
            for _ in range(INDEX_DRAWS_MAX):
                index = int.from_bytes(self._random_bytes(4), "little")
                # 0 means "the current session" to the plane.
                if index != 0 and index not in self._owners:
                    return index
        raise RejectedMessage("idx_exhausted")

    def claim(self, index: int, owner: object) -> None:
        self._owners[index] = owner

    def owner(self, index: int) -> object | None:
        return self._owners.get(index)

    def free(self, index: int) -> None:
        self._owners.pop(index, None)
