"""One call of a hub: whom it lets in, what it answers, and what a network or a forger does to that."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from tests.enrol.hub import DATA, HUB, Hub, WireLine, identity
from vpnd.endpoint import Endpoint
from vpnd.enrol.caller import AGAIN_S, Caller
from vpnd.enrol.line import UdpLine
from vpnd.keys import Secret
from vpnd.protocol.constants import EnrolAnswer

ONCE, OWN = identity(2), identity(3)
KNOCK = Secret.copy_of(b"k" * 32)
PATIENCE_S = 8.0


def caller(line: WireLine, hub: Hub, *, knock: Secret | None = None, is_tap: bool = False) -> Caller:
    secret = Secret.zero() if knock is None else knock
    return Caller(line, ONCE, hub.identity.public, HUB, knock=secret, is_tap=is_tap)


def is_data(datagram: bytes) -> bool:
    return datagram[0] == DATA


def test_a_peer_is_let_in_at_once_and_the_line_is_closed_after() -> None:
    hub = Hub(ONCE.public)
    line, began = WireLine(hub), hub.clock.now
    with caller(line, hub) as calling:
        assert calling.connects(PATIENCE_S)
    assert hub.clock.now - began < AGAIN_S
    assert line.is_closed


def test_a_key_that_no_peer_has_is_answered_by_nothing() -> None:
    """As that of a token which was used, has expired, was taken back or is forged."""
    hub = Hub(OWN.public)
    began = hub.clock.now
    calling = caller(WireLine(hub), hub)
    assert not calling.connects(PATIENCE_S)
    assert calling.enrol(OWN.public, PATIENCE_S) is None
    assert hub.clock.now - began == pytest.approx(2 * PATIENCE_S, abs=0.2)
    assert hub.device.refusals["hs_unknown_peer"] > 1
    assert hub.told == []


@pytest.mark.parametrize(("knock", "is_let_in"), [(KNOCK, True), (None, False)])
def test_who_does_not_knock_as_the_hub_wants_it_is_not_heard(knock: Secret | None, is_let_in: bool) -> None:
    hub = Hub(ONCE.public, knock=KNOCK)
    assert caller(WireLine(hub), hub, knock=knock).connects(PATIENCE_S) is is_let_in


@pytest.mark.parametrize(("is_tap", "is_let_in"), [(True, True), (False, False)])
def test_both_ends_are_of_one_kind_of_link(is_tap: bool, is_let_in: bool) -> None:
    hub = Hub(ONCE.public, is_tap=True)
    assert caller(WireLine(hub), hub, is_tap=is_tap).connects(PATIENCE_S) is is_let_in


@pytest.mark.parametrize("answer", EnrolAnswer)
def test_the_hubs_answer_is_given_and_the_key_told_once(answer: EnrolAnswer) -> None:
    hub = Hub(ONCE.public)
    hub.answer = answer
    assert caller(WireLine(hub), hub).enrol(OWN.public, PATIENCE_S) is answer
    assert hub.told == [OWN.public]


def test_a_key_that_is_not_answered_is_told_again_until_the_time_is_over() -> None:
    hub = Hub(ONCE.public)
    hub.answer = None
    began = hub.clock.now
    assert caller(WireLine(hub), hub).enrol(OWN.public, PATIENCE_S) is None
    assert PATIENCE_S / AGAIN_S - 2 <= len(hub.told) <= PATIENCE_S / AGAIN_S
    assert hub.clock.now - began == pytest.approx(PATIENCE_S, abs=0.2)


@pytest.mark.parametrize(
    "is_hit", [is_data, lambda datagram: not is_data(datagram)], ids=["data", "handshake"]
)
def test_what_gets_lost_is_sent_again(is_hit: Callable[[bytes], bool]) -> None:
    hub = Hub(ONCE.public)
    line, left = WireLine(hub), iter([True, True])
    line.is_lost = lambda datagram: is_hit(datagram) and next(left, False)
    assert caller(line, hub).enrol(OWN.public, PATIENCE_S) is EnrolAnswer.DONE
    assert next(left, None) is None


def test_a_hub_that_is_away_for_a_moment_is_called_again() -> None:
    hub = Hub(ONCE.public)
    hub.is_away = True
    line, comes_at = WireLine(hub), hub.clock.now + 3.0

    def is_lost(_: bytes) -> bool:
        hub.is_away = hub.clock.now < comes_at
        return False

    line.is_lost = is_lost
    assert caller(line, hub).enrol(OWN.public, PATIENCE_S) is EnrolAnswer.DONE
    assert hub.clock.now >= comes_at


def test_a_hub_under_load_is_shown_its_cookie() -> None:
    hub = Hub(ONCE.public)
    hub.load = 1000
    assert caller(WireLine(hub), hub).enrol(OWN.public, PATIENCE_S) is EnrolAnswer.DONE
    assert hub.device.refusals["hs_cookie_sent"] == 1


FORGERIES: dict[str, Callable[[bytes], bytes]] = {
    "a bit of the content": lambda datagram: datagram[:-20] + bytes([datagram[-20] ^ 1]) + datagram[-19:],
    "a bit of the tag": lambda datagram: datagram[:-1] + bytes([datagram[-1] ^ 1]),
    "another counter": lambda datagram: datagram[:8] + bytes([datagram[8] ^ 1]) + datagram[9:],
    "another session": lambda datagram: datagram[:4] + bytes([datagram[4] ^ 1]) + datagram[5:],
    "cut short": lambda datagram: datagram[:20],
    "without a header": lambda datagram: datagram[:1],
    "empty": lambda datagram: b"",
    "of no type": lambda datagram: b"\xff" + datagram[1:],
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_what_is_forged_counts_for_nothing_and_hides_nothing(forgery: Callable[[bytes], bytes]) -> None:
    """Alone it is no answer; beside the true messages it changes nothing."""
    hub = Hub(ONCE.public)
    line = WireLine(hub)
    line.on_way = lambda datagram: [forgery(datagram) if is_data(datagram) else datagram]
    assert caller(line, hub).enrol(OWN.public, PATIENCE_S) is None
    assert not caller(line, hub).connects(PATIENCE_S)
    line.on_way = lambda datagram: [forgery(datagram), datagram, forgery(datagram), datagram]
    assert caller(line, hub).enrol(OWN.public, PATIENCE_S) is EnrolAnswer.DONE


# -- the real line --


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_line_carries_datagrams_there_and_back(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as far:
        far.bind((address, 0))
        line = UdpLine(Endpoint(ip_address(address), far.getsockname()[1]))
        assert line.receive(0.0) is None
        line.send(b"there")
        content, source = far.recvfrom(100)
        far.sendto(b"back", source)
        assert (content, line.receive(10.0)) == (b"there", b"back")
        line.close()


def test_a_line_that_leads_nowhere_is_one_on_which_nothing_comes() -> None:
    line = UdpLine(Endpoint(ip_address("240.0.0.1"), 1))
    line.send(b"there")
    assert line.receive(0.0) is None
    line.close()
