"""As much of HTTP/1.1 as one scrape needs: one request in, one answer out, the connection ends.

Owns the bounds of what is read; whatever goes beyond them is no request.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO

_LINE_LIMIT = 8192  # bytes
_LINES_LIMIT = 100
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 503: "Service Unavailable"}


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, and which kinds of answer the caller takes."""

    path: str
    accept: str


def read_request(stream: io.BufferedIOBase) -> Request | None:
    """Reads a GET up to its empty line; None for anything else."""
    words = (_line(stream) or "").split(" ")
    if len(words) != 3 or words[0] != "GET" or not words[2].startswith("HTTP/1."):
        return None
    accept = ""
    for _ in range(_LINES_LIMIT):
        line = _line(stream)
        if line is None:
            return None
        if not line:
            return Request(words[1], accept)
        name, _, value = line.partition(":")
        if name.lower() == "accept":
            accept = value.strip().lower()
    return None


def _line(stream: io.BufferedIOBase) -> str | None:
    """Gives a line without its end; None where the stream or our patience ends before that."""
    line = stream.readline(_LINE_LIMIT)
    return line.decode("latin-1").rstrip("\r\n") if line.endswith(b"\n") else None


def answer(out: BinaryIO, status: int, text: str, content_type: str = "text/plain; charset=utf-8") -> None:
    """Writes a whole answer."""
    body = text.encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        f"Content-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    out.write(head.encode("ascii") + body)
    out.flush()
