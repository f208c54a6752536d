"""Finds the line on which each key and each array item of a TOML document starts.

The standard library's parser gives values without places, so this walks the same text a
second time. It knows just enough grammar to find its way through a document which that
parser accepted; it judges nothing and decodes nothing but quoted keys.
"""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from typing import TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]

_DEPTH_MAX = 8  # parts of the longest path worth keeping; the configuration has no deeper keys

_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_KEY = re.compile(r'[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'')
_EQUALS = re.compile(r"=[ \t]*")
_SCALAR = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'  # a closing may carry up to two quotes of the content
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|\d{4}-\d\d-\d\d[Tt ]\d\d:[^\s,\]}#]*"  # the one bare value that may hold a space
    r"|[^\s,\[\]{}#]+",
    re.DOTALL,
)


def find_lines(text: str) -> dict[KeyPath, int]:
    """Maps key paths to lines counted from 1; array items have their index as a part of the path.

    A table's line is that of its own header or key, else of the first key or header that
    implies it. Paths of more than eight parts are left out. Of a document that is no TOML,
    the part before the fault is mapped.
    """
    scanner = _Scanner(text.replace("\r\n", "\n"))
    with suppress(_LostError):
        scanner.walk()
    return scanner.lines


class Lines:
    """The lines of one file's keys; the text is walked when the first is asked for.

    Only mistakes ask, and a file of ten thousand peers has a hundred thousand places.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: dict[KeyPath, int] | None = None

    def find(self, path: KeyPath) -> int | None:
        if self._found is None:
            self._found = find_lines(self._text)
        return self._found.get(path)


class _LostError(Exception):
    """The text is not what a TOML parser would have accepted."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text
        self._position = 0
        self._counted = 0  # up to here newlines are counted
        self._line = 1
        self._last_item: dict[KeyPath, int] = {}  # of each array of tables

    def walk(self) -> None:
        base: KeyPath = ()
        while True:
            self._take(_BLANK)
            if self._position == len(self._text):
                return
            if self._follows("[["):
                base = self._array_header()
            elif self._follows("["):
                base = self._header()
            else:
                self._pair(base)

    def _header(self) -> KeyPath:
        *parents, last = self._dotted_key()
        path = (*self._inside(parents), last)
        self._note(path)
        self._take(_SPACE)
        self._expect("]")
        return path

    def _array_header(self) -> KeyPath:
        *parents, last = self._dotted_key()
        path = (*self._inside(parents), last)
        index = self._last_item.get(path, -1) + 1
        self._last_item[path] = index
        self._imply(path)
        self._note((*path, index))
        self._expect("]]")
        return (*path, index)

    def _inside(self, parents: list[str]) -> KeyPath:
        """A header's way down leads through the latest item of each array of tables."""
        path: KeyPath = ()
        for part in parents:
            path = (*path, part)
            self._imply(path)
            if path in self._last_item:
                path = (*path, self._last_item[path])
        return path

    def _pair(self, path: KeyPath) -> None:
        for part in self._dotted_key():
            path = (*path, part)
            self._imply(path)
        self._note(path)
        self._take(_EQUALS)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        if self._follows("["):
            self._array(path)
        elif self._follows("{"):
            self._inline_table(path)
        else:
            self._take(_SCALAR)

    def _array(self, path: KeyPath) -> None:
        index = 0
        while not self._closes("]"):
            self._note((*path, index))
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        while not self._closes("}"):
            self._pair(path)

    def _closes(self, bracket: str) -> bool:
        self._take(_BLANK)
        self._follows(",")
        self._take(_BLANK)
        return self._follows(bracket)

    def _dotted_key(self) -> list[str]:
        parts = []
        while True:
            self._take(_SPACE)
            parts.append(_decode_key(self._take(_KEY)))
            self._take(_SPACE)
            if not self._follows("."):
                return parts

    def _note(self, path: KeyPath) -> None:
        if len(path) <= _DEPTH_MAX:
            self.lines[path] = self._here()

    def _imply(self, path: KeyPath) -> None:
        if len(path) <= _DEPTH_MAX:
            self.lines.setdefault(path, self._here())

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._position)
        if found is None:
            raise _LostError
        self._position = found.end()
        return found.group()

    def _follows(self, literal: str) -> bool:
        if not self._text.startswith(literal, self._position):
            return False
        self._position += len(literal)
        return True

    def _expect(self, literal: str) -> None:
        if not self._follows(literal):
            raise _LostError

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        return self._line


def _decode_key(written: str) -> str:
    if written[0] not in "\"'":
        return written
    try:
        decoded = tomllib.loads(f"key = {written}")["key"]
    except tomllib.TOMLDecodeError:
        raise _LostError from None
    return str(decoded)
