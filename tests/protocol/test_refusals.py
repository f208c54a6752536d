"""The names of refusals: all that the code counts have a meaning, and no other name has."""

from __future__ import annotations

import re
from pathlib import Path

from vpnd import protocol
from vpnd.protocol.refusals import REFUSAL_TEXTS

ROOM = Path(protocol.__file__).parent
COUNTED = re.compile(r'(?:RejectedMessage|refuse|count|find_pending)\([^()]*"([a-z0-9_]+)"')


def test_every_name_that_is_counted_has_a_text_and_every_text_a_name() -> None:
    """[H1] Whoever reads a status finds each reason explained."""
    code = "".join(path.read_text() for path in ROOM.glob("*.py") if path.name != "refusals.py")
    docstrings_removed = re.sub(r'""".*?"""', "", code, flags=re.DOTALL)
    assert set(COUNTED.findall(docstrings_removed)) == set(REFUSAL_TEXTS)
