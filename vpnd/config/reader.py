"""Takes typed values out of TOML tables and notes every mistake on the way instead of stopping.

Owns the types of TOML, the wording of what is wrong with a value's type or range, and the
order of mistakes. Knows no key by name: the sections do.

A getter that meets a mistake returns the default, so that reading goes on; nothing read that
way leaves the room, because a single mistake voids the whole configuration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar, overload

from vpnd.config.lines import KeyPath, Lines
from vpnd.config.names import explain_unknown
from vpnd.config.values import Place
from vpnd.errors import Mistake

T = TypeVar("T")
D = TypeVar("D")
_SHOWN_CHARACTERS = 60  # of a value in a mistake's text
_SHOWN_INTEGER_BITS = 128  # longer ones are described, not printed


@dataclass(frozen=True, slots=True)
class Placed(Generic[T]):
    """A value and where it stands."""

    value: T
    table: Table
    key: str
    index: int | None = None

    @property
    def place(self) -> Place:
        return self.table.place(self.key, self.index)


class Reading:
    """One run over all files of an instance: gathers their mistakes."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._found: list[Mistake] = []

    def open(self, file: str) -> None:
        """Counts a file as the next one to read; the order of mistakes follows."""
        self._files.setdefault(file, len(self._files))

    def mistake(self, place: Place, text: str) -> None:
        self._found.append(Mistake(place.file, place.line, place.key, text))

    def mistakes(self) -> tuple[Mistake, ...]:
        """All mistakes in reading order: by file, then line; those without a line lead their file."""
        return tuple(sorted(self._found, key=lambda one: (self._files[one.file], one.line or 0)))


