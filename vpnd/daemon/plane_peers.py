"""The peers as the plane has them: each one's number, networks and sessions, and what is counted of it.

Owns that correspondence, and brings a plane to it that comes anew. Knows nothing of when a session is
wanted, nor of what an event means.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from vpnd.daemon.notices import NoticeWriter
from vpnd.endpoint import Endpoint
from vpnd.keys import PublicKey
from vpnd.plane.client import PlaneClient
from vpnd.plane.counters import PeerCounters
from vpnd.plane.frames import FrameRules
from vpnd.plane.inventory import Inventory
from vpnd.protocol.constants import Slot, Suite
from vpnd.protocol.sessions import AdoptedSession


@dataclass(frozen=True, slots=True)
class PeerWiring:
    """What the plane is told of one peer besides its sessions."""

    public_key: PublicKey
    name: str
    networks: tuple[IPv4Network | IPv6Network, ...]
    previous_public_key: PublicKey | None = None  # under which it may have been known until now
    frames: FrameRules | None = None  # of a TAP link


@dataclass(frozen=True, slots=True)
class Held:
    """What a plane has of a peer already."""

    endpoint: Endpoint | None = None
    mtu: int = 0
    sessions: tuple[AdoptedSession, ...] = ()


class PlanePeers:
    """`plane` is None while there is none; what was known of its peers stays till the next is taken over."""

    def __init__(self, endpoint_of: Callable[[PublicKey], Endpoint | None]) -> None:
        """`endpoint_of` tells where a peer is, as far as that is known."""
        self.plane: PlaneClient | None = None
        self.notices = NoticeWriter()
        self.unproven: set[PublicKey] = set()  # whose address is yet to be proven
        self._endpoint_of = endpoint_of
        self._ids: dict[PublicKey, int] = {}
        self._keys: dict[int, PublicKey] = {}
        self._wirings: dict[PublicKey, PeerWiring] = {}
        self._sessions: dict[PublicKey, set[int]] = {}  # of the peers that have any
        self._seen: dict[PublicKey, int] = {}  # marks of counters, as they were read last
        self._dropping: set[PublicKey] = set()

    # -- which there are --

    def take_over(
        self, plane: PlaneClient, inventory: Inventory, wirings: Iterable[PeerWiring]
    ) -> dict[PublicKey, Held]:
        """Keeps what the plane holds and we want, removes the rest, adds what misses; tells what it held.

        Raises PlaneError.
        """
        self.plane = plane
        self._ids, self._keys, self._wirings = {}, {}, {}
        self._seen, self._dropping = {}, set()
        wanted = {wiring.public_key: wiring for wiring in wirings}
        self._recognize(plane, inventory, wanted)
        held = self.held(inventory)
        self._sessions = {
            key: {session.local_index for session in each.sessions}
            for key, each in held.items()
            if each.sessions
        }
        with plane.together():
            for key, wiring in wanted.items():
                is_placed = key in held and held[key].endpoint is not None
                self._wire(wiring, None if is_placed else self._endpoint_of(key))
        return held

    def _recognize(
        self, plane: PlaneClient, inventory: Inventory, wanted: Mapping[PublicKey, PeerWiring]
    ) -> None:
        """Binds the numbers of peers that are wanted, also under a new key, and removes the others."""
        held_keys = {listed.public_key for listed in inventory.peers}
        successors = {
            wiring.previous_public_key: key for key, wiring in wanted.items() if key not in held_keys
        }
        for listed in inventory.peers:
            is_wanted = listed.public_key in wanted
            key = listed.public_key if is_wanted else successors.get(listed.public_key)
            if key is None:
                plane.remove_peer(listed.peer_id)
                continue
            self._bind(key, listed.peer_id)
            if not is_wanted:
                plane.set_peer(listed.peer_id, key, wanted[key].networks, None, rename=True)
            # Drops of an earlier run are no news.
            self.notices.begin(key, plane.counters.peer(listed.peer_id).drops)

    def rename(self, wirings: Iterable[PeerWiring]) -> None:
        """Gives peers whose key was replaced, or put back, the new one; they keep all they have.

        The Device is told by its own configuration. Raises PlaneError.
        """
        wanted = {wiring.public_key: wiring for wiring in wirings}
        successors = {wiring.previous_public_key: key for key, wiring in wanted.items()}
        for key in [key for key in self._ids if key not in wanted]:
            former = self._wirings[key].previous_public_key
            after = successors.get(key, former if former in wanted else None)
            if after is not None and after not in self._ids:
                self._rename(key, wanted[after])

    def _rename(self, before: PublicKey, wiring: PeerWiring) -> None:
        assert self.plane is not None
        after, peer_id = wiring.public_key, self._ids[before]
        self.plane.set_peer(peer_id, after, wiring.networks, None, rename=True)
        self._set_frames(peer_id, self._wirings[before], wiring)
        sessions, seen = self._sessions.get(before), self._seen.get(before)
        is_dropping, is_unproven = before in self._dropping, before in self.unproven
        self._unbind(before)
        self._bind(after, peer_id)
        self._wirings[after] = wiring
        if sessions is not None:
            self._sessions[after] = sessions
        if seen is not None:
            self._seen[after] = seen
        if is_dropping:
            self._dropping.add(after)
        if is_unproven:
            self.unproven.add(after)
        self.notices.begin(after, self.plane.counters.peer(peer_id).drops)

    def wire(self, wirings: Iterable[PeerWiring]) -> None:
        """Makes the plane's peers be exactly these; those that stay keep their sessions.

        Raises PlaneError.
        """
        assert self.plane is not None
        wanted = {wiring.public_key: wiring for wiring in wirings}
        rewired = []
        with self.plane.together():
            for key in [key for key in self._ids if key not in wanted]:
                self.plane.remove_peer(self._ids[key])
                self._unbind(key)
            for wiring in wanted.values():
                if wiring != self._wirings.get(wiring.public_key):
                    is_new = wiring.public_key not in self._ids
                    self._wire(wiring, self._endpoint_of(wiring.public_key) if is_new else None)
                    if not is_new:
                        rewired.append(wiring.public_key)
        for key in rewired:
            # Drops under other networks say nothing of these.
            if drops := self.plane.counters.peer(self._ids[key]).drops:
                self.notices.begin(key, drops)

    def place(self, key: PublicKey, endpoint: Endpoint) -> None:
        """Tells the plane where a peer is, if it has the peer. Raises PlaneError."""
        if key in self._ids:
            self._wire(self._wirings[key], endpoint)

    def _wire(self, wiring: PeerWiring, endpoint: Endpoint | None) -> None:
        assert self.plane is not None
        if wiring.public_key not in self._ids:
            self._bind(wiring.public_key, self._free_id())
        self.plane.set_peer(self._ids[wiring.public_key], wiring.public_key, wiring.networks, endpoint)
        self._set_frames(self._ids[wiring.public_key], self._wirings.get(wiring.public_key), wiring)
        self._wirings[wiring.public_key] = wiring

    def _set_frames(self, peer_id: int, before: PeerWiring | None, wiring: PeerWiring) -> None:
        assert self.plane is not None
        if wiring.frames is not None and (before is None or before.frames != wiring.frames):
            self.plane.set_peer_frames(peer_id, wiring.frames)

    def _bind(self, key: PublicKey, peer_id: int) -> None:
        self._ids[key] = peer_id
        self._keys[peer_id] = key

    def _unbind(self, key: PublicKey) -> None:
        del self._keys[self._ids.pop(key)]
        self._sessions.pop(key, None)
        self._seen.pop(key, None)
        self._dropping.discard(key)
        self._wirings.pop(key, None)
        self.unproven.discard(key)
        self.notices.forget(key)

    def _free_id(self) -> int:
        candidate = len(self._keys)
        if candidate not in self._keys:
            return candidate
        return next(number for number in range(len(self._keys) + 1) if number not in self._keys)

    # -- their numbers and names --

    def number_of(self, key: PublicKey) -> int | None:
        """Tells the number by which the plane knows the peer; None where it has not got it."""
        return self._ids.get(key)

    def key_of(self, number: int) -> PublicKey | None:
        """Tells whose number that is; an event may name a peer that was removed meanwhile."""
        return self._keys.get(number)

    def numbered_names(self) -> dict[int, str]:
        """Tells the names of all peers that the plane has, by their numbers."""
        return {number: self._wirings[key].name for number, key in self._keys.items()}

    def name_of(self, number: int) -> str | None:
        """Tells the name of the peer that the plane knows by this number."""
        key = self._keys.get(number)
        return None if key is None else self._wirings[key].name

    # -- their sessions --

    def held(self, inventory: Inventory) -> dict[PublicKey, Held]:
        """Tells what a plane holds of the peers that have numbers."""
        sessions: defaultdict[int, list[AdoptedSession]] = defaultdict(list)
        for session in inventory.sessions:
            sessions[session.peer_id].append(
                AdoptedSession(
                    session.local_index,
                    session.remote_index,
                    Suite(session.suite),
                    Slot(session.slot),
                    session.is_initiator,
                    session.preferred,
                    session.created_at,
                )
            )
        return {
            self._keys[listed.peer_id]: Held(
                listed.endpoint, listed.mtu, tuple(sessions.get(listed.peer_id, ()))
            )
            for listed in inventory.peers
            if listed.peer_id in self._keys
        }

    def add_session(self, key: PublicKey, local_index: int) -> None:
        """Notes that the plane is given a session of the peer."""
        self._sessions.setdefault(key, set()).add(local_index)

    def forget_session(self, key: PublicKey, local_index: int) -> None:
        """Notes that a session is gone, or goes."""
        sessions = self._sessions.get(key, set())
        sessions.discard(local_index)
        if not sessions:
            self._sessions.pop(key, None)
            self._seen.pop(key, None)

    # -- what is counted of them --

    def counters(self, key: PublicKey) -> PeerCounters | None:
        """Reads the plane's counters of one peer, where it has the peer."""
        peer_id = self._ids.get(key)
        return None if self.plane is None or peer_id is None else self.plane.counters.peer(peer_id)

    def dropped_at(self, key: PublicKey, reason: str, now: float) -> float | None:
        """Tells when a peer's packets were last seen to be dropped for `reason`, as the peer is wired now."""
        counted = self.counters(key)
        return None if counted is None else self.notices.dropped_at(key, reason, counted.drops, now)

    def fresh_counters(self, wanted: Collection[PublicKey]) -> Mapping[PublicKey, PeerCounters]:
        """Copies the numbers of peers with sessions, of those that are `wanted` or moved since the last time.

        Most of ten thousand peers are quiet at any moment.
        """
        if self.plane is None:
            return {}
        counters, seen = self.plane.counters, self._seen
        read: dict[PublicKey, PeerCounters] = {}
        for key in self._sessions:
            peer_id = self._ids[key]
            mark = counters.mark(peer_id)
            # Where packets were dropped, a notice may wait for its time.
            if seen.get(key) != mark or key in wanted or key in self._dropping:
                seen[key] = mark
                read[key] = counters.peer(peer_id)
                if read[key].drops:
                    self._dropping.add(key)
        return read
