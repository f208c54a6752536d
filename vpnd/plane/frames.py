"""What Ethernet frames a peer may send and get, as one value.

Owns its form on the plane's socket. Knows nothing of why.
"""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.plane import wire
from vpnd.plane.wire import FramesFlag


@dataclass(frozen=True, slots=True)
class FrameRules:
    """`is_relayed`: to and from other peers of which the same is true.

    `storm_limit` is how many broadcasts, multicasts and frames to nobody known pass each way in a
    second, 0 for any number. `macs` are the only sources the peer may show, none for any. `vlans`
    are those that pass, 0 for untagged; None for all.
    """

    is_relayed: bool = False
    storm_limit: int = 0
    macs: tuple[bytes, ...] = ()
    vlans: frozenset[int] | None = None


def pack_rules(peer_id: int, rules: FrameRules) -> bytes:
    flags = FramesFlag.RELAYED if rules.is_relayed else FramesFlag(0)
    allowed = 0
    if rules.vlans is not None:
        flags |= FramesFlag.BY_VLAN
        allowed = sum(1 << vlan for vlan in rules.vlans)
    head = wire.SET_PEER_FRAMES_REQUEST.pack(
        peer_id, flags, rules.storm_limit, len(rules.macs), allowed.to_bytes(wire.VLANS_SIZE, "little")
    )
    return head + b"".join(wire.MAC.pack(mac) for mac in sorted(rules.macs))
