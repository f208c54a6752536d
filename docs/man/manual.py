#!/usr/bin/python3
"""Makes a manual page of a front page in this folder and the document that it includes.

Owns the little of Markdown that our documents use, and what it becomes in roff. So there is one
text of every key, command and counter, not two that drift apart.

usage: manual.py FRONT.md VERSION OUT
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r"\{include (.+)\}")
PAGES = {
    "configuration.md": "**vpnd.toml**(5)",
    "vpnctl.md": "**vpnctl**(8)",
    "operating.md": "**vpnd**(8)",
    "protocol.md": "**vpnd-protocol**(7)",
}


def main() -> int:
    front, version, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    out.write_text(page(front, version), encoding="utf-8")
    return 0


def page(front: Path, version: str) -> str:
    """Gives the roff of the page whose front is `front`, named like "vpnctl.8.md"."""
    name, section, _ = front.name.rsplit(".", 2)
    lines = [f'.TH "{name.upper()}" {section} "" "vpnd {version}" "vpnd"', ".nh", ".ad l"]
    for line in front.read_text(encoding="utf-8").splitlines():
        found = INCLUDE.fullmatch(line)
        lines += [line] if found is None else _document(DOCS / found[1])
    return "\n".join([*lines[:3], *_blocks(lines[3:])]) + "\n"


def _document(path: Path) -> list[str]:
    """The document's lines without its title, which the page's NAME replaces."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("# ")]


def _blocks(lines: list[str]) -> Iterator[str]:
    i = 0
    while i < len(lines):
        line = lines[i]
        if line.startswith("```"):
            end = lines.index("```", i + 1)
            yield from _verbatim(lines[i + 1 : end])
            i = end + 1
        elif line.startswith("    "):
            end = _end(lines, i, lambda each: each.startswith("    "))
            yield from _verbatim([each[4:] for each in lines[i:end]])
            i = end
        elif line.startswith("|"):
            end = _end(lines, i, lambda each: each.startswith("|"))
            yield from _table(lines[i:end])
            i = end
        elif line.startswith("#"):
            yield from _headline(line)
            i += 1
        elif (item := _item(line)) is not None:
            end = _end(lines, i + 1, lambda each: each.startswith("  "))
            yield f".IP {item[0]} 4"
            yield from _text([item[1], *(each.strip() for each in lines[i + 1 : end])])
            i = end
        elif line:
            end = _end(lines, i, _is_prose)
            yield ".PP"
            yield from _text(lines[i:end])
            i = end
        else:
            i += 1


def _end(lines: list[str], start: int, belongs: object) -> int:
    assert callable(belongs)
    end = start
    while end < len(lines) and belongs(lines[end]):
        end += 1
    return end


def _is_prose(line: str) -> bool:
    return bool(line) and not line.startswith(("```", "    ", "|", "#")) and _item(line) is None


def _item(line: str) -> tuple[str, str] | None:
    found = re.match(r"(-|\d+\.) +(.*)", line)
    if found is None:
        return None
    return (r"\(bu" if found[1] == "-" else found[1]), found[2]


def _headline(line: str) -> Iterator[str]:
    marks, _, words = line.partition(" ")
    words = re.sub(r"[`*]", "", words)
    yield f".SH {_quoted(words)}" if marks == "##" else f".SS {_quoted(words)}"


def _verbatim(lines: Iterable[str]) -> Iterator[str]:
    yield from (".PP", ".RS 4", ".nf")
    yield from (_guarded(_escaped(line)) for line in lines)
    yield from (".fi", ".RE")


def _table(lines: list[str]) -> Iterator[str]:
    """A paragraph for each row: the first cell stands out, those between are named by the table's head."""
    head, _, *rows = [_cells(line) for line in lines]
    for first, *middle, last in rows:
        yield ".TP"
        is_plain = first != "" and not first.startswith(("`", "*"))
        yield _guarded(_inline(f"**{first}**" if is_plain else first))
        named = [
            f"{name[:1].upper() + name[1:]}: {cell}." if name else f"{cell}."
            for name, cell in zip(head[1:], middle, strict=False)
            if cell
        ]
        yield from _text(named)
        if named and last:
            yield ".br"
        yield from _text([last])


def _cells(line: str) -> list[str]:
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]


def _text(lines: Iterable[str]) -> Iterator[str]:
    """Prose; what is emphasized may go on in the next line."""
    for line in _inline("\n".join(lines)).split("\n"):
        yield _guarded(line)


def _inline(text: str) -> str:
    """Code and strong words in bold, stressed ones in italics; of a link its words or the page it means."""
    text = re.sub(r"\[([^]]+)\]\(([^)#]+)?(?:#[^)]*)?\)", _link, text)
    parts = re.split(r"(`[^`]+`|\*\*[^*]+\*\*|(?<![*\w])\*[^* ][^*]*\*(?![*\w]))", text)
    return "".join(
        _emphasized(part) if index % 2 else _escaped(part, is_code=False) for index, part in enumerate(parts)
    )


def _emphasized(part: str) -> str:
    if part.startswith("`"):
        return rf"\fB{_escaped(part[1:-1])}\fR"
    marks = "**" if part.startswith("**") else "*"
    words = _escaped(part.removeprefix(marks).removesuffix(marks).replace("`", ""))
    return rf"\f{'B' if marks == '**' else 'I'}{words}\fR"


def _link(found: re.Match[str]) -> str:
    target = found[2] or ""
    if target in PAGES:
        return PAGES[target]
    return f"{found[1]} ({target})" if "://" in target else found[1]


def _escaped(text: str, *, is_code: bool = True) -> str:
    text = text.replace("\\", r"\e")
    if is_code:  # what may be typed must be a minus, a caret and a quote, not what reads well
        for plain, roff in (("-", r"\-"), ("^", r"\(ha"), ("~", r"\(ti"), ("'", r"\(aq"), ("`", r"\(ga")):
            text = text.replace(plain, roff)
    return text


def _guarded(line: str) -> str:
    """No line of text is empty or looks like a request."""
    return rf"\&{line}" if line == "" or line.startswith((".", "'")) else line


def _quoted(words: str) -> str:
    return '"' + _escaped(words, is_code=False).replace('"', r"\(dq") + '"'


if __name__ == "__main__":
    sys.exit(main())
