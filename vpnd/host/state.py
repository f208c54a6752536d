"""The host room's memory, <state_dir>/host.json: what we changed and what was there before.

Owns the file: whole or absent, never half-written. A memory of another boot or another network
namespace is worth nothing and is not taken for ours.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vpnd.durable import sync

FILE_NAME = "host.json"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class SavedSysctl:
    """A value we changed: what it was, and what we set it to."""

    previous: str
    set: str


@dataclass(frozen=True, slots=True)
class Record:
    """What one instance made: links by name, whether an nft table, and sysctls with their old values.

    Also the bridges it joined; True for one that it made.
    """

    links: tuple[str, ...] = ()
    has_table: bool = False
    sysctls: Mapping[str, SavedSysctl] = field(default_factory=lambda: MappingProxyType({}))
    bridges: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))


def here() -> tuple[str, int]:
    """Names the running kernel and the calling thread's network namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return boot, Path("/proc/thread-self/ns/net").stat().st_ino


def load(file: Path) -> tuple[Record, str | None]:
    """Gives the record, empty where none is valid here, and a warning where the file is spoilt."""
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        return Record(), None
    except (OSError, ValueError) as error:
        return Record(), f"{file}: not readable as our record of the machine, taken as empty: {error}"
    try:
        if (value["boot"], value["namespace"]) != here() or value["version"] != _VERSION:
            return Record(), None
        return _record(value), None
    except (KeyError, TypeError, AttributeError) as error:
        return Record(), f"{file}: holds no record of ours, taken as empty: {error!r}"


def _record(value: Mapping[str, Any]) -> Record:
    sysctls = {
        str(key): SavedSysctl(str(saved["previous"]), str(saved["set"]))
        for key, saved in value["sysctls"].items()
    }
    # A record of before an upgrade has none.
    bridges = {str(name): bool(is_ours) for name, is_ours in value.get("bridges", {}).items()}
    return Record(tuple(str(name) for name in value["links"]), bool(value["nat"]), sysctls, bridges)


def store(file: Path, record: Record) -> None:
    """Writes the record; after a power cut the file holds the old one or the new one. OSError."""
    boot, namespace = here()
    value = {
        "version": _VERSION,
        "boot": boot,
        "namespace": namespace,
        "links": list(record.links),
        "nat": record.has_table,
        "bridges": dict(record.bridges),
        "sysctls": {
            key: {"previous": saved.previous, "set": saved.set} for key, saved in record.sysctls.items()
        },
    }
    draft = file.with_suffix(".json.new")
    try:
        draft.write_bytes(json.dumps(value, indent=1).encode() + b"\n")
        sync(draft)
        draft.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    sync(file.parent)


def erase(file: Path) -> None:
    """Removes the record; content if there is none. OSError."""
    file.unlink(missing_ok=True)


def siblings(file: Path) -> dict[str, SavedSysctl]:
    """Gives the sysctls that other instances on this machine keep set, with the values before them."""
    found: dict[str, SavedSysctl] = {}
    for other in sorted(file.parent.parent.glob(f"*/{FILE_NAME}")):
        if other != file:
            found.update(load(other)[0].sysctls)
    return found


@contextlib.contextmanager
def alone(file: Path) -> Iterator[None]:
    """Holds off the other instances of this machine while shared sysctls are read and changed."""
    try:
        descriptor = os.open(file.parent.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        # No folder of instances, so no other instance either.
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
