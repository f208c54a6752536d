"""Where vpnctl prints: streams, colour, and which characters they can show.

Owns the decision about colour and about UTF-8. Knows no verb.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

from vpnd.control import to_text

_COLOURS = {"green": "32", "yellow": "33", "red": "31", "dim": "2", "bold": "1"}


@dataclass(frozen=True, slots=True)
class Marks:
    """The few characters beyond ASCII that the texts use, or their plain stand-ins."""

    passed: str
    failed: str
    skipped: str
    dot: str
    arrow: str


UNICODE_MARKS = Marks("✓", "✗", "-", "·", "→")
ASCII_MARKS = Marks("ok", "!!", "--", "|", "=>")


@dataclass(frozen=True, slots=True)
class Terminal:
    """Standard output and error, with what they can show."""

    out: TextIO
    err: TextIO
    has_colour: bool
    has_unicode: bool

    @classmethod
    def of(cls, out: TextIO, err: TextIO, environment: Mapping[str, str], *, may_colour: bool) -> Terminal:
        """Colour needs a terminal that is not "dumb", and nobody who forbids it; the marks need UTF-8."""
        is_plain = bool(environment.get("NO_COLOR")) or environment.get("TERM") == "dumb"
        has_unicode = (out.encoding or "").lower().replace("-", "") == "utf8"
        return cls(out, err, may_colour and not is_plain and out.isatty(), has_unicode)

    @property
    def marks(self) -> Marks:
        return UNICODE_MARKS if self.has_unicode else ASCII_MARKS

    def paint(self, text: str, colour: str | None) -> str:
        """Gives the text in a colour, where the terminal shows any."""
        if colour is None or not self.has_colour:
            return text
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"

    def print(self, *lines: str) -> None:
        for line in lines:
            self.out.write(self._printable(line) + "\n")

    def print_error(self, *lines: str) -> None:
        self.out.flush()  # so that both streams in one file keep their order
        for line in lines:
            self.err.write(self._printable(line) + "\n")

    def print_json(self, value: object) -> None:
        """Prints a report, or what `json.dumps` takes: on one line for programs, indented on a terminal."""
        self._write_json(value, is_indented=self.out.isatty())

    def print_json_line(self, value: object) -> None:
        """Prints one of many, a line each, wherever that is read."""
        self._write_json(value, is_indented=False)

    def _write_json(self, value: object, *, is_indented: bool) -> None:
        self.out.write(to_text(value, is_indented=is_indented, is_ascii=not self.has_unicode) + "\n")

    def _printable(self, line: str) -> str:
        encoding = "utf-8" if self.has_unicode else "ascii"
        return line.encode(encoding, "backslashreplace").decode(encoding)
