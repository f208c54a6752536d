"""Findings: what an operator should know or do, each with its remedy.

Owns the questions and their thresholds. Reads everybody, changes nobody, and asks nothing that
takes long: status is asked every few seconds, of ten thousand peers too.
"""

from __future__ import annotations

from collections.abc import Iterator

from vpnd.config import PeerConfig
from vpnd.control import HealthFinding
from vpnd.daemon import reasons, wanted
from vpnd.daemon.clock import boottime
from vpnd.daemon.instance import PLANE_LOSSES_MANY, Instance

CLOCK_SLACK_S = 60.0  # an operator's step of the clock that is no finding
PLANE_LOSSES_S = 3600.0  # for so long a lost plane is spoken of
SILENT_AFTER_ATTEMPTS = 3
RECENT_S = 300.0  # refusals and notices older than this explain nothing present
KEY_ENDS_S = 86400.0  # within it, or within the last quarter of the overlap, a key's end is near
_NAMED = 5  # findings of one kind about single peers; the rest is told as a number

_FAILED = {
    "plane": "it is brought back by itself; if this stays, see the log of vpnd-plane",
    "link": "it is brought back by itself; if this stays, see the text for what the kernel refuses",
    "table": "it is put back by itself; if this stays, see the text for what nft says",
    "dns": "mend what the text names; it is tried again by itself",
    "push": "it is tried again by itself; mend what the text names, here or at the peer that pushes",
    "reload": "mend what the text names, then reload again",
}

# Drops that somebody should mend. Others have their place in any network, or are a stranger's.
_RISING = {
    "data_auth": "if it goes on, suspect a network card or a middlebox on the way",
    "data_inner": "give both sides the same interface.type",
    "data_replay": "look for something on the way that duplicates packets, or holds some back for long",
    "data_source": "add the address to the peer's networks here, or use another one there; `vpnctl why PEER`",
    "frame_source": "add the address to the peer's macs, or see who pretends to be another machine",
    "frame_storm": "look for a loop of bridges or tunnels, or raise the peer's storm_limit",
    "hs_no_daemon": "see why vpnd was away",
    "hs_queue_full": "a flood of handshakes, or a machine that is too busy; `vpnctl show drops`",
    "link_loop": "route the endpoint past the tunnel; `ip route get ENDPOINT`",
    "link_too_large": "vpnctl reload: the link's MTU is another than configured",
    "link_write": "see whether the link is up: `ip link show`",
    "mac_limit": "look for a fault in the bridged network",
    "no_socket": "add an address of the other family to local.listen",
    "path_failed": "look for a broken NAT before the peer",
    "receive_truncated": "set the same interface.mtu on both sides",
    "send_error": "look at this machine's routes and firewall; `vpnctl why PEER`",
    "send_full": "the uplink is slower than the traffic: shape it, or send less",
    "staged_overflow": "a peer that traffic goes to does not answer; `vpnctl why PEER`",
    "staged_flushed": "a peer that traffic goes to does not answer; `vpnctl why PEER`",
}


def findings(instance: Instance) -> Iterator[HealthFinding]:
    """Gives the findings of now, those of the whole instance first."""
    for part, text in instance.failures.items():
        yield HealthFinding(f"{part}-failed", text, _FAILED[part])
    yield from _clock(instance)
    yield from _state(instance)
    yield from _plane_losses(instance)
    yield from _offloads(instance)
    yield from _keys(instance)
    yield from _drops(instance)
    yield from _pushes(instance)
    yield from _peers(instance)


def _clock(instance: Instance) -> Iterator[HealthFinding]:
    behind_s = (instance.driver.device.last_timestamp_ns - instance.wall_clock_ns()) / 1e9
    if behind_s > CLOCK_SLACK_S:
        yield HealthFinding(
            "clock-behind",
            f"the clock is {behind_s:.0f} s behind the last handshake's timestamp",
            "set the clock, and let NTP keep it; until then keep the state directory",
        )


def _state(instance: Instance) -> Iterator[HealthFinding]:
    if names := instance.state.unwritable:
        yield HealthFinding(
            "state-unwritable",
            f"{', '.join(names)} cannot be written; the next start may know less",
            f"see whether {instance.settings.state_dir} is full, read-only or another user's",
        )


def _plane_losses(instance: Instance) -> Iterator[HealthFinding]:
    since = boottime() - PLANE_LOSSES_S
    count = sum(at >= since for at in instance.plane_lost_at)
    if count:
        is_much = count >= PLANE_LOSSES_MANY
        yield HealthFinding(
            "plane-restarted",
            f"the plane ended {count} time{'s' if count > 1 else ''} within the last hour",
            "see its log for why: journalctl -u vpnd-plane@" + instance.config.instance,
            level="warning" if is_much else "notice",
        )


def _offloads(instance: Instance) -> Iterator[HealthFinding]:
    if instance.driver.plane is None:
        return
    missing = wanted.offloads(instance.config) & ~instance.active_offloads
    names = [name for name, offload in wanted.OFFLOADS.items() if offload & missing]
    if names:
        yield HealthFinding(
            "offload-missing",
            f"{', '.join(names)} cannot be used here, which costs speed",
            "`vpnctl show offload` tells why; a newer kernel may help",
            level="notice",
        )


