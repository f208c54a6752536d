"""JSON text of reports, written by the standard encoder, which is told what a dataclass is.

Owns the layout: one line, or indented by two blanks for people.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vpnd.control.values import field_names


def to_text(value: object, *, is_indented: bool = False, is_ascii: bool = True) -> str:
    """Gives a report, or what `json.dumps` takes, as JSON. Raises ValueError for NaN and infinities.

    Indented it takes ten times as long: the standard encoder does that in Python.
    """
    return json.dumps(
        value,
        ensure_ascii=is_ascii,
        check_circular=False,
        allow_nan=False,
        indent=2 if is_indented else None,
        default=_plain,
    )


def _plain(value: object) -> dict[str, object]:
    """What the standard encoder takes, for what it does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    kind: Any = type(value)
    return {name: getattr(value, name) for name in field_names(kind)}
