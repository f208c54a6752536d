"""What the plane's gate is told, and how often."""

from __future__ import annotations

import logging
from typing import cast

import pytest

from tests.fakes.host import identity, joined
from vpnd.daemon.gatekeeper import AGAIN_S, Gatekeeper
from vpnd.errors import PlaneError
from vpnd.keys import Secret
from vpnd.plane.client import PlaneClient
from vpnd.protocol.cookies import cookie_key
from vpnd.protocol.device import Device
from vpnd.protocol.handshake import mac1_key

NOW = 5000.0


class Plane:
    """Notes what it is told; refuses everything while `error` is set."""

    def __init__(self) -> None:
        self.keys = 0
        self.told: list[tuple[object, object]] = []  # the newest keys, and the previous ones
        self.closed: list[float] = []
        self.error: PlaneError | None = None

    def set_gate(self, mac1: Secret, cookie: Secret, *rest: object) -> None:
        self._may_refuse()
        self.keys += 1
        self.told.append(((mac1, cookie), rest[-1]))

    def close_gate(self, seconds: float) -> None:
        self._may_refuse()
        self.closed.append(seconds)

    def _may_refuse(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def plane() -> Plane:
    return Plane()


@pytest.fixture
def device() -> Device:
    _, _, right = joined()
    return right.device


@pytest.fixture
def gatekeeper(plane: Plane) -> Gatekeeper:
    return Gatekeeper(cast(PlaneClient, plane))


def test_keys_are_told_when_they_change(gatekeeper: Gatekeeper, plane: Plane, device: Device) -> None:
    for now in (NOW, NOW + 1.0, NOW + 119.0):
        gatekeeper.tend(device, now)
    assert plane.keys == 1
    gatekeeper.tend(device, NOW + 121.0)
    assert plane.keys == 2


def test_the_key_that_is_replaced_is_told_while_it_holds(
    gatekeeper: Gatekeeper, plane: Plane, device: Device
) -> None:
    """[A17] As the previous one; and that it is over, without anybody asking."""
    older = identity(77).public
    device.answer_also(identity(77), NOW + 10.0)
    gatekeeper.tend(device, NOW)
    gatekeeper.tend(device, NOW + 10.0)
    nothing = Secret.zero()
    first, second = plane.told
    assert first[1] == (mac1_key(older, nothing), cookie_key(older, nothing))
    assert second == (first[0], None)


def test_a_load_closes_the_gate_for_as_long_as_it_is_held_to_last(
    gatekeeper: Gatekeeper, plane: Plane, device: Device
) -> None:
    """[H4] And again only when it has lasted on for a while."""
    gatekeeper.share_load(device, NOW)
    assert plane.closed == []
    device.note_handshake_cpu(0.3, NOW)
    gatekeeper.share_load(device, NOW)
    gatekeeper.share_load(device, NOW + 0.1)
    assert plane.closed == [pytest.approx(device.loaded_until - NOW)]
    device.note_handshake_cpu(0.3, NOW + AGAIN_S + 0.01)
    gatekeeper.share_load(device, NOW + AGAIN_S + 0.01)
    assert len(plane.closed) == 2
    gatekeeper.share_load(device, NOW + 60.0)
    assert len(plane.closed) == 2


def test_a_refusal_is_told_and_a_lost_plane_is_not(
    gatekeeper: Gatekeeper, plane: Plane, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    device.note_handshake_cpu(0.3, NOW)
    with caplog.at_level(logging.WARNING):
        plane.error = PlaneError("gone", "the plane closed the connection")
        gatekeeper.tend(device, NOW)
        gatekeeper.share_load(device, NOW)
        assert caplog.messages == []
        plane.error = PlaneError("bad_value", "a field holds a value outside its range")
        gatekeeper.tend(device, NOW)
    assert len(caplog.messages) == 1
    assert "keys of its gate" in caplog.messages[0]
