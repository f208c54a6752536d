"""The plane's gate beside vpnd's own: the same verdicts, and cookies that either takes from the other."""

from __future__ import annotations

import random
from collections import Counter
from ipaddress import ip_address

import pytest

from tests.fakes.forge import cookie_in, flipped, mac2, with_mac1
from tests.fakes.host import identity, joined
from tests.plane.leaves.library import Gate, Leaves
from vpnd.endpoint import Endpoint
from vpnd.errors import MalformedMessage
from vpnd.keys import PublicKey, Secret
from vpnd.plane import wire
from vpnd.protocol.constants import TIMERS
from vpnd.protocol.cookies import CookieMaker, cookie_key, open_cookie, with_cookie
from vpnd.protocol.handshake import mac1_key
from vpnd.protocol.messages import parse_cookie_untrusted, parse_initiation_untrusted
from vpnd.protocol.ratelimit import TokenBuckets

US = PublicKey(bytes(range(32)))
KNOCK = bytes(range(100, 132))
HERE = Endpoint(ip_address("192.0.2.7"), 5180)
HERE6 = Endpoint(ip_address("2001:db8::7"), 5180)
T0 = 1000.0
LIFE = TIMERS.cookie_secret_s


def keys_of(*secrets: Secret, versions: int = 0b10) -> bytes:
    """A set_gate_request."""
    knock = Secret.copy_of(KNOCK)
    return request((mac1_key(US, knock),), (cookie_key(US, knock),), secrets, versions)


def request(
    mac1: tuple[Secret, ...], cookie: tuple[Secret, ...], secrets: tuple[Secret, ...], versions: int
) -> bytes:
    shown = [secret.expose() for secret in secrets] + [bytes(32)] * (2 - len(secrets))
    previous = (mac1[1].expose(), cookie[1].expose()) if len(mac1) > 1 else (bytes(32), bytes(32))
    numbers = (len(secrets), versions, len(mac1) - 1)
    return wire.SET_GATE_REQUEST.pack(mac1[0].expose(), cookie[0].expose(), *shown, *previous, *numbers)


def initiation(seed: int = 1, size: int = 200) -> bytes:
    body = random.Random(seed).randbytes(size - 4)
    return with_mac1(b"\x08\x01\0\0" + body, US, KNOCK)


def maker() -> CookieMaker:
    return CookieMaker(random.Random(0).randbytes, TIMERS)


def judge(gate: Gate, datagram: bytes, source: Endpoint = HERE, now: float = T0) -> int:
    return gate.judge(wire.pack_endpoint(source), datagram, now)[0]


@pytest.fixture
def making() -> CookieMaker:
    return maker()


@pytest.fixture
def gate(leaves: Leaves, making: CookieMaker) -> Gate:
    return Gate(leaves.library, keys_of(*making.secrets(T0)))


@pytest.mark.parametrize("source", [HERE, HERE6])
def test_an_initiation_is_answered_by_a_cookie_that_its_caller_can_use(
    gate: Gate, making: CookieMaker, source: Endpoint
) -> None:
    """[H4, H7] 64 bytes; vpnd itself takes what was made with it, from this address and port alone."""
    datagram = initiation()
    verdict, reply = gate.judge(wire.pack_endpoint(source), datagram, T0)
    assert verdict == Gate.COOKIE
    message = parse_cookie_untrusted(reply)
    assert (message.version, message.receiver_index) == (1, int.from_bytes(datagram[4:8], "little"))
    cookie = open_cookie(message, datagram[-32:-16], cookie_key(US, Secret.copy_of(KNOCK)), T0)
    assert cookie is not None
    again = with_cookie(datagram, cookie)
    assert making.is_valid(parse_initiation_untrusted(again), source, T0)
    assert judge(gate, again, source) == Gate.PASS
    assert judge(gate, again, Endpoint(source.address, 5181)) == Gate.COOKIE
    assert judge(gate, again, HERE6 if source == HERE else HERE) == Gate.COOKIE


