"""A daemon's control socket without a daemon behind it.

Serves real connections on a real socket from one thread, answers as it is told, and remembers
what it was asked. Speaks the language through vpnd.control, as the daemon does.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from vpnd.control import Request, decode_request, encode_error, encode_reply
from vpnd.errors import ControlError

Answers = Mapping[type[Any], Iterable[object]]


class FakeDaemon:
    """Answers each kind of request with its list: reports, ControlErrors, or raw bytes as they stand.

    After raw bytes the connection is closed, like that of a daemon that dies. A request without a
    list is refused as "usage". `descriptor` goes with the first byte of every answer.
    """

    def __init__(
        self, runtime_dir: Path, instance: str, answers: Answers, *, descriptor: int | None = None
    ) -> None:
        self.path = runtime_dir / instance / "control.sock"
        self.requests: list[Request] = []
        self._answers = answers
        self._descriptors = [] if descriptor is None else [descriptor]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, name=f"fake {instance}")
        self._thread.start()

    def __enter__(self) -> FakeDaemon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """Ends like a killed process: the socket file stays, nothing listens on it."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as reader, contextlib.suppress(OSError):
                for line in reader:
                    if not self._answer(connection, line):
                        break

    def _answer(self, connection: socket.socket, line: bytes) -> bool:
        request = decode_request(line)
        self.requests.append(request)
        unknown = [ControlError("usage", f"the fake has no answer to {request}")]
        for answer in self._answers.get(type(request), unknown):
            if isinstance(answer, bytes):
                connection.sendall(answer)
                return False
            is_error = isinstance(answer, ControlError)
            line = encode_error(answer) if is_error else encode_reply(answer)  # type: ignore[arg-type]
            socket.send_fds(connection, [line[:1]], self._descriptors)
            connection.sendall(line[1:])
        return True
