"""The map from keys to lines, against documents whose places are known."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import toml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vpnd.config.lines import KeyPath, find_lines

DOCUMENT = r'''# a comment with [brackets] and = signs
top = 1
"quoted key" = 2 # comment
'literal.key' = 3
dotted . inner . "x\u0079" = 4

[first]
text = """
two lines with [not.a.header]
and key = 5 and four quotes""""
raw = \'\'\'a \' b
c\'\'\'
when = 1979-05-27 07:32:00Z
numbers = [ # here
  1,

  2, [3,
  4], # there
  "]", ']', "\"]",
]
inline = { a = 1, b.c = { d = [ 1, 2 ] }, e = [
  "x" ] }
after = ""

  [ first . sub ]
empty = []
none = {}
[deep.er]
est = 1
[deep]
own = 2
[[many]]
name = "one"
[many.part]
x = 1
[[many]]
name = "two"
[[many.more]]
y = 1
[[many.more]]
y = 2
'''.replace("\\'", "'")

PLACES: dict[KeyPath, int] = {
    ("top",): 2,
    ("quoted key",): 3,
    ("literal.key",): 4,
    ("dotted", "inner", "xy"): 5,
    ("dotted",): 5,
    ("first",): 7,
    ("first", "text"): 8,
    ("first", "raw"): 11,
    ("first", "when"): 13,
    ("first", "numbers"): 14,
    ("first", "numbers", 0): 15,
    ("first", "numbers", 1): 17,
    ("first", "numbers", 2): 17,
    ("first", "numbers", 2, 0): 17,
    ("first", "numbers", 2, 1): 18,
    ("first", "numbers", 3): 19,
    ("first", "numbers", 5): 19,
    ("first", "inline"): 21,
    ("first", "inline", "b", "c", "d", 1): 21,
    ("first", "inline", "e", 0): 22,
    ("first", "after"): 23,
    ("first", "sub"): 25,
    ("first", "sub", "none"): 27,
    ("deep", "er"): 28,
    ("deep",): 30,
    ("deep", "own"): 31,
    ("many",): 32,
    ("many", 0): 32,
    ("many", 0, "part", "x"): 35,
    ("many", 1): 36,
    ("many", 1, "name"): 37,
    ("many", 1, "more", 0, "y"): 39,
    ("many", 1, "more", 1): 40,
    ("many", 1, "more", 1, "y"): 41,
}


def test_every_key_of_a_document_with_all_forms_is_found_on_its_line() -> None:
    tomllib.loads(DOCUMENT)
    lines = find_lines(DOCUMENT)
    assert {path: lines.get(path) for path in PLACES} == PLACES


def test_carriage_returns_do_not_shift_lines() -> None:
    assert find_lines(DOCUMENT.replace("\n", "\r\n")) == find_lines(DOCUMENT)


@pytest.mark.parametrize(
    "rest", ["[x", "[[x]", "x", "x =", "x = [1", 'x = """', "x = {a", '"\\q" = 1', "= 1", "x = }", "[[x.]]"]
)
def test_what_stands_before_a_fault_is_found(rest: str) -> None:
    lines = find_lines(f"a = 1\n\nb = 2\n{rest}")
    assert lines[("a",)] == 1
    assert lines[("b",)] == 3


def test_paths_of_more_than_eight_parts_are_left_out() -> None:
    assert max(map(len, find_lines(".".join("abcdefghijkl") + " = 1"))) == 8


KEYS = st.text(alphabet="abcXYZ019_- .é\"'#=[]", min_size=1, max_size=6)
LEAF = "leaf"  # is given its own number, by which its line can be told


def plain_trees() -> st.SearchStrategy[dict[str, Any]]:
    """What the toml package can write: no array mixes tables with other values."""
    arrays = st.recursive(st.just(LEAF), lambda inner: st.lists(inner, max_size=3), max_leaves=4)
    tables = st.recursive(
        st.dictionaries(KEYS, arrays, max_size=3),
        lambda inner: st.dictionaries(
            KEYS, arrays | inner | st.lists(inner, min_size=1, max_size=3), max_size=3
        ),
        max_leaves=6,
    )
    return st.dictionaries(KEYS, arrays | tables, max_size=5)


def trees() -> st.SearchStrategy[dict[str, Any]]:
    values = st.recursive(
        st.just(LEAF),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=12,
    )
    return st.dictionaries(KEYS, values, max_size=5)