class Table:
    """One TOML table. `name` is its path in the configuration, `path` that in its own file.

    A table that could not be read is `broken`: all its keys count as unknown rather than
    as absent, and nothing more is said about them.
    """

    def __init__(
        self,
        reading: Reading,
        file: str,
        content: Mapping[str, object],
        *,
        lines: Lines,
        path: tuple[str, ...] = (),
        name: tuple[str, ...] = (),
        broken: bool = False,
    ) -> None:
        self.reading = reading
        self.broken = broken
        self._file = file
        self._content = content
        self._lines = lines
        self._path = path
        self._name = name
        self._wrong: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def is_sound(self, key: str) -> bool:
        """Whether what was read of this key, its default included, can be trusted for further checks."""
        return not self.broken and key not in self._wrong

    def place(self, key: str | None = None, index: int | None = None) -> Place:
        """Where the table, a key or an item of it stands; an absent key stands where its table does."""
        path: KeyPath = self._path if key is None else (*self._path, key)
        item = path if index is None else (*path, index)
        line = self._lines.find(item) or self._lines.find(self._path)
        return Place(self._file, line, show_path(path))

    def wrong(self, key: str, text: str, index: int | None = None) -> None:
        """Notes a mistake of this key."""
        self._wrong.add(key)
        self.reading.mistake(self.place(key, index), text)

    def unsupported(self, key: str, value: str = "") -> None:
        self.wrong(key, f"{value} is not yet supported" if value else "not yet supported")

    def table(self, key: str) -> Table:
        """The table under this key; an absent one is empty."""
        value = self._content.get(key, {})
        content = value if isinstance(value, dict) else {}
        if content is not value:
            self.wrong(key, f"needs a table, not {show_kind(value)}")
        return Table(
            self.reading,
            self._file,
            content,
            lines=self._lines,
            path=(*self._path, key),
            name=(*self._name, key),
            broken=self.broken or content is not value,
        )

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._content)

    def named(self, *name: str) -> Table:
        """The same table under another path in the configuration."""
        return Table(
            self.reading,
            self._file,
            self._content,
            lines=self._lines,
            path=self._path,
            name=name,
            broken=self.broken,
        )

    def check_names(self, known: Collection[str]) -> None:
        """Notes each key that is not known, with the name it may have been meant to be."""
        for key in self._content:
            if key not in known:
                self.wrong(key, explain_unknown(key, known))

    def boolean(self, key: str, default: bool) -> bool:
        value = self._content.get(key, default)
        if isinstance(value, bool):
            return value
        self.wrong(key, f"needs true or false, not {show_kind(value)}")
        return default

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        value = self._content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(key, f"needs an integer, not {show_kind(value)}")
        elif not low <= value <= high:
            self.wrong(key, f"{show_integer(value)} is out of range; it may be {low} to {high}")
        else:
            return value
        return default

    def moment(self, key: str) -> float | None:
        """A date and time with its offset, in seconds since 1970; None where absent."""
        value = self._content.get(key)
        if isinstance(value, datetime) and value.tzinfo is not None:
            return value.timestamp()
        if value is not None:
            self.wrong(key, "needs a date and time with offset, such as 2030-01-31T12:00:00Z, without quotes")
        return None

    def raw(self, key: str) -> object:
        """The value as TOML has it; None where absent."""
        return self._content.get(key)

    @overload
    def text(self, key: str, default: str, *, secret: bool = False) -> str: ...
    @overload
    def text(self, key: str, default: None = None, *, secret: bool = False) -> str | None: ...
    def text(self, key: str, default: str | None = None, *, secret: bool = False) -> str | None:
        """A string; the value of a `secret` key never comes into a mistake's text."""
        value = self._content.get(key, default)
        if value is None or isinstance(value, str):
            return value
        wanted = "the path of a file in quotes" if secret else f"a string, not {show_kind(value)}"
        self.wrong(key, f"needs {wanted}")
        return default

    def choice(self, key: str, default: D, choices: Mapping[str, D]) -> D:
        """One of a few words."""
        word = self.text(key)
        if word is None:
            return default
        if word not in choices:
            self.wrong(key, f"{show_text(word)} is none of {', '.join(map(show_text, choices))}")
            return default
        return choices[word]

    def parsed(
        self, key: str, parse: Callable[[str], T], default: D, *, secret: bool = False
    ) -> Placed[T | D]:
        """A string in which `parse` finds a value, or raises ValueError with what is wrong."""
        value = self.text(key, secret=secret)
        result: T | D = default
        if value is not None:
            try:
                result = parse(value)
            except ValueError as error:
                self.wrong(key, str(error))
        return Placed(result, self, key)

    def each(
        self, key: str, parse: Callable[[str], T], *, same: Callable[[T], Hashable] = lambda value: value
    ) -> tuple[Placed[T], ...]:
        """An array of strings in each of which `parse` finds a value; two of the `same` are a mistake."""
        value = self._content.get(key, [])
        if not isinstance(value, list):
            hint = f"; write [{show_text(value)}]" if isinstance(value, str) else ""
            self.wrong(key, f"needs an array of strings, not {show_kind(value)}{hint}")
            return ()
        found: dict[Hashable, Placed[T]] = {}
        for index, item in enumerate(value):
            if not isinstance(item, str):
                self.wrong(key, f"needs strings, not {show_kind(item)}", index)
                continue
            try:
                parsed = parse(item)
            except ValueError as error:
                self.wrong(key, str(error), index)
                continue
            first = found.get(same(parsed))
            if first is None:
                found[same(parsed)] = Placed(parsed, self, key, index)
            else:
                self.wrong(key, f"{show_text(item)} stands twice, first at {first.place}", index)
        return tuple(found.values())


def show_text(text: str) -> str:
    """A string as TOML would have it, shortened, with nothing in it that could upset a terminal."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
    escaped = "".join(map(_show_character, cut))
    return f'"{escaped}"'


def show_integer(value: int) -> str:
    if value.bit_length() > _SHOWN_INTEGER_BITS:
        return f"an integer of {value.bit_length()} bits"
    return str(value)


def show_kind(value: object) -> str:
    """Names the type of a TOML value, and the value itself where it is short."""
    match value:
        case bool():
            shown = f"the boolean {str(value).lower()}"
        case int():
            shown = f"the integer {show_integer(value)}"
        case float():
            shown = f"the float {value}"
        case str():
            shown = f"the string {show_text(value)}"
        case list():
            shown = "an array"
        case dict():
            shown = "a table"
        case _:
            shown = f"the date or time {value}"
    return shown


def _show_character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return f"\\u{ord(character):04X}" if ord(character) < 0x10000 else f"\\U{ord(character):08X}"


def show_path(path: KeyPath) -> str:
    """A path as it is written in the file."""
    return ".".join(map(_show_key, map(str, path)))


def _show_key(part: str) -> str:
    return part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else show_text(part)
