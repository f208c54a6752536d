"""The switch that a TAP link is: what Ethernet frames a peer may send and get, and why not others.

Owns the rules that the plane is given and the words about what they refused. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vpnd.config import Config, PeerConfig
from vpnd.control.reports import WhyStep
from vpnd.plane.frames import FrameRules
from vpnd.plane.wire import DROP_REASONS

_NO_FRAMES = FrameRules(vlans=frozenset())
_DROP_TEXTS = dict(DROP_REASONS)


def frame_rules(config: Config, peer: PeerConfig) -> FrameRules:
    """Gives the rules for a peer of a TAP link. Who is yet to join sends no frame and gets none."""
    if peer.is_invited:
        return _NO_FRAMES
    return FrameRules(
        is_relayed=_why_apart(config, peer) is None,
        storm_limit=peer.storm_limit,
        macs=peer.macs,
        vlans=peer.vlans,
    )


def why_steps(config: Config, peer: PeerConfig, drops: Mapping[str, int]) -> Iterator[WhyStep]:
    """Judges what the rules refused of the peer's frames; `drops` are counted since the plane began."""
    if config.interface.type != "tap":
        return
    for reason, (is_mistake, remedy) in _remedies(peer).items():
        if count := drops.get(reason, 0):
            text = f"{count} frames from or for {peer.name} were dropped: {_DROP_TEXTS[reason]}"
            yield WhyStep("frames", False if is_mistake else None, text, remedy)
    others = [other for other in config.peers if other.enabled and other.name != peer.name]
    yield from _about_others(config, peer, others, drops.get("frame_isolated", 0))


def _about_others(
    config: Config, peer: PeerConfig, others: Sequence[PeerConfig], refused: int
) -> Iterator[WhyStep]:
    apart = _why_apart(config, peer)
    if others and apart is not None:
        cause, remedy = apart
        evidence = f" ({refused} frames refused)" if refused else ""
        text = f"{peer.name} exchanges no frames with other peers{evidence}: {cause}"
        yield WhyStep("frames", None, text, remedy)
    elif refused and (names := [other.name for other in others if other.isolated]):
        text = f"{refused} frames from {peer.name} were for a peer that it exchanges none with"
        yield WhyStep("frames", None, text, f"set peer.{names[0]}.isolated = false if they shall meet")


def _remedies(peer: PeerConfig) -> dict[str, tuple[bool, str]]:
    """What somebody refused: is it a mistake for sure, and the remedy."""
    key = f"peer.{peer.name}"
    return {
        "frame_source": (True, f"add the address to {key}.macs, or see who pretends to be another machine"),
        "frame_vlan": (False, f"add the VLAN to {key}.vlans, or keep it off the bridge"),
        "frame_storm": (False, f"look for a loop of bridges or tunnels, or raise {key}.storm_limit"),
    }


def _why_apart(config: Config, peer: PeerConfig) -> tuple[str, str] | None:
    """Tells why the peer exchanges frames with our link alone, and the remedy; None: it does not."""
    for key in ("forward", "client_to_client"):
        if not getattr(config.routing, key):
            return f"{key} is off", f"set routing.{key} = true if peers shall reach each other"
    if peer.isolated:
        return "it is isolated", f"set peer.{peer.name}.isolated = false if it shall reach other peers"
    return None
