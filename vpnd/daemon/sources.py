"""Our own address towards each peer, as the kernel would choose it: remembered, and asked again when
the network changed.

Owns the comparison. The plane answers from where it was called; that holds until the machine's
routes prefer another address than before, which is what this module tells. Asking sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from vpnd.endpoint import Endpoint
from vpnd.host.facts import Address, source_to
from vpnd.keys import PublicKey

Ask = Callable[[Endpoint, int], Address | None]


@dataclass(frozen=True, slots=True)
class Source:
    """What the kernel prefers towards an endpoint with that fwmark; None: it has no way there."""

    endpoint: Endpoint
    mark: int
    address: Address | None


class Sources:
    """What is known of every peer that has an endpoint."""

    def __init__(self, ask: Ask = source_to) -> None:
        self._ask = ask
        self._known: dict[PublicKey, Source] = {}

    @property
    def known(self) -> Mapping[PublicKey, Source]:
        """A copy, for `ask_again` in another thread."""
        return dict(self._known)

    def learn(self, key: PublicKey, endpoint: Endpoint | None, mark: int) -> None:
        """Asks for a peer that is new, or is elsewhere than when it was asked for."""
        known = self._known.get(key)
        if endpoint is not None and (known is None or (known.endpoint, known.mark) != (endpoint, mark)):
            self._known[key] = Source(endpoint, mark, self._ask(endpoint, mark))

    def keep(self, keys: Collection[PublicKey]) -> None:
        """Forgets all other peers."""
        self._known = {key: source for key, source in self._known.items() if key in keys}

    def compare(self, seen: Mapping[PublicKey, Source]) -> list[PublicKey]:
        """Takes what `ask_again` gave; gives the peers towards which another address is preferred now.

        No way at all is no preference: the one before may come back.
        """
        moved = []
        for key, now in seen.items():
            before = self._known.get(key)
            if before is None or replace(before, address=None) != replace(now, address=None):
                continue  # gone, or elsewhere since it was asked for
            if now.address is None:
                continue
            if before.address is not None and before.address != now.address:
                moved.append(key)
            self._known[key] = now
        return moved


def ask_again(known: Mapping[PublicKey, Source], ask: Ask = source_to) -> dict[PublicKey, Source]:
    """Asks for all of `known`: a tenth of a second for thousands of peers."""
    return {key: replace(source, address=ask(source.endpoint, source.mark)) for key, source in known.items()}
