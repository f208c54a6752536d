"""Figures and tables as people read them.

Owns units, rounding and column widths. Pure: values in, text out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_GAP = "  "


def format_bytes(count: int) -> str:
    """Gives "0", "512 B", "1.2 KiB", "340 MiB": at most four digits before the unit."""
    if count == 0:
        return "0"
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    digits = 1 if unit and value < 99.95 else 0
    return f"{value:.{digits}f} {_UNITS[unit]}"


def format_duration(seconds: float) -> str:
    """Gives the two largest units that count: "41s", "1m 2s", "3d 4h"; whole seconds, rounded down."""
    rest = max(0, int(seconds))
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        value, rest = divmod(rest, size)
        if value or parts:
            parts.append(f"{value}{unit}")
        if len(parts) == 2:
            break
    shown = [part for part in parts if not part.startswith("0")]
    return " ".join(shown) or "0s"


def format_age(seconds: float | None) -> str:
    """Gives "41s ago", or "never"."""
    return "never" if seconds is None else f"{format_duration(seconds)} ago"


def format_left(seconds: float) -> str:
    """Gives "accepted for 23h 59m", or "no longer accepted": what is left of a key's time."""
    return f"accepted for {format_duration(seconds)}" if seconds > 0 else "no longer accepted"


def format_milliseconds(value: float | None) -> str:
    """Gives "0.42 ms", "9.1 ms", "14 ms", "1.2 s", or "-"."""
    if value is None:
        return "-"
    if value >= 999.5:
        return f"{value / 1000:.1f} s"
    digits = 2 if value < 0.995 else 1 if value < 9.95 else 0
    return f"{value:.{digits}f} ms"


def abbreviate(items: Sequence[str], limit: int) -> str:
    """Gives the items in one line; beyond `limit` of them only how many more there are."""
    shown = " ".join(items[:limit])
    return f"{shown} +{len(items) - limit} more" if len(items) > limit else shown


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int] = ()) -> list[str]:
    """Gives lines of left-aligned columns, each as wide as its longest cell and at least as `widths` says.

    The last column is not padded, so nothing ends in blanks.
    """
    lines = [tuple(headers), *map(tuple, rows)]
    minimums = (*widths, *([0] * (len(headers) - len(widths))))
    columns = [
        max(minimum, *(len(line[number]) for line in lines)) for number, minimum in enumerate(minimums)
    ]
    return [
        _GAP.join(cell.ljust(width) for cell, width in zip(line, columns, strict=True)).rstrip()
        for line in lines
    ]
