"""Names become addresses: when they are asked for again, and which of several addresses is taken."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address

import pytest

from tests.fakes.loop import run
from vpnd.daemon import resolver
from vpnd.daemon.resolver import Resolver, lookup
from vpnd.endpoint import Endpoint, EndpointName

NAME = EndpointName("berlin.example", 5180)
LINK_LOCAL = EndpointName("fe80::1%eth0", 5180)
ONE, TWO, THREE = (Endpoint(IPv4Address(f"192.0.2.{number}"), 5180) for number in (1, 2, 3))
NXDOMAIN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

Answer = tuple[Endpoint, ...] | OSError


class Names:
    """Stands for the system's resolver: answers from a list, the last answer for ever; notes when asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked_at: list[float] = []

    async def __call__(self, name: EndpointName) -> tuple[Endpoint, ...]:
        self.asked_at.append(asyncio.get_running_loop().time())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer


class Case:
    """One Resolver, what it found, and the names behind it."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.found: list[tuple[str, Endpoint]] = []
        self.resolver = Resolver(lambda peer, endpoint: self.found.append((peer, endpoint)))


def play(monkeypatch: pytest.MonkeyPatch, names: Names, story: Callable[[Case], Awaitable[None]]) -> Case:
    monkeypatch.setattr(resolver, "lookup", names)

    async def told() -> Case:
        case = Case(names)
        await story(case)
        case.resolver.close()
        return case

    return run(told())


def test_a_name_is_asked_for_when_it_is_first_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """[C13]"""

    async def story(case: Case) -> None:
        case.resolver.watch({"berlin": NAME})
        await asyncio.sleep(1)
        case.resolver.watch({"berlin": NAME})
        await asyncio.sleep(100)

    case = play(monkeypatch, Names((ONE,)), story)
    assert case.found == [("berlin", ONE)]
    assert case.names.asked_at == [0.0]


def test_a_changed_name_is_asked_for_and_the_old_one_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """[C13] By a reload."""

    async def story(case: Case) -> None:
        case.resolver.watch({"berlin": NAME})
        await asyncio.sleep(1)
        case.resolver.watch({"berlin": EndpointName("other.example", 5180)})
        await asyncio.sleep(1)
        case.resolver.watch({})
        case.resolver.again("berlin")
        await asyncio.sleep(1)

    case = play(monkeypatch, Names((ONE,), (TWO,)), story)
    assert case.found == [("berlin", ONE), ("berlin", TWO)]


def test_failures_are_repeated_at_growing_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """[C13] 2, 5, 10, 30 and then every 60 seconds."""

    async def story(case: Case) -> None:
        case.resolver.watch({"berlin": NAME})
        await asyncio.sleep(250)

    case = play(monkeypatch, Names(NXDOMAIN), story)
    assert case.found == []
    assert case.names.asked_at == [0.0, 2.0, 7.0, 17.0, 47.0, 107.0, 167.0, 227.0]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NXDOMAIN, "does not resolve (NXDOMAIN)"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "does not resolve (no answer from the name servers)"),
        (socket.gaierror(socket.EAI_FAIL, "x"), "does not resolve (the name servers failed)"),
        (socket.gaierror(socket.EAI_FAMILY, "no such family"), "does not resolve (no such family)"),
        (OSError(2, "no address of the name is IPv4"), "does not resolve (no address of the name is IPv4)"),
    ],
)
def test_a_failure_is_told_once_and_shown_until_it_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: OSError, text: str
) -> None:
    """[C13] A warning, then silence, then one line of relief."""
    caplog.set_level(logging.INFO)

    async def story(case: Case) -> None:
        case.resolver.watch({"berlin": NAME})
        await asyncio.sleep(10)
        assert case.resolver.error_of("berlin") == text
        await asyncio.sleep(10)
        assert case.resolver.error_of("berlin") is None

    case = play(monkeypatch, Names(error, error, error, (ONE,)), story)
    assert case.found == [("berlin", ONE)]
    lines = [(record.levelname, record.message, record.__dict__["VPND_PEER"]) for record in caplog.records]
    assert lines == [
        ("WARNING", f"berlin.example {text}", "berlin"),
        ("INFO", "berlin.example resolves again", "berlin"),
    ]


def test_of_several_addresses_the_next_is_taken_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """[C13] The order of the answer changes with every question, ours does not."""

    async def story(case: Case) -> None:
        case.resolver.watch({"berlin": NAME})
        for _ in range(3):
            await asyncio.sleep(1)
            case.resolver.again("berlin")
        await asyncio.sleep(1)

    case = play(monkeypatch, Names((ONE, TWO), (TWO, ONE), (ONE, TWO), (THREE,)), story)
    assert [endpoint for _, endpoint in case.found] == [ONE, TWO, ONE, THREE]


def test_two_questions_at_once_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """[C13] Failed handshakes may ask while a question is under way."""

    async def story(case: Case) -> None:
        case.resolver.watch({"berlin": NAME})
        case.resolver.again("berlin")
        await asyncio.sleep(0.5)
        case.resolver.again("berlin")
        await asyncio.sleep(100)

    case = play(monkeypatch, Names(NXDOMAIN, (ONE,)), story)
    assert case.names.asked_at == [0.0, 2.0]


def test_a_changed_network_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """[C12, C13] The line is back: no minute is waited, but no second is saved either."""

    async def story(case: Case) -> None:
        case.resolver.watch({"berlin": NAME})
        await asyncio.sleep(120)
        case.resolver.network_changed()
        case.resolver.network_changed()
        await asyncio.sleep(0.5)
        case.resolver.network_changed()
        await asyncio.sleep(5)

    case = play(monkeypatch, Names(*[NXDOMAIN] * 6, NXDOMAIN), story)
    assert case.names.asked_at[:6] == [0.0, 2.0, 7.0, 17.0, 47.0, 107.0]
    assert case.names.asked_at[6:] == [120.0, 121.0]


def test_only_link_local_addresses_are_asked_for_again_when_the_network_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """[C14, C15] The link's number may be another; the same answer is no news."""
    old = Endpoint(IPv6Address("fe80::1"), 5180, 3)
    new = Endpoint(IPv6Address("fe80::1"), 5180, 7)

    async def story(case: Case) -> None:
        case.resolver.watch({"near": LINK_LOCAL})
        await asyncio.sleep(1)
        case.resolver.network_changed()
        await asyncio.sleep(1)
        case.resolver.network_changed()
        await asyncio.sleep(1)

    case = play(monkeypatch, Names((old,), (old,), (new,)), story)
    assert case.found == [("near", old), ("near", new)]


