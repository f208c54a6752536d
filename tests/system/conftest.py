"""Booted machines for the tests: made once a file, with the package installed."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.lab.namespaces import laboratory
from tests.packaging import deb
from tests.system import pair as pairs
from tests.system.machine import booted, machine_root
from tests.system.pair import Pair

JOURNAL_LINES = 60
BOOTED = pytest.StashKey[Pair]()

RELEASE = os.environ.get("VPND_TEST_RELEASE", "bookworm")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows with a failure what the machines wrote meanwhile; afterwards they are gone."""
    report = yield
    module = item.getparent(pytest.Module)
    pair = module.stash.get(BOOTED, None) if module is not None else None
    if report.failed and pair is not None:
        for site in (pair.a, pair.b):
            shown = site.machine.run(
                f"journalctl --sync; journalctl --no-pager -n {JOURNAL_LINES} -o short-precise", check=False
            )
            report.sections.append((f"journal of machine {site.name}", shown.stdout))
    return report


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this checkout, built for the release that the machines run."""
    folder = tmp_path_factory.mktemp("package")
    for name, content in deb.build(RELEASE, deb.USUAL).items():
        (folder / name).write_bytes(content)
    (package,) = (each for each in folder.glob("*.deb") if "dbgsym" not in each.name)
    return package


@pytest.fixture(scope="module")
def bare_pair(request: pytest.FixtureRequest, package: Path) -> Iterator[Pair]:
    """Two machines that are up and have not heard of vpnd."""
    with laboratory() as lab:
        pair = pairs.build(lab, machine_root(RELEASE, package))
        with booted(pair.a.machine, pair.b.machine):
            request.node.stash[BOOTED] = pair
            yield pair
            del request.node.stash[BOOTED]


@pytest.fixture(scope="module")
def pair(bare_pair: Pair, package: Path) -> Pair:
    """Two machines with a tunnel that is up."""
    for site in (bare_pair.a, bare_pair.b):
        site.install(package)
    bare_pair.introduce()
    bare_pair.start()
    return bare_pair
