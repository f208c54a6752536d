"""What all tests of the configuration room share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.site import Site, make_site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return make_site(tmp_path, monkeypatch)
