from pathlib import Path

import pytest

from tests.ctl.console import Console


@pytest.fixture
def console(tmp_path: Path) -> Console:
    """A shell in which nothing runs and nothing is configured."""
    console = Console(tmp_path)
    console.runtime_dir.mkdir()
    console.config_dir.mkdir()
    return console
