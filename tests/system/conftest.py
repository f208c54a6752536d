"""Booted machines for the tests: made once a file, with the package installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.namespaces import laboratory
from tests.packaging import deb
from tests.system import pair as pairs
from tests.system.machine import booted, machine_root
from tests.system.pair import Pair

RELEASE = os.environ.get("VPND_TEST_RELEASE", "bookworm")


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this checkout, built for the release that the machines run."""
    folder = tmp_path_factory.mktemp("package")
    for name, content in deb.build(RELEASE, deb.USUAL).items():
        (folder / name).write_bytes(content)
    (package,) = (each for each in folder.glob("*.deb") if "dbgsym" not in each.name)
    return package


@pytest.fixture(scope="module")
def bare_pair(package: Path) -> Iterator[Pair]:
    """Two machines that are up and have not heard of vpnd."""
    with laboratory() as lab:
        pair = pairs.build(lab, machine_root(RELEASE, package))
        with booted(pair.a.machine, pair.b.machine):
            yield pair


@pytest.fixture(scope="module")
def pair(bare_pair: Pair, package: Path) -> Pair:
    """Two machines with a tunnel that is up."""
    for site in (bare_pair.a, bare_pair.b):
        site.install(package)
    bare_pair.introduce()
    bare_pair.start()
    return bare_pair
