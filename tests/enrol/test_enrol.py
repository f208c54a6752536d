"""A machine tells its key: what counts as known, and what is said where the hub does not answer."""

from __future__ import annotations

import pytest

from tests.enrol.hub import DATA, HUB, Hub, WireLine, identity
from tests.enrol.test_token import TERMS
from vpnd.endpoint import Endpoint
from vpnd.enrol.enrol import enrol
from vpnd.enrol.token import Token
from vpnd.errors import ControlError
from vpnd.keys import Secret
from vpnd.protocol.constants import EnrolAnswer

ONCE, OWN = identity(2), identity(3)
TOKEN = Token(identity(1).public, Secret.copy_of(identity(2).private.expose()), None, TERMS)


class Lines:
    """Opens lines to a hub and keeps them."""

    def __init__(self, hub: Hub) -> None:
        self.opened: list[WireLine] = []
        self._hub = hub

    def __call__(self, endpoint: Endpoint) -> WireLine:
        assert endpoint == HUB
        self.opened.append(WireLine(self._hub))
        return self.opened[-1]


@pytest.fixture
def hub() -> Hub:
    """One that invited the token's key."""
    return Hub(ONCE.public)


def test_a_key_that_the_hub_took_is_told_and_no_more_is_asked(hub: Hub) -> None:
    lines = Lines(hub)
    enrol(TOKEN, OWN, HUB, may_be_known=False, open_line=lines)
    assert hub.told == [OWN.public]
    assert [line.is_closed for line in lines.opened] == [True]


def test_a_token_is_not_shown_to_a_hub_that_knows_us_already() -> None:
    hub = Hub(ONCE.public, OWN.public)
    enrol(TOKEN, OWN, HUB, may_be_known=True, open_line=Lines(hub))
    assert hub.told == []


def test_a_join_that_did_not_come_so_far_shows_its_token_after_all(hub: Hub) -> None:
    enrol(TOKEN, OWN, HUB, may_be_known=True, open_line=Lines(hub))
    assert hub.told == [OWN.public]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (EnrolAnswer.REFUSED, "hub refuses the key of this machine"),
        (EnrolAnswer.NOT_NOW, "hub cannot write down"),
    ],
)
def test_a_hub_that_does_not_take_the_key_is_named(hub: Hub, answer: EnrolAnswer, text: str) -> None:
    hub.answer = answer
    with pytest.raises(ControlError, match=text) as caught:
        enrol(TOKEN, OWN, HUB, may_be_known=False, open_line=Lines(hub))
    assert caught.value.code == "refused"


def test_an_answer_that_got_lost_is_made_up_for_by_a_handshake_under_our_own_key(hub: Hub) -> None:
    class Forgetful(Lines):
        def __call__(self, endpoint: Endpoint) -> WireLine:
            if self.opened:
                hub.know(OWN.public)
            line = super().__call__(endpoint)
            if len(self.opened) == 1:
                line.on_way = lambda datagram: [] if datagram[0] == DATA else [datagram]
            return line

    enrol(TOKEN, OWN, HUB, may_be_known=False, open_line=Forgetful(hub))
    assert set(hub.told) == {OWN.public}


@pytest.mark.parametrize("may_be_known", [False, True])
def test_a_token_that_was_used_expired_or_forged_is_told_with_all_it_may_be(may_be_known: bool) -> None:
    """And it takes a bounded time: the hub answers no stranger."""
    hub = Hub(identity(4).public)
    lines, began = Lines(hub), hub.clock.now
    with pytest.raises(ControlError, match="used before, has expired or was taken back") as caught:
        enrol(TOKEN, OWN, HUB, may_be_known=may_be_known, open_line=lines)
    assert caught.value.code == "timed-out"
    assert hub.clock.now - began == pytest.approx(16.0 if may_be_known else 12.0, abs=0.2)
    assert all(line.is_closed for line in lines.opened)


def test_a_hub_that_is_away_is_a_time_that_was_over(hub: Hub) -> None:
    hub.is_away = True
    with pytest.raises(ControlError, match=r"no answer from 192\.0\.2\.1:5180") as caught:
        enrol(TOKEN, OWN, HUB, may_be_known=False, open_line=Lines(hub))
    assert caught.value.code == "timed-out"
