"""What the plane's tests share: the program as built, and the leaves as a library."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plane import building
from tests.plane.leaves.library import Leaves


@pytest.fixture(scope="session")
def plane_program() -> Path:
    """Path of the vpnd-plane of this run."""
    return building.plane_program()


@pytest.fixture(scope="session")
def leaves() -> Leaves:
    """The leaf modules of the plane, to be called from Python."""
    if building.sanitizer() == "thread":
        pytest.skip("Python does not run under ThreadSanitizer; test_threads.py covers the leaves there")
    return Leaves(building.plane_part("libvpnd-plane-leaves.so"))
