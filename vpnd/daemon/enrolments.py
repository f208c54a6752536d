"""Peers that were invited: who of them may still come, and by which key those who came are known.

Owns the way from the files' peers to those in force. Writes who joined, and nothing below /etc.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from vpnd.config import Config, PeerConfig
from vpnd.daemon.state import StateDirectory
from vpnd.keys import PublicKey
from vpnd.protocol.constants import EnrolAnswer


class Enrolments:
    """Who joined, by the one-time keys of their tokens; a token that was used is never forgotten."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._own_keys = state.enrolled.load()

    def apply(self, config: Config, wall_s: float) -> Config:
        """Gives those who joined their own keys, and disables invitations that are over. Idempotent."""
        # A key that is a peer's by the files is that peer's, whatever was told.
        taken = {key for peer in config.peers for key in (peer.public_key, peer.previous_public_key)}
        return replace(config, peers=tuple(self._follow(peer, taken, wall_s) for peer in config.peers))

    def _follow(self, peer: PeerConfig, taken: set[PublicKey | None], wall_s: float) -> PeerConfig:
        if peer.invited_until is None:
            return peer
        own = self._own_keys.get(peer.public_key)
        if own is not None and own not in taken:
            taken.add(own)
            return replace(peer, public_key=own, invited_until=None)
        return replace(peer, enabled=peer.enabled and own is None and wall_s < peer.invited_until)

    def enrol(self, peer: PeerConfig, own: PublicKey, others: Iterable[PublicKey | None]) -> EnrolAnswer:
        """Judges and writes down an invited peer's own key; `others` are keys that it cannot be."""
        if not peer.is_invited or not peer.enabled or own.is_low_order() or own in set(others):
            return EnrolAnswer.REFUSED
        joined = self._own_keys | {peer.public_key: own}
        if not self._state.enrolled.store(joined, is_lasting=True):
            return EnrolAnswer.NOT_NOW
        self._own_keys = joined
        return EnrolAnswer.DONE


def next_end(config: Config) -> float:
    """When the next invitation ends, in seconds since 1970."""
    ends = (peer.invited_until for peer in config.peers if peer.enabled)
    return min((end for end in ends if end is not None), default=math.inf)
