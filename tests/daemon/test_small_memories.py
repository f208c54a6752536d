"""Strangers, notices, pings, settings: what the daemon keeps for a while, and where."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.fakes.host import Host, connect, joined
from vpnd.daemon.notices import INTERVAL_S, NoticeWriter
from vpnd.daemon.pings import Pings
from vpnd.daemon.settings import Settings
from vpnd.daemon.strangers import REMEMBERED, Strangers
from vpnd.endpoint import Endpoint
from vpnd.keys import PublicKey
from vpnd.protocol.actions import Action, SendControl
from vpnd.protocol.constants import NoticeReason
from vpnd.protocol.control_messages import encode_notice

ONE, TWO = (Endpoint(IPv4Address(f"192.0.2.{number}"), 5180) for number in (1, 2))
PEER, OTHER = PublicKey(bytes([1]) * 32), PublicKey(bytes([2]) * 32)


# -- strangers --


def test_the_latest_stranger_is_told() -> None:
    strangers = Strangers()
    strangers.note(ONE, "rx_mac1", 10.0)
    strangers.note(TWO, "hs_unknown_peer", 11.0)
    latest = strangers.latest(0.0, None)
    assert latest is not None
    assert (latest.source, latest.reason, latest.at) == (TWO, "hs_unknown_peer", 11.0)


def test_a_stranger_from_the_peers_address_is_looked_for_behind_others() -> None:
    """From any of its ports: a NAT or a restart changes those."""
    strangers = Strangers()
    strangers.note(ONE, "rx_mac1", 10.0)
    strangers.note(TWO, "hs_unknown_peer", 11.0)
    found = strangers.latest(0.0, Endpoint(ONE.address, 9))
    assert found is not None
    assert found.source == ONE
    assert strangers.latest(0.0, Endpoint(IPv4Address("192.0.2.9"), 5180)) is None


def test_what_is_too_long_ago_is_not_told() -> None:
    strangers = Strangers()
    strangers.note(ONE, "rx_mac1", 10.0)
    assert strangers.latest(10.0, None) is not None
    assert strangers.latest(10.1, None) is None
    assert Strangers().latest(0.0, None) is None


def test_a_flood_of_strangers_takes_no_more_room() -> None:
    """[H4] The oldest go."""
    strangers = Strangers()
    strangers.note(ONE, "rx_mac1", 0.0)
    for number in range(REMEMBERED - 1):
        strangers.note(TWO, "rx_mac1", float(number))
    assert strangers.latest(0.0, ONE) is not None
    strangers.note(TWO, "rx_mac1", 99.0)
    assert strangers.latest(0.0, ONE) is None


# -- notices --


@pytest.fixture
def pair() -> tuple[Host, Host]:
    network, left, right = joined()
    connect(network, left, right)
    return left, right


def told(actions: object) -> list[Action]:
    return list(actions)  # type: ignore[call-overload, no-any-return]


def test_a_drop_that_is_the_senders_mistake_is_told_to_the_sender(pair: tuple[Host, Host]) -> None:
    """[E4] With the whole count, of both kinds, and of no other."""
    left, right = pair
    counted = {"data_source": 3, "data_inner": 2, "data_auth": 99}
    actions = told(NoticeWriter().due(left.device, {right.key: counted}, 100.0))
    assert actions == [
        SendControl(right.key, encode_notice(NoticeReason.SOURCE, 3)),
        SendControl(right.key, encode_notice(NoticeReason.INNER, 2)),
    ]


def test_a_notice_comes_again_only_while_drops_go_on_and_not_too_soon(pair: tuple[Host, Host]) -> None:
    """[E4] At most one in five seconds."""
    left, right = pair
    writer = NoticeWriter()

    def due(count: int, now: float) -> int:
        return len(told(writer.due(left.device, {right.key: {"data_source": count}}, now)))

    assert due(1, 100.0) == 1
    assert due(2, 100.0 + INTERVAL_S - 0.1) == 0
    assert due(2, 100.0 + INTERVAL_S) == 1
    assert due(2, 200.0) == 0
    assert due(3, 200.0) == 1


def test_drops_of_an_earlier_life_are_not_told(pair: tuple[Host, Host]) -> None:
    """[I1] The plane went on counting while vpnd was away."""
    left, right = pair
    writer = NoticeWriter()
    writer.begin(right.key, {"data_source": 5})
    assert told(writer.due(left.device, {right.key: {"data_source": 5}}, 0.0)) == []
    assert len(told(writer.due(left.device, {right.key: {"data_source": 6}}, 0.0))) == 1


def test_drops_are_dated_when_they_are_seen_to_grow_by_whoever_asks_first(
    pair: tuple[Host, Host],
) -> None:
    left, right = pair
    writer = NoticeWriter()
    three = {"data_source": 3}
    assert writer.dropped_at(right.key, "data_source", {}, 9.0) is None
    assert writer.dropped_at(right.key, "data_source", three, 10.0) == 10.0
    told(writer.due(left.device, {right.key: three}, 11.0))
    assert writer.dropped_at(right.key, "data_source", three, 60.0) == 11.0
    assert writer.dropped_at(right.key, "data_inner", three, 60.0) is None
    writer.begin(right.key, three)
    assert writer.dropped_at(right.key, "data_source", three, 60.0) is None


def test_a_removed_peer_is_forgotten_and_one_without_drops_never_kept(pair: tuple[Host, Host]) -> None:
    left, right = pair
    writer = NoticeWriter()
    assert told(writer.due(left.device, {right.key: {}}, 0.0)) == []
    assert len(told(writer.due(left.device, {right.key: {"data_source": 1}}, 0.0))) == 1
    writer.forget(right.key)
    writer.forget(right.key)
    assert len(told(writer.due(left.device, {right.key: {"data_source": 1}}, 0.1))) == 1


# -- pings --


def test_an_answer_finds_who_waits_for_it_and_nobody_else() -> None:
    async def story() -> None:
        pings = Pings()
        first, one = pings.expect(PEER)
        second, two = pings.expect(PEER)
        assert first != second
        pings.answered(OTHER, first, 9.0)
        pings.answered(PEER, second, 0.25)
        assert two.result() == 0.25
        assert not one.done()
        pings.answered(PEER, first, 0.5)
        pings.answered(PEER, first, 0.7)
        assert one.result() == 0.5

    asyncio.run(story())


def test_nobody_waits_for_an_answer_that_was_given_up() -> None:
    """[I7] Neither is it kept."""

    async def story() -> None:
        pings = Pings()
        number, answer = pings.expect(PEER)
        answer.cancel()
        await asyncio.sleep(0)
        pings.answered(PEER, number, 0.5)
        assert answer.cancelled()
        assert not pings._waiting

    asyncio.run(story())


# -- settings --


def test_an_instances_files_lie_in_its_own_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    settings = Settings("site", Path("/e/site.toml"), Path("/r/site"), Path("/l/site"), "info")
    assert settings.control_socket == Path("/r/site/control.sock")
    assert settings.plane_socket == Path("/r/site/plane.sock")
    assert settings.credentials is None


@pytest.mark.parametrize(
    ("value", "expected"), [("/run/credentials/x", Path("/run/credentials/x")), ("", None)]
)
def test_credentials_are_where_systemd_says(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: Path | None
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", value)
    settings = Settings("site", Path("x"), Path("x"), Path("x"), "info")
    assert settings.credentials == expected
