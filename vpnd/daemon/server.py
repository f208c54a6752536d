"""The control socket: one JSON line in, one or more out.

Owns who may connect and the framing; what a request means stands in verbs.py. A caller that is
slow, silent or gone costs its own connection and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import pwd
import socket
import struct
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from vpnd.control import REQUEST_LIMIT, Monitor, Pcap, Request, decode_request, encode_error, encode_reply
from vpnd.daemon.captures import PassesDescriptor
from vpnd.daemon.journal import Event, about
from vpnd.errors import ControlError

_log = logging.getLogger(__name__)

ADMIN_GROUP = "vpnd-admin"
REQUEST_TIMEOUT_S = 10.0  # for the request line to arrive
WRITE_TIMEOUT_S = 10.0  # for the caller to take a reply

Answer = Callable[[Request], AsyncGenerator[object, None]]


class ControlServer:
    """Serves control.sock until closed. `answer` gives the replies to a request, one by one."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self._path = path
        self._answer = answer
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens, replacing the socket a killed daemon left. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The socket is born closed to everyone else, then opened to the group.
        previous = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(previous)
        self._open_to_admins()
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=REQUEST_LIMIT)

    def _open_to_admins(self) -> None:
        with contextlib.suppress(KeyError):  # no such group, so nobody is shut out
            group = grp.getgrnam(ADMIN_GROUP).gr_gid
            try:
                os.chown(self._path, -1, group)
                self._path.chmod(0o660)
            except PermissionError:
                what = "%s is closed to %s: vpnd's own user is not in that group"
                _log.warning(what, self._path, ADMIN_GROUP, extra=about(Event.ADMINS_SHUT_OUT))

    async def close(self) -> None:
        if self._server is None:
            return  # what stands at the path is not ours
        self._server.close()
        self._server = None
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            _check_caller(writer.get_extra_info("socket"))
            while line := await asyncio.wait_for(_read_line(reader), REQUEST_TIMEOUT_S):
                if not await self._answer_line(line, reader, writer):
                    break
        except ControlError as error:
            with contextlib.suppress(OSError, TimeoutError):
                await _write(writer, encode_error(error))
        except (OSError, TimeoutError):
            pass  # the caller went away or fell silent
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer_line(
        self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answers one request; tells whether the caller may ask another."""
        try:
            request = decode_request(line)
            if isinstance(request, Monitor | Pcap):
                await self._follow(request, reader, writer)
                return False
            async for reply in self._answer(request):
                await _write(writer, encode_reply(reply))
        except ControlError as error:
            await _write(writer, encode_error(error))
        return True

    async def _follow(
        self, request: Monitor | Pcap, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Gives replies that have no end until the caller hangs up, or speaks, which is hung up on.

        Its patience with a slow one has no end either: what waits for it is bounded where it comes from.
        """
        hangs_up = asyncio.ensure_future(reader.read(1))
        pouring = asyncio.ensure_future(self._pour(request, writer))
        try:
            await asyncio.wait((hangs_up, pouring), return_when=asyncio.FIRST_COMPLETED)
        finally:
            hangs_up.cancel()
            pouring.cancel()
            ended = await asyncio.gather(hangs_up, pouring, return_exceptions=True)
        error = ended[1]
        if isinstance(error, Exception):
            raise error

    async def _pour(self, request: Request, writer: asyncio.StreamWriter) -> None:
        async with contextlib.aclosing(self._answer(request)) as replies:
            async for reply in replies:
                if isinstance(reply, PassesDescriptor):
                    line = _pass(writer, encode_reply(reply.report), reply.descriptor)
                else:
                    line = encode_reply(reply)
                writer.write(line)
                await writer.drain()


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError:
        raise ControlError("usage", f"the request is longer than {REQUEST_LIMIT} bytes") from None


async def _write(writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(line)
    await asyncio.wait_for(writer.drain(), WRITE_TIMEOUT_S)


def _pass(writer: asyncio.StreamWriter, line: bytes, descriptor: int) -> bytes:
    """Sends the first byte with the descriptor and gives the rest. Raises ControlError, OSError."""
    if writer.transport.get_write_buffer_size() > 0:
        raise ControlError("usage", "what brings a descriptor is asked on a connection of its own")
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as connection:
        socket.send_fds(connection, [line[:1]], [descriptor])
    return line[1:]


def _check_caller(connection: socket.socket) -> None:
    """Lets in root, our own user and members of the group. Raises ControlError."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, gid = struct.unpack("3i", credentials)
    if uid in (0, os.geteuid()):
        return
    if _is_admin(uid, gid):
        return
    _log.warning("uid %d was turned away from the control socket", uid, extra=about(Event.TURNED_AWAY))
    raise ControlError("not-permitted", f"only root and members of {ADMIN_GROUP} may control vpnd")


def _is_admin(uid: int, gid: int) -> bool:
    """The group counts also of a user without an account, as a unit with DynamicUser= has one."""
    with contextlib.suppress(KeyError):
        admins = grp.getgrnam(ADMIN_GROUP).gr_gid
        return admins == gid or admins in os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    return False
