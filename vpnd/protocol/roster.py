"""The peers of a device, by their public keys and by the hashes that name them in a handshake.

Owns which peer a configured one is the same as, when a key of it was replaced. Knows nothing
of what follows from a change.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

from vpnd.keys import PublicKey
from vpnd.protocol.boxes import identify
from vpnd.protocol.peer import Peer, PeerOptions


def check_keys(peers: Sequence[PeerOptions], own: PublicKey) -> None:
    """Raises ValueError where a peer has our own key or two have the same, a previous one included."""
    keys = [key for options in peers for key in options.public_keys()]
    if own in keys:
        raise ValueError("a peer has our own public key")
    if len(set(keys)) != len(keys):
        raise ValueError("two peers have the same public key")


class Roster:
    """`by_key` has each peer once, under its newest key; `by_hash` under the previous one as well."""

    def __init__(self) -> None:
        self.by_key: dict[PublicKey, Peer] = {}
        self.by_hash: dict[bytes, Peer] = {}

    def add(self, peer: Peer) -> None:
        self.by_key[peer.key] = peer
        self.reindex(peer)

    def remove(self, peer: Peer) -> None:
        del self.by_key[peer.key]
        self._forget_hashes(peer)

    def reindex(self, peer: Peer) -> None:
        """Has the peer found by the static keys that it has by now, and by no others."""
        self._forget_hashes(peer)
        peer.hashes = tuple(static.identity_hash for static in peer.static_keys())
        for known in peer.hashes:
            self.by_hash[known] = peer

    def rename(self, options: PeerOptions, wanted: Container[PublicKey]) -> PublicKey | None:
        """Gives a peer that is known under its other key this one, and tells the key it had.

        A key is replaced, or put back, when either configuration names both. `wanted` are the keys
        of all peers that there shall be.
        """
        if not self.by_key or options.public_key in self.by_key:
            return None
        previous = options.previous_public_key
        peer = None if previous is None else self.by_key.get(previous)
        if peer is None:
            peer = self.by_hash.get(identify(options.public_key))
        if peer is None or peer.key in wanted:
            return None
        before = peer.key
        peer.options = replace(peer.options, public_key=options.public_key)
        self.by_key[peer.key] = self.by_key.pop(before)
        return before

    def _forget_hashes(self, peer: Peer) -> None:
        for known in peer.hashes:
            # A key that went from one peer to another in the same reload is the other's by now.
            if self.by_hash.get(known) is peer:
                del self.by_hash[known]
