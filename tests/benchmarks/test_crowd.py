"""The file of a hub with many peers."""

from __future__ import annotations

import tomllib

from benchmarks.crowd import inner_address, peers_text
from tests.lab.crowd import identity_of


def test_every_peer_has_its_own_key_and_address() -> None:
    peers = tomllib.loads(peers_text(300))["peer"]
    assert len({peer["public_key"] for peer in peers.values()}) == 300
    assert len({tuple(peer["networks"]) for peer in peers.values()}) == 300
    assert peers["p7"] == {"public_key": str(identity_of(7).public), "networks": ["10.64.0.7/32"]}


def test_addresses_go_on_past_a_byte() -> None:
    assert [inner_address(number) for number in (255, 256, 65_536)] == [
        *("10.64.0.255", "10.64.1.0", "10.65.0.0")
    ]
