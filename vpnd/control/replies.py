"""The lines a daemon answers with: {"ok": …} or {"error": {"code", "text"}}.

Owns the framing of replies, nothing of what stands in them. Most requests get one line;
ping gets one per echo and a last one with the summary, monitor one per event.
"""

from __future__ import annotations

from typing import Any

from vpnd.control.text import to_text
from vpnd.control.values import parse_json
from vpnd.errors import ControlError

REPLY_LIMIT = 64 * 1024 * 1024  # bytes of one reply line; 65536 peers of 800 bytes fit


def encode_reply(value: object) -> bytes:
    """Gives the line for a report (or any JSON value), newline included."""
    return _line({"ok": value})


def encode_error(error: ControlError) -> bytes:
    """Gives the line for an error, newline included."""
    return _line({"error": {"code": error.code, "text": error.text}})


def decode_reply(line: bytes) -> Any:
    """Gives what stands under "ok". Raises ControlError: the daemon's, or "refused" for what is no reply."""
    try:
        document = parse_json(line)
    except ValueError as error:
        raise ControlError("refused", f"the daemon's reply is not JSON: {error}") from None
    match document:
        case {"ok": value}:
            return value
        case {"error": {"code": str(code), "text": str(text)}}:
            raise ControlError(code, text)
    raise ControlError("refused", 'the daemon\'s reply holds neither "ok" nor "error"')


def _line(document: object) -> bytes:
    return to_text(document).encode() + b"\n"
