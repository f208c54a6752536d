"""Handshake messages under load: what the plane answers itself while vpnd has too many to read."""

from __future__ import annotations

import hashlib
import os
import socket
import struct

import pytest
from nacl.secret import SecretBox

from tests.plane import far
from tests.plane.harness import Rig, wait_until
from vpnd.keys import Secret
from vpnd.plane.events import DatagramEvent

MAC1_KEY, COOKIE_KEY = b"m" * 32, b"c" * 32
SECRET, OLD_SECRET = b"n" * 32, b"o" * 32
FLOOD = 3000


def keyed(size: int, person: str, key: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=size, key=key, person=b"vpnd1." + person.encode()).digest()


def initiation(*, mac1_key: bytes = MAC1_KEY, version: int = 1, cookie: bytes | None = None) -> bytes:
    """An HS_INIT of 200 bytes: the clear fields right, the boxes random."""
    body = struct.pack("<BBHI", 0x08, version, 0, 0xABCD) + os.urandom(160)
    body += keyed(16, "mac", mac1_key, body)
    return body + (bytes(16) if cookie is None else keyed(16, "mac", cookie, body))


def with_cookie(message: bytes, cookie: bytes) -> bytes:
    return message[:-16] + keyed(16, "mac", cookie, message[:-16])


def cookie_of(answer: bytes, asked: bytes) -> bytes:
    """Opens a COOKIE message, protocol section 3.3."""
    assert (len(answer), answer[:4], answer[4:8]) == (64, b"\x0a\x01\0\0", asked[4:8])
    key = keyed(32, "ckbox", COOKIE_KEY, asked[-32:-16])
    return bytes(SecretBox(key).decrypt(answer[32:], answer[8:32]))


@pytest.fixture
def gated(tun: Rig) -> Rig:
    secrets = [Secret.copy_of(SECRET), Secret.copy_of(OLD_SECRET)]
    tun.client.set_gate(Secret.copy_of(MAC1_KEY), Secret.copy_of(COOKIE_KEY), secrets, [1])
    return tun


def put_under_load(rig: Rig) -> None:
    """Fills the queue of handshake messages from many sources while nobody reads events."""
    attackers = [rig.udp_socket(f"127.0.66.{number}") for number in range(1, 60)]
    target = rig.sockets[0].getsockname()
    began = rig.received()
    for sent in range(0, FLOOD, 250):
        for number in range(250):
            attackers[number % len(attackers)].sendto(initiation(mac1_key=b"?" * 32), target)
        wait_until(lambda: rig.received() - began == sent + 250, "read")  # noqa: B023
    taken = [each for each in rig.events() if isinstance(each, DatagramEvent)]

    def settled() -> bool:
        taken.extend(each for each in rig.events() if isinstance(each, DatagramEvent))
        return len(taken) + rig.dropped() == FLOOD

    wait_until(settled, f"the flood explained, but {len(taken)}, {rig.drops()}")
    assert not [each for each in attackers if far.receive_waiting(each)]


def ask(rig: Rig, stranger: socket.socket, message: bytes) -> None:
    stranger.sendto(message, rig.sockets[0].getsockname())


def test_wrong_mac1_is_counted_and_never_answered_under_load(gated: Rig) -> None:
    """[H4, H10] A flood without our key gets no byte back, and little of it reaches vpnd."""
    put_under_load(gated)
    drops = gated.drops()
    assert drops["rx_mac1"] > 0
    assert set(drops) <= {"rx_mac1", "hs_queue_full"}


def test_a_right_initiation_under_load_gets_a_cookie_and_passes_with_it(gated: Rig) -> None:
    """[H7] The cookie opens, is bound to the address, and the same bytes with mac2 go up."""
    put_under_load(gated)
    stranger, other = gated.udp_socket("127.0.0.50"), gated.udp_socket("127.0.0.51")
    message = initiation()
    ask(gated, stranger, message)
    cookie = cookie_of(far.receive(stranger), message)
    place = far.endpoint_of(stranger)
    expected = keyed(16, "ck", SECRET, place.ip16 + struct.pack(">H", place.port))
    assert cookie == expected
    assert gated.drops()["hs_cookie_sent"] == 1
    ask(gated, other, with_cookie(message, cookie))
    assert len(far.receive(other)) == 64
    gated.no_event(DatagramEvent)
    proven = with_cookie(message, cookie)
    ask(gated, stranger, proven)
    event = gated.wait_event(DatagramEvent)
    assert (event.data, event.endpoint) == (proven, place)


def test_a_cookie_of_the_previous_secret_still_passes(gated: Rig) -> None:
    """[H7] For the time of one secret more."""
    put_under_load(gated)
    stranger = gated.udp_socket("127.0.0.50")
    place = far.endpoint_of(stranger)
    old = keyed(16, "ck", OLD_SECRET, place.ip16 + struct.pack(">H", place.port))
    ask(gated, stranger, initiation(cookie=old))
    gated.wait_event(DatagramEvent)


def test_one_source_with_good_cookies_is_limited(gated: Rig) -> None:
    """[H5] Twenty a second with a burst of five, however good the cookie."""
    put_under_load(gated)
    stranger = gated.udp_socket("127.0.0.50")
    place = far.endpoint_of(stranger)
    cookie = keyed(16, "ck", SECRET, place.ip16 + struct.pack(">H", place.port))
    for _ in range(100):
        ask(gated, stranger, initiation(cookie=cookie))
    passed = 0

    def explained() -> bool:
        nonlocal passed
        passed += sum(isinstance(each, DatagramEvent) for each in gated.events())
        return passed + gated.drops().get("hs_ratelimited", 0) == 100

    wait_until(explained, f"passed or counted, but {passed}, {gated.drops()}")
    assert 5 <= passed <= 30


def test_without_load_nobody_is_asked_for_a_cookie(gated: Rig) -> None:
    stranger = gated.udp_socket("127.0.0.50")
    for message in (initiation(), initiation(mac1_key=b"?" * 32)):
        ask(gated, stranger, message)
        assert gated.wait_event(DatagramEvent).data == message
    assert far.receive_waiting(stranger) == []
    assert gated.drops() == {}
