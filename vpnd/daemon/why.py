"""Why a peer does not work: the checks in the order in which one breaks the next.

Owns that order, and the questions about what goes on inside the tunnel. Asks the Device, the plane's
counters and the machine; changes nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

from vpnd.config import PeerConfig, is_inside
from vpnd.control.reports import WhyReport, WhyStep
from vpnd.daemon import permits, reasons, switch, why_machine, why_outside
from vpnd.daemon.clock import boottime
from vpnd.daemon.instance import Instance
from vpnd.daemon.why_case import RECENT_S, Case

_ASIDE = ("push", "dns")  # parts without which a tunnel still carries packets


async def report(instance: Instance, peer: PeerConfig) -> WhyReport:
    """Runs the checks for one peer and gives all of them; the first that failed is the cause."""
    if not peer.enabled:
        step = WhyStep("config", False, f"{peer.name} is disabled", f"vpnctl peer unblock {peer.name}")
        return WhyReport(peer.name, (step,))
    key = peer.public_key
    case = Case(
        instance, peer, instance.driver.device.snapshot(key), instance.driver.peers.counters(key), boottime()
    )
    steps = [WhyStep("config", True, f"{peer.name} is configured and enabled"), *_plane(case)]
    steps += [await asyncio.to_thread(why_machine.link, case), why_outside.name(case)]
    steps += await asyncio.to_thread(lambda: [*why_outside.outer_route(case), why_outside.udp_socket(case)])
    steps.append(await why_outside.handshake(case))
    steps += [_path(case), *_runs(case)]
    steps += [*_address(case), *_inner(case)]
    steps += switch.why_steps(instance.config, peer, {} if case.counters is None else case.counters.drops)
    steps += _pushed(case)
    steps += [
        WhyStep(part, False, text, "mend what the text names; it is tried again by itself")
        for part, text in instance.failures.items()
        if part in _ASIDE
    ]
    steps += await asyncio.to_thread(lambda: list(why_machine.ways(case)))
    refused = await asyncio.to_thread(permits.refused_lately, instance.config)
    steps += permits.why_steps(instance.config, peer.name, refused)
    return WhyReport(peer.name, tuple(steps))


def _plane(case: Case) -> Iterator[WhyStep]:
    broken = {part: text for part, text in case.instance.failures.items() if part not in _ASIDE}
    for part, text in broken.items():
        yield WhyStep(part, False, text, "it is being brought back; see the log for what the kernel answers")
    if not broken:
        yield WhyStep("plane", True, "the plane runs, and nothing is being brought back")


def _path(case: Case) -> WhyStep:
    """A narrow path is no fault: senders are told what fits. It costs those who do not listen."""
    snapshot = case.snapshot
    if not snapshot.mtu:
        known = "not known yet" if snapshot.path_mtu is None else "carries all that the link does"
        return WhyStep("path", None if snapshot.path_mtu is None else True, f"the path's MTU: {known}")
    told = case.counters.drops.get("path_too_large", 0) if case.counters else 0
    carries = "" if snapshot.path_mtu is None else f"the path carries {snapshot.path_mtu} bytes: "
    return WhyStep(
        "path",
        None,
        f"{carries}packets above {snapshot.mtu} are sent back to their senders ({told} so far); "
        f"interface.mtu = {snapshot.mtu} on both machines would spare that",
        f"set interface.mtu = {snapshot.mtu} on both machines",
    )


def _runs(case: Case) -> Iterator[WhyStep]:
    """A path that refuses segmentation offload costs speed, and no packet."""
    if case.counters is not None and case.counters.gso_error:
        error = os.strerror(case.counters.gso_error)
        yield WhyStep("offload", None, f"the path takes no runs of datagrams ({error}); they are sent singly")


def _address(case: Case) -> Iterator[WhyStep]:
    """Without an address of ours, packets leave with one that the peer does not expect."""
    told = case.instance.following.pushes.of(case.peer)
    is_wanted = case.instance.following.awaits_addresses and "address" in case.peer.accept
    if case.is_up and is_wanted and (told is None or not told.addresses):
        text = f"{case.peer.name} gives this machine no address"
        yield WhyStep("push", False, text, "there, set [pool], and leave other addresses out of our networks")


def _inner(case: Case) -> Iterator[WhyStep]:
    at = case.instance.driver.peers.dropped_at(case.peer.public_key, "data_source", case.now)
    if case.counters is not None and at is not None and case.now - at < RECENT_S:
        yield _wrong_source(case, case.counters.drops["data_source"], case.now - at)
        return
    for notice in case.snapshot.notices:
        if case.now - notice.at < RECENT_S:
            text, remedy = reasons.explain_notice(notice.reason, notice.count, case.peer)
            yield WhyStep("networks", False, f"{text}, told {case.now - notice.at:.0f} s ago", remedy)
            return
    if case.instance.config.interface.type == "tun" and not case.peer.networks:
        yield WhyStep(
            "networks",
            False,
            "the peer has no networks: nothing is sent to it and nothing taken from it",
            f"set peer.{case.peer.name}.networks",
        )
        return
    yield WhyStep("networks", True, ", ".join(map(str, case.peer.networks[:8])) or "any Ethernet frame")


def _wrong_source(case: Case, count: int, ago_s: float) -> WhyStep:
    """Tells of the inner-source check, and of another peer to whom a part of the networks goes."""
    name, others = case.peer.name, case.instance.config.peers
    text = (
        f"{count} packets from {name} were dropped, the last {ago_s:.0f} s ago: "
        "inner source not in the peer's networks"
    )
    taken = (
        (network, other.name)
        for other in others
        if other.enabled and other.name != name
        for network in other.networks
        if any(is_inside(network, each) for each in case.peer.networks)
    )
    if (first := next(taken, None)) is None:
        remedy = f"add the address to peer.{name}.networks here, or use another address there"
        return WhyStep("networks", False, text, remedy)
    network, other_name = first
    remedy = f"take {network} out of peer.{other_name}.networks here, or use another address there"
    return WhyStep("networks", False, f"{text}; {network} within them is {other_name}'s", remedy)


def _pushed(case: Case) -> Iterator[WhyStep]:
    """What the peer wants set here. That a kind of setting is not accepted is a choice, and no fault."""
    config, pushes = case.instance.config, case.instance.following.pushes
    told = pushes.of(case.peer)
    if told is None or not told.is_push:
        return
    refusals = pushes.refusals(config, case.peer)
    faults = [refusal for refusal in refusals if refusal.is_fault]
    if faults:
        name = case.peer.name
        remedy = f"change [push] on {name}, or peer.{name}.networks and interface.mtu here"
        yield WhyStep("push", False, f"refused: {'; '.join(map(str, faults))}", remedy)
    elif refusals:
        yield WhyStep("push", None, f"not taken: {'; '.join(map(str, refusals))}")
    else:
        yield WhyStep("push", True, "all that it pushes is in force")
