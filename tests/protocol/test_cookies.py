"""Cookies: whose, from where, for how long, and for which message."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest

from tests.fakes.forge import flipped
from tests.fakes.host import joined
from vpnd.endpoint import Endpoint
from vpnd.keys import Identity, Secret
from vpnd.protocol.actions import SendDatagram
from vpnd.protocol.boxes import derive_keyed, is_mac, label
from vpnd.protocol.constants import TIMERS
from vpnd.protocol.cookies import Cookie, CookieMaker, cookie_key, open_cookie, with_cookie
from vpnd.protocol.handshake import mac1_key
from vpnd.protocol.messages import initiation_head, parse_cookie_untrusted, parse_initiation_untrusted

RESPONDER = Identity.from_private(Secret.copy_of(bytes(range(32)))).public
HERE = Endpoint(ip_address("192.0.2.7"), 5180)
BOX_KEY = cookie_key(RESPONDER, Secret.zero())
T0 = 1000.0


def initiation(index: int = 1) -> bytes:
    return initiation_head(1, index, bytes([index]) * 32).ljust(184, b"\xaa") + bytes(16)


def maker(seed: int = 0) -> CookieMaker:
    return CookieMaker(random.Random(seed).randbytes, TIMERS)


def cookie_from(making: CookieMaker, datagram: bytes, source: Endpoint = HERE, now: float = T0) -> Cookie:
    message = parse_initiation_untrusted(datagram)
    reply = parse_cookie_untrusted(making.reply(message, source, now, BOX_KEY))
    cookie = open_cookie(reply, message.mac1, BOX_KEY, now)
    assert cookie is not None
    return cookie


def is_accepted(making: CookieMaker, datagram: bytes, source: Endpoint = HERE, now: float = T0) -> bool:
    return making.is_valid(parse_initiation_untrusted(datagram), source, now)


def test_a_cookie_makes_its_message_acceptable() -> None:
    """[H7] From the address and port it was made for."""
    making = maker()
    assert not is_accepted(making, initiation())
    cookie = cookie_from(making, initiation())
    assert is_accepted(making, with_cookie(initiation(), cookie))


def test_a_cookie_serves_the_next_message_too() -> None:
    """[H7] It is of the address, not of one message; mac2 is of the message."""
    making = maker()
    cookie = cookie_from(making, initiation(1))
    assert is_accepted(making, with_cookie(initiation(2), cookie))
    assert not is_accepted(making, initiation(2)[:-16] + with_cookie(initiation(1), cookie)[-16:])


@pytest.mark.parametrize(
    ("source", "accepted"),
    [
        (HERE, True),
        (Endpoint(ip_address("192.0.2.8"), 5180), False),
        (Endpoint(ip_address("192.0.2.7"), 5181), False),
        (Endpoint(ip_address("::ffff:192.0.2.7"), 5180), True),
        (Endpoint(ip_address("::192.0.2.7"), 5180), False),
        (Endpoint(ip_address("2001:db8::7"), 5180), False),
    ],
)
def test_a_cookie_is_of_one_address_and_port(source: Endpoint, accepted: bool) -> None:
    """[H7] Wrong address, wrong port; the mapped form of an IPv4 address is that address."""
    making = maker()
    message = with_cookie(initiation(), cookie_from(making, initiation()))
    assert is_accepted(making, message, source) is accepted


@pytest.mark.parametrize(
    ("made_after", "used_after", "accepted"),
    [
        (0.0, 119.0, True),
        (0.0, 121.0, True),
        (0.0, 239.0, True),
        (0.0, 241.0, False),
        (119.0, 239.0, True),
        (119.0, 241.0, False),
        (0.0, 1000.0, False),
    ],
)
def test_a_cookie_lives_as_long_as_two_secrets(made_after: float, used_after: float, accepted: bool) -> None:
    """[H7] The secret changes every 120 s, the one before is known for 120 s more."""
    making = maker()
    cookie_from(making, initiation(), now=T0)
    message = with_cookie(initiation(2), cookie_from(making, initiation(2), now=T0 + made_after))
    cookie_from(making, initiation(3), now=T0 + 120.5)
    assert is_accepted(making, message, now=T0 + used_after) is accepted


def test_after_silence_of_two_lives_the_old_secret_is_gone() -> None:
    """[H7] Rotation that came late does not prolong the life of a cookie."""
    making = maker()
    message = with_cookie(initiation(), cookie_from(making, initiation()))
    assert is_accepted(making, message, now=T0 + 130.0)
    late = maker()
    message = with_cookie(initiation(), cookie_from(late, initiation()))
    assert not is_accepted(late, message, now=T0 + 240.0)


def test_a_cookie_of_another_responder_is_worth_nothing() -> None:
    """[H7] Its secret is its own."""
    message = with_cookie(initiation(), cookie_from(maker(1), initiation()))
    assert not is_accepted(maker(2), message)


def test_a_reply_opens_only_for_the_message_it_answers() -> None:
    """[H7] For another mac1, and with another knock, it is a forgery."""
    message = parse_initiation_untrusted(initiation(1))
    reply = parse_cookie_untrusted(maker().reply(message, HERE, T0, BOX_KEY))
    assert open_cookie(reply, message.mac1, BOX_KEY, T0) is not None
    assert open_cookie(reply, flipped(message.mac1, 0), BOX_KEY, T0) is None
    other_network = cookie_key(RESPONDER, Secret.copy_of(b"k" * 32))
    assert open_cookie(reply, message.mac1, other_network, T0) is None


def test_every_bit_of_nonce_and_box_counts() -> None:
    """[H2] All 448 single flips of the sealed part."""
    message = parse_initiation_untrusted(initiation())
    reply = maker().reply(message, HERE, T0, BOX_KEY)
    for bit in range(8 * 8, 64 * 8):
        forged = parse_cookie_untrusted(flipped(reply, bit))
        assert open_cookie(forged, message.mac1, BOX_KEY, T0) is None


def test_a_reply_is_shorter_than_what_it_answers_and_names_its_index() -> None:
    """[H4] No amplification: 64 bytes for 200."""
    reply = maker().reply(parse_initiation_untrusted(initiation(9)), HERE, T0, BOX_KEY)
    assert len(reply) == 64
    assert parse_cookie_untrusted(reply).receiver_index == 9


def test_every_bit_of_mac2_counts() -> None:
    """[H2] All 128 single flips."""
    making = maker()
    message = with_cookie(initiation(), cookie_from(making, initiation()))
    for bit in range((len(message) - 16) * 8, len(message) * 8):
        assert not is_accepted(making, flipped(message, bit))


def test_the_keys_of_macs_and_cookies_differ() -> None:
    """[J1] One label each; both depend on the knock."""
    knock = Secret.copy_of(b"k" * 32)
    keys = [make(RESPONDER, secret) for make in (cookie_key, mac1_key) for secret in (knock, Secret.zero())]
    assert len({key.expose() for key in keys}) == 4


def test_the_secrets_handed_out_are_those_that_cookies_are_known_by() -> None:
    """[H7] The newest first; the one before as long as its cookies are good."""
    making, life = maker(), TIMERS.cookie_secret_s
    (first,) = making.secrets(T0)
    assert making.secrets(T0 + life - 1) == (first,)
    second, previous = making.secrets(T0 + life)
    assert previous == first != second
    assert making.secrets(T0 + 2 * life - 1) == (second, first)
    third, previous = making.secrets(T0 + 2 * life)
    assert previous == second
    assert third not in (first, second)
    assert len(making.secrets(T0 + 10 * life)) == 1


def test_what_the_plane_is_given_makes_the_device_s_own_cookies() -> None:
    """[H4, H7] Keys of mac1 and of cookies, the secret of now; other ones when the secret changes."""
    _, left, right = joined()
    keys = right.device.gate_keys(T0)
    assert keys == right.device.gate_keys(T0 + TIMERS.cookie_secret_s - 1)
    assert keys.versions == (1,)
    left.start()
    (message,) = [each.data for each in left.wire.captured]
    (reply,) = right.device.receive(message, HERE, T0, queue_depth=100)
    assert isinstance(reply, SendDatagram)
    own = parse_initiation_untrusted(message)
    assert is_mac(keys.mac1_keys[0], own.covered1, own.mac1)
    cookie = open_cookie(parse_cookie_untrusted(reply.datagram), own.mac1, keys.cookie_keys[0], T0)
    assert cookie is not None
    place = HERE.ip16 + HERE.port.to_bytes(2, "big")
    assert cookie.key == derive_keyed(label("ck"), keys.secrets[0], place, 16)
    later = right.device.gate_keys(T0 + TIMERS.cookie_secret_s)
    assert later != keys
    assert later.secrets[1] == keys.secrets[0]
