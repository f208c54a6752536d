"""What groups allow and what they refused lately: for `vpnctl show groups` and `vpnctl why`.

Owns the attribution of refused packets to peers, by their inner sources. Changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import ip_network

from vpnd.config import Config, IPNetwork
from vpnd.control.reports import GroupReport, GroupsReport, WhyStep
from vpnd.errors import HostError
from vpnd.host.filter import REFUSED_FOR_S, Refusal, refusals

_SHOWN = 5  # refusals named by `why`, and rules


def groups_report(config: Config, found: Sequence[Refusal]) -> GroupsReport:
    """Gathers every group with its members, and what of theirs was refused."""
    groups_of = config.groups_of()
    members: dict[str, list[str]] = {group.name: [] for group in config.groups}
    for peer, names in groups_of.items():
        for name in names:
            members[name].append(peer)
    refused: Counter[str] = Counter()
    for peer, refusal in _attributed(config, found):
        refused.update(dict.fromkeys(groups_of[peer], refusal.packets))
    return GroupsReport(
        tuple(
            GroupReport(
                group.name, tuple(map(str, group.allow)), tuple(members[group.name]), refused[group.name]
            )
            for group in config.groups
        ),
        tuple(peer for peer, names in groups_of.items() if not names) if config.groups else (),
    )


def refused_lately(config: Config) -> Sequence[Refusal]:
    """Asks the kernel; nothing where nothing is ever refused, or nft does not tell."""
    if not config.groups and config.routing.client_to_client:
        return ()
    try:
        return refusals(config.instance)
    except HostError:
        return ()


def why_steps(config: Config, peer: str, found: Sequence[Refusal]) -> Iterator[WhyStep]:
    """Judges whether groups stand in the way of what the peer sends, by what they refused lately."""
    if not config.groups and config.routing.client_to_client:
        return
    mine = [refusal for name, refusal in _attributed(config, found) if name == peer]
    if mine:
        text = f"{_refused_text(peer, mine)}: {_cause(config, peer)}"
        yield WhyStep("groups", False, text, _remedy(config, peer))
    elif config.groups and not config.groups_of()[peer]:
        text = f"{peer} is in no group: it may begin nothing"
        yield WhyStep("groups", None, text, _remedy(config, peer))
    else:
        yield WhyStep("groups", True, f"nothing refused in the last {REFUSED_FOR_S // 60} minutes")


def _refused_text(peer: str, mine: Sequence[Refusal]) -> str:
    most = sorted(mine, key=lambda refusal: -refusal.packets)[:_SHOWN]
    what = ", ".join(f"{each.protocol} to {each.destination} ({each.packets})" for each in most)
    return f"packets from {peer} were refused lately, {what}"


def _cause(config: Config, peer: str) -> str:
    if not config.groups:
        return "client_to_client is off"
    names = config.groups_of()[peer]
    if not names:
        return "it is in no group, so it may begin nothing"
    rules = [str(rule) for group in config.groups if group.name in names for rule in group.allow]
    more = f" and {len(rules) - _SHOWN} more" if len(rules) > _SHOWN else ""
    apart = "" if config.routing.client_to_client else "; client_to_client is off"
    return f"{', '.join(names)} allows {', '.join(rules[:_SHOWN]) or 'nothing'}{more}{apart}"


def _remedy(config: Config, peer: str) -> str:
    if not config.groups:
        return "set routing.client_to_client = true if peers shall reach each other"
    names = config.groups_of()[peer]
    if not names:
        return f"name a group in peer.{peer}.groups"
    return f"add to groups.{names[0]}.allow what {peer} shall reach"


def _attributed(config: Config, found: Sequence[Refusal]) -> Iterator[tuple[str, Refusal]]:
    """Gives each refusal with the peer behind which its source is; the longest prefix counts."""
    owners: dict[IPNetwork, str] = {network: peer.name for peer in config.peers for network in peer.networks}
    lengths = sorted({(network.version, network.prefixlen) for network in owners}, reverse=True)
    for refusal in found:
        source = refusal.source
        around = (
            ip_network((source, length), strict=False)
            for version, length in lengths
            if version == source.version
        )
        if (peer := next((owners[network] for network in around if network in owners), None)) is not None:
            yield peer, refusal