def test_nothing_is_found_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """[I8] Questions under way end with the resolver."""

    async def story(case: Case) -> None:
        case.resolver.watch({"berlin": NAME})
        await asyncio.sleep(1)
        case.resolver.close()
        assert case.resolver.error_of("berlin") is None
        await asyncio.sleep(100)

    case = play(monkeypatch, Names(NXDOMAIN, (ONE,)), story)
    assert case.found == []


def test_an_address_written_as_a_name_is_looked_up_by_the_system() -> None:
    """[C13] Without any name server: numbers, both families, no answer twice."""

    async def ask(host: str) -> tuple[Endpoint, ...]:
        return await lookup(EndpointName(host, 5180))

    assert asyncio.run(ask("192.0.2.1")) == (ONE,)
    assert asyncio.run(ask("2001:db8::1")) == (Endpoint(IPv6Address("2001:db8::1"), 5180),)


def test_a_name_with_addresses_of_other_families_alone_does_not_resolve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """[C13]"""

    async def ask() -> tuple[Endpoint, ...]:
        loop = asyncio.get_running_loop()

        async def answer(*_: object, **__: object) -> list[tuple[object, ...]]:
            return [(socket.AF_UNIX, socket.SOCK_DGRAM, 0, "", "somewhere")]

        monkeypatch.setattr(loop, "getaddrinfo", answer)
        return await lookup(NAME)

    with pytest.raises(OSError, match="IPv4 or IPv6"):
        run(ask())
