"""Requests the plane must refuse: each by its name, and nothing is different afterwards."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

import pytest

from tests.plane import far
from tests.plane.harness import Rig, plane_program, public_key, wait_until
from tests.plane.packets import ipv4
from vpnd.endpoint import Endpoint
from vpnd.errors import PlaneError
from vpnd.plane import wire
from vpnd.plane.events import RequestRefused, SessionPlaced
from vpnd.plane.frames import FrameRules, pack_rules
from vpnd.plane.program import start_child
from vpnd.plane.wire import WireType

NOWHERE = Endpoint(IPv4Address("198.51.100.7"), 5180)  # the namespace has no route there
IPV6 = Endpoint(IPv6Address("2001:db8::7"), 5180)
PEER = wire.PEER_REQUEST.pack(1)
NO_ENDPOINT = bytes(24)
KEYS = (b"S" * 32, b"salt", b"R" * 32, b"SALT")


def set_peer(
    peer: int = 2,
    flags: int = 0,
    key: bytes = b"K" * 32,
    endpoint: bytes = NO_ENDPOINT,
    count: int | None = None,
    networks: bytes = b"",
) -> bytes:
    count = len(networks) // 20 if count is None else count
    return wire.SET_PEER_REQUEST.pack(peer, flags, key, endpoint, count) + networks


def session(
    peer: int = 1,
    local_index: int = 7,
    suite: int = 2,
    is_initiator: int = 1,
    preferred: int = 0,
    padding: int = 0,
    endpoint: bytes | None = None,
) -> bytes:
    endpoint = wire.pack_endpoint(NOWHERE) if endpoint is None else endpoint
    numbers = (peer, local_index, 9, suite, is_initiator, preferred, padding, 1)
    return wire.INSTALL_SESSION_REQUEST.pack(*numbers, endpoint, *KEYS)


def network(family: int, prefix: int, address: bytes) -> bytes:
    return wire.NETWORK.pack(family, prefix, address.ljust(16, b"\0"))


# Every request with a body of its right length that is otherwise fit.
BODIES = {
    WireType.HELLO: wire.HELLO_REQUEST.pack(wire.VERSION),
    WireType.INVENTORY: b"",
    WireType.LIST_PEERS: wire.LIST_REQUEST.pack(0),
    WireType.LIST_SESSIONS: wire.LIST_REQUEST.pack(0),
    WireType.LIST_MACS: wire.LIST_REQUEST.pack(0),
    WireType.SET_LINK: wire.SET_LINK_REQUEST.pack(1, 1, 0, 1420, b"x"),
    WireType.SET_SOCKETS: wire.SET_SOCKETS_REQUEST.pack(0, 1),
    WireType.SET_PEER: set_peer(networks=network(4, 8, b"\x0a")),
    WireType.REMOVE_PEER: PEER,
    WireType.INSTALL_SESSION: session(),
    WireType.RETIRE_SESSION: wire.SESSION_REQUEST.pack(1, 5),
    WireType.SEND_KEEPALIVE: PEER,
    WireType.FLUSH_STAGED: PEER,
    WireType.SET_OPTIONS: wire.SET_OPTIONS_REQUEST.pack(10, 10, 7),
    WireType.STOP: b"",
    WireType.START_CAPTURE: wire.START_CAPTURE_REQUEST.pack(1, wire.CAPTURE_EVERY_PEER),
    WireType.STOP_CAPTURE: b"",
    WireType.CLOSE_GATE: wire.CLOSE_GATE_REQUEST.pack(1000),
    WireType.SET_PEER_MTU: wire.SET_PEER_MTU_REQUEST.pack(1, 1400),
    WireType.SET_PEER_FRAMES: pack_rules(1, FrameRules(macs=(b"\2\0\0\0\0\1",), vlans=frozenset({0, 10}))),
    WireType.SET_GATE: wire.SET_GATE_REQUEST.pack(*[bytes(32)] * 6, 1, 2, 1),
    WireType.SET_GATE: bytes(208),
}


@pytest.fixture
def busy(tun: Rig) -> Rig:
    """A plane that holds something of everything: link, socket, peers 1 and 5, a session of peer 1."""
    peer = tun.add_peer(1)
    tun.add_peer(5, ["10.5.0.0/16", "2001:db8:5::/48"], knows_endpoint=False)
    peer.install(far.Session(5, 6))
    tun.wait_event(SessionPlaced)
    return tun


@pytest.fixture
def fresh() -> Iterator[socket.socket]:
    """The socket of a plane to which nobody said hello."""
    child, connection = start_child(plane_program())
    connection.settimeout(5)
    yield connection
    connection.close()
    assert child.wait(20) == 0


def ask(connection: socket.socket, kind: int, body: bytes = b"") -> int:
    connection.send(wire.HEADER.pack(kind, 1, 0, len(body)) + body)
    answer = connection.recv(wire.MESSAGE_MAX)
    answered, sequence, error, _ = wire.HEADER.unpack(answer)
    assert (answered, sequence) == (kind | wire.REPLY, 1)
    return int(error)


def refuses(rig: Rig, error: str, kind: int, body: bytes = b"", descriptors: tuple[int, ...] = ()) -> None:
    """The request is refused by this name and leaves all as it was."""
    before = rig.state()
    answered, answer = rig.request(kind, body, descriptors)
    assert (answered, answer) == (error, b"")
    assert rig.state() == before


def test_no_request_was_forgotten_here() -> None:
    asked = {*BODIES, WireType.SEND_DATAGRAM, WireType.SEND_CONTROL}
    assert asked == {kind for kind in WireType if kind < wire.EVENT}


def test_hello_tells_version_capacity_and_back_end(rig: Rig) -> None:
    hello = rig.client.hello
    assert hello.version == wire.VERSION
    assert hello.peer_capacity == wire.COUNTERS_PEER_MAX
    assert hello.aead in {"ipsec-mb", "openssl"}
    assert hello.has_aes == (" aes " in Path("/proc/cpuinfo").read_text().replace("\n", " "))
    assert hello.program_version
    assert abs(hello.started_at - rig.client.counters.started_at) < 1e-6


def test_a_new_plane_holds_nothing(rig: Rig) -> None:
    inventory = rig.inventory()
    assert (inventory.link_type, inventory.queues, inventory.link_name) == ("none", 0, "")
    assert (inventory.sockets, inventory.peers, inventory.sessions) == ((), (), ())


@pytest.mark.parametrize("version", [0, 2, 0xFFFFFFFF])
def test_another_version_is_refused_and_the_right_one_still_welcome(
    fresh: socket.socket, version: int
) -> None:
    assert ask(fresh, WireType.HELLO, wire.HELLO_REQUEST.pack(version)) == 1
    assert ask(fresh, WireType.INVENTORY) == 2
    assert ask(fresh, WireType.HELLO, wire.HELLO_REQUEST.pack(wire.VERSION)) == 0


@pytest.mark.parametrize("kind", [kind for kind in BODIES if kind != WireType.HELLO])
def test_nothing_is_done_before_hello(fresh: socket.socket, kind: WireType) -> None:
    assert ask(fresh, kind, BODIES[kind]) == 2


@pytest.mark.parametrize(
    "kind", [0, max(kind for kind in WireType if kind < wire.EVENT) + 1, 0x00FF, 0x4001, 0x8001, 0xFFFF]
)
def test_a_request_of_unknown_type_is_refused(busy: Rig, kind: int) -> None:
    before = busy.state()
    connection = busy._raw
    connection.setblocking(True)
    connection.send(wire.HEADER.pack(kind, 77, 0, 0))
    _, sequence, error, _ = wire.HEADER.unpack(connection.recv(wire.MESSAGE_MAX))
    assert (sequence, wire.error_of(error)[0]) == (77, "unknown_request")
    assert busy.state() == before


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_one_byte_off_is_refused(busy: Rig, kind: WireType) -> None:
    body = BODIES[kind]
    refuses(busy, "bad_length", kind, body + b"\0")
    if body:
        refuses(busy, "bad_length", kind, body[:-1])
        refuses(busy, "bad_length", kind, b"")


@pytest.mark.parametrize("kind", [WireType.SEND_DATAGRAM, WireType.SEND_CONTROL])
def test_a_message_to_send_has_one_byte_to_1500(busy: Rig, kind: WireType) -> None:
    head = wire.pack_endpoint(NOWHERE)
    if kind == WireType.SEND_CONTROL:
        head = wire.SEND_CONTROL_REQUEST.pack(1, 0, head)
    refuses(busy, "bad_length", kind, head[:-1])
    refuses(busy, "bad_length", kind, head)
    refuses(busy, "bad_length", kind, head + b"\x20" * (wire.DATAGRAM_MAX + 1))


@pytest.mark.parametrize("length", [0, 7, 9, 0xFFFFFFFF])
def test_a_header_that_lies_about_the_length_is_refused(busy: Rig, length: int) -> None:
    before = busy.state()
    assert busy.request(WireType.REMOVE_PEER, PEER, length=length)[0] == "bad_length"
    assert busy.state() == before


def test_a_message_shorter_than_a_header_is_refused(busy: Rig) -> None:
    before = busy.state()
    for size in (1, 2, 15):
        assert busy.send_raw(b"\x02" * size)[0] == "bad_length"
    assert busy.state() == before


BAD_VALUES = {
    "padding beyond the mtu": (WireType.SET_LINK, wire.SET_LINK_REQUEST.pack(1, 0, 1421, 1420, b"x")),
    "link of no type": (WireType.SET_LINK, wire.SET_LINK_REQUEST.pack(0, 0, 0, 1420, b"x")),
    "link of unknown type": (WireType.SET_LINK, wire.SET_LINK_REQUEST.pack(3, 0, 0, 1420, b"x")),
    "peer beyond the capacity": (WireType.SET_PEER, set_peer(peer=wire.COUNTERS_PEER_MAX)),
    "unknown flag": (WireType.SET_PEER, set_peer(flags=4)),
    "endpoint of family 5": (WireType.SET_PEER, set_peer(endpoint=b"\x05" + bytes(23))),
    "endpoint without port": (
        WireType.SET_PEER,
        set_peer(endpoint=wire.ENDPOINT.pack(4, 0, 0, b"\x7f\0\0\1" + bytes(12))),
    ),
    "IPv4 endpoint with 16 bytes": (
        WireType.SET_PEER,
        set_peer(endpoint=wire.ENDPOINT.pack(4, 9, 0, b"\x7f\0\0\1" + b"\1" * 12)),
    ),
    "network of family 0": (WireType.SET_PEER, set_peer(networks=network(0, 0, b""))),
    "IPv4 network of 33 bits": (WireType.SET_PEER, set_peer(networks=network(4, 33, b""))),
    "IPv6 network of 129 bits": (WireType.SET_PEER, set_peer(networks=network(6, 129, b""))),
    "network with host bits": (WireType.SET_PEER, set_peer(networks=network(4, 8, b"\x0a\1"))),
    "good network before a bad one": (
        WireType.SET_PEER,
        set_peer(networks=network(4, 8, b"\x0b") + network(4, 99, b"")),
    ),
    "role 2": (WireType.INSTALL_SESSION, session(is_initiator=2)),
    "preferred 2": (WireType.INSTALL_SESSION, session(preferred=2)),
    "suite 0": (WireType.INSTALL_SESSION, session(suite=0)),
    "suite 3": (WireType.INSTALL_SESSION, session(suite=3)),
    "index 0": (WireType.INSTALL_SESSION, session(local_index=0)),
    "key of zeros": (WireType.SET_PEER, set_peer(key=bytes(32))),
    "no MAC addresses at all": (WireType.SET_OPTIONS, wire.SET_OPTIONS_REQUEST.pack(0, 10, 7)),
    "MAC addresses without age": (WireType.SET_OPTIONS, wire.SET_OPTIONS_REQUEST.pack(10, 0, 7)),
    "a gate closed for a minute": (WireType.CLOSE_GATE, wire.CLOSE_GATE_REQUEST.pack(60_000)),
    "three cookie secrets": (WireType.SET_GATE, bytes(192) + b"\3" + bytes(15)),
    "two keys before the newest": (WireType.SET_GATE, bytes(200) + b"\2" + bytes(7)),
    "more behind the gate's keys": (WireType.SET_GATE, bytes(207) + b"\1"),
    "padding mode 4": (WireType.INSTALL_SESSION, session(padding=4)),
    "session endpoint of family 9": (WireType.INSTALL_SESSION, session(endpoint=b"\x09" + bytes(23))),
    "datagram to nowhere": (WireType.SEND_DATAGRAM, NO_ENDPOINT + b"\x08"),
    "datagram to port 0": (
        WireType.SEND_DATAGRAM,
        wire.ENDPOINT.pack(4, 0, 0, b"\x7f\0\0\1" + bytes(12)) + b"\x08",
    ),
    "control that is no control": (
        WireType.SEND_CONTROL,
        wire.SEND_CONTROL_REQUEST.pack(1, 0, NO_ENDPOINT) + b"\x45",
    ),
}


@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_field_outside_its_range_is_refused(busy: Rig, name: str) -> None:
    refuses(busy, "bad_value", *BAD_VALUES[name])


@pytest.mark.parametrize("mtu", [0, 67, 65536, 0xFFFFFFFF])
def test_an_mtu_no_packet_fits_is_refused(busy: Rig, mtu: int) -> None:
    body = wire.SET_LINK_REQUEST.pack(1, 1, 0, mtu, busy.link.name.encode())
    refuses(busy, "bad_value", WireType.SET_LINK, body, tuple(busy.link.queues))


def test_a_count_of_networks_that_is_not_the_lengths_is_refused(busy: Rig) -> None:
    one = network(4, 8, b"\x0b")
    for count in (0, 2, 0xFFFFFFFF, 0xCCCCCCCD):
        refuses(busy, "bad_length", WireType.SET_PEER, set_peer(count=count, networks=one))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (WireType.REMOVE_PEER, wire.PEER_REQUEST.pack(2)),
        (WireType.REMOVE_PEER, wire.PEER_REQUEST.pack(0xFFFFFFFF)),
        (WireType.FLUSH_STAGED, wire.PEER_REQUEST.pack(2)),
        (WireType.SEND_KEEPALIVE, wire.PEER_REQUEST.pack(2)),
        (WireType.SEND_CONTROL, wire.SEND_CONTROL_REQUEST.pack(2, 0, NO_ENDPOINT) + b"\x20\x01"),
        (WireType.INSTALL_SESSION, session(peer=2)),
        (WireType.RETIRE_SESSION, wire.SESSION_REQUEST.pack(2, 5)),
    ],
)
def test_a_peer_nobody_added_is_no_peer(busy: Rig, kind: WireType, body: bytes) -> None:
    refuses(busy, "no_such_peer", kind, body)


def test_a_peers_number_is_not_given_to_another_key(busy: Rig) -> None:
    refuses(busy, "peer_exists", WireType.SET_PEER, set_peer(peer=1, networks=network(4, 8, b"\x0b")))


@pytest.mark.parametrize(("peer", "index"), [(1, 77), (5, 5), (1, 0)])
def test_a_session_the_peer_does_not_have_cannot_be_retired(busy: Rig, peer: int, index: int) -> None:
    refuses(busy, "no_such_session", WireType.RETIRE_SESSION, wire.SESSION_REQUEST.pack(peer, index))


def test_control_on_a_session_the_peer_does_not_have_is_refused(busy: Rig) -> None:
    body = wire.SEND_CONTROL_REQUEST.pack(1, 77, NO_ENDPOINT) + b"\x20\x01"
    refuses(busy, "no_such_session", WireType.SEND_CONTROL, body)


def test_an_index_belongs_to_one_session_only(busy: Rig) -> None:
    refuses(busy, "session_exists", WireType.INSTALL_SESSION, session(peer=1, local_index=5))
    refuses(busy, "session_exists", WireType.INSTALL_SESSION, session(peer=5, local_index=5))


def test_installing_the_same_session_again_changes_nothing(busy: Rig) -> None:
    peer = busy.add_peer(2, ["10.3.0.0/16"])
    installed = peer.install()
    before = busy.state()
    peer.install(installed)
    assert busy.state() == before


def test_without_a_session_nothing_can_be_sealed(busy: Rig) -> None:
    refuses(busy, "no_session", WireType.SEND_KEEPALIVE, wire.PEER_REQUEST.pack(5))
    control = wire.SEND_CONTROL_REQUEST.pack(5, 0, NO_ENDPOINT) + b"\x20\x01"
    refuses(busy, "no_session", WireType.SEND_CONTROL, control)


def test_without_an_endpoint_nothing_can_be_sent(busy: Rig) -> None:
    assert busy.request(WireType.INSTALL_SESSION, session(peer=5, endpoint=NO_ENDPOINT))[0] == ""
    refuses(busy, "no_endpoint", WireType.SEND_KEEPALIVE, wire.PEER_REQUEST.pack(5))
    control = wire.SEND_CONTROL_REQUEST.pack(5, 0, NO_ENDPOINT) + b"\x20\x01"
    refuses(busy, "no_endpoint", WireType.SEND_CONTROL, control)
    busy.link.send(ipv4("10.1.0.1", "10.5.0.1"))
    busy.wait_drops("no_endpoint", 1)


def test_what_cannot_be_sent_is_told_and_counted(busy: Rig) -> None:
    """Without a socket of the family, and when the kernel refuses; nothing but the count changes."""
    before = busy.inventory()
    assert busy.request(WireType.SEND_DATAGRAM, wire.pack_endpoint(IPV6) + b"\x08")[0] == "no_socket"
    assert busy.request(WireType.SEND_DATAGRAM, wire.pack_endpoint(NOWHERE) + b"\x08")[0] == "send_failed"
    assert busy.drops() == {"no_socket": 1, "send_error": 1}
    assert busy.inventory() == before


def test_a_link_wants_queues_of_that_link_and_as_many_as_told(busy: Rig) -> None:
    queue = busy.link.queues[0]
    pipe = os.pipe()
    before = busy.descriptors()
    fit = wire.SET_LINK_REQUEST.pack(1, 1, 0, 1420, busy.link.name.encode())
    two = wire.SET_LINK_REQUEST.pack(1, 2, 0, 1420, busy.link.name.encode())
    tap = wire.SET_LINK_REQUEST.pack(2, 1, 0, 1420, busy.link.name.encode())
    refuses(busy, "bad_descriptors", WireType.SET_LINK, fit)
    refuses(busy, "bad_descriptors", WireType.SET_LINK, fit, (queue, queue))
    refuses(busy, "bad_descriptors", WireType.SET_LINK, two, (queue,))
    refuses(busy, "bad_descriptors", WireType.SET_LINK, fit, (pipe[0],))
    refuses(busy, "bad_descriptors", WireType.SET_LINK, tap, (queue,))
    assert busy.descriptors() == before
    for end in pipe:
        os.close(end)


def test_sockets_are_bound_udp_sockets_and_as_many_as_told(busy: Rig) -> None:
    udp = busy.sockets[0].fileno()
    with busy.namespace.entered():
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    before = busy.descriptors()
    for count, workers, descriptors in [
        (1, 1, ()),
        (0, 1, (udp,)),
        (2, 1, (udp,)),
        (1, 1, (udp, udp)),
        (1, 1, (tcp.fileno(),)),
        (1, 1, (unix.fileno(),)),
        (1, 33, (udp,)),
        (65, 1, (udp,) * 64),
    ]:
        before_state = busy.state()
        body = wire.SET_SOCKETS_REQUEST.pack(count, workers)
        assert busy.request(WireType.SET_SOCKETS, body, descriptors)[0] in {"bad_descriptors", "bad_value"}
        assert busy.state() == before_state
    assert busy.descriptors() == before
    tcp.close()
    unix.close()


@pytest.mark.parametrize(
    "kind", [kind for kind in BODIES if kind not in {WireType.SET_LINK, WireType.SET_SOCKETS}]
)
def test_descriptors_that_a_request_has_no_use_for_are_refused_and_closed(busy: Rig, kind: WireType) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    before = busy.descriptors()
    refuses(busy, "bad_descriptors", kind, BODIES[kind], (null, null))
    assert busy.descriptors() == before
    os.close(null)


def test_a_request_without_a_sequence_is_answered_only_by_what_there_is_to_tell(busy: Rig) -> None:
    """Success is silence; a refusal and an answer with content come, after which all goes on as before."""
    busy.client.send_keepalive(1, wait=False)
    busy.client.send_keepalive(7, wait=False)
    assert busy.wait_event(RequestRefused) == RequestRefused("send_keepalive", "no_such_peer")
    assert busy.request(WireType.INVENTORY, sequence=0)[0] == ""
    assert busy.inventory().peers


def frame(kind: int, body: bytes = b"", sequence: int = 0) -> bytes:
    return wire.HEADER.pack(kind, sequence, 0, len(body)) + body


def test_many_requests_come_in_one_message_and_each_is_answered_as_if_it_came_alone(busy: Rig) -> None:
    """Those before and after a refused one are carried out, in their order."""
    gone, kept = wire.PEER_REQUEST.pack(7), wire.PEER_REQUEST.pack(5)
    frames = [
        frame(WireType.SET_PEER, set_peer(2, networks=network(4, 16, b"\x0a\x02"))),
        frame(WireType.REMOVE_PEER, gone),
        frame(WireType.REMOVE_PEER, kept),
        frame(WireType.SET_PEER, set_peer(3, networks=network(4, 16, b"\x0a\x02"))),
    ]
    assert busy.send_raw(b"".join(frames)) == ("no_such_peer", b"")
    listed = {each.peer_id: each.network_count for each in busy.inventory().peers}
    assert listed == {1: 0, 2: 0, 3: 1}


def test_a_long_run_of_refusals_is_told_to_the_last(busy: Rig) -> None:
    """They wait for the socket meanwhile, and so does the rest of the message."""
    refused = frame(WireType.REMOVE_PEER, wire.PEER_REQUEST.pack(7))
    count = wire.MESSAGE_MAX // len(refused) - 1
    last = frame(WireType.REMOVE_PEER, wire.PEER_REQUEST.pack(5))
    assert busy.send_raw(refused * count + last) == ("no_such_peer", b"")
    told = 1

    def is_all_told() -> bool:
        nonlocal told
        told += sum(isinstance(each, RequestRefused) for each in busy.events())
        return told == count

    wait_until(is_all_told, "each refusal")
    assert [each.peer_id for each in busy.inventory().peers] == [1]


@pytest.mark.parametrize("rest", [b"\0", bytes(15), wire.HEADER.pack(WireType.REMOVE_PEER, 0, 0, 4) + b"\5"])
def test_what_follows_a_request_and_is_none_is_refused_and_ends_the_message(busy: Rig, rest: bytes) -> None:
    done = frame(WireType.REMOVE_PEER, PEER)
    assert busy.send_raw(done + rest) == ("bad_length", b"")
    assert [each.peer_id for each in busy.inventory().peers] == [5]


@pytest.mark.parametrize("sequence", [0, 9])
def test_what_is_waited_for_or_has_descriptors_comes_alone(busy: Rig, sequence: int) -> None:
    """Refused before anything of the message is done."""
    null = os.open("/dev/null", os.O_RDONLY)
    message = frame(WireType.REMOVE_PEER, PEER, sequence) + frame(WireType.REMOVE_PEER, PEER)
    before, descriptors = busy.state(), busy.descriptors()
    assert busy.send_raw(message, () if sequence else (null,)) == ("bad_length", b"")
    assert (busy.state(), busy.descriptors()) == (before, descriptors)
    os.close(null)


def test_datagrams_nobody_waits_for_leave_at_the_end_of_their_message(busy: Rig) -> None:
    """All of them, in order, also where one between them is refused."""
    far_end = busy.udp_socket("127.0.0.9")
    to = wire.pack_endpoint(Endpoint(IPv4Address("127.0.0.9"), far_end.getsockname()[1]))
    datagrams = [bytes([8, number]) for number in range(100)]
    frames = [frame(WireType.SEND_DATAGRAM, wire.SEND_DATAGRAM_REQUEST.pack(to) + each) for each in datagrams]
    frames.insert(50, frame(WireType.SEND_KEEPALIVE, wire.PEER_REQUEST.pack(7)))
    assert busy.send_raw(b"".join(frames)) == ("no_such_peer", b"")
    far_end.settimeout(5)
    assert [far_end.recv(2048) for _ in datagrams] == datagrams


def test_a_moved_network_leaves_the_peer_that_had_it(busy: Rig) -> None:
    """[E4] A prefix given to another peer moves at once, alone."""
    busy.client.set_peer(2, public_key(2), [ip_network("10.5.0.0/16")], None)
    listed = {each.peer_id: each.network_count for each in busy.inventory().peers}
    assert listed == {1: 1, 2: 1, 5: 1}


def test_a_removed_peer_takes_its_sessions_and_networks_along(busy: Rig) -> None:
    busy.client.remove_peer(1)
    inventory = busy.inventory()
    assert [each.peer_id for each in inventory.peers] == [5]
    assert inventory.sessions == ()
    busy.client.set_peer(1, public_key(9), [], None)
    assert busy.inventory().peers[0].network_count == 0
    assert busy.client.counters.peer(1).tx_packets == 0


def test_setting_a_peer_again_replaces_networks_and_keeps_sessions(busy: Rig) -> None:
    before = busy.inventory()
    busy.client.set_peer(1, public_key(1), [ip_network("10.8.0.0/16"), ip_network("10.9.0.0/16")], None)
    after = busy.inventory()
    assert after.sessions == before.sessions
    assert after.peers[0].network_count == 2
    assert after.peers[0].endpoint == before.peers[0].endpoint


def test_a_peer_with_another_key_keeps_all_it_has(busy: Rig) -> None:
    """[A17] Networks are given anew, as always; sessions, endpoint and counters stay."""
    before = busy.inventory()
    networks = [ip_network(f"10.{number}.0.0/16") for number in range(before.peers[0].network_count)]
    busy.client.set_peer(1, public_key(9), networks, None, rename=True)
    after = busy.inventory()
    assert after.sessions == before.sessions
    assert after.peers == (replace(before.peers[0], public_key=public_key(9)), *before.peers[1:])
    refuses(busy, "peer_exists", WireType.SET_PEER, set_peer(peer=1))


def test_lists_longer_than_a_message_come_whole(rig: Rig) -> None:
    """[E6] Thousands of peers are listed in pages, none twice, none forgotten."""
    for number in range(3000):
        rig.client.set_peer(number, public_key(number), [], None)
    listed = rig.inventory().peers
    assert [each.peer_id for each in listed] == list(range(3000))
    assert [each.public_key for each in listed] == [public_key(number) for number in range(3000)]


def test_a_cursor_beyond_the_end_is_an_empty_last_page(busy: Rig) -> None:
    for kind in (WireType.LIST_PEERS, WireType.LIST_SESSIONS, WireType.LIST_MACS):
        error, body = busy.request(kind, wire.LIST_REQUEST.pack(0xFFFFFFFF))
        assert error in {"", "bad_value"}
        if not error:
            assert wire.LIST_REPLY.unpack(body) == (0, 0)


def test_a_network_set_of_130560_is_held_by_one_peer(rig: Rig) -> None:
    """[E6] A configuration of 255 * 256 * 2 networks is taken whole."""
    networks = [ip_network((10 << 24 | number << 8, 24)) for number in range(255 * 256)]
    networks += [ip_network((0x20010DB8 << 96 | number << 64, 64)) for number in range(255 * 256)]
    rig.client.set_peer(3, public_key(3), networks, None)
    assert rig.inventory().peers[0].network_count == 130_560


def test_stop_is_answered_and_ends_the_plane(rig: Rig) -> None:
    rig.client.stop()
    assert rig.child.wait(20) == 0
    with pytest.raises(PlaneError) as caught:
        rig.client.inventory()
    assert caught.value.code == "gone"
