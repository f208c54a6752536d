"""The leaves that several threads use at once."""

from __future__ import annotations

import subprocess

from tests.plane import building


def test_tables_and_windows_keep_their_word_to_several_threads() -> None:
    """Under VPND_SANITIZE=thread this is the search for races as well."""
    program = building.plane_part("vpnd-plane-threads")
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
