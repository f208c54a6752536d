"""The control socket's server on a real socket: who may ask, how long a line may be, who may be slow."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import pwd
import socket
import stat
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from vpnd.control import REQUEST_LIMIT, Monitor, Ping, Reconnect, Request, Status
from vpnd.daemon import server
from vpnd.daemon.server import ControlServer, _check_caller
from vpnd.errors import ControlError

SOON_S = 0.1  # what the tests make of the server's patience
LARGE = 4 * 2**20  # bytes; no socket's buffer holds them


class Verbs:
    """Answers in the place of an instance, and notes what was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.is_asked = asyncio.Event()
        self.is_left = asyncio.Event()
        self.poured, self.pours = 0, True

    async def answer(self, request: Request) -> AsyncGenerator[object, None]:
        self.asked.append(request)
        self.is_asked.set()
        match request:
            case Ping(count=count):
                for number in range(count):
                    yield {"echo": number}
                    await asyncio.sleep(0)
            case Monitor(peer):
                try:
                    while peer != "quiet" and self.pours:
                        self.poured += 1
                        yield {"event": "x" * 1000}
                    await asyncio.Event().wait()
                finally:
                    self.is_left.set()
            case Reconnect("large"):
                yield {"text": "x" * LARGE}
            case Reconnect("refused"):
                yield {"first": 1}
                raise ControlError("refused", "it is disabled")
            case Reconnect("broken"):
                raise RuntimeError("a mistake of ours")
            case _:
                yield {"all": "well"}


Ask = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def serve(tmp_path: Path, story: Callable[[Ask, Verbs], Awaitable[None]]) -> None:
    """Runs `story` with a way to connect; whatever it leaves open is closed."""
    path = tmp_path / "control.sock"
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(str(path), limit=2 * LARGE)
        writers.append(writer)
        return reader, writer

    async def told() -> None:
        verbs = Verbs()
        serving = ControlServer(path, verbs.answer)
        await serving.start()
        try:
            await asyncio.wait_for(story(connect, verbs), 20)
        finally:
            for writer in writers:
                writer.close()
            await serving.close()
            # Those who served the closed connections end before the loop does.
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.wait(others, timeout=5) if others else None

    asyncio.run(told())
    assert not path.exists()


async def ask(connect: Ask, line: bytes) -> list[Any]:
    """Sends one line and gives all replies until the server or we close."""
    reader, writer = await connect()
    writer.write(line)
    writer.write_eof()
    return [json.loads(reply) for reply in (await reader.read()).splitlines()]


def test_a_request_is_answered_by_a_line(tmp_path: Path) -> None:
    async def story(connect: Ask, verbs: Verbs) -> None:
        assert await ask(connect, b'{"do": "status"}\n') == [{"ok": {"all": "well"}}]
        assert verbs.asked == [Status(None)]

    serve(tmp_path, story)


def test_one_connection_may_ask_often_and_gets_the_answers_in_order(tmp_path: Path) -> None:
    async def story(connect: Ask, _: Verbs) -> None:
        lines = b'{"do": "ping", "peer": "p", "count": 3}\n{"do": "status"}\n'
        replies = await ask(connect, lines)
        assert replies == [*({"ok": {"echo": number}} for number in range(3)), {"ok": {"all": "well"}}]

    serve(tmp_path, story)


@pytest.mark.parametrize("line", [b"nonsense\n", b"{}\n", b'{"do": "fly"}\n', b"[1]\n", b"\n", b"\xff\xfe\n"])
def test_what_is_no_request_is_answered_as_usage_and_the_connection_goes_on(
    tmp_path: Path, line: bytes
) -> None:
    async def story(connect: Ask, _: Verbs) -> None:
        replies = await ask(connect, line + b'{"do": "status"}\n')
        assert [list(reply) for reply in replies] == [["error"], ["ok"]]
        assert replies[0]["error"]["code"] == "usage"

    serve(tmp_path, story)


def test_an_error_in_the_middle_follows_the_replies_before_it(tmp_path: Path) -> None:
    async def story(connect: Ask, _: Verbs) -> None:
        replies = await ask(connect, b'{"do": "reconnect", "peer": "refused"}\n{"do": "status"}\n')
        error = {"error": {"code": "refused", "text": "it is disabled"}}
        assert replies == [{"ok": {"first": 1}}, error, {"ok": {"all": "well"}}]

    serve(tmp_path, story)


def test_the_longest_request_is_read(tmp_path: Path) -> None:
    """One byte less than the limit, its newline included."""

    async def story(connect: Ask, verbs: Verbs) -> None:
        line = b'{"do": "status"' + b" " * (REQUEST_LIMIT - 18) + b"}\n"
        assert len(line) == REQUEST_LIMIT - 1
        assert await ask(connect, line) == [{"ok": {"all": "well"}}]
        assert len(verbs.asked) == 1

    serve(tmp_path, story)