def number_leaves(value: Any, numbers: Iterator[int]) -> Any:
    match value:
        case dict():
            return {key: number_leaves(item, numbers) for key, item in value.items()}
        case list():
            return [number_leaves(item, numbers) for item in value]
        case _:
            return next(numbers)


def leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(value, int):
        yield path, value
    for part, item in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from leaves(item, (*path, part))


def assert_every_leaf_stands_where_its_number_does(text: str, tree: dict[str, Any]) -> None:
    found, written = find_lines(text), text.split("\n")
    for path, number in leaves(tree):
        if len(path) <= 8:
            assert str(number) in written[found[path] - 1]


@settings(max_examples=150, deadline=None)
@given(tree=plain_trees())
def test_values_written_by_the_toml_package_are_found_on_their_lines(tree: dict[str, Any]) -> None:
    numbered = number_leaves(tree, iter(range(1_000_000, 2_000_000)))
    text = toml.dumps(numbered)
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assume(False)  # the package does not quote all that needs it
    assert_every_leaf_stands_where_its_number_does(text, parsed)


SPACES = st.sampled_from(["", " ", "\t"])
BREAKS = st.sampled_from(["", " ", "\n", "\n\n", " # ]} no end\n", '\n\t# "\n'])


class Writer:
    """Writes a tree as TOML in a form that hypothesis chooses at every step."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.draw = draw

    def document(self, tree: dict[str, Any]) -> str:
        tables = {
            key: value for key, value in tree.items() if isinstance(value, dict) and self.draw(st.booleans())
        }
        text = "".join(self.pair(key, value) + self.end() for key, value in tree.items() if key not in tables)
        for key, table in tables.items():
            text += f"[{self.draw(SPACES)}{self.key(key)}{self.draw(SPACES)}]{self.end()}"
            text += "".join(self.pair(inner, value) + self.end() for inner, value in table.items())
        return text

    def pair(self, key: str, value: Any) -> str:
        written = self.key(key)
        while isinstance(value, dict) and len(value) == 1 and self.draw(st.booleans()):
            [(key, value)] = value.items()
            written += f"{self.draw(SPACES)}.{self.draw(SPACES)}{self.key(key)}"
        return f"{written}{self.draw(SPACES)}={self.draw(SPACES)}{self.value(value)}"

    def key(self, key: str) -> str:
        if key.isascii() and key.replace("-", "_").isalnum() and self.draw(st.booleans()):
            return key
        if "'" not in key and self.draw(st.booleans()):
            return f"'{key}'"
        return '"' + key.replace('"', '\\"') + '"'

    def value(self, value: Any) -> str:
        match value:
            case dict():
                return "{" + ", ".join(self.pair(key, item) for key, item in value.items()) + "}"
            case list():
                items = [f"{self.draw(BREAKS)}{self.value(item)}{self.draw(BREAKS)}" for item in value]
                return "[" + ",".join(items) + (self.draw(st.sampled_from(["", ","])) if items else "") + "]"
            case _:
                return str(value)

    def end(self) -> str:
        return f"{self.draw(SPACES)}\n" + str(self.draw(BREAKS)).replace(" ", "", 1)


@settings(max_examples=150, deadline=None)
@given(tree=trees(), data=st.data())
def test_values_in_any_mixture_of_forms_are_found_on_their_lines(
    tree: dict[str, Any], data: st.DataObject
) -> None:
    numbered = number_leaves(tree, iter(range(1_000_000, 2_000_000)))
    text = Writer(data.draw).document(numbered)
    assert tomllib.loads(text) == numbered
    assert_every_leaf_stands_where_its_number_does(text, numbered)


@settings(max_examples=100, deadline=None)
@given(
    content=st.text(alphabet="ab\"'\\\n[]={}#", max_size=12),
    form=st.sampled_from(['"""{}"""', "'''{}'''", '"{}"', "'{}'", '"""\n{}"""']),
)
def test_no_string_leads_the_search_astray(content: str, form: str) -> None:
    text = f"a = {form.format(content)}\nb = 1\n[c]\nd = 2\n"
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assume(False)
    lines, height = find_lines(text), text.count("\n")
    assert (lines[("a",)], lines[("b",)], lines[("c", "d")]) == (1, height - 2, height)