def test_a_cookie_of_vpnds_own_passes_as_long_as_its_secret_lives(
    leaves: Leaves, making: CookieMaker
) -> None:
    """[H7] Current and previous secret, as vpnd hands them over; then no more."""
    datagram = initiation()
    message = parse_initiation_untrusted(datagram)
    reply = making.reply(message, HERE, T0, cookie_key(US, Secret.copy_of(KNOCK)))
    mine = datagram[:-16] + mac2(datagram, cookie_in(reply, datagram, US, KNOCK))
    for now, verdict in ((T0, Gate.PASS), (T0 + LIFE, Gate.PASS), (T0 + 2 * LIFE, Gate.COOKIE)):
        gate = Gate(leaves.library, keys_of(*making.secrets(now)))
        assert judge(gate, mine, now=now) == verdict, now


def test_the_key_that_is_replaced_is_answered_under_itself_while_it_holds(leaves: Leaves) -> None:
    """[H7] Whoever knows the old key alone can open the cookie; without the old key it is a stranger."""
    _, _, right = joined()
    older = identity(77)
    device, place, zero = right.device, wire.pack_endpoint(HERE), Secret.zero()
    device.answer_also(older, T0 + 60.0)
    datagram = with_mac1(b"\x08\x01\0\0" + random.Random(1).randbytes(196), older.public)
    for now, verdict in ((T0, Gate.COOKIE), (T0 + 60.0, Gate.MAC1)):
        keys = device.gate_keys(now)
        gate = Gate(leaves.library, request(keys.mac1_keys, keys.cookie_keys, keys.secrets, 0b10))
        seen, reply = gate.judge(place, datagram, now)
        assert seen == verdict
        cookie = (
            open_cookie(parse_cookie_untrusted(reply), datagram[-32:-16], cookie_key(older.public, zero), now)
            if seen == Gate.COOKIE
            else None
        )
        assert (cookie is not None) is (verdict == Gate.COOKIE)


def test_each_cookie_has_its_own_nonce(gate: Gate) -> None:
    """A nonce used twice under the key of one mac1 would show that two cookies are equal."""
    place = wire.pack_endpoint(HERE)
    assert len({gate.judge(place, initiation(), T0)[1][8:32] for _ in range(100)}) == 100


def test_every_flipped_bit_of_an_initiation_costs_it_its_passage(gate: Gate) -> None:
    """[H2, H7] A wrong mac1 is silence, a wrong mac2 no better than none."""
    datagram = initiation()
    place = wire.pack_endpoint(HERE)
    _, reply = gate.judge(place, datagram, T0)
    good = datagram[:-16] + mac2(datagram, cookie_in(reply, datagram, US, KNOCK))
    assert judge(gate, good) == Gate.PASS
    for bit in range(8, 8 * len(good)):
        verdict, answer = gate.judge(place, flipped(good, bit), T0)
        if bit < 32:
            assert verdict == Gate.MALFORMED, bit
        elif bit < 8 * (len(good) - 16):
            assert verdict == Gate.MAC1, bit
        else:
            assert verdict == Gate.COOKIE, bit
        assert (answer == bytes(64)) is (verdict != Gate.COOKIE)


def test_every_length_is_judged_as_vpnd_judges_it(gate: Gate) -> None:
    """[H1] Well formed or not, by the parser of the protocol."""
    for size in range(48, 1500):
        datagram = initiation(size, size)
        try:
            parse_initiation_untrusted(datagram)
            expected = Gate.COOKIE
        except MalformedMessage:
            expected = Gate.MALFORMED
        assert judge(gate, datagram) == expected, size


def test_a_version_we_do_not_speak_gets_no_answer(leaves: Leaves, making: CookieMaker) -> None:
    """[A20, H10] Also one that has no bit in the mask."""
    secrets = making.secrets(T0)
    for version in (0, 1, 2, 31, 32, 33, 255):
        datagram = with_mac1(b"\x08" + bytes((version,)) + initiation()[2:], US, KNOCK)
        for known in (1, 2, 31):
            gate = Gate(leaves.library, keys_of(*secrets, versions=1 << known))
            assert judge(gate, datagram) == (Gate.COOKIE if version == known else Gate.MALFORMED)


