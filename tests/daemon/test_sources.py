"""When the machine prefers another address of its own towards a peer."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from vpnd.daemon.sources import Sources, ask_again
from vpnd.endpoint import Endpoint
from vpnd.keys import PublicKey

HERE, ELSEWHERE = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
PEER, OTHER = PublicKey(bytes([1]) * 32), PublicKey(bytes([2]) * 32)
FAR = Endpoint(IPv4Address("198.51.100.1"), 5180)
FARTHER = Endpoint(IPv4Address("198.51.100.2"), 5180)


class Kernel:
    """Answers what the test says; counts the questions."""

    def __init__(self) -> None:
        self.answers: dict[Endpoint, IPv4Address | None] = {FAR: HERE, FARTHER: HERE}
        self.asked = 0

    def __call__(self, endpoint: Endpoint, mark: int) -> IPv4Address | None:
        self.asked += 1
        return self.answers[endpoint]


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def sources(kernel: Kernel) -> Sources:
    made = Sources(kernel)
    made.learn(PEER, FAR, 0)
    made.learn(OTHER, FARTHER, 0)
    return made


def moved(sources: Sources, kernel: Kernel) -> list[PublicKey]:
    return sources.compare(ask_again(sources.known, kernel))


def test_nothing_moves_while_the_kernel_prefers_the_same(sources: Sources, kernel: Kernel) -> None:
    assert moved(sources, kernel) == []


def test_a_peer_moves_once_when_the_kernel_prefers_another(sources: Sources, kernel: Kernel) -> None:
    """[C10] The others stay, and the new preference is what counts from now on."""
    kernel.answers[FAR] = ELSEWHERE
    assert moved(sources, kernel) == [PEER]
    assert moved(sources, kernel) == []
    kernel.answers[FAR] = HERE
    assert moved(sources, kernel) == [PEER]


def test_a_way_that_is_gone_for_a_while_is_no_move(sources: Sources, kernel: Kernel) -> None:
    """[C12] The route came back as it was."""
    kernel.answers[FAR] = None
    assert moved(sources, kernel) == []
    kernel.answers[FAR] = HERE
    assert moved(sources, kernel) == []


def test_a_way_that_appears_is_no_move(kernel: Kernel) -> None:
    """Nothing could have been sent from another address before."""
    sources = Sources(kernel)
    kernel.answers[FAR] = None
    sources.learn(PEER, FAR, 0)
    kernel.answers[FAR] = HERE
    assert moved(sources, kernel) == []
    kernel.answers[FAR] = ELSEWHERE
    assert moved(sources, kernel) == [PEER]


def test_a_peer_that_roamed_while_the_kernel_was_asked_is_left_alone(
    sources: Sources, kernel: Kernel
) -> None:
    """The answer is about where it was."""
    kernel.answers[FAR] = ELSEWHERE
    seen = ask_again(sources.known, kernel)
    sources.learn(PEER, FARTHER, 0)
    assert sources.compare(seen) == []
    assert sources.known[PEER].endpoint == FARTHER


def test_a_peer_is_asked_for_once_until_it_is_elsewhere(sources: Sources, kernel: Kernel) -> None:
    before = kernel.asked
    sources.learn(PEER, FAR, 0)
    sources.learn(PEER, None, 0)
    assert kernel.asked == before
    sources.learn(PEER, FAR, 7)
    sources.learn(PEER, FARTHER, 7)
    assert kernel.asked == before + 2


def test_a_removed_peer_is_forgotten(sources: Sources, kernel: Kernel) -> None:
    kernel.answers[FAR] = kernel.answers[FARTHER] = ELSEWHERE
    seen = ask_again(sources.known, kernel)
    sources.keep({PEER})
    assert sources.compare(seen) == [PEER]
