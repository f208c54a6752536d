"""Applies changed files to a running instance: whole values are compared, the smallest change is made.

Owns the order of a reload and the way back when a step fails. A file with a mistake changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace

from vpnd.config import Config, GroupConfig, PeerConfig, Secrets, describe, load, read_secrets
from vpnd.control.reports import ReloadChange, ReloadReport
from vpnd.daemon import planes, wanted
from vpnd.daemon.instance import Instance
from vpnd.daemon.journal import Event, about
from vpnd.daemon.leases import Settled
from vpnd.errors import ConfigError, ControlError, HostError, PlaneError
from vpnd.keys import PublicKey, Secret

_log = logging.getLogger(__name__)


async def reload(instance: Instance, *, dry_run: bool) -> ReloadReport:
    """Reads the files again and applies what differs; in a dry run only says what would.

    Raises ControlError: "config" with every mistake, "refused" when the machine said no, in which
    case what was before has been put back.
    """
    settings = instance.settings
    try:
        # Away from the loop: thousands of peers take a second, and packets and callers go on.
        config = await asyncio.to_thread(load, settings.instance, settings.config_file)
        config = instance.in_force(config)
        secrets = await asyncio.to_thread(read_secrets, config, settings.credentials)
        settled = await asyncio.to_thread(instance.leases.settle, config)
    except ConfigError as error:
        if not dry_run:
            for mistake in error.mistakes:
                _log.warning("reload: %s", mistake, extra=about(Event.RELOAD_REFUSED))
        raise ControlError("config", str(error)) from None
    config = settled.config
    changes = tuple(_changes(instance, config, secrets, settled))
    changes += await _host_changes(instance, config, secrets)
    # After a way back that was barred, the machine may differ from what we believe it to be.
    is_in_doubt = "reload" in instance.failures
    if dry_run or not (changes or is_in_doubt):
        return ReloadReport(dry_run, changes)
    instance.service.reloading()
    before = (instance.config, instance.secrets, instance.leases.settled)
    try:
        await _apply(instance, config, secrets, settled)
        instance.failures.pop("reload", None)
    except (HostError, PlaneError) as error:
        what = f"{error}; the configuration before stays in force"
        _log.warning("reload: %s", what, extra=about(Event.RELOAD_REFUSED))
        await _put_back(instance, *before)
        raise ControlError("refused", what) from error
    finally:
        instance.service.ready()
    _log.info("reloaded: %d changes", len(changes), extra=about(Event.RELOADED))
    return ReloadReport(dry_run, changes)


async def _apply(instance: Instance, config: Config, secrets: Secrets, settled: Settled | None) -> None:
    old_config, old_secrets = instance.config, instance.secrets
    driver = instance.driver
    plane = driver.plane
    if plane is None:
        raise PlaneError("gone", "the plane is gone and is being brought back; try again in a moment")
    inventory = plane.inventory()
    planes.give_options(plane, inventory, config)
    await instance.give_link(plane, inventory, instance.plan(config, secrets))
    async with instance.shaping:
        # Peers may have pushed something else while this waited for its turn.
        await instance.shape_host(instance.plan(config, secrets))
        instance.config, instance.secrets = config, secrets
        if settled is not None:
            instance.leases.take(settled)
    workers = wanted.workers(config.local, instance.usable_cpus)
    planes.give_sockets(plane, inventory, config, instance.settings, workers)
    instance.note_plane(plane)
    _remember_previous_keys(instance, old_config, old_secrets)
    wirings = wanted.wirings(config)
    driver.peers.rename(wirings)
    if _needs_new_device(instance, old_config, old_secrets):
        instance.rebuild_device()
    else:
        instance.configure_device()
    driver.peers.wire(wirings)
    driver.start()
    instance.resolver.watch(wanted.endpoint_names(config))
    await instance.fit_padding()
    instance.following.ask()


async def _put_back(instance: Instance, config: Config, secrets: Secrets, settled: Settled | None) -> None:
    try:
        await _apply(instance, config, secrets, settled)
    except (HostError, PlaneError) as error:
        instance.failures["reload"] = f"the configuration before could not be put back: {error}"
        _log.error("%s", instance.failures["reload"], extra=about(Event.RELOAD_STUCK))
    else:
        instance.failures.pop("reload", None)


def _remember_previous_keys(instance: Instance, old_config: Config, old_secrets: Secrets) -> None:
    """Keeps a replaced preshared key, so that both ends need not change theirs in the same second."""
    before = {peer.public_key: old_secrets.preshared_keys.get(peer.name) for peer in old_config.peers}
    kept: dict[PublicKey, Secret] = {}
    for peer in instance.config.peers:
        # A peer whose public key was replaced is the same.
        key = peer.public_key if peer.public_key in before else peer.previous_public_key
        old = None if key is None else before.get(key)
        if key is None or old is None:
            continue
        if old != instance.secrets.preshared_keys.get(peer.name):
            kept[peer.public_key] = old
        elif key in instance.previous_keys:
            kept[peer.public_key] = instance.previous_keys[key]
    instance.previous_keys = kept


def _needs_new_device(instance: Instance, old_config: Config, old_secrets: Secrets) -> bool:
    has_aes = True  # the same machine before and after: any value tells the same difference
    return (
        old_secrets.identity != instance.secrets.identity
        or old_secrets.knock != instance.secrets.knock
        or wanted.device_options(old_config, has_aes=has_aes)
        != wanted.device_options(instance.config, has_aes=has_aes)
    )


# -- what a reload says it does --


def _changes(
    instance: Instance, config: Config, secrets: Secrets, settled: Settled
) -> Iterator[ReloadChange]:
    for section in ("interface", "local", "routing"):
        yield from _section_changes(section, getattr(instance.config, section), getattr(config, section))
    yield from _hub_changes(instance.config, config)
    yield from _key_changes(instance.secrets, secrets, config.local.key_overlap)
    before = {peer.name: peer for peer in instance.config.peers}
    after = {peer.name: peer for peer in config.peers}
    yield from _group_changes(instance.config.groups, config.groups)
    same = {name: name for name in before.keys() & after.keys()} | _renamed(before, after)
    for name in sorted(before.keys() - same.keys()):
        yield ReloadChange("remove", f"peer {name}")
    for name in sorted(after.keys() - set(same.values())):
        given = settled.given.get(after[name].public_key, ())
        yield ReloadChange("add", f"peer {name}", ", ".join(f"gets {address.ip}" for address in given))
    for name, new_name in sorted(same.items()):
        detail = _field_differences(before[name], after[new_name])
        if instance.secrets.preshared_keys.get(name) != secrets.preshared_keys.get(new_name):
            detail.append("preshared_key: another key")
        if detail:
            yield ReloadChange("change", f"peer {name}", "; ".join(detail))


def _renamed(before: Mapping[str, PeerConfig], after: Mapping[str, PeerConfig]) -> dict[str, str]:
    """Finds peers whose name alone is gone: they keep key and session. Gives the new name of each."""
    new_names = {after[name].public_key: name for name in after.keys() - before.keys()}
    gone = ((name, before[name].public_key) for name in before.keys() - after.keys())
    return {name: new_names[key] for name, key in gone if key in new_names}


def _group_changes(old: Sequence[GroupConfig], new: Sequence[GroupConfig]) -> Iterator[ReloadChange]:
    before, after = ({group.name: group for group in groups} for groups in (old, new))
    for name in before.keys() - after.keys():
        yield ReloadChange("remove", f"group {name}")
    for name, group in after.items():
        if name not in before:
            yield ReloadChange("add", f"group {name}", f"allow: {_text(group.allow)}")
        elif detail := _field_differences(before[name], group):
            yield ReloadChange("change", f"group {name}", "; ".join(detail))


def _hub_changes(before: Config, after: Config) -> Iterator[ReloadChange]:
    """The differences of [dns], [pool] and [push], as `show config` writes their keys."""
    old, new = (
        {key: value for key, value in describe(config) if key.startswith(("dns.", "pool.", "push."))}
        for config in (replace(before, peers=()), replace(after, peers=()))
    )
    for key in dict.fromkeys((*old, *new)):
        if old.get(key) != new.get(key):
            yield ReloadChange("change", key, f"{old.get(key, 'none')} → {new.get(key, 'none')}")


def _key_changes(before: Secrets, after: Secrets, overlap_s: int) -> Iterator[ReloadChange]:
    if before.identity != after.identity:
        detail = "another key; every peer needs a new handshake"
        if after.previous == before.identity:
            detail = f"another key; the one before answers too for {overlap_s} s"
        yield ReloadChange("change", "local.private_key", detail)
    if before.previous != after.previous:
        detail = "no key" if after.previous is None else f"the key {after.previous.public}"
        yield ReloadChange("change", "local.previous_private_key", detail)
    if before.knock != after.knock:
        yield ReloadChange("change", "local.knock", "another secret; every peer needs a new handshake")


def _section_changes(section: str, before: object, after: object) -> Iterator[ReloadChange]:
    for name, old, new in _differences(before, after):
        yield ReloadChange("change", f"{section}.{name}", f"{old} → {new}")


def _field_differences(before: object, after: object) -> list[str]:
    return [f"{name}: {old} → {new}" for name, old, new in _differences(before, after)]


def _differences(before: object, after: object) -> Iterator[tuple[str, str, str]]:
    for field in fields(before):  # type: ignore[arg-type]
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old != new:
            yield field.name, _text(old), _text(new)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex(":")
    if isinstance(value, frozenset):
        value = tuple(sorted(value))
    if isinstance(value, tuple):
        return ", ".join(map(_text, value)) or "none"
    return "none" if value is None else str(value)


async def _host_changes(instance: Instance, config: Config, secrets: Secrets) -> tuple[ReloadChange, ...]:
    plan = instance.plan(config, secrets)
    try:
        async with instance.shaping:
            changes = await asyncio.to_thread(instance.host.difference, plan)
    except HostError as error:
        raise ControlError("refused", f"{error}; nothing was changed") from error
    return tuple(ReloadChange("change", change.step, change.detail) for change in changes)