def test_a_longer_one_is_told_so_and_hung_up_on(tmp_path: Path) -> None:
    """Whoever sends megabytes without a newline costs no megabytes."""

    async def story(connect: Ask, verbs: Verbs) -> None:
        reader, writer = await connect()
        writer.write(b'{"do": "status"' + b" " * (3 * REQUEST_LIMIT) + b"}\n")
        reply = json.loads(await reader.readline())
        assert reply["error"]["code"] == "usage"
        assert str(REQUEST_LIMIT) in reply["error"]["text"]
        with contextlib.suppress(ConnectionResetError):  # for what it did not read any more
            assert await reader.read() == b""
        assert verbs.asked == []
        assert await ask(connect, b'{"do": "status"}\n') == [{"ok": {"all": "well"}}]

    serve(tmp_path, story)


def test_a_silent_caller_is_hung_up_on_and_others_are_served_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_TIMEOUT_S", SOON_S)

    async def story(connect: Ask, _: Verbs) -> None:
        reader, writer = await connect()
        writer.write(b'{"do": "sta')
        assert await ask(connect, b'{"do": "status"}\n') == [{"ok": {"all": "well"}}]
        assert await reader.read() == b""

    serve(tmp_path, story)


def test_a_caller_who_does_not_read_is_left_and_others_are_served_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[I8] The reply fills its buffer and no more."""
    monkeypatch.setattr(server, "WRITE_TIMEOUT_S", SOON_S)

    async def story(connect: Ask, verbs: Verbs) -> None:
        slow = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        slow.setblocking(False)
        slow.connect(str(tmp_path / "control.sock"))
        slow.send(b'{"do": "reconnect", "peer": "large"}\n{"do": "status"}\n')
        await verbs.is_asked.wait()
        assert await ask(connect, b'{"do": "status"}\n') == [{"ok": {"all": "well"}}]
        await asyncio.sleep(2 * SOON_S)
        assert len(verbs.asked) == 2  # its second question was never looked at
        slow.close()

    serve(tmp_path, story)


def test_a_patient_reader_gets_a_large_reply_whole(tmp_path: Path) -> None:
    async def story(connect: Ask, _: Verbs) -> None:
        ((reply),) = await ask(connect, b'{"do": "reconnect", "peer": "large"}\n')
        assert len(reply["ok"]["text"]) == LARGE

    serve(tmp_path, story)


def test_a_caller_who_leaves_in_the_middle_costs_nothing(tmp_path: Path) -> None:
    """[I7] A hundred of them, before and while they are answered."""

    async def story(connect: Ask, _: Verbs) -> None:
        for number in range(100):
            reader, writer = await connect()
            if number % 2:
                writer.write(b'{"do": "ping", "peer": "p", "count": 1000}\n')
                await reader.readline()
            writer.transport.abort()
        assert await ask(connect, b'{"do": "status"}\n') == [{"ok": {"all": "well"}}]

    serve(tmp_path, story)


@pytest.mark.parametrize("goodbye", [b"", b'{"do": "status"}\n'])
def test_one_who_watches_and_hears_nothing_is_missed_when_he_leaves_or_speaks(
    tmp_path: Path, goodbye: bytes
) -> None:
    """[I7] No event need come for that."""

    async def story(connect: Ask, verbs: Verbs) -> None:
        reader, writer = await connect()
        writer.write(b'{"do": "monitor", "peer": "quiet"}\n')
        await verbs.is_asked.wait()
        assert not verbs.is_left.is_set()
        writer.write(goodbye)
        if not goodbye:
            writer.close()
        await verbs.is_left.wait()
        if goodbye:
            assert await reader.read() == b""
        assert verbs.asked == [Monitor("quiet")]

    serve(tmp_path, story)


def test_one_who_watches_may_be_slow_without_end_and_fills_one_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[I8] He is not hung up on, and gets what was meant for him when he reads."""
    monkeypatch.setattr(server, "WRITE_TIMEOUT_S", SOON_S)

    async def story(connect: Ask, verbs: Verbs) -> None:
        slow = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        slow.setblocking(False)
        slow.connect(str(tmp_path / "control.sock"))
        slow.send(b'{"do": "monitor"}\n')
        await verbs.is_asked.wait()
        await asyncio.sleep(3 * SOON_S)
        poured = verbs.poured
        assert 0 < poured < 1000  # a megabyte; what buffers hold is less
        assert await ask(connect, b'{"do": "status"}\n') == [{"ok": {"all": "well"}}]
        assert verbs.poured == poured
        verbs.pours = False
        text = b""
        while text.count(b"\n") < poured:
            text += await asyncio.get_running_loop().sock_recv(slow, 1 << 20)
        assert not verbs.is_left.is_set()
        slow.close()
        await verbs.is_left.wait()

    serve(tmp_path, story)


