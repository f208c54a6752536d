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

from vpnd.config.lines import Lines

PEER_SUFFIX = ".toml"
BLOCKED_SUFFIX = ".blocked"  # no ending of a peer's file, so that no peer's name can make one

_ENABLED = re.compile(r"""(?P<key>\s*(?:enabled|"enabled"|'enabled')\s*=\s*)(?:true|false)\b""")


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


def write_keys(keys: Mapping[str, str | int | bool | Sequence[str]]) -> str:
    """The text of a peer's own file."""
    # JSON's strings, numbers, booleans and arrays of strings are TOML's too, and a character that only
    # TOML would escape cannot stand in a value that was read by this configuration's own rules.
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in keys.items())


def set_enabled(text: str, enabled: bool) -> str:
    """Changes `enabled` in the text of a peer's own file, or adds it as a line of its own.

    Raises ValueError where the text is no TOML, or has the key in a way not understood here.
    """
    wanted = tomllib.loads(text) | {"enabled": enabled}
    line = Lines(text).find(("enabled",))
    word = "true" if enabled else "false"
    lines = text.splitlines(keepends=True)
    if line is not None:
        lines[line - 1] = _ENABLED.sub(rf"\g<key>{word}", lines[line - 1], count=1)
    else:
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        lines.append(f"enabled = {word}\n")
    changed = "".join(lines)
    if tomllib.loads(changed) != wanted:
        raise ValueError(f"enabled cannot be set to {word} here")
    return changed
