"""Arrows between the rooms only point down: read from the sources, not from memory."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "vpnd"
HALL = {"errors", "keys", "endpoint", "durable", ""}
MAY_IMPORT = {
    "errors": set(),
    "durable": set(),
    "keys": {"errors", "durable"},
    "endpoint": {"errors"},
    "": set(),
    "protocol": HALL,
    "config": HALL,
    "control": HALL,
    "plane": HALL,
    "host": HALL,
    "enrol": HALL | {"protocol"},
    "ctl": HALL | {"control", "config", "enrol"},
    "daemon": HALL | {"protocol", "config", "control", "plane", "host"},
}


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide which room they reach into"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    rooms = set()
    for name in names:
        parts = name.split(".")
        if parts[0] == "vpnd":
            rooms.add(parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else "")
    return rooms


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_a_module_imports_only_from_rooms_below(path: Path) -> None:
    room = room_of(path)
    assert imported_rooms(path) - {room} <= MAY_IMPORT[room]


def test_every_room_has_its_rule() -> None:
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")}
    assert rooms <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", sorted((PACKAGE / "protocol").glob("*.py")), ids=lambda path: path.name)
def test_the_protocol_has_no_clock_socket_log_or_randomness_of_its_own(path: Path) -> None:
    forbidden = {"time", "socket", "logging", "os", "random", "secrets", "asyncio", "datetime"}
    imported = {
        alias.name.split(".")[0] if isinstance(node, ast.Import) else (node.module or "").split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not imported & forbidden