def test_without_the_knock_nothing_is_answered(gate: Gate) -> None:
    """[H10] The public key alone is not enough."""
    stranger = with_mac1(initiation(), US)
    assert gate.judge(wire.pack_endpoint(HERE), stranger, T0) == (Gate.MAC1, bytes(64))


def test_the_gate_closes_when_many_wait_and_opens_a_second_later(gate: Gate) -> None:
    """[H4] More than 64."""
    gate.note_depth(64, T0)
    assert not gate.is_closed(T0)
    gate.note_depth(65, T0)
    assert gate.is_closed(T0)
    assert gate.is_closed(T0 + 0.999)
    assert not gate.is_closed(T0 + 1.0)
    gate.note_depth(500, T0 + 0.5)
    assert gate.is_closed(T0 + 1.4)


def test_a_gate_without_secrets_stays_open(leaves: Leaves) -> None:
    """No vpnd has handed over any."""
    gate = Gate(leaves.library, keys_of())
    gate.note_depth(1000, T0)
    assert not gate.is_closed(T0)


def test_a_replay_is_known_for_ten_seconds(gate: Gate) -> None:
    """[H8] The same message with a cookie's proof is another one, and so is any other."""
    datagram = initiation()
    assert not gate.has_seen(datagram, T0)
    gate.remember(datagram, T0)
    assert gate.has_seen(datagram, T0)
    assert gate.has_seen(datagram, T0 + 9.9)
    assert not gate.has_seen(datagram, T0 + 10)
    assert not gate.has_seen(proven(gate, HERE), T0)
    assert not any(gate.has_seen(initiation(seed), T0) for seed in range(2, 1000))
    # Somebody quicker with the same MACs in a message of their own takes nothing from this one.
    for at in range(len(datagram)):
        assert not gate.has_seen(datagram[:at] + bytes([datagram[at] ^ 1]) + datagram[at + 1 :], T0)


def test_many_replays_are_known_at_once(gate: Gate) -> None:
    """[H8] Of 1000 messages nearly all; two that share a place cost one of them its memory."""
    datagrams = [initiation(seed) for seed in range(1000)]
    for datagram in datagrams:
        gate.remember(datagram, T0)
    assert sum(gate.has_seen(datagram, T0 + 1) for datagram in datagrams) > 800
    assert gate.has_seen(datagrams[-1], T0 + 1)


@pytest.mark.parametrize("size", [1, 8, 31, 32, 33, 40])
def test_a_message_of_any_length_can_be_looked_up(gate: Gate, size: int) -> None:
    """[H1] What the sanitizers would tell of a read beyond its end."""
    gate.remember(b"\x08" * size, T0)
    assert gate.has_seen(b"\x08" * size, T0)


def proven(gate: Gate, source: Endpoint, seed: int = 1) -> bytes:
    """An initiation from there that brings its cookie."""
    datagram = initiation(seed)
    _, reply = gate.judge(wire.pack_endpoint(source), datagram, T0)
    return datagram[:-16] + mac2(datagram, cookie_in(reply, datagram, US, KNOCK))


def test_a_source_passes_as_often_as_a_token_bucket_lets_it(gate: Gate) -> None:
    """[H5, H6] A thousand a second for ten: 20 a second and 5 at once, as vpnd's own bucket has it."""
    datagram = proven(gate, HERE)
    bucket = TokenBuckets()
    verdicts = Counter[int]()
    for number in range(10_000):
        now = T0 + number / 1000
        verdict = judge(gate, datagram, now=now)
        assert verdict == (Gate.PASS if bucket.take("source", now) else Gate.RATE), number
        verdicts[verdict] += 1
    assert verdicts[Gate.PASS] == 5 + 199


def spend_spare(gate: Gate, now: float) -> int:
    """Has one place asked until nothing more is answered; tells how often it was."""
    greedy = wire.pack_endpoint(Endpoint(ip_address("203.0.113.9"), 9))
    return next(number for number in range(10_000) if not gate.may_ask(greedy, now))


