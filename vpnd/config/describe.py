"""Prints a configuration back, key by key, with the value each one has in effect.

Owns the wording only. Secrets are shown as the paths of their files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from vpnd.config.peers import PUSHABLE
from vpnd.config.reader import show_text
from vpnd.config.sections import ASSIGNED, TABLES
from vpnd.config.values import (
    Config,
    DnsConfig,
    GroupConfig,
    InterfaceConfig,
    LocalConfig,
    PeerConfig,
    PoolConfig,
    PushConfig,
    RoutingConfig,
)


def describe(config: Config) -> list[tuple[str, str]]:
    """Lists every key with its effective value, defaults included.

    Values are written as TOML; what has no value there stands in parentheses.
    """
    return [
        *_section("interface", _interface(config.interface)),
        *_section("local", _local(config.local)),
        *(line for peer in config.peers for line in _section(f"peer.{_key(peer.name)}", _peer(peer))),
        *_section("routing", _routing(config.routing)),
        *(line for group in config.groups for line in _section(f"groups.{_key(group.name)}", _group(group))),
        *_section("dns", _dns(config.dns)),
        *_section("pool", _pool(config.pool)),
        *_section("push", _push(config.push) if config.pool is not None else ()),
    ]


def _section(name: str, keys: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(f"{name}.{key}", value) for key, value in keys]


def _interface(interface: InterfaceConfig) -> list[tuple[str, str]]:
    mac = "(none)" if interface.type == "tun" else "(derived from the public key)"
    return [
        ("name", _text(interface.name)),
        ("type", _text(interface.type)),
        ("addresses", _text(ASSIGNED) if interface.is_assigned else _array(interface.addresses)),
        ("mtu", str(interface.mtu)),
        ("txqueuelen", str(interface.txqueuelen)),
        ("mac", mac if interface.mac is None else _text(interface.mac.hex(":"))),
        ("bridge", _optional(interface.bridge)),
    ]


def _local(local: LocalConfig) -> list[tuple[str, str]]:
    return [
        ("private_key", _text(local.private_key)),
        ("previous_private_key", _optional(local.previous_private_key)),
        ("key_overlap", str(local.key_overlap)),
        ("listen", _array(local.listen) if local.listen else "(an ephemeral port)"),
        ("fwmark", f"0x{local.fwmark:x}" if local.fwmark else "0"),
        ("workers", str(local.workers) if isinstance(local.workers, int) else _text(local.workers)),
        ("knock", _optional(local.knock)),
        ("padding", _text(local.padding)),
        ("offload", _text(local.offload) if isinstance(local.offload, str) else _array(local.offload)),
    ]


def _peer(peer: PeerConfig) -> list[tuple[str, str]]:
    return [
        ("public_key", _text(peer.public_key)),
        ("previous_public_key", _optional(peer.previous_public_key)),
        ("preshared_key", _optional(peer.preshared_key)),
        ("endpoint", "(it calls us)" if peer.endpoint is None else _text(peer.endpoint)),
        ("networks", _array(peer.networks)),
        ("route", _boolean(peer.route)),
        ("keepalive", str(peer.keepalive)),
        ("accept", _array(word for word in PUSHABLE if word in peer.accept)),
        ("enabled", _boolean(peer.enabled)),
        ("groups", _array(peer.groups)),
        ("invited_until", "(none)" if peer.invited_until is None else show_moment(peer.invited_until)),
        ("macs", _array(mac.hex(":") for mac in peer.macs) if peer.macs else "(any)"),
        ("vlans", "(all)" if peer.vlans is None else _array(_vlans(peer.vlans))),
        ("storm_limit", str(peer.storm_limit)),
        ("isolated", _boolean(peer.isolated)),
    ]


def _vlans(numbers: Iterable[int]) -> Iterator[str]:
    """Numbers that follow each other as one."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if number > 1 and runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    for first, last in runs:
        yield "untagged" if first == 0 else str(first) if first == last else f"{first}-{last}"


def _routing(routing: RoutingConfig) -> list[tuple[str, str]]:
    names = {number: name for name, number in TABLES.items()}
    named = routing.table in names
    return [
        ("table", _text(names[routing.table]) if named else str(routing.table)),
        ("metric", str(routing.metric)),
        ("full_tunnel", _boolean(routing.full_tunnel)),
        ("allow_lan", _boolean(routing.allow_lan)),
        ("kill_switch", _boolean(routing.kill_switch)),
        ("forward", _boolean(routing.forward)),
        ("masquerade", _array(routing.masquerade)),
        ("client_to_client", _boolean(routing.client_to_client)),
    ]


def _group(group: GroupConfig) -> list[tuple[str, str]]:
    return [("allow", _array(group.allow)), ("peers", _array(group.peers))]


def _dns(dns: DnsConfig) -> list[tuple[str, str]]:
    return [("servers", _array(dns.servers)), ("domains", _array(dns.domains))]


def _pool(pool: PoolConfig | None) -> list[tuple[str, str]]:
    if pool is None:
        return []
    return [("ipv4", _optional(pool.ipv4)), ("ipv6", _optional(pool.ipv6))]


def _push(push: PushConfig) -> list[tuple[str, str]]:
    return [
        ("routes", _array(push.routes)),
        *((f"dns.{key}", value) for key, value in _dns(push.dns)),
        ("mtu", "(that of our link)" if push.mtu is None else str(push.mtu)),
    ]


def show_moment(moment: float) -> str:
    """A time, given in seconds since 1970, as TOML writes it."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _key(name: str) -> str:
    """A peer's or group's name as a part of a TOML key: one with a dot needs quotes."""
    return _text(name) if "." in name else name


def _text(value: object) -> str:
    return show_text(str(value))


def _optional(value: object | None) -> str:
    return "(none)" if value is None else _text(value)


def _array(values: Iterable[object]) -> str:
    return f"[{', '.join(map(_text, values))}]"


def _boolean(value: bool) -> str:
    return "true" if value else "false"