def test_a_mistake_of_ours_is_not_hidden(tmp_path: Path) -> None:
    """What nobody expected reaches the loop's handler, which ends the process."""
    contexts: list[dict[str, Any]] = []

    async def story(connect: Ask, _: Verbs) -> None:
        is_told = asyncio.Event()

        def note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            contexts.append(context)
            is_told.set()

        asyncio.get_running_loop().set_exception_handler(note)
        assert await ask(connect, b'{"do": "reconnect", "peer": "broken"}\n') == []
        await is_told.wait()

    serve(tmp_path, story)
    assert isinstance(contexts[0]["exception"], RuntimeError)


# -- who may connect --


def test_the_socket_of_a_killed_daemon_is_replaced(tmp_path: Path) -> None:
    """[I1]"""
    old = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old.bind(str(tmp_path / "control.sock"))
    old.close()

    async def story(connect: Ask, _: Verbs) -> None:
        assert await ask(connect, b'{"do": "status"}\n') == [{"ok": {"all": "well"}}]

    serve(tmp_path, story)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_without_the_group_the_socket_is_the_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[I13] Also with a generous umask."""
    monkeypatch.setattr(server, "ADMIN_GROUP", "no-such-group")
    previous = os.umask(0)
    try:

        async def story(_: Ask, __: Verbs) -> None:
            assert mode_of(tmp_path / "control.sock") == 0o600
            assert os.umask(0) == 0  # ours is as it was

        serve(tmp_path, story)
    finally:
        os.umask(previous)


def test_with_the_group_the_socket_is_the_groups_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = grp.getgrgid(os.getegid())
    monkeypatch.setattr(server, "ADMIN_GROUP", group.gr_name)

    async def story(_: Ask, __: Verbs) -> None:
        path = tmp_path / "control.sock"
        assert mode_of(path) == 0o660
        assert path.stat().st_gid == group.gr_gid

    serve(tmp_path, story)


class Connection:
    """A socket as far as SO_PEERCRED goes."""

    def __init__(self, uid: int, gid: int) -> None:
        self._credentials = struct.pack("3i", 1234, uid, gid)

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option, size) == (socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return self._credentials


USER, ADMINS = 4711, 815


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with one user, "someone", and the group of those who may."""

    def user_of(uid: int) -> pwd.struct_passwd:
        if uid != USER:
            raise KeyError(uid)
        return pwd.struct_passwd(("someone", "x", USER, 100, "", "/", "/bin/sh"))

    def group_of(name: str) -> grp.struct_group:
        assert name == server.ADMIN_GROUP
        return grp.struct_group((name, "x", ADMINS, ["someone-else"]))

    monkeypatch.setattr(pwd, "getpwuid", user_of)
    monkeypatch.setattr(grp, "getgrnam", group_of)
    monkeypatch.setattr(os, "getgrouplist", lambda user, gid: [gid])
    monkeypatch.setattr(os, "geteuid", lambda: 999)


def check(uid: int, gid: int) -> None:
    _check_caller(Connection(uid, gid))  # type: ignore[arg-type]


@pytest.mark.parametrize(("uid", "gid"), [(0, 0), (0, 12345), (999, 999), (USER, ADMINS), (5000, ADMINS)])
@pytest.mark.usefixtures("accounts")
def test_root_our_own_user_and_the_groups_members_may(uid: int, gid: int) -> None:
    check(uid, gid)


@pytest.mark.usefixtures("accounts")
def test_a_member_by_a_supplementary_group_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getgrouplist", lambda user, gid: [gid, ADMINS])
    check(USER, 100)


@pytest.mark.parametrize("uid", [USER, 5000])
@pytest.mark.usefixtures("accounts")
def test_nobody_else_may_and_the_log_says_who_tried(uid: int, caplog: pytest.LogCaptureFixture) -> None:
    """A user of the machine, and one that has no account."""
    with pytest.raises(ControlError) as caught:
        check(uid, 100)
    assert caught.value.code == "not-permitted"
    assert f"uid {uid}" in caplog.text


@pytest.mark.usefixtures("accounts")
def test_without_the_group_only_root_and_we_ourselves_may(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_group(name: str) -> grp.struct_group:
        raise KeyError(name)

    monkeypatch.setattr(grp, "getgrnam", no_group)
    check(0, 0)
    with pytest.raises(ControlError):
        check(USER, ADMINS)


def test_one_who_may_not_is_told_so_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the socket: one error, and the end."""

    def refuse(_: object) -> None:
        raise ControlError("not-permitted", "only root")

    monkeypatch.setattr(server, "_check_caller", refuse)

    async def story(connect: Ask, verbs: Verbs) -> None:
        reader, _ = await connect()
        assert json.loads(await reader.read())["error"]["code"] == "not-permitted"
        assert verbs.asked == []

    serve(tmp_path, story)
