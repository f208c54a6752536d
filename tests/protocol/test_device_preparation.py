"""What a device may compute before anybody calls: the same handshakes, with less left to do."""

from __future__ import annotations

import pytest

from tests.fakes.host import Network, connect, joined, peer_of
from vpnd.keys import Secret
from vpnd.protocol import boxes, statics


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Whose keys a secret of two static keys was computed with, one entry for each time."""
    keys: list[bytes] = []
    share = boxes.share

    def counting(private: Secret, public: bytes) -> Secret | None:
        keys.append(public)
        return share(private, public)

    monkeypatch.setattr(statics, "share", counting)
    return keys


def test_what_two_static_keys_share_is_computed_once_by_each_end(computed: list[bytes]) -> None:
    network, left, right = joined()
    connect(network, left, right)
    left.perform(left.device.reconnect(right.key, left.clock.now))
    network.run(1.0)
    assert left.device.snapshot(right.key).handshakes == 2
    assert sorted(computed) == sorted([left.key.raw, right.key.raw])


def test_a_prepared_device_computes_nothing_of_it_in_the_handshake(computed: list[bytes]) -> None:
    network, left, right = joined()
    assert not right.device.prepare(8)
    assert computed == [left.key.raw]
    connect(network, left, right)
    assert computed == [left.key.raw, right.key.raw]


def test_preparation_goes_as_far_as_it_is_asked_to(computed: list[bytes]) -> None:
    network = Network()
    hub, *others = (network.add(name, number) for number, name in enumerate(("hub", "a", "b", "c")))
    hub.configure(*map(peer_of, others))
    assert hub.device.prepare(2)
    assert len(computed) == 2
    assert not hub.device.prepare(2)
    assert set(computed) == {other.key.raw for other in others}
    assert not hub.device.prepare(2)
    assert len(computed) == 3
