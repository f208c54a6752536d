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


def to_json(value: object) -> Any:
    """Gives what `json.dumps` takes: keys in the order of the fields, every field present."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], document: object, *, strict: bool = False) -> T:
    """Builds a `kind` from parsed JSON, every value checked against the field's annotation.

    A key may be missing where its field has a default. Unknown keys are skipped, so that an older
    reader understands a newer writer, unless `strict`. Raises ValueError that names the key.
    """
    return typing.cast(T, _read_object(kind, document, "", strict))


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
def _hints(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


def _read_object(kind: type, document: object, path: str, strict: bool) -> object:
    if not isinstance(document, dict):
        raise _wrong(path or "the value", document, "an object")
    hints = _hints(kind)
    values: dict[str, object] = {}
    for field in dataclasses.fields(kind):
        place = f"{path}.{field.name}" if path else field.name
        if field.name in document:
            values[field.name] = _read(hints[field.name], document[field.name], place, strict)
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"{place}: missing")
    unknown = sorted(document.keys() - hints.keys())
    if strict and unknown:
        raise ValueError(f"unknown key {json.dumps(unknown[0])}")
    return kind(**values)


def _read(hint: Any, value: object, place: str, strict: bool) -> object:
    if dataclasses.is_dataclass(hint):
        return _read_object(typing.cast(type, hint), value, place, strict)
    if hint in _SCALARS:
        return _SCALARS[hint](value, place)
    return _COMPOUNDS[typing.get_origin(hint)](typing.get_args(hint), value, place, strict)


def _read_optional(arguments: tuple[Any, ...], value: object, place: str, strict: bool) -> object:
    (inner,) = [argument for argument in arguments if argument is not types.NoneType]
    return None if value is None else _read(inner, value, place, strict)


def _read_literal(arguments: tuple[Any, ...], value: object, place: str, strict: bool) -> object:
    del strict
    if not isinstance(value, str):
        raise _wrong(place, value, "a string")
    if value not in arguments:
        raise ValueError(f"{place}: {json.dumps(value)} is none of {', '.join(arguments)}")
    return value


def _read_array(arguments: tuple[Any, ...], value: object, place: str, strict: bool) -> object:
    if not isinstance(value, list):
        raise _wrong(place, value, "an array")
    return tuple(_read(arguments[0], item, f"{place}[{number}]", strict) for number, item in enumerate(value))


def _read_mapping(arguments: tuple[Any, ...], value: object, place: str, strict: bool) -> object:
    if not isinstance(value, dict):
        raise _wrong(place, value, "an object")
    return {key: _read(arguments[1], item, f"{place}.{key}", strict) for key, item in value.items()}


_COMPOUNDS: Mapping[Any, Callable[[tuple[Any, ...], object, str, bool], object]] = {
    types.UnionType: _read_optional,
    Literal: _read_literal,
    tuple: _read_array,
    Mapping: _read_mapping,
}


def _read_string(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise _wrong(place, value, "a string")
    return value


def _read_boolean(value: object, place: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(place, value, "true or false")
    return value


def _read_integer(value: object, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(place, value, "a whole number")
    return value


def _read_number(value: object, place: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(place, value, "a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number):  # 1e999 is good JSON
        raise ValueError(f"{place}: the number is too large")
    return number


_SCALARS: Mapping[Any, Callable[[object, str], object]] = {
    str: _read_string,
    bool: _read_boolean,
    int: _read_integer,
    float: _read_number,
}


def _wrong(place: str, value: object, expected: str) -> ValueError:
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return ValueError(f"{place}: {kinds.get(type(value), 'a number')}, expected {expected}")
