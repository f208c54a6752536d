"""JSON text of reports, written straight from their dataclasses.

Owns the layout: one line, or indented by two blanks for people. The standard encoder takes dictionaries
only, and where it indents it does so slowly: a status of ten thousand peers is five megabytes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any


def to_text(value: object, *, is_indented: bool = False, is_ascii: bool = True) -> str:
    """Gives a report, or what `json.dumps` takes, as JSON. Raises ValueError for NaN and infinities."""
    quote = encode_basestring_ascii if is_ascii else encode_basestring
    return _write(value, quote, "\n" if is_indented else "")


def _write(value: object, quote: Callable[[str], str], margin: str) -> str:
    """Writes `value`; `margin` begins a line at the present depth, and is empty where all is one line."""
    if isinstance(value, str):
        return quote(value)
    scalar = _SCALARS.get(type(value))
    if scalar is not None:
        return scalar(value)
    inner = margin and margin + "  "
    if isinstance(value, tuple | list):
        return _enclosed("[", (_write(item, quote, inner) for item in value), "]", margin)
    if isinstance(value, Mapping):
        pairs = (f"{quote(key)}: {_write(item, quote, inner)}" for key, item in value.items())
        return _enclosed("{", pairs, "}", margin)
    return _enclosed("{", _fields(value, quote, inner), "}", margin)


def _fields(value: object, quote: Callable[[str], str], margin: str) -> Iterator[str]:
    kind: Any = type(value)
    for name, label in _labels(kind):
        yield label + _write(getattr(value, name), quote, margin)


def _enclosed(opening: str, items: Iterable[str], closing: str, margin: str) -> str:
    if not margin:
        return f"{opening}{', '.join(items)}{closing}"
    inside = f",{margin}  ".join(items)
    return f"{opening}{margin}  {inside}{margin}{closing}" if inside else opening + closing


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"{value} is no JSON number")
    return repr(value)


_SCALARS: Mapping[type, Callable[[Any], str]] = {
    bool: lambda value: "true" if value else "false",
    int: repr,
    float: _number,
    type(None): lambda _: "null",
}


@cache
def _labels(kind: Any) -> tuple[tuple[str, str], ...]:
    """The fields of a dataclass with what stands before their values. Raises TypeError for another type."""
    return tuple((field.name, f'"{field.name}": ') for field in dataclasses.fields(kind))
