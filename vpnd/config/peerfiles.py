"""Where the files of single peers lie, and how their text is made and changed.

Owns the names in the folder beside the main file, and edits that leave comments and everything
else as the operator wrote it. Opens no file.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from vpnd.config.lines import Lines

PEER_SUFFIX = ".toml"
BLOCKED_SUFFIX = ".blocked"  # no ending of a peer's file, so that no peer's name can make one

Value: TypeAlias = str | int | bool | Sequence[str]

# A key with a value on the same line, and what may follow it.
_PAIR = re.compile(
    r"""(?P<key>\s*(?:[\w-]+|"[^"]*"|'[^']*')\s*=\s*)(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^\s#\["']+)(?P<rest>\s*(?:\#.*)?)""",
    re.DOTALL,
)


def peer_folder(file: Path) -> Path:
    """The folder of the peers' own files, beside the main file of an instance."""
    return file.with_name(file.name.removesuffix(".toml") + ".d")


def peer_file(file: Path, name: str) -> Path:
    return peer_folder(file) / f"{name}{PEER_SUFFIX}"


def block_file(file: Path, name: str) -> Path:
    """The file that blocks a peer by being there, wherever the peer itself stands."""
    return peer_folder(file) / f"{name}{BLOCKED_SUFFIX}"


def line_of_peer(text: str, name: str) -> int | None:
    """On which line of a main file's text the peer stands, if it does."""
    return Lines(text).find(("peer", name))


def write_keys(keys: Mapping[str, Value]) -> str:
    """The text of a peer's own file."""
    # JSON's strings, numbers, booleans and arrays of strings are TOML's too, and a character that only
    # TOML would escape cannot stand in a value that was read by this configuration's own rules.
    return "".join(f"{key} = {_write(value)}\n" for key, value in keys.items())


def _write(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False)


def set_keys(text: str, keys: Mapping[str, Value | None]) -> str:
    """Changes keys in the text of a peer's own file, each on its own line; None takes one out.

    One that is not there yet comes last. Raises ValueError where the text is no TOML, or has a key in a
    way not understood here.
    """
    wanted = {key: value for key, value in (tomllib.loads(text) | dict(keys)).items() if value is not None}
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    places = {key: Lines(text).find((key,)) for key in keys}
    for key, line in places.items():
        value = keys[key]
        if line is not None:
            lines[line - 1] = "" if value is None else _with_value(lines[line - 1], value)
        elif value is not None:
            lines.append(f"{key} = {_write(value)}\n")
    changed = "".join(lines)
    try:
        is_done = tomllib.loads(changed) == wanted
    except tomllib.TOMLDecodeError:
        is_done = False
    if not is_done:
        raise ValueError(f"{', '.join(keys)} cannot be changed here")
    return changed


def _with_value(line: str, value: Value) -> str:
    pair = _PAIR.fullmatch(line)
    return line if pair is None else f"{pair['key']}{_write(value)}{pair['rest']}"
