"""A connection to one daemon's control socket.

Owns the socket, its timeouts, and the wording of what can go wrong with it. Knows requests
and replies only as vpnd.control gives them.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from vpnd.control import REPLY_LIMIT, Request, decode_reply, encode_request, from_json
from vpnd.errors import ControlError

T = TypeVar("T")

SOCKET_NAME = "control.sock"
_BUFFER_SIZE = 256 * 1024  # a status of ten thousand peers is megabytes
ANSWER_TIMEOUT_S = 10.0  # a daemon answers from memory; slower means it hangs


class Client:
    """One open connection; requests go one after the other. `instance` is the daemon's name."""

    def __init__(self, instance: str, connection: socket.socket) -> None:
        self.instance = instance
        self._socket = connection
        self._reader = connection.makefile("rb", buffering=_BUFFER_SIZE)

    def ask(self, request: Request, kind: type[T], *, timeout_s: float = ANSWER_TIMEOUT_S) -> T:
        """Sends a request and gives its one answer. Raises ControlError."""
        return self._read(kind, self.ask_json(request, timeout_s=timeout_s))

    def ask_json(self, request: Request, *, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        """Sends a request and gives its one answer as JSON. Raises ControlError."""
        self._send(request, timeout_s)
        return self._receive(timeout_s)

    def stream(self, request: Request, *, timeout_s: float | None = ANSWER_TIMEOUT_S) -> Iterator[Any]:
        """Sends a request and gives its answers as JSON for as long as the caller asks; each one may
        take `timeout_s`, or without one for ever. Raises ControlError.
        """
        self._send(request, timeout_s)
        while True:
            yield self._receive(timeout_s)

    def take_descriptor(self, request: Request, kind: type[T]) -> tuple[T, int]:
        """Sends a request, the connection's only one, and gives its answer with the descriptor that came
        with it, which is the caller's to close. Raises ControlError.
        """
        self._send(request, ANSWER_TIMEOUT_S)
        try:
            first, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        except TimeoutError:
            raise self._silent(ANSWER_TIMEOUT_S) from None
        except OSError:
            raise self._gone() from None
        try:
            report = self._read(kind, self._receive(ANSWER_TIMEOUT_S, first))
        except ControlError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        if not descriptors:
            raise ControlError("refused", f"{self.instance} answers without the descriptor")
        return report, descriptors[0]

    def check_silence(self) -> None:
        """Returns while the daemon says nothing. Raises ControlError: what it says, or that it is gone."""
        if select.select([self._socket], [], [], 0)[0]:
            self._receive(ANSWER_TIMEOUT_S)

    def read(self, kind: type[T], value: Any) -> T:
        """Gives an answer its shape, one of `ask_json` or of `stream`. Raises ControlError."""
        return self._read(kind, value)

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, request: Request, timeout_s: float | None) -> None:
        self._socket.settimeout(timeout_s)
        try:
            self._socket.sendall(encode_request(request))
        except TimeoutError:
            raise self._silent(timeout_s) from None
        except OSError:
            return  # a daemon that turns us away says why, then closes: reading tells

    def _receive(self, timeout_s: float | None, first: bytes = b"") -> Any:
        try:
            line = first + self._reader.readline(REPLY_LIMIT)
        except TimeoutError:
            raise self._silent(timeout_s) from None
        except OSError:
            raise self._gone() from None
        if not line.endswith(b"\n"):
            raise self._gone()
        return decode_reply(line)

    def _read(self, kind: type[T], value: Any) -> T:
        try:
            return from_json(kind, value)
        except ValueError as error:
            raise ControlError("refused", f"{self.instance} answers in another language: {error}") from None

    def _silent(self, timeout_s: float | None) -> ControlError:
        return ControlError("timed-out", f"{self.instance} did not answer within {timeout_s:g} s")

    def _gone(self) -> ControlError:
        return ControlError("not-running", f"{self.instance} closed the connection before it answered")


def connect(instance: str, runtime_dir: Path) -> Client:
    """Opens the instance's socket. Raises ControlError: "not-running", "not-permitted", "timed-out"."""
    path = runtime_dir / instance / SOCKET_NAME
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_TIMEOUT_S)
    try:
        connection.connect(str(path))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        connection.close()
        raise ControlError("not-running", f"{instance} is not running; nothing listens on {path}") from None
    except PermissionError:
        connection.close()
        raise ControlError("not-permitted", f"{path}: permission denied; be root or in vpnd-admin") from None
    except BlockingIOError:  # the backlog is full; a unix socket does not wait for its turn
        connection.close()
        raise ControlError("timed-out", f"{instance} takes no connection; {path} is busy") from None
    except OSError as error:
        connection.close()
        raise ControlError("usage", f"{path}: {error}") from None
    return Client(instance, connection)
