"""Limits: the token bucket's table, the memory of replays, the sense of load."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest

from vpnd.endpoint import Endpoint
from vpnd.protocol.constants import TIMERS
from vpnd.protocol.ratelimit import LoadMeter, Mac1Cache, TokenBuckets, source_key

T0 = 1000.0


def source(address: str, port: int = 5180) -> Endpoint:
    return Endpoint(ip_address(address), port)


# time in ms since the start: let through?
TIMING = [
    *[(0, True)] * 5,
    *[(0, False)] * 3,
    (49, False),
    (50, True),
    (50, False),
    (99, False),
    (100, True),
    (150, True),
    (300, True),
    (300, True),
    (300, True),
    (300, False),
    (349, False),
    (350, True),
    (10_000, True),
    *[(10_000, True)] * 4,
    (10_000, False),
]


@pytest.mark.parametrize("start", [0.0, 1000.0, 1_000_000.123])
def test_the_timing_table_of_a_bucket(start: float) -> None:
    """[H6] Five at once, then one each 50 ms; refused tries cost nothing; a rest fills it up to five."""
    buckets = TokenBuckets()
    for milliseconds, passes in TIMING:
        assert buckets.take("one source", start + milliseconds / 1000) is passes, milliseconds


def test_a_flood_gets_twenty_a_second_and_five() -> None:
    """[H5] 10,000 tries spread over ten seconds from one source."""
    buckets = TokenBuckets()
    passed = sum(buckets.take("one source", T0 + number / 1000) for number in range(10_000))
    assert passed == 5 + 20 * 10 - 1


def test_sources_do_not_pay_for_each_other() -> None:
    """[H5] One is empty, the next is full."""
    buckets = TokenBuckets()
    while buckets.take("one", T0):
        pass
    assert buckets.take("other", T0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:0:ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.7", "::ffff:192.0.2.7", False),
    ],
)
def test_ipv4_is_charged_by_address_and_ipv6_by_64_bits(one: str, other: str, same: bool) -> None:
    """[H6] A host may move within its /64 and stays the same payer; ports do not matter."""
    assert (source_key(source(one)) == source_key(source(other, port=1))) is same


def test_the_table_holds_65536_sources_and_no_more() -> None:
    """[H5] A flood of addresses finds the table full, and those in it keep their places."""
    buckets = TokenBuckets()
    for number in range(65_536):
        assert buckets.take(number, T0)
    assert not buckets.take("one more", T0)
    assert len(buckets) == 65_536
    assert buckets.take(0, T0)


def test_full_buckets_make_room() -> None:
    """[H5] Whoever was quiet long enough to be full again needs no place in the table."""
    buckets = TokenBuckets(capacity=2)
    assert buckets.take("one", T0)
    assert buckets.take("two", T0 + 0.01)
    assert not buckets.take("three", T0 + 0.049)
    assert buckets.take("three", T0 + 0.05)
    assert len(buckets) == 2
    assert not buckets.take("one", T0 + 0.05)


def test_a_source_touched_lately_is_not_the_one_forgotten() -> None:
    """[H5] A refused try counts as a touch: the flood moves back, and a rested source makes room."""
    buckets = TokenBuckets(rate=1, burst=2, capacity=2)
    assert buckets.take("flood", T0)
    assert buckets.take("flood", T0)
    assert buckets.take("quiet", T0 + 0.1)
    assert not buckets.take("flood", T0 + 0.5)
    assert buckets.take("new", T0 + 1.2)
    assert len(buckets) == 2


def test_a_bucket_agrees_with_counting_tokens() -> None:
    """[H6] Against a plain count of tokens in ticks of 1 ms, at random times."""
    chance = random.Random(6)
    buckets, tokens, last = TokenBuckets(), 5 * 50, 0
    moment = 0
    for _ in range(5000):
        moment += chance.choice((0, 0, 1, 7, 30, 50, 200))
        tokens = min(5 * 50, tokens + moment - last)
        last = moment
        passes = tokens >= 50
        tokens -= 50 if passes else 0
        assert buckets.take("source", moment / 1000) is passes


def test_a_replay_is_known_for_ten_seconds() -> None:
    """[H8] And a stranger is not."""
    seen = Mac1Cache(TIMERS)
    seen.add(b"mac", T0)
    assert seen.has(b"mac", T0)
    assert seen.has(b"mac", T0 + 9.9)
    assert not seen.has(b"mac", T0 + 10.0)
    assert not seen.has(b"cam", T0)


def test_the_memory_of_replays_is_bounded_and_forgets_the_oldest() -> None:
    """[H8] 4096 entries; one added again is young again."""
    seen = Mac1Cache(TIMERS)
    for number in range(4096):
        seen.add(b"%d" % number, T0)
    seen.add(b"0", T0 + 1.0)
    seen.add(b"new", T0 + 2.0)
    assert len(seen) == 4096
    assert seen.has(b"0", T0 + 3.0)
    assert not seen.has(b"1", T0 + 3.0)
    assert seen.has(b"2", T0 + 3.0)


@pytest.mark.parametrize(("depth", "is_under_load"), [(0, False), (64, False), (65, True), (1024, True)])
def test_more_than_64_waiting_messages_are_load(depth: int, is_under_load: bool) -> None:
    """[H4] The queue's depth decides at once, and holds for a second."""
    load = LoadMeter(TIMERS)
    assert load.is_under_load(depth, T0) is is_under_load
    assert load.is_under_load(0, T0 + 0.99) is is_under_load
    assert not load.is_under_load(0, T0 + 1.0)


def test_more_than_a_quarter_of_a_second_of_cpu_is_load() -> None:
    """[H4] Counted over the last second, held for one more."""
    load = LoadMeter(TIMERS)
    load.note_cpu(0.125, T0)
    load.note_cpu(0.125, T0 + 0.25)
    assert not load.is_under_load(0, T0 + 0.25)
    load.note_cpu(0.01, T0 + 0.26)
    assert load.is_under_load(0, T0 + 0.26)
    assert load.is_under_load(0, T0 + 1.25)
    assert not load.is_under_load(0, T0 + 1.26)


def test_cpu_of_more_than_a_second_ago_is_forgotten() -> None:
    """[H4] Twenty per cent for ever is no load."""
    load = LoadMeter(TIMERS)
    for number in range(100):
        load.note_cpu(0.1, T0 + number / 2)
        assert not load.is_under_load(0, T0 + number / 2)
    load.note_cpu(0.2, T0 + 100.0)
    assert not load.is_under_load(0, T0 + 100.0)
