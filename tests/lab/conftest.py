"""Labs for the tests: made for one test, gone after it, whatever happened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.classical import Classical, build
from tests.lab.namespaces import Lab, laboratory


@pytest.fixture
def lab() -> Iterator[Lab]:
    with laboratory() as made:
        yield made


@pytest.fixture
def classical(lab: Lab) -> Iterator[Classical]:
    """U and the gateway joined by a tunnel that is up; no daemon may have broken by the end."""
    topology = build(lab)
    topology.start()
    yield topology
    topology.u_vpnd.assert_no_error()
    topology.gateway_vpnd.assert_no_error()
