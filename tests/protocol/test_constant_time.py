"""A static look at the protocol room: no secret-dependent comparison leaves early."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[2] / "vpnd" / "protocol"
SECRET_NAME = re.compile(
    r"(^|_)(mac\d?|mac_r|tag|digest|psk|secret|cookie|chain|ephemeral)$"
    r"|(send|receive|mac1|response|preshared|private|box|cookie)_keys?$"
)
# Compared with zeros only: whether there is a mac2 at all, not whether it is right.
NO_MAC = "NO_MAC2"


def name_of(node: ast.expr) -> str:
    """The last name of an operand: `peer.mac` and `mac[:4]` are called mac."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript):
        return name_of(node.value)
    return node.id if isinstance(node, ast.Name) else ""


def early_compares(source: str) -> list[str]:
    """Comparisons by ==, != or `in` of something that is named like a secret."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare):
            continue
        if not any(isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in node.ops):
            continue
        names = [name_of(operand) for operand in (node.left, *node.comparators)]
        if NO_MAC not in names and any(SECRET_NAME.search(name) for name in names):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("file", sorted(ROOM.glob("*.py")), ids=lambda file: file.name)
def test_no_mac_or_key_is_compared_by_an_operator(file: Path) -> None:
    """[H15] MACs and secrets are compared by libsodium's constant-time function alone."""
    assert early_compares(file.read_text()) == []


def test_the_look_finds_what_it_looks_for() -> None:
    """[H15] The check above would see an early-exit comparison."""
    assert early_compares("ok = message.mac1 == expected")
    assert early_compares("ok = computed_tag != tag")
    assert early_compares("ok = cookie in cookies")
    assert not early_compares("ok = message.mac2 != NO_MAC2")
    assert not early_compares("ok = size == 64")


def test_macs_are_checked_by_libsodium() -> None:
    """[H15] The one function that checks a MAC ends in sodium_memcmp."""
    tree = ast.parse((ROOM / "boxes.py").read_text())
    (function,) = (
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "is_mac"
    )
    assert "sodium_memcmp" in ast.unparse(function)
