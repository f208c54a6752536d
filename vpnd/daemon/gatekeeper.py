"""What the plane must know to answer initiations by cookies: the keys, and when we are under load.

Owns what the plane was told of it. When a load begins and ends is decided in the protocol.
"""

from __future__ import annotations

import logging

from vpnd.daemon.journal import Event, about
from vpnd.errors import PlaneError
from vpnd.plane.client import PlaneClient
from vpnd.protocol.device import Device
from vpnd.protocol.gate import GateKeys

_log = logging.getLogger(__name__)

AGAIN_S = 0.25  # before the plane is told again of a load that lasts


class Gatekeeper:
    """Speaks to one plane, from the moment that it was attached."""

    def __init__(self, plane: PlaneClient) -> None:
        self._plane = plane
        self._keys: GateKeys | None = None
        self._closed_until = 0.0

    def tend(self, device: Device, now: float) -> None:
        """Tells the keys of the gate when they have changed."""
        keys = device.gate_keys(now)
        if keys == self._keys:
            return
        try:
            newest, *older = zip(keys.mac1_keys, keys.cookie_keys, strict=True)
            self._plane.set_gate(*newest, keys.secrets, keys.versions, older[0] if older else None)
            self._keys = keys
        except PlaneError as error:
            _warn("did not take the keys of its gate", error)

    def share_load(self, device: Device, now: float) -> None:
        """Lets the plane ask for cookies while handshakes cost us too much: there it costs a twentieth."""
        until = device.loaded_until
        if until <= now or until < self._closed_until + AGAIN_S:
            return
        self._closed_until = until
        try:
            self._plane.close_gate(until - now)
        except PlaneError as error:
            _warn("did not close its gate", error)


def _warn(what: str, error: PlaneError) -> None:
    if error.code != "gone":  # which is an event of its own
        _log.warning("the plane %s: %s", what, error, extra=about(Event.PLANE_ODD))