def test_a_place_is_asked_for_a_cookie_thrice_and_then_once_a_second(gate: Gate) -> None:
    """[H4, H5] As often as an initiator tries again; another port is another place, which is new."""
    assert spend_spare(gate, T0) == 3 + 100
    here = wire.pack_endpoint(HERE)
    assert [gate.may_ask(here, T0) for _ in range(4)] == [True, True, True, False]
    beside = wire.pack_endpoint(Endpoint(HERE.address, HERE.port + 1))
    assert gate.may_ask(beside, T0)
    for second in range(1, 5):
        assert spend_spare(gate, T0 + second) == 1 + 100
        assert [gate.may_ask(here, T0 + second) for _ in range(2)] == [True, False]


def test_whose_address_is_used_by_strangers_is_answered_nevertheless(gate: Gate) -> None:
    """[H4] A thousand a second in its name for 10 s leave it every cookie."""
    here = wire.pack_endpoint(HERE)
    for number in range(10_000):
        assert gate.may_ask(here, T0 + number / 1000)


def test_a_flood_keeps_nobody_new_from_being_asked(gate: Gate) -> None:
    """[H4] 200,000 places fill the table again and again; who has not asked before is answered at once."""
    spend_spare(gate, T0)
    for number in range(200_000):
        gate.may_ask(wire.pack_endpoint(Endpoint(ip_address(0x0A400000 + number), 5180)), T0)
    fresh = [Endpoint(ip_address(0x0B000000 + number), 5180) for number in range(1000)]
    assert all(gate.may_ask(wire.pack_endpoint(place), T0) for place in fresh)


def test_an_ipv6_source_is_its_64_bit_network(gate: Gate) -> None:
    """[H6] A host may take any address of its /64; an IPv4 address stands for itself."""
    places = [ip_address("2001:db8::1"), ip_address("2001:db8::ffff:1"), ip_address("2001:db8:0:1::1")]
    one, same, other = (gate.source(wire.pack_endpoint(Endpoint(place, 1))) for place in places)
    assert one == same != other
    assert gate.source(wire.pack_endpoint(HERE)) == gate.source(wire.pack_endpoint(Endpoint(HERE.address, 9)))


def test_sources_spread_over_the_whole_table(gate: Gate) -> None:
    """[H5] A /16 of them shares places no more than chance would have it."""
    places = [Endpoint(ip_address(0x0A400000 + number), 5180) for number in range(65_536)]
    numbers = Counter(gate.source(wire.pack_endpoint(place)) for place in places)
    assert max(numbers) < 65_536
    assert 40_000 < len(numbers) < 43_000  # 1 - 1/e of all
    assert max(numbers.values()) < 16


def test_another_run_spreads_them_otherwise(leaves: Leaves, making: CookieMaker) -> None:
    """[H5] An attacker cannot choose whose place it shares."""
    place = wire.pack_endpoint(HERE)
    keys = keys_of(*making.secrets(T0))
    assert len({Gate(leaves.library, keys).source(place) for _ in range(20)}) > 10


def test_the_two_gates_agree_on_anything(leaves: Leaves) -> None:
    """[H1] Random, damaged, proven and unproven messages: this gate and the protocol's own under load.

    They are for either of two keys, of which the older answers too.
    """
    _, _, right = joined()
    device, now = right.device, 5000.0
    older = identity(77)
    device.answer_also(older, now + 60.0)
    keys = device.gate_keys(now)
    versions = sum(1 << version for version in keys.versions)
    gate = Gate(leaves.library, request(keys.mac1_keys, keys.cookie_keys, keys.secrets, versions))
    chance = random.Random(4)
    names = {Gate.MALFORMED: "rx_malformed", Gate.MAC1: "rx_mac1", Gate.COOKIE: "hs_cookie_sent"}
    seen = Counter[int]()
    for _ in range(3000):
        ours = chance.choice((right.key, older.public))
        message = with_mac1(b"\x08\x01\0\0" + chance.randbytes(196), ours)
        if chance.random() < 0.5:
            message = flipped(message, chance.randrange(8, 8 * len(message)))
        message = message[: chance.choice((200, 200, 199))]
        verdict = judge(gate, message, now=now)
        device.receive(message, HERE, now, queue_depth=100)
        assert device.last_refusal == names[verdict]
        seen[verdict] += 1
    assert set(seen) == set(names)
