"""Our own end as every part of the protocol sees it: identity, offers, randomness, refusals.

Owns what is one per device and belongs to no peer. Holds no policy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vpnd.keys import KEY_SIZE, Identity, Secret
from vpnd.protocol.boxes import make_ephemeral
from vpnd.protocol.constants import EPOCH_SIZE, VERSIONS, Feature, PaddingMode, Suite, Timers
from vpnd.protocol.parameters import Capabilities
from vpnd.protocol.sessions import IndexTable
from vpnd.protocol.statics import OwnKey
from vpnd.protocol.timestamps import TimestampSource

if TYPE_CHECKING:
    from vpnd.protocol.peer import Peer


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """What the machine and its configuration make of our end.

    `features` are those besides the link type that the plane can do. Versions below
    `minimum_version` are neither spoken nor answered.
    """

    has_aes: bool
    link_type: Feature
    mtu: int
    padding: PaddingMode
    suites_forced: tuple[Suite, ...] | None = None
    minimum_version: int = 1
    versions: tuple[int, ...] = VERSIONS
    features: Feature = Feature.CSUM | Feature.PATH | Feature.PARAMS

    def capabilities(self) -> Capabilities:
        suites = (Suite.AES_256_GCM, Suite.CHACHA20_POLY1305) if self.has_aes else (Suite.CHACHA20_POLY1305,)
        return Capabilities(
            versions=tuple(version for version in self.versions if version >= self.minimum_version),
            suites=self.suites_forced or suites,
            mtu=self.mtu,
            features=self.link_type | self.features,
            padding=self.padding,
        )


class Local:
    """One per device; handed to the parts that act for it.

    `random_bytes` gives a new object at each call: what made a key is wiped.
    """

    def __init__(
        self,
        identity: Identity,
        knock: Secret,
        options: DeviceOptions,
        timers: Timers,
        *,
        random_bytes: Callable[[int], bytes],
        timestamps: TimestampSource,
        epoch: bytes | None,
    ) -> None:
        self.key = OwnKey(identity, knock)
        self.knock = knock
        self._previous: OwnKey | None = None
        self._previous_until = 0.0
        self.timers = timers
        self.capabilities = options.capabilities()
        self.random_bytes = random_bytes
        self.timestamps = timestamps
        self.indices = IndexTable(random_bytes)
        self.epoch = epoch if epoch is not None else random_bytes(EPOCH_SIZE)
        self.refusals: Counter[str] = Counter()
        self.last_refusal: str | None = None

    def set_previous(self, identity: Identity | None, until: float) -> bool:
        """Has the key before this one answer too until then; None ends it. Tells if that is new."""
        before, self._previous_until = self._previous, until
        if identity is None:
            self._previous = None
        elif before is None or before.public != identity.public:
            self._previous = OwnKey(identity, self.knock)
        return self._previous is not before

    def keys(self, now: float) -> tuple[OwnKey, ...]:
        """Our static keys that hold now, the newest first."""
        if self._previous is not None and now < self._previous_until:
            return (self.key, self._previous)
        return (self.key,)

    def make_ephemeral(self, now: float) -> Secret:
        return make_ephemeral(self.key.identity.private, self.random_bytes(KEY_SIZE), int(now * 1e9))

    def jitter(self, upper_s: float) -> float:
        """Uniform in [0, upper)."""
        return int.from_bytes(self.random_bytes(4), "little") * upper_s / (1 << 32)

    def refuse(self, reason: str, now: float, peer: Peer | None = None) -> None:
        """Counts the refusal of a message, also with the peer where one is known."""
        self.count(reason, peer)
        self.last_refusal = reason
        if peer is not None:
            peer.last_refusal, peer.last_refusal_at = reason, now

    def count(self, reason: str, peer: Peer | None = None, number: int = 1) -> None:
        """Counts what was refused of a message that was taken."""
        self.refusals[reason] += number
        if peer is not None:
            peer.refusals[reason] += number
