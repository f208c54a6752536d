"""The folder of an instance's sockets: made where it is missing, and refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpnd.daemon.runtime import make_runtime_directory
from vpnd.errors import HostError


def test_a_missing_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "site"
    make_runtime_directory(folder)
    make_runtime_directory(folder)
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "site").touch()
    with pytest.raises(HostError, match=rf"{tmp_path}/site: something else has the name; move that away"):
        make_runtime_directory(tmp_path / "site")


def test_a_file_above_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(HostError, match=rf"{tmp_path}/run/site: Not a directory; .*install -d"):
        make_runtime_directory(tmp_path / "run" / "site")
