"""Tells a peer, inside the tunnel, that what it sends is being dropped here, and why.

Without it only the side that drops knows; with it `vpnctl why` names the cause on both ends.
Owns when a notice is due, at most one per peer and interval and only while drops go on, and the moment
at which they last grew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vpnd.keys import PublicKey
from vpnd.protocol.actions import Action
from vpnd.protocol.constants import NoticeReason
from vpnd.protocol.device import Device

INTERVAL_S = 5.0

# The plane's drop reasons that are the sender's to mend.
_REASONS = {"data_source": NoticeReason.SOURCE, "data_inner": NoticeReason.INNER}


class NoticeWriter:
    """Watches the drops counted per peer and has the Device say so when they grow."""

    def __init__(self) -> None:
        self._told: dict[PublicKey, tuple[float, Mapping[str, int]]] = {}
        self._grown_at: dict[PublicKey, dict[str, float]] = {}

    def begin(self, key: PublicKey, counted: Mapping[str, int]) -> None:
        """Takes what was counted so far as told, and as nothing that says anything of now."""
        self._told[key] = (-INTERVAL_S, dict(counted))
        self._grown_at.pop(key, None)

    def due(
        self, device: Device, drops: Mapping[PublicKey, Mapping[str, int]], now: float
    ) -> Sequence[Action]:
        """Gives the notices to be sent now, for peers whose drops have grown since their last one."""
        wanted: list[Action] = []
        for key, counted in drops.items():
            if not counted and key not in self._told:
                continue
            told_at, told = self._told.get(key, (-INTERVAL_S, {}))
            if now < told_at + INTERVAL_S:
                continue
            grown = {name: counted[name] for name in _REASONS if counted.get(name, 0) > told.get(name, 0)}
            if grown:
                self._told[key] = (now, dict(counted))
                self._grown_at.setdefault(key, {}).update(dict.fromkeys(grown, now))
                for name, count in grown.items():
                    wanted += device.notice(key, _REASONS[name], count)
        return wanted

    def dropped_at(self, key: PublicKey, reason: str, counted: Mapping[str, int], now: float) -> float | None:
        """Tells when drops for that reason were last seen to grow; None if never since `begin`."""
        _, told = self._told.get(key, (0.0, {}))
        if counted.get(reason, 0) > told.get(reason, 0):
            return now
        return self._grown_at.get(key, {}).get(reason)

    def forget(self, key: PublicKey) -> None:
        self._told.pop(key, None)
        self._grown_at.pop(key, None)
