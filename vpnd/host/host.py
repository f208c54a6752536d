"""Brings the machine to one instance's plan with the fewest changes, and takes exactly ours away again.

Owns the order of the steps and the memory of them. Holds no state between calls but the state
file, or what the disk would not take of it: link, addresses, routes, nft table and sysctls outlive
the process that made them.

Every call is synchronous, takes milliseconds (ten thousand new routes: half a second), and
may be made on an asyncio loop's own thread or in an executor. Two calls for one instance at
the same time are the caller's mistake.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vpnd.errors import HostError
from vpnd.host import state
from vpnd.host.bridge import bridge_steps, is_free
from vpnd.host.filter import filter_parts
from vpnd.host.kill_switch import KILL_SWITCH, kill_switch_parts
from vpnd.host.link import (
    ObservedLink,
    Step,
    check_link,
    delete_link,
    has_room,
    link_steps,
    observe_governed_addresses,
    observe_link,
    observe_links,
    observe_networks,
)
from vpnd.host.nat import masquerade_chains
from vpnd.host.netlink import Netlink
from vpnd.host.plan import Change, HostPlan, Interface, LinkPlan, Network
from vpnd.host.routes import route_steps
from vpnd.host.rules import rule_steps
from vpnd.host.sysctl import (
    NO_FORWARDING,
    Sysctls,
    forwarding_steps,
    record_forwarding,
    restore_steps,
    router_advertisement_steps,
    wanted_forwarding,
)
from vpnd.host.table import Table, has_chain, removal_steps, table_steps
from vpnd.host.tun import open_link

# One round makes the changes, the next finds none or what the kernel took along: routes and IPv6
# addresses of a link that went down, secondary addresses of a primary. More means that someone
# works against us.
_ROUNDS = 5


class PartlyAppliedError(HostError):
    """An apply that stopped half-way; `done` are the changes made before. Apply the old plan to go back."""

    def __init__(self, step: str, cause: str, done: tuple[Change, ...]) -> None:
        super().__init__(step, cause)
        self.done = done


@dataclass(frozen=True, slots=True)
class _Draft:
    """The steps to a plan, and the record that must stand before the first of them."""

    steps: tuple[Step, ...]
    record: state.Record


class Host:
    """The machine as one instance shapes it; `state_dir` is that instance's own folder.

    `warnings` holds what the last call found odd and went on without, in words for the log.
    """

    def __init__(self, state_dir: Path, sysctls: Sysctls | None = None) -> None:
        self._file = state_dir / state.FILE_NAME
        self._sysctls = sysctls if sysctls is not None else Sysctls()
        self._unwritten: state.Record | None = None  # what the file should hold and does not
        self.warnings: tuple[str, ...] = ()

    @property
    def has_unwritten(self) -> bool:
        """Tells whether the disk refused the record of the machine; `write_record` tries again."""
        return self._unwritten is not None

    def write_record(self) -> bool:
        """Writes what the disk refused earlier; tells whether nothing is left to be written."""
        if self._unwritten is not None:
            with contextlib.suppress(OSError), state.alone(self._file):
                self._write(self._unwritten)
        return self._unwritten is None

    def difference(self, plan: HostPlan) -> tuple[Change, ...]:
        """Gives what `apply` would change, in order, and changes nothing. HostError where it would refuse."""
        self.warnings = ()
        with _opened() as netlink:
            return tuple(step.change for step in self._draft(netlink, plan, self._load()).steps)

    def apply(self, plan: HostPlan) -> tuple[Change, ...]:
        """Brings the machine to the plan and gives the changes made; none if it was there already.

        What can be refused beforehand is refused before anything is touched (HostError). A step that
        the kernel refuses ends the work with PartlyAppliedError; applying the old plan leads back.
        """
        self.warnings = ()
        done: list[Change] = []
        with state.alone(self._file), _opened() as netlink:
            for _ in range(_ROUNDS):
                known = self._load()
                draft = self._draft(netlink, plan, known)
                self._remember(draft.record, known)
                if not draft.steps:
                    return tuple(done)
                for step in draft.steps:
                    _perform(step, netlink, done)
        raise PartlyAppliedError(
            f"settle link {plan.link.name}",
            f"someone else changes it as well; the last change that did not hold: {done[-1]}",
            tuple(done),
        )

    def make_way(self, plan: HostPlan, *, is_held: bool) -> tuple[Change, ...]:
        """Deletes the standing link where it cannot have as many queues as planned.

        `apply` puts back what stood on it. `is_held` tells that the process with its queue is ours.
        HostError where it is another's, or where the link is none of ours.
        """
        self.warnings = ()
        done: list[Change] = []
        with state.alone(self._file), _opened() as netlink:
            standing = observe_link(netlink, plan.link.name)
            if standing is not None:
                _check_ours(standing, plan)
            # A link has its alias a moment after its birth: `remove` shall find it also between the two.
            known = self._load()
            names = tuple(sorted({*known.links, plan.link.name}))
            self._remember(replace(known, links=names), known)
            if standing is None or has_room(standing, plan.link):
                return ()
            if standing.has_carrier and not is_held:
                raise HostError(
                    f"replace link {standing.name}", "another process holds it; end that process first"
                )
            _perform(_outgrown(standing, plan.link), netlink, done)
        return tuple(done)

    def remove(self, instance: str, *, spares_kill_switch: bool = False) -> tuple[Change, ...]:
        """Takes away what `apply` made for the instance and puts previous values back; nothing else.

        With `spares_kill_switch` a table that has one stays as it stands, and `warnings` tell so.
        Goes on after a step that is refused, then raises the first refusal and keeps the record.
        Finds the link by the record and by its alias, so that a lost record does not leave it behind.
        """
        self.warnings = ()
        done: list[Change] = []
        refusals: list[HostError] = []
        is_spared = False
        with state.alone(self._file), _opened() as netlink:
            record = self._load()
            links = observe_links(netlink)
            names = _our_links(links, record, instance)
            # A deleted link takes its own sysctls along.
            saved = {key: value for key, value in record.sysctls.items() if key.split("/")[3] not in names}
            steps = restore_steps(self._sysctls, saved, state.siblings(self._file))
            steps += [delete_link(name) for name in sorted(names)]
            steps += self._bridge_removals(links, record, names)
            steps += rule_steps(netlink, instance, None)
            try:
                table = removal_steps(instance)
                is_spared = bool(table) and spares_kill_switch and has_chain(instance, KILL_SWITCH)
                steps += [] if is_spared else table
            except HostError as error:
                refusals.append(error)
            for step in steps:
                try:
                    _perform(step, netlink, done)
                except HostError as error:
                    refusals.append(error)
            if refusals:
                raise refusals[0]
            if is_spared:
                self._warn(
                    "the kill switch stays: nothing leaves outside the tunnel; mend the configuration and "
                    f"start again, or lift it by vpnd --instance {instance} --teardown"
                )
                self._remember(state.Record(has_table=True), record)
            else:
                self._forget()
        return tuple(done)

    def _bridge_removals(
        self, links: Mapping[str, ObservedLink], record: state.Record, names: set[str]
    ) -> Iterator[Step]:
        for name, is_ours in record.bridges.items():
            if not is_ours or name not in links:
                continue
            if is_free(links, links[name], names):
                yield delete_link(name)
            else:
                self._warn(f"bridge {name} has other ports by now and stays; delete it by hand")

    def _draft(self, netlink: Netlink, plan: HostPlan, known: state.Record) -> _Draft:
        links = observe_links(netlink)
        standing = links.get(plan.link.name)
        if standing is not None:
            _check_ours(standing, plan)
        forsaken = _our_links(links, known, plan.instance) - {plan.link.name}
        steps = [delete_link(name) for name in sorted(forsaken)]
        gone = {links[name].index for name in forsaken}
        if standing is not None and not has_room(standing, plan.link):
            steps.append(_outgrown(standing, plan.link))
            gone.add(standing.index)
            standing = None
        bridge = bridge_steps(links, standing, plan.link, known.bridges, forsaken)
        steps += bridge.before
        if standing is None:
            steps.append(_create(plan.link))
        steps += router_advertisement_steps(self._sysctls, plan.link.name, plan.link.type)
        addresses: frozenset[Interface] = frozenset()
        if standing is not None:
            addresses = observe_governed_addresses(netlink, standing.index, plan.link.addresses)
        steps += [*link_steps(standing, addresses, plan.link, _alias(plan.instance)), *bridge.after]
        near = (link.index for link in links.values() if link.name not in {plan.link.name, *forsaken})
        wanted = _table(plan, observe_networks(netlink, {*near}) if plan.full_tunnel else ())
        table = table_steps(plan.instance, plan.link.name, wanted, may_stand=known.has_table)
        sysctl, saved = self._forwarding(plan, links.keys() - forsaken, known.sysctls)
        route = route_steps(
            netlink,
            plan.routes,
            plan.link.name,
            standing.index if standing is not None else None,
            gone,
        )
        record = state.Record(
            links=tuple(sorted({plan.link.name, *forsaken})),
            has_table=bool(wanted or table),
            sysctls=saved,
            bridges=bridge.joined,
        )
        rule = rule_steps(netlink, plan.instance, plan.full_tunnel)
        # The table stands before packets are forwarded, and both before routes and rules bring any.
        return _Draft((*steps, *table, *sysctl, *route, *rule), record)

    def _forwarding(
        self, plan: HostPlan, links: set[str], saved: Mapping[str, state.SavedSysctl]
    ) -> tuple[list[Step], dict[str, state.SavedSysctl]]:
        siblings = state.siblings(self._file) if plan.forward or saved else {}
        forwarding = NO_FORWARDING
        if plan.forward:
            forwarding = wanted_forwarding(self._sysctls, links | {plan.link.name}, plan.families)
        record = record_forwarding(self._sysctls, forwarding, saved, siblings)
        unwanted = {key: value for key, value in saved.items() if key not in record}
        restore = restore_steps(self._sysctls, unwanted, siblings)
        # Kept in the record until the restored value stands, so that a failure half-way loses nothing.
        kept = unwanted if restore else {}
        return restore + forwarding_steps(self._sysctls, forwarding), record | kept

    def _load(self) -> state.Record:
        if self._unwritten is not None:
            return self._unwritten
        record, warning = state.load(self._file)
        if warning is not None:
            self._warn(warning)
        return record

    def _remember(self, record: state.Record, known: state.Record) -> None:
        if record == known and self._unwritten is None:
            return
        is_news = self._unwritten is None
        try:
            self._write(record)
        except OSError as error:
            # A full disk is no reason to stop packets. Link and table are found again by alias and name;
            # of sysctls the previous values would be lost, so they are kept here and tried again.
            self._unwritten = record
            if is_news:
                self._warn(
                    f"the record of the machine cannot be written ({self._file}: {error.strerror}); "
                    "going on without it, and trying again"
                )

    def _write(self, record: state.Record) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        state.store(self._file, record)
        self._unwritten = None

    def _forget(self) -> None:
        self._unwritten = None
        try:
            state.erase(self._file)
        except OSError as error:
            self._warn(f"{self._file}: {error.strerror}; delete it by hand")

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings += (text,)


@contextlib.contextmanager
def _opened() -> Iterator[Netlink]:
    try:
        with Netlink() as netlink:
            yield netlink
    except OSError as error:
        raise HostError("look at the machine", _explain(error)) from error


def _alias(instance: str) -> str:
    # Shown by `ip link`; marks the link as ours even when the state file is lost.
    return f"vpnd {instance}"


def _our_links(links: Mapping[str, ObservedLink], record: state.Record, instance: str) -> set[str]:
    return {
        link.name
        for link in links.values()
        if link.is_tun_or_tap
        and (link.alias == _alias(instance) or (link.name in record.links and not link.alias))
    }


def _check_ours(standing: ObservedLink, plan: HostPlan) -> None:
    check_link(standing, plan.link)
    step = f"take link {standing.name}"
    if standing.alias.startswith("vpnd ") and standing.alias != _alias(plan.instance):
        other = standing.alias.removeprefix("vpnd ")
        raise HostError(step, f"it belongs to vpnd's instance {other}; choose another [interface] name")
    if not standing.is_persistent:
        raise HostError(
            step, "another program made it for as long as it runs; choose another [interface] name"
        )


def _table(plan: HostPlan, near: Iterable[Network]) -> Table:
    """The nftables table as planned; an empty one where nothing is hidden and nothing forbidden."""
    link, judge = plan.link.name, plan.filter
    words = []
    if plan.masquerade:
        words.append(f"masquerade {', '.join(map(str, plan.masquerade))} behind links other than {link}")
    if judge.groups is not None:
        words.append(f"groups {', '.join(judge.groups)} for {len(judge.members)} networks")
    if not judge.client_to_client:
        words.append("nothing from peer to peer")
    if plan.full_tunnel is not None and plan.full_tunnel.kill_switch:
        words.append("nothing leaves outside the tunnel")
    sets, chains = filter_parts(link, judge)
    near_sets, kill = kill_switch_parts(link, plan.full_tunnel, near)
    return Table(
        (*sets, *near_sets), (*masquerade_chains(link, plan.masquerade), *chains, *kill), "; ".join(words)
    )


def _create(plan: LinkPlan) -> Step:
    def act(netlink: Netlink) -> None:  # noqa: ARG001 - every step's deed takes the open conversation
        for descriptor in open_link(plan):
            os.close(descriptor)

    queues = f" of {plan.queues} queues" if plan.queues > 1 else ""
    return Step(Change("link", f"create {plan.type} link {plan.name}{queues}"), act)


def _outgrown(standing: ObservedLink, plan: LinkPlan) -> Step:
    deletion = delete_link(standing.name)
    why = f"it was made for one queue, {plan.queues} are wanted"
    return Step(Change("link", f"{deletion.change.detail}: {why}"), deletion.act)


def _perform(step: Step, netlink: Netlink, done: list[Change]) -> None:
    try:
        step.act(netlink)
    except HostError as error:
        raise PartlyAppliedError(error.step, error.cause, tuple(done)) from error
    except OSError as error:
        raise PartlyAppliedError(str(step.change), _explain(error), tuple(done)) from error
    done.append(step.change)


def _explain(error: OSError) -> str:
    text = error.strerror or str(error)
    if error.errno in (errno.EPERM, errno.EACCES):
        return f"{text}; vpnd needs CAP_NET_ADMIN in this network namespace"
    return text
