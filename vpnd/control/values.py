"""Frozen dataclasses to JSON objects and back.

Owns the rules of that mapping: a field is a key, a tuple an array, a Mapping an object,
None null. Knows no request and no report; their annotations say all it needs.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar

T = TypeVar("T")
_Read: typing.TypeAlias = Callable[[object], object]
_PLAIN = frozenset({str, int, float, bool, types.NoneType})


def to_json(value: object) -> Any:
    """Gives what `json.dumps` takes: keys in the order of the fields, every field present."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    kind: Any = type(value)
    return {name: to_json(getattr(value, name)) for name in field_names(kind)}


def from_json(kind: type[T], document: object, *, strict: bool = False) -> T:
    """Builds a `kind` from parsed JSON, every value checked against the field's annotation.

    A key may be missing where its field has a default. Unknown keys are skipped, so that an older
    reader understands a newer writer, unless `strict`. Raises ValueError that names the key.
    """
    return typing.cast(T, _object_reader(kind, strict)(document))  # type: ignore[arg-type]


def parse_json(line: bytes) -> Any:
    """Parses strictly: UTF-8, no NaN, no key twice. Raises ValueError."""
    try:
        return json.loads(line.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return keys


@cache
def field_names(kind: Any) -> tuple[str, ...]:
    """The fields of a dataclass. Raises TypeError for another type."""
    return tuple(field.name for field in dataclasses.fields(kind))


class _MisfitError(ValueError):
    """A value that is not what its place takes; the place is told on the way out, innermost part last."""

    def __init__(self, text: str, place: str = "") -> None:
        super().__init__(f"{place or 'the value'}: {text}")
        self.text = text
        self.place = place

    def inside(self, outer: str) -> _MisfitError:
        joint = "." if self.place and not self.place.startswith("[") else ""
        return _MisfitError(self.text, f"{outer}{joint}{self.place}")


@cache
def _object_reader(kind: type, strict: bool) -> _Read:
    """Builds the reader of a dataclass once: a status of ten thousand peers asks it ten thousand times."""
    hints = typing.get_type_hints(kind)
    fields = tuple(
        (field.name, _reader(hints[field.name], strict), field.default is dataclasses.MISSING)
        for field in dataclasses.fields(kind)
    )
    known = frozenset(hints)

    def read(document: object) -> object:
        if not isinstance(document, dict):
            raise _wrong(document, "an object")
        values: dict[str, object] = {}
        for name, read_field, is_needed in fields:
            if name in document:
                try:
                    values[name] = read_field(document[name])
                except _MisfitError as misfit:
                    raise misfit.inside(name) from None
            elif is_needed:
                raise _MisfitError("missing", name)
        if strict and not known.issuperset(document):
            unknown = min(document.keys() - known)
            raise ValueError(f"unknown key {json.dumps(unknown)}")
        return kind(**values)

    return read


def _reader(hint: Any, strict: bool) -> _Read:
    if dataclasses.is_dataclass(hint):
        return _object_reader(typing.cast(type, hint), strict)
    if hint in _SCALARS:
        return _SCALARS[hint]
    return _COMPOUNDS[typing.get_origin(hint)](typing.get_args(hint), strict)


def _optional_reader(arguments: tuple[Any, ...], strict: bool) -> _Read:
    (inner,) = [argument for argument in arguments if argument is not types.NoneType]
    read_inner = _reader(inner, strict)
    return lambda value: None if value is None else read_inner(value)


def _literal_reader(arguments: tuple[Any, ...], strict: bool) -> _Read:
    del strict

    def read(value: object) -> object:
        if not isinstance(value, str):
            raise _wrong(value, "a string")
        if value not in arguments:
            raise _MisfitError(f"{json.dumps(value)} is none of {', '.join(arguments)}")
        return value

    return read


def _array_reader(arguments: tuple[Any, ...], strict: bool) -> _Read:
    read_item = _reader(arguments[0], strict)

    def read(value: object) -> object:
        if not isinstance(value, list):
            raise _wrong(value, "an array")
        number = 0

        def read_next(item: object) -> object:
            nonlocal number
            number += 1
            return read_item(item)

        try:
            return tuple(map(read_next, value))
        except _MisfitError as misfit:
            raise misfit.inside(f"[{number - 1}]") from None

    return read


def _mapping_reader(arguments: tuple[Any, ...], strict: bool) -> _Read:
    read_item = _reader(arguments[1], strict)

    def read(value: object) -> object:
        if not isinstance(value, dict):
            raise _wrong(value, "an object")
        items: dict[str, object] = {}
        for key, item in value.items():
            try:
                items[key] = read_item(item)
            except _MisfitError as misfit:
                raise misfit.inside(key) from None
        return items

    return read


_COMPOUNDS: Mapping[Any, Callable[[tuple[Any, ...], bool], _Read]] = {
    types.UnionType: _optional_reader,
    typing.Union: _optional_reader,  # what a Literal or None is
    Literal: _literal_reader,
    tuple: _array_reader,
    Mapping: _mapping_reader,
}


def _read_string(value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(value, "a string")
    return value


def _read_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(value, "true or false")
    return value


def _read_integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(value, "a whole number")
    return value


def _read_number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(value, "a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number):  # 1e999 is good JSON
        raise _MisfitError("the number is too large")
    return number


_SCALARS: Mapping[Any, _Read] = {
    str: _read_string,
    bool: _read_boolean,
    int: _read_integer,
    float: _read_number,
}


def _wrong(value: object, expected: str) -> _MisfitError:
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return _MisfitError(f"{kinds.get(type(value), 'a number')}, expected {expected}")
