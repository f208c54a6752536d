"""JSON text of reports, written straight from their dataclasses.

Owns the layout: one line, or indented by two blanks for people. The standard encoder is told what a
dataclass is; where it indents it is slow, and a status of ten thousand peers is five megabytes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

_Writer = Callable[[Any], str]


def to_text(value: object, *, is_indented: bool = False, is_ascii: bool = True) -> str:
    """Gives a report, or what `json.dumps` takes, as JSON. Raises ValueError for NaN and infinities."""
    if is_indented:
        return _Writers(encode_basestring_ascii if is_ascii else encode_basestring, "\n").write(value)
    return json.dumps(value, ensure_ascii=is_ascii, check_circular=False, allow_nan=False, default=_plain)


def _plain(value: object) -> dict[str, object]:
    """What the standard encoder takes, for what it does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    kind: Any = type(value)
    return {name: getattr(value, name) for name in _names(kind)}


class _Writers(dict[type, _Writer]):
    """How values of each type are written at one depth, over several lines; `margin` begins a line there."""

    def __init__(self, quote: _Writer, margin: str) -> None:
        super().__init__(_SCALARS)
        self[str] = quote
        self._quote = quote
        self._margin = margin

    def write(self, value: object) -> str:
        return self[type(value)](value)

    def __missing__(self, kind: type) -> _Writer:
        if issubclass(kind, (tuple, list)):
            write: _Writer = self._write_items
        elif issubclass(kind, Mapping):
            write = self._write_pairs
        else:
            write = self._writer_of(kind)
        self[kind] = write
        return write

    @cached_property
    def _inner(self) -> _Writers:
        return _Writers(self._quote, self._margin + "  ")

    def _write_items(self, items: Iterable[object]) -> str:
        return _enclosed("[", [self._inner.write(item) for item in items], "]", self._margin)

    def _write_pairs(self, pairs: Mapping[str, object]) -> str:
        texts = [f"{self._quote(key)}: {self._inner.write(item)}" for key, item in pairs.items()]
        return _enclosed("{", texts, "}", self._margin)

    def _writer_of(self, kind: type) -> _Writer:
        """What is the same in all objects of a dataclass is made once, with a place for each value."""
        names, inner = _names(kind), self._inner
        form = _enclosed("{", [f'"{name}": %s' for name in names], "}", self._margin)
        return lambda value: (
            form % tuple([inner[type(item)](item) for item in [getattr(value, name) for name in names]])
        )


def _enclosed(opening: str, texts: list[str], closing: str, margin: str) -> str:
    inside = f",{margin}  ".join(texts)
    return f"{opening}{margin}  {inside}{margin}{closing}" if inside else opening + closing


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"{value} is no JSON number")
    return repr(value)


_SCALARS: Mapping[type, _Writer] = {
    bool: lambda value: "true" if value else "false",
    int: repr,
    float: _number,
    type(None): lambda _: "null",
}


@cache
def _names(kind: Any) -> tuple[str, ...]:
    """The fields of a dataclass. Raises TypeError for another type."""
    return tuple(field.name for field in dataclasses.fields(kind))
