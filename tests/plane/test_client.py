"""The client's requests and answers, against a scripted plane on the other end of a socket pair."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from tests.plane.scripted import (
    ENDPOINT,
    HELLO,
    KEY,
    ScriptedPlane,
    counters_memory,
    greeted_client,
    open_descriptors,
    scripted_plane,
)
from vpnd.errors import PlaneError
from vpnd.keys import Secret
from vpnd.plane import events, wire
from vpnd.plane.client import PlaneClient
from vpnd.plane.inventory import ListedMac, Offloads
from vpnd.plane.wire import Offload, WireType


@pytest.fixture
def plane() -> Iterator[ScriptedPlane]:
    with scripted_plane() as plane:
        yield plane


@pytest.fixture
def client(plane: ScriptedPlane) -> Iterator[PlaneClient]:
    with greeted_client(plane) as client:
        yield client


def test_hello_tells_who_answers(client: PlaneClient) -> None:
    assert client.hello.peer_capacity == 16
    assert client.hello.started_at == 7.5
    assert client.hello.has_aes is True
    assert client.hello.aead == "openssl"
    assert client.hello.program_version == "1.2"
    assert client.counters.drops() == {}


def test_a_plane_of_another_version_is_refused_by_name(plane: ScriptedPlane) -> None:
    plane.answer(WireType.HELLO, error=1)
    with pytest.raises(PlaneError) as caught:
        PlaneClient(plane.theirs)
    assert caught.value.code == "version_mismatch"
    assert plane.theirs.fileno() == -1


@pytest.mark.parametrize("count", [0, 2])
def test_hello_with_a_wrong_number_of_descriptors_leaks_none(plane: ScriptedPlane, count: int) -> None:
    descriptor = counters_memory()
    plane.answer(WireType.HELLO, HELLO, descriptors=(descriptor,) * count)
    before = open_descriptors()
    with pytest.raises(PlaneError) as caught:
        PlaneClient(plane.theirs)
    assert caught.value.code == "bad_reply"
    assert open_descriptors() == before - 1
    os.close(descriptor)


def test_a_refusal_carries_the_name_and_text_of_the_wire_error(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    plane.answer(WireType.REMOVE_PEER, error=7)
    with pytest.raises(PlaneError) as caught:
        client.remove_peer(3)
    assert (caught.value.code, caught.value.text) == ("no_such_peer", "no peer has this number")
    assert plane.hear() == (WireType.REMOVE_PEER, 2, b"\x03\0\0\0\0\0\0\0")


def test_a_flood_of_strangers_takes_bounded_memory_and_is_counted(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    """[H4] Messages that come while requests wait: 1024 are kept, the others told as hs_queue_full."""
    source = wire.pack_endpoint(ENDPOINT)
    count = 0
    for _ in range(30):
        for _ in range(50):
            plane.say(WireType.EVENT_DATAGRAM, wire.DATAGRAM_EVENT.pack(0, 9, source) + bytes([count % 251]))
            count += 1
        plane.say(WireType.EVENT_SESSION_WANTED, wire.PEER_EVENT.pack(count))
        plane.answer(WireType.FLUSH_STAGED)
        client.flush_staged(5)
    assert client.drops() == {"hs_queue_full": count - 1024}
    kept = client.read_events(100)
    kept += client.read_events()
    datagrams = [event.data for event in kept if isinstance(event, events.DatagramEvent)]
    assert datagrams == [bytes([number % 251]) for number in range(1024)]
    assert sum(isinstance(event, events.SessionWanted) for event in kept) == 30
    plane.say(WireType.EVENT_DATAGRAM, wire.DATAGRAM_EVENT.pack(0, 9, source) + b"later")
    plane.answer(WireType.FLUSH_STAGED)
    client.flush_staged(5)
    assert [event.data for event in client.read_events()] == [b"later"]  # type: ignore[union-attr]


@pytest.mark.parametrize("secrets", [0, 1, 2])
def test_the_gates_keys_are_written_where_the_plane_looks_for_them(
    plane: ScriptedPlane, client: PlaneClient, secrets: int
) -> None:
    keys = [Secret.copy_of(bytes([number]) * 32) for number in range(1, 5)]
    plane.answer(WireType.SET_GATE)
    client.set_gate(keys[0], keys[1], keys[2 : 2 + secrets], (1, 3))
    kind, _, body = plane.hear()
    assert kind == WireType.SET_GATE
    filled = [bytes([number if number < 3 + secrets else 0]) * 32 for number in (3, 4)]
    none = (bytes(32), bytes(32))
    assert wire.SET_GATE_REQUEST.unpack(body) == (b"\1" * 32, b"\2" * 32, *filled, *none, secrets, 0b1010, 0)


def test_the_keys_that_are_replaced_go_to_the_gate_with_the_others(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    mac1, cookie, secret, old_mac1, old_cookie = (Secret.copy_of(bytes([each]) * 32) for each in range(1, 6))
    plane.answer(WireType.SET_GATE)
    client.set_gate(mac1, cookie, [secret], (1,), (old_mac1, old_cookie))
    _, _, body = plane.hear()
    keys = [bytes([each]) * 32 for each in (1, 2, 3, 0, 4, 5)]
    assert wire.SET_GATE_REQUEST.unpack(body) == (*keys, 1, 0b10, 1)


def test_closing_the_gate_is_told_and_not_waited_for(plane: ScriptedPlane, client: PlaneClient) -> None:
    client.close_gate(0.75)
    kind, _, body = plane.hear()
    assert (kind, wire.CLOSE_GATE_REQUEST.unpack(body)) == (WireType.CLOSE_GATE, (750,))


def test_more_secrets_than_the_gate_has_room_for_never_leave(client: PlaneClient) -> None:
    key = Secret.copy_of(bytes(32))
    with pytest.raises(PlaneError) as caught:
        client.set_gate(key, key, [key] * 3, (1,))
    assert caught.value.code == "bad_value"
    with pytest.raises(PlaneError):
        client.set_gate(key, Secret.copy_of(bytes(16)), [key], (1,))


def test_many_networks_go_in_several_messages_of_which_only_the_first_replaces(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    plane.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    networks = list(IPv4Network("10.0.0.0/8").subnets(new_prefix=21))
    for _ in range(3):
        plane.answer(WireType.SET_PEER)
    client.set_peer(4, KEY, [*networks, IPv6Network("2001:db8::/32")], ENDPOINT)
    heard = b""
    for flags, endpoint, count in [(0, ENDPOINT, 3272), (1, None, 3272), (1, None, 8193 - 2 * 3272)]:
        kind, _, body = plane.hear()
        assert kind == WireType.SET_PEER
        fields = wire.SET_PEER_REQUEST.unpack(body)
        assert fields == (4, flags, KEY.raw, wire.pack_endpoint(endpoint), count)
        heard += body[wire.SET_PEER_REQUEST.size :]
    assert heard[:20] == wire.pack_network(networks[0])
    assert heard[-20:] == wire.pack_network(IPv6Network("2001:db8::/32"))
    assert len(heard) == 20 * 8193


def test_a_peer_without_networks_is_one_message(plane: ScriptedPlane, client: PlaneClient) -> None:
    plane.answer(WireType.SET_PEER)
    client.set_peer(4, KEY, [], None)
    assert plane.hear()[2] == wire.SET_PEER_REQUEST.pack(4, 0, KEY.raw, bytes(24), 0)
    with pytest.raises(BlockingIOError):
        plane.hear()


def install(client: PlaneClient, send_key: Secret, receive_key: Secret, *, wait: bool = True) -> None:
    client.install_session(
        peer_id=1,
        local_index=0xA1,
        remote_index=0xB2,
        suite=2,
        is_initiator=True,
        preferred=False,
        padding=3,
        features=5,
        endpoint=ENDPOINT,
        send_key=send_key,
        receive_key=receive_key,
        wait=wait,
    )


def test_an_installed_session_carries_both_keys_each_with_its_salt(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    plane.answer(WireType.INSTALL_SESSION)
    install(client, Secret.copy_of(b"S" * 32 + b"salt"), Secret.copy_of(b"R" * 32 + b"SALT"))
    kind, sequence, body = plane.hear()
    assert (kind, sequence) == (WireType.INSTALL_SESSION, 2)
    fields = (1, 0xA1, 0xB2, 2, 1, 0, 3, 5, wire.pack_endpoint(ENDPOINT))
    keys = (b"S" * 32, b"salt", b"R" * 32, b"SALT")
    assert body == wire.INSTALL_SESSION_REQUEST.pack(*fields, *keys)


def test_a_refused_session_comes_as_an_event_when_not_waited_for(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    plane.answer(WireType.INSTALL_SESSION, error=18)
    install(client, Secret.zero(36), Secret.zero(36), wait=False)
    assert client.read_events() == [events.RequestRefused("install_session", "unsupported_suite")]


def test_a_key_without_its_salt_is_not_sent(plane: ScriptedPlane, client: PlaneClient) -> None:
    with pytest.raises(PlaneError):
        install(client, Secret.zero(36), Secret.zero(32))
    with pytest.raises(BlockingIOError):
        plane.hear()


def test_inventory_walks_every_page(plane: ScriptedPlane, client: PlaneClient) -> None:
    sockets = wire.pack_endpoint(ENDPOINT).ljust(8 * 24, b"\0")
    plane.answer(
        WireType.INVENTORY,
        wire.INVENTORY_REPLY.pack(1, 1, 2, 1420, b"vpn-a", 2, 1, 1, 1400, 7, 3, 0x1F, 0, 0, 22, sockets),
    )
    peers = [wire.LISTED_PEER.pack(number, 3, KEY.raw, bytes(24), 1300) for number in (1, 9)]
    plane.answer(WireType.LIST_PEERS, wire.LIST_REPLY.pack(2, 1) + peers[0])
    plane.answer(WireType.LIST_PEERS, wire.LIST_REPLY.pack(0, 1) + peers[1])
    session = wire.LISTED_SESSION.pack(9, 0xA1, 0xB2, 1, 2, 1, 0, 12_000_000_000)
    plane.answer(WireType.LIST_SESSIONS, wire.LIST_REPLY.pack(0, 1) + session)
    inventory = client.inventory()
    assert (inventory.link_type, inventory.link_works, inventory.link_name) == ("tun", True, "vpn-a")
    assert (inventory.queues, inventory.mtu, inventory.sockets) == (2, 1420, (ENDPOINT,))
    assert inventory.offloads == Offloads(
        Offload.ALL, Offload.UDP_GSO | Offload.UDP_GRO, 0x1F, {Offload.TUN_VNET: 22}
    )
    assert [(peer.peer_id, peer.mtu) for peer in inventory.peers] == [(1, 1300), (9, 1300)]
    assert inventory.peers[0].endpoint is None
    (listed,) = inventory.sessions
    assert (listed.peer_id, listed.local_index, listed.remote_index) == (9, 0xA1, 0xB2)
    assert (listed.is_initiator, listed.preferred, listed.created_at) == (True, False, 12.0)
    assert [plane.hear()[2] for _ in range(4)] == [
        b"",
        wire.LIST_REQUEST.pack(0),
        wire.LIST_REQUEST.pack(2),
        wire.LIST_REQUEST.pack(0),
    ]


def test_a_list_whose_count_is_a_lie_is_an_error(plane: ScriptedPlane, client: PlaneClient) -> None:
    plane.answer(WireType.LIST_MACS, wire.LIST_REPLY.pack(0, 2) + bytes(wire.LISTED_MAC.size))
    with pytest.raises(PlaneError) as caught:
        client.list_macs()
    assert caught.value.code == "bad_reply"


def test_learned_addresses_are_listed(plane: ScriptedPlane, client: PlaneClient) -> None:
    macs = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
    entries = wire.LISTED_MAC.pack(macs[0], 7, 3, 0, 4_000_000_000) + wire.LISTED_MAC.pack(
        macs[1], 0, 3, 1, 0
    )
    plane.answer(WireType.LIST_MACS, wire.LIST_REPLY.pack(0, 2) + entries)
    assert list(client.list_macs()) == [
        ListedMac(macs[0], 7, 3, 4.0),
        ListedMac(macs[1], 0, 3, 0.0, is_static=True),
    ]


def test_descriptors_travel_with_link_and_sockets(plane: ScriptedPlane, client: PlaneClient) -> None:
    plane.answer(WireType.SET_LINK)
    plane.answer(WireType.SET_SOCKETS)
    client.set_link("tap", "vpn-a", 1420, [0, 1])
    client.set_sockets([0])
    for body, count in [
        (wire.SET_LINK_REQUEST.pack(2, 2, 0, 1420, b"vpn-a"), 2),
        (wire.SET_SOCKETS_REQUEST.pack(1, 1), 1),
    ]:
        message, passed, _, _ = socket.recv_fds(plane.socket, wire.MESSAGE_MAX, 8)
        assert message[wire.HEADER.size :] == body
        assert len(passed) == count
        for descriptor in passed:
            os.close(descriptor)


def test_connecting_where_nothing_listens_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(PlaneError, match=r"plane\.sock") as caught:
        PlaneClient.connect(tmp_path / "plane.sock")
    assert caught.value.code == "no_plane"


def test_a_program_that_is_no_plane_leaves_no_child(tmp_path: Path) -> None:
    with pytest.raises(PlaneError) as caught:
        PlaneClient.spawn(Path("/bin/true"), timeout_s=5)
    assert caught.value.code == "gone"
    with pytest.raises(PlaneError) as caught:
        PlaneClient.spawn(tmp_path / "missing")
    assert caught.value.code == "no_program"


def test_closing_twice_is_closing_once(client: PlaneClient) -> None:
    client.close()
    client.close()
    with pytest.raises(PlaneError) as caught:
        client.stop()
    assert caught.value.code == "gone"


def test_the_gate_carries_its_keys_and_nothing_of_a_secret_it_lacks(
    plane: ScriptedPlane, client: PlaneClient
) -> None:
    mac1, cookie, newest = (Secret.copy_of(bytes([each]) * 32) for each in (1, 2, 3))
    plane.answer(WireType.SET_GATE)
    client.set_gate(mac1, cookie, [newest], [1, 3])
    kind, _, body = plane.hear()
    assert kind == WireType.SET_GATE
    assert body == b"\1" * 32 + b"\2" * 32 + b"\3" * 32 + bytes(96) + b"\1\0\0\0\x0a\0\0\0" + bytes(8)
    for secrets in ([newest] * 3, [Secret.zero(16)]):
        with pytest.raises(PlaneError):
            client.set_gate(mac1, cookie, secrets, [1])
