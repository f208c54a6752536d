"""The static keys of both ends, each with what every handshake with its holder begins with.

Owns what is derived from one static key alone, and which two keys one handshake is between.
During a rotation an end has two of them: the newest, and the previous until its time is over.
"""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.keys import Identity, PublicKey, Secret
from vpnd.protocol.boxes import Chain, identify, share
from vpnd.protocol.cookies import cookie_key
from vpnd.protocol.handshake import mac1_key, start_chain


class StaticKey:
    """A public key, with the keys of mac1 and of cookies for its holder, and the hash that names it.

    A hub that waits to be called never needs those keys of its peers: they are made when they are asked for.
    """

    __slots__ = (
        *("_cookie_key", "_knock", "_mac1_key", "_shared", "_shared_with", "_starts"),
        *("identity_hash", "public"),
    )

    def __init__(self, public: PublicKey, knock: Secret) -> None:
        self.public = public
        self.identity_hash = identify(public)
        self._knock = knock
        self._mac1_key: Secret | None = None
        self._cookie_key: Secret | None = None
        self._starts: dict[int, Chain] = {}
        self._shared: Secret | None = None
        self._shared_with: OwnKey | None = None

    @property
    def mac1_key(self) -> Secret:
        if self._mac1_key is None:
            self._mac1_key = mac1_key(self.public, self._knock)
        return self._mac1_key

    @property
    def cookie_key(self) -> Secret:
        if self._cookie_key is None:
            self._cookie_key = cookie_key(self.public, self._knock)
        return self._cookie_key

    def shared(self, own: OwnKey) -> Secret | None:
        """What this key and one of ours share, kept for the next handshake between them; not the caller's
        to wipe. None for a low-order point.
        """
        if self._shared_with is not own:
            self._shared, self._shared_with = share(own.identity.private, self.public.raw), own
        return self._shared

    def start(self, version: int) -> Chain:
        """The chain after this key as the responder's, kept for the next handshake."""
        if version not in self._starts:
            self._starts[version] = start_chain(version, self.public)
        return self._starts[version]


class OwnKey(StaticKey):
    """One of ours, with the private half."""

    __slots__ = ("identity",)

    def __init__(self, identity: Identity, knock: Secret) -> None:
        super().__init__(identity.public, knock)
        self.identity = identity


@dataclass(frozen=True, slots=True)
class Parties:
    """The two static keys that one handshake is between."""

    own: OwnKey
    theirs: StaticKey

    def shared(self) -> Secret | None:
        return self.theirs.shared(self.own)

    def prefers_initiator(self, *, is_ours: bool) -> bool:
        """Tells who wins a collision of sessions: the initiator with the greater key (section 8)."""
        return (self.own.public > self.theirs.public) is is_ours
