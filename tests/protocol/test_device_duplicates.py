"""Copies of what was sent before: by the wire, by an attacker, after a rekey or a restart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.host import Host, Network, connect, endpoint, joined, share_session
from tests.fakes.wire import Datagram
from vpnd.protocol.actions import InstallSession, SendDatagram
from vpnd.protocol.constants import PacketType

INIT, RESP, COOKIE, DATA = PacketType.HS_INIT, PacketType.HS_RESP, PacketType.COOKIE, PacketType.DATA


def repeat(network: Network, datagrams: list[Datagram], times: int = 1) -> None:
    for datagram in datagrams:
        for _ in range(times):
            network.wire.inject(datagram, network.clock.now)


@pytest.mark.parametrize("copies", range(1, 11))
def test_copies_of_an_initiation_make_one_session_and_one_response(copies: int) -> None:
    """[A6] The first is answered, the others are counted as `hs_dup`."""
    network, left, right = joined()
    left.start()
    repeat(network, network.wire.of_kind(INIT), copies)
    network.run(1.0)
    assert right.count_of(InstallSession) == 1
    assert right.count_of(SendDatagram) == 1
    assert right.device.refusals == {"hs_dup": copies}
    assert share_session(left, right)


@pytest.mark.parametrize("copies", range(1, 11))
def test_copies_of_a_response_make_one_session(copies: int) -> None:
    """[A6] Only the first finds the initiation it answers."""
    network, left, right = joined()
    left.start()
    network.run(0.015)
    repeat(network, network.wire.of_kind(RESP), copies)
    network.run(1.0)
    assert left.count_of(InstallSession) == 1
    assert left.device.refusals == {"hs_resp_noidx": copies}
    assert share_session(left, right)


@pytest.mark.parametrize("copies", range(1, 11))
def test_copies_of_a_confirmation_confirm_once(copies: int) -> None:
    """[A6] The replay window drops and counts them."""
    network, left, right = joined()
    left.start()
    network.run(0.025)
    repeat(network, network.wire.of_kind(DATA), copies)
    network.run(1.0)
    assert right.plane.drops == {"data_replay": copies}
    assert share_session(left, right)


def replayed_from_elsewhere(network: Network) -> list[Datagram]:
    elsewhere = endpoint("198.51.100.99", 999)
    return [replace(one, source=elsewhere) for one in network.wire.captured if one.kind == DATA]


def test_replayed_data_is_never_delivered_and_moves_no_endpoint(
    connected: tuple[Network, Host, Host],
) -> None:
    """[B5] Every data message again, from the same and another address: nothing happens."""
    network, left, right = connected
    for number in range(20):
        left.send(right, b"E%d" % number)
        right.send(left, b"E%d" % number)
    network.run(1.0)
    seen = len(left.received()), len(right.received())
    copies = [one for one in network.wire.captured if one.kind == DATA]
    repeat(network, copies + replayed_from_elsewhere(network))
    network.run(0.1)
    assert (len(left.received()), len(right.received())) == seen
    assert left.plane.peers[right.key].endpoint == right.address
    assert right.plane.peers[left.key].endpoint == left.address
    assert left.plane.drops["data_replay"] + right.plane.drops["data_replay"] == 2 * len(copies)


def test_data_replayed_after_a_rekey_and_after_a_restart_is_never_delivered(
    connected: tuple[Network, Host, Host],
) -> None:
    """[B5] Old sessions' messages find a full window first, and no session later."""
    network, left, right = connected
    left.send(right, b"Eold")
    network.run(1.0)
    old = replayed_from_elsewhere(network)
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(1.0)
    seen = len(left.received()), len(right.received())
    repeat(network, old)
    network.run(60.0)
    right.kill()
    right.kill_plane()
    right.boot()
    network.run(1.0)
    repeat(network, old)
    network.run(0.1)
    assert (len(left.received()), len(right.received())) == seen
    assert right.plane.peers[left.key].endpoint == left.address
    assert right.plane.drops["data_noidx"] > 0


def test_a_first_message_replayed_while_the_responder_runs_gets_silence(
    connected: tuple[Network, Host, Host],
) -> None:
    """[B6] At once it is a copy; later its timestamp is stale. Neither is answered."""
    network, _left, right = connected
    old = network.wire.of_kind(INIT)
    for wait in (0.0, 11.0, 120.0):
        network.run(wait)
        answered = len(network.wire.of_kind(RESP))
        repeat(network, old)
        network.run(0.005)
        assert len(network.wire.of_kind(RESP)) == answered
    assert right.device.refusals["hs_dup"] == 1
    assert right.device.refusals["hs_stale"] == 2


def test_a_first_message_replayed_after_a_restart_leaves_traffic_alone(
    connected: tuple[Network, Host, Host],
) -> None:
    """[B6] It makes one unconfirmed session at most, and endpoint and traffic stay as they were."""
    network, left, right = connected
    network.run(15.0)
    right.kill()
    right.boot()
    replay = replace(network.wire.of_kind(INIT)[0], source=endpoint("198.51.100.99", 999))
    current = right.current(left)
    repeat(network, [replay], 5)
    left.send(right, b"Egoes on")
    network.run(1.0)
    assert b"Egoes on" in right.received()
    assert right.current(left) is current
    assert right.plane.peers[left.key].endpoint == left.address
    assert right.device.snapshot(left.key).endpoint == left.address
    assert len(right.plane.peers[left.key].unconfirmed) <= 1
    network.run(16.0)
    assert not right.plane.peers[left.key].unconfirmed
    assert share_session(left, right)


def test_a_replayed_cookie_is_refused() -> None:
    """[A6, H7] A second cookie for one initiation is counted, and the initiation is not sent again."""
    network, left, right = joined()
    right.queue_depth = 100
    left.start()
    network.run(0.5)
    cookies = network.wire.of_kind(COOKIE)
    assert len(cookies) == 1
    sent = len(network.wire.of_kind(INIT))
    repeat(network, cookies, 5)
    network.run(0.3)
    assert left.device.refusals["cookie_bad"] == 5
    assert len(network.wire.of_kind(INIT)) == sent


def test_a_second_tunnel_after_the_first_uses_no_index_again() -> None:
    """[B5, J6] Twenty handshakes in a row: every index and every key is new."""
    network, left, right = joined()
    connect(network, left, right)
    for _ in range(20):
        left.perform(left.device.reconnect(right.key, network.clock.now))
        network.run(1.0)
    for host in (left, right):
        installs = [action for action in host.actions if isinstance(action, InstallSession)]
        assert len(installs) == 21
        assert len({install.local_index for install in installs}) == 21
    keys = left.plane.installed_send_keys + right.plane.installed_send_keys
    blocks = [key[start : start + 16] for key in keys for start in range(len(key) - 15)]
    assert len(set(blocks)) == len(blocks)
