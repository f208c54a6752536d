"""Reads the files of an instance and answers with a Config, or with all mistakes of all files.

Owns which files there are: the main one, and in the folder beside it one per peer, and one per
peer that is blocked. Opens nothing else; key files are read later, by those who may.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vpnd.config.groups import check_groups, read_groups
from vpnd.config.hub import read_dns, read_pool, read_push
from vpnd.config.lines import KeyPath, Lines
from vpnd.config.names import SECTION_KEYS
from vpnd.config.parse import parse_peer_name
from vpnd.config.peerfiles import BLOCKED_SUFFIX, PEER_SUFFIX, peer_folder
from vpnd.config.peers import ReadPeer, read_peer, read_peers
from vpnd.config.reader import Reading, Table, show_path
from vpnd.config.sections import read_interface, read_local, read_routing, with_full_tunnel
from vpnd.config.together import ReadSections, check_full_tunnel, check_together, unique_peers
from vpnd.config.values import Config, Place
from vpnd.errors import ConfigError

_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def load(instance: str, file: Path) -> Config:
    """Reads `file` and, beside it, every peer file of the folder named alike with ".d" for ".toml".

    Raises ConfigError with every mistake of every file; then nothing was read in vain, because
    nothing else was touched.
    """
    reading = Reading()
    root = _read_toml(reading, file)
    root.check_names(SECTION_KEYS)
    interface_table, local_table = root.table("interface"), root.table("local")
    interface = read_interface(interface_table, instance)
    local = read_local(local_table, instance)
    routing_table = root.table("routing")
    local, routing = with_full_tunnel(instance, local, read_routing(routing_table))
    pool_table, push_table = root.table("pool"), root.table("push")
    pool, push = read_pool(pool_table, is_there="pool" in root), read_push(push_table)
    dns = read_dns(root.table("dns"))
    groups = read_groups(root.table("groups"), interface.type)
    peer_table = root.table("peer")
    read = list(read_peers(peer_table))
    peer_files, blocked = _read_folder(reading, file)
    for peer_file in peer_files:
        read.extend(_read_peer_file(reading, peer_file))
    peers = unique_peers(read)
    sections = ReadSections(
        interface, interface_table, local, local_table, pool, pool_table, push, push_table
    )
    check_together(sections, peers)
    check_full_tunnel(routing_table, interface, routing, peers)
    check_groups(groups, peers, {*peer_table.keys, *(_peer_of(peer_file) for peer_file in peer_files)})
    mistakes = reading.mistakes()
    if mistakes:
        raise ConfigError(mistakes)
    return Config(
        instance=instance,
        files=(file, *peer_files),
        interface=interface,
        local=local,
        peers=tuple(
            replace(peer.config, enabled=False) if peer.config.name in blocked else peer.config
            for peer in peers
        ),
        routing=routing,
        groups=groups.configs,
        pool=pool,
        push=push,
        dns=dns,
        find_place=Places(file, peer_files).find,
    )


def _read_folder(reading: Reading, file: Path) -> tuple[tuple[Path, ...], set[str]]:
    """Gives the peers' own files, and the names of the peers that are blocked."""
    folder = peer_folder(file)
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return (), set()
    except (OSError, ValueError) as error:
        _refuse_file(reading, folder, error)
        return (), set()
    files = tuple(folder / name for name in names if name.endswith(PEER_SUFFIX))
    return files, {name.removesuffix(BLOCKED_SUFFIX) for name in names if name.endswith(BLOCKED_SUFFIX)}


def _read_peer_file(reading: Reading, file: Path) -> Iterator[ReadPeer]:
    table = _read_toml(reading, file)
    name = _peer_of(file)
    try:
        parse_peer_name(name)
    except ValueError as error:
        reading.mistake(table.place(), str(error))
    if "peer" in table:
        table.wrong("peer", "in a peer's own file its keys stand at the top, without [peer.NAME]")
    elif not table.broken:
        yield read_peer(table.named("peer", name), name)


def _peer_of(file: Path) -> str:
    return file.name.removesuffix(".toml")


def _read_toml(reading: Reading, file: Path) -> Table:
    """Gives the file's top table; one that is broken, after noting why, if the file holds no TOML."""
    shown = _show_file(file)
    reading.open(shown)
    try:
        data = file.read_bytes()
    except (OSError, ValueError) as error:
        _refuse_file(reading, file, error)
        return Table(reading, shown, {}, lines=Lines(""), broken=True)
    text = ""
    try:
        text = data.decode()
        return Table(reading, shown, tomllib.loads(text), lines=Lines(text))
    except UnicodeDecodeError as error:
        line, problem = data.count(b"\n", 0, error.start) + 1, "not UTF-8 text"
    except RecursionError:
        line, problem = None, "nested too deeply"
    except ValueError as error:
        line, problem = _explain_toml_error(str(error), text)
    reading.mistake(Place(shown, line, ""), problem)
    return Table(reading, shown, {}, lines=Lines(""), broken=True)


class Places:
    """Where the keys of a configuration stand, looked for in its files again when somebody asks.

    To remember it of ten thousand peers would take more memory than the peers themselves.
    """

    def __init__(self, file: Path, peer_files: tuple[Path, ...]) -> None:
        self._file = file
        self._peer_files = {_peer_of(file): file for file in peer_files}
        self._lines: dict[Path, Lines] = {}

    def find(self, key: str) -> Place | None:
        """Finds a key such as "peer.berlin.public_key"; None where it is not set or the file is gone."""
        section, _, rest = key.partition(".")
        name, _, last = rest.rpartition(".")
        if section == "groups":
            return self._find_in(self._file, (section, name, last))
        if section != "peer":
            return self._find_in(self._file, (section, rest))
        place = self._find_in(self._file, (section, name, last))
        if place is None and name in self._peer_files:
            place = self._find_in(self._peer_files[name], (last,))
        return place

    def _find_in(self, file: Path, path: KeyPath) -> Place | None:
        if file not in self._lines:
            try:
                self._lines[file] = Lines(file.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                self._lines[file] = Lines("")
        line = self._lines[file].find(path)
        return None if line is None else Place(_show_file(file), line, show_path(path))


def _explain_toml_error(message: str, text: str) -> tuple[int | None, str]:
    if text.startswith("\ufeff"):
        return 1, "starts with a byte order mark; save the file without one"
    found = _TOML_PLACE.search(message)
    if found is None:  # not the grammar: a number of more digits than Python converts
        return None, f"not TOML: {message}"
    problem = f"not TOML: {message[: found.start()]}"
    if found[1] is None:
        return text.rstrip("\n").count("\n") + 1, f"{problem} at the end of the file"
    hint = "; text stands in quotes" if "Invalid value" in message else ""
    return int(found[1]), f"{problem} at column {found[2]}{hint}"


def _refuse_file(reading: Reading, file: Path, error: OSError | ValueError) -> None:
    shown = _show_file(file)
    reading.open(shown)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    reading.mistake(Place(shown, None, ""), reason)


def _show_file(file: Path) -> str:
    """A file's name as it may be printed; one that is no UTF-8 gets escapes."""
    return os.fsencode(file).decode(errors="backslashreplace")
