"""More than one version in the world: falling back by policy, and never staying low silently."""

from __future__ import annotations

from dataclasses import replace

from tests.fakes.host import OPTIONS, Host, Network, joined, peer_of
from vpnd.protocol.constants import PacketType

INIT, RESP = PacketType.HS_INIT, PacketType.HS_RESP


def pair(
    left_versions: tuple[int, ...], right_versions: tuple[int, ...], minimum: int = 1
) -> tuple[Network, Host, Host]:
    network = Network()
    left = network.add("left", 1, options=replace(OPTIONS, versions=left_versions, minimum_version=minimum))
    right = network.add("right", 2, options=replace(OPTIONS, versions=right_versions))
    left.configure(peer_of(right, at=right.address))
    right.configure(peer_of(left))
    return network, left, right


def versions_of(network: Network, kind: int) -> list[int]:
    return [one.data[1] for one in network.wire.of_kind(kind)]


def test_after_two_unanswered_attempts_a_lower_version_is_tried() -> None:
    """[A20] A v1 responder is silent to version 2; the third attempt speaks 1 and is answered."""
    network, left, right = pair((1, 2), (1,))
    left.send(right, b"Efallback")
    network.run(10.0)
    assert versions_of(network, INIT) == [2, 2, 1]
    assert right.received() == [b"Efallback"]
    assert "downgrade_seen" not in left.device.refusals
    assert "downgrade_seen" not in right.device.refusals


def test_a_policy_that_forbids_the_lower_version_never_falls_back() -> None:
    """[A20] With a minimum version of 2 only 2 is spoken, and a first message of 1 is not answered."""
    network, left, right = pair((1, 2), (1,), minimum=2)
    left.send(right)
    network.run(60.0)
    assert set(versions_of(network, INIT)) == {2}
    assert network.wire.of_kind(RESP) == []
    right.perform(right.device.set_endpoint(left.key, left.address, network.clock.now))
    network.run(5.0)
    assert left.device.refusals["rx_malformed"] >= 1


def test_a_version_1_session_of_two_that_know_2_is_noticed_and_replaced_at_once() -> None:
    """[A20] Somebody swallowed the version 2 messages: both count it, and the next handshake speaks 2."""
    network, left, right = pair((1, 2), (1, 2))
    swallowed = [2]

    def swallow(datagram: object) -> bool:
        data = datagram.data  # type: ignore[attr-defined]
        if data[0] == INIT and data[1] == 2 and swallowed[0]:
            swallowed[0] -= 1
            return True
        return False

    network.wire.drop_rules.append(swallow)
    left.send(right, b"Einterfered")
    network.run(10.0)
    assert versions_of(network, INIT)[:3] == [2, 2, 1]
    assert left.device.refusals["downgrade_seen"] == 1
    assert right.device.refusals["downgrade_seen"] == 1
    assert versions_of(network, RESP)[-1] == 2
    (low, *_) = [one for one in network.wire.of_kind(RESP) if one.data[1] == 1]
    (high, *_) = [one for one in network.wire.of_kind(INIT, low.sent_at) if one.data[1] == 2]
    assert high.sent_at - low.sent_at < 0.1


def test_two_that_know_version_2_use_it_without_a_detour() -> None:
    """[A20] The highest common version is the first one tried; both messages carry it."""
    network, left, right = pair((1, 2), (1, 2))
    left.send(right, b"Ehigh")
    network.run(1.0)
    assert versions_of(network, INIT) == [2]
    assert versions_of(network, RESP) == [2]
    assert right.received() == [b"Ehigh"]


def test_the_two_versions_share_no_key() -> None:
    """[J6, A20] The same machines, the same chance, another version: no equal key."""
    keys = []
    for version in (1, 2):
        options = replace(OPTIONS, versions=(version,))
        network, left, right = joined(options=options)
        left.send(right)
        network.run(1.0)
        keys += left.plane.installed_send_keys + right.plane.installed_send_keys
    assert len({key[start : start + 16] for key in keys for start in range(21)}) == 4 * 21
