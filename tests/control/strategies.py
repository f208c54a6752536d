"""Hypothesis strategies for the dataclasses of vpnd.control, read off their annotations."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from hypothesis import strategies as st

from vpnd.control import (
    PING_COUNT_LIMIT,
    PING_SIZE_LIMIT,
    TOPICS,
    WAIT_LIMIT_S,
    Metrics,
    Monitor,
    Pcap,
    Ping,
    Reconnect,
    Reload,
    Request,
    Show,
    Status,
    Wait,
    Why,
)

T = TypeVar("T")

_SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=12),
    bool: st.booleans(),
    int: st.integers(0, 2**64),
    float: st.floats(allow_nan=False, allow_infinity=False),
}


def reports(kind: type[T]) -> st.SearchStrategy[T]:
    """Any value of the dataclass."""
    hints = typing.get_type_hints(kind)
    return st.builds(
        kind,
        **{field.name: _values(hints[field.name]) for field in dataclasses.fields(typing.cast(Any, kind))},
    )


def _values(hint: Any) -> st.SearchStrategy[Any]:
    arguments = typing.get_args(hint)
    match typing.get_origin(hint):
        case None if dataclasses.is_dataclass(hint):
            return reports(typing.cast(type, hint))
        case None:
            return _SCALARS[hint]
        case types.UnionType | typing.Union:
            return st.none() | _values(arguments[0])
        case origin if origin is Literal:
            return st.sampled_from(arguments)
        case origin if origin is Mapping:
            return st.dictionaries(st.text(max_size=8), _values(arguments[1]), max_size=3)
        case _:
            return st.lists(_values(arguments[0]), max_size=3).map(tuple)


peers = st.text(min_size=1, max_size=255).filter(str.isprintable)
requests: st.SearchStrategy[Request] = st.one_of(
    st.builds(Status, st.none() | peers),
    st.builds(Show, st.sampled_from(TOPICS)),
    st.builds(Why, peers),
    st.builds(Ping, peers, st.integers(1, PING_COUNT_LIMIT), st.integers(0, PING_SIZE_LIMIT)),
    st.builds(Reload, st.booleans()),
    st.builds(Reconnect, peers),
    st.builds(Wait, st.none() | peers, st.floats(0, WAIT_LIMIT_S)),
    st.just(Metrics()),
    st.builds(Monitor, st.none() | peers),
    st.builds(Pcap, st.none() | peers, st.just(value=True), st.booleans(), st.booleans()),
)