def _pushes(instance: Instance) -> Iterator[HealthFinding]:
    following = instance.following
    if following.awaits_addresses:
        text = "no peer has given this machine its addresses yet"
        yield HealthFinding("no-address", text, "see `vpnctl why` of the peer that gives them")
    for peer in instance.config.peers if following.pushes.told else ():
        for refusal in following.pushes.refusals(instance.config, peer):
            if refusal.is_fault:
                yield HealthFinding(
                    "push-refused",
                    f"{peer.name} pushes what is refused: {refusal}",
                    f"`vpnctl why {peer.name}` tells what to change",
                    peer=peer.name,
                )


def _keys(instance: Instance) -> Iterator[HealthFinding]:
    previous = instance.secrets.previous
    if previous is not None:
        left_s = instance.previous_until[previous.public] - boottime()
        yield from _key(instance, "local.previous_private_key", "our previous key", left_s, None)
    for peer in instance.config.peers:
        if peer.previous_public_key is not None:
            left_s = instance.previous_until[peer.previous_public_key] - boottime()
            key = f"peer.{peer.name}.previous_public_key"
            yield from _key(instance, key, f"the previous key of {peer.name}", left_s, peer.name)


def _key(instance: Instance, key: str, what: str, left_s: float, peer: str | None) -> Iterator[HealthFinding]:
    """Tells that an overlap is nearly over, or that what made it can be removed."""
    if left_s <= 0:
        text, remedy = f"{what} is accepted no longer", f"remove {key} and reload"
        yield HealthFinding("key-over", text, remedy, level="notice", peer=peer)
    elif left_s < min(KEY_ENDS_S, instance.config.local.key_overlap / 4):
        text = f"{what} is accepted for {_hours(left_s)} more"
        remedy = "see that the new key is configured and reloaded on both machines by then"
        yield HealthFinding("key-ends", text, remedy, peer=peer)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.0f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"


def _drops(instance: Instance) -> Iterator[HealthFinding]:
    for reason, count in instance.drop_trend.rising(instance.driver.drops(), _RISING).items():
        text = f"{count} packets were dropped as {reason} within the last minute"
        yield HealthFinding(f"drops-{reason.replace('_', '-')}", text, _RISING[reason])


# -- peers --


def _peers(instance: Instance) -> Iterator[HealthFinding]:
    device, now = instance.driver.device, boottime()
    unanswered = device.unanswered(SILENT_AFTER_ATTEMPTS)
    worth_a_look = device.noteworthy(now - RECENT_S)
    found: dict[str, list[HealthFinding]] = {}
    for peer in instance.config.peers:
        if not peer.enabled:
            continue
        each: list[HealthFinding] = []
        if error := instance.resolver.error_of(peer.name):
            remedy = f"mend peer.{peer.name}.endpoint, or this machine's name servers"
            each.append(_about(peer, "name-unresolved", f"{peer.endpoint} {error}", remedy))
        if peer.public_key in unanswered:
            each.append(_silent(instance, peer, unanswered[peer.public_key], now))
        if peer.public_key in worth_a_look:
            each += _told_of(instance, peer, now)
        for finding in each:
            found.setdefault(finding.code, []).append(finding)
    for code, several in found.items():
        yield from _few(code, several)


def _silent(instance: Instance, peer: PeerConfig, attempts: int, now: float) -> HealthFinding:
    snapshot = instance.driver.device.snapshot(peer.public_key)
    last = snapshot.last_handshake_at
    since = "" if last is None else f"; the last handshake was {_hours(now - last)} ago"
    text = f"no answer from {snapshot.endpoint} to {attempts} tries{since}"
    return _about(peer, "peer-silent", text, f"`vpnctl why {peer.name}`, there too")


def _told_of(instance: Instance, peer: PeerConfig, now: float) -> Iterator[HealthFinding]:
    """What the Device has noted of one peer: refused handshakes, its notices, a narrow path."""
    snapshot = instance.driver.device.snapshot(peer.public_key)
    refused_at = snapshot.last_refusal_at
    is_down = snapshot.current_index is None
    if is_down and snapshot.last_refusal and refused_at is not None and now - refused_at < RECENT_S:
        text, remedy = reasons.explain_refusal(snapshot.last_refusal, peer)
        yield _about(peer, "handshake-refused", text, remedy)
    for notice in snapshot.notices:
        if now - notice.at < RECENT_S:
            text, remedy = reasons.explain_notice(notice.reason, notice.count, peer)
            yield HealthFinding("peer-drops-ours", text, remedy, peer=peer.name)
    if snapshot.mtu:
        text = f"the path carries inner packets of {snapshot.mtu} bytes at most"
        remedy = f"nothing must be done; interface.mtu = {snapshot.mtu} on both machines spares ICMP answers"
        yield _about(peer, "path-small", text, remedy, is_notice=True)


def _about(peer: PeerConfig, code: str, text: str, remedy: str, *, is_notice: bool = False) -> HealthFinding:
    return HealthFinding(
        code, f"{peer.name}: {text}", remedy, level="notice" if is_notice else "warning", peer=peer.name
    )


def _few(code: str, several: list[HealthFinding]) -> Iterator[HealthFinding]:
    """Tells the first ones singly: what ails a thousand peers has one cause."""
    yield from several[:_NAMED]
    if rest := several[_NAMED:]:
        yield HealthFinding(code, f"the same of {len(rest)} more peers", "", level=rest[0].level)
