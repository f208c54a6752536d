"""Machines that several tests begin with."""

from __future__ import annotations

import pytest

from tests.fakes.host import Host, Network, connect, joined


@pytest.fixture
def connected() -> tuple[Network, Host, Host]:
    """Two machines with a session that `left` initiated, both sides sending."""
    network, left, right = joined()
    connect(network, left, right)
    return network, left, right
