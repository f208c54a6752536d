"""One connection to the plane socket: messages out, answers and events in.

Owns framing, sequence numbers, waiting and the order of events, and which requests leave together.
Refuses to know what any request means; client.py packs and reads the bodies.
"""

from __future__ import annotations

import array
import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from vpnd.errors import PlaneError
from vpnd.keys import Secret
from vpnd.plane import wire
from vpnd.plane.events import DatagramEvent, Event, PlaneGone, RequestRefused, read_event
from vpnd.plane.wire import WireType

# Messages of strangers that are kept while a request waits; the plane keeps as many.
DATAGRAMS_KEPT_MAX = 1024

_DESCRIPTOR_SIZE = array.array("i").itemsize
_HEADER = wire.HEADER.struct
_RECEIVE_MAX = wire.MESSAGE_MAX + 1  # one byte more than any message, so that a longer one shows

# Bytes of requests that leave together at most, but for the last of them. Answers shall not wait long.
GATHERED_MAX = 4096

# The sequence of events, and of requests whose success is of no interest.
UNAWAITED = 0

Frame: TypeAlias = tuple[int, int, int, bytes]  # type, sequence, error, body


class Channel:
    """Asks one request after the other and keeps every event that comes in between."""

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        """Takes over `connection`, an AF_UNIX SOCK_SEQPACKET socket."""
        connection.setblocking(False)
        self._socket = connection
        self._timeout_s = timeout_s
        self._sequence = 0
        self._events: deque[Event] = deque()
        self._datagrams_kept = 0
        self.overflowed = 0  # datagrams that found no room here
        self._is_gone = False
        self._received: deque[Frame] = deque()
        # Requests that nobody waits for; keys may be among them.
        self._gathered = Secret(wire.MESSAGE_MAX)
        self._gathered_view = self._gathered.buffer()
        self._gathered_size = 0
        self._gathers = False
        self._refused: list[PlaneError] | None = None  # while requests are done together

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._is_gone = True
        self._socket.close()

    def ask(
        self,
        request: WireType,
        body: bytes = b"",
        *,
        pass_descriptors: Sequence[int] = (),
        take_descriptors: list[int] | None = None,
    ) -> bytes:
        """Sends one request and gives the body of its answer; raises PlaneError on a refusal.

        Descriptors that come with the answer go into `take_descriptors` and belong to the caller.
        """
        sequence = self.tell(request, body, pass_descriptors=pass_descriptors)
        return self.wait_for(request, sequence, take_descriptors)

    def tell(self, request: WireType, body: bytes = b"", *, pass_descriptors: Sequence[int] = ()) -> int:
        """Sends one request, to be waited for. Gives its sequence."""
        sequence = self.next_sequence()
        header = wire.HEADER.pack(request, sequence, 0, len(body))
        self.send(header + body, pass_descriptors)
        return sequence

    def tell_only(self, request: WireType, body: bytes) -> None:
        """Sends one request that nobody waits for: only a refusal comes back, as RequestRefused."""
        self.place(request, len(body))[:] = body
        self.leave()

    def place(self, request: WireType, length: int, sequence: int = UNAWAITED) -> memoryview:
        """Gives room for the body of a request; once it is filled, `leave` follows.

        One with a `sequence` to be waited for leaves alone, when `wait_for` is called at the latest.
        """
        begin = self._gathered_size + wire.HEADER.size
        if begin + length > wire.MESSAGE_MAX or sequence != UNAWAITED:
            self.flush()
            begin = wire.HEADER.size
        _HEADER.pack_into(self._gathered_view, begin - wire.HEADER.size, request, sequence, 0, length)
        self._gathered_size = begin + length
        return self._gathered_view[begin : begin + length]

    def leave(self) -> None:
        """Sends what was placed, now or, while `gathering`, together with more; raises as `send` does."""
        if not self._gathers or self._gathered_size >= GATHERED_MAX:
            self.flush()

    @contextlib.contextmanager
    def gathering(self) -> Iterator[None]:
        """While it lasts, requests that nobody waits for leave together, with one system call for many."""
        self._gathers = True
        try:
            yield
        finally:
            self._gathers = False
            self.flush()

    def do(self, request: WireType, body: bytes) -> None:
        """Has a request done that brings nothing back: at once, or `together` with others. PlaneError."""
        if self._refused is None:
            self.ask(request, body)
        else:
            self.tell_only(request, body)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """While it lasts, what is to be done is waited for at its end only: then all of it was tried.

        Raises PlaneError, also for the first request that was refused.
        """
        refused: list[PlaneError] = []
        self._refused = refused
        try:
            with self.gathering():
                yield
            self.ask(WireType.INVENTORY)  # requests are answered in their order: refusals come before this
        finally:
            self._refused = None
        if refused:
            raise refused[0]

    def flush(self) -> None:
        """Sends what was gathered; raises as `send` does."""
        size, self._gathered_size = self._gathered_size, 0
        if size == 0:
            return
        try:
            self._send(self._gathered_view[:size])
        finally:
            self._gathered.wipe()

    def next_sequence(self) -> int:
        """Takes the number for a message that the caller frames itself."""
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        return self._sequence

    def send(self, message: bytes | memoryview, descriptors: Sequence[int] = ()) -> None:
        """Sends a whole message, header included; raises PlaneError "gone" or "timeout"."""
        self.flush()
        self._send(message, descriptors)

    def _send(self, message: bytes | memoryview, descriptors: Sequence[int] = ()) -> None:
        deadline = time.monotonic() + self._timeout_s
        while True:
            if self._is_gone:
                raise _gone()
            try:
                if descriptors:
                    socket.send_fds(self._socket, [message], list(descriptors), socket.MSG_NOSIGNAL)
                else:
                    self._socket.send(message, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                # The plane stops reading while its answers find no room, so room must be made here.
                self._take_all()
                self._wait(select.POLLIN | select.POLLOUT, deadline)
            except (BrokenPipeError, ConnectionError):
                self._take_all()
                self._is_gone = True
            except OSError as error:
                raise PlaneError("not_sent", f"the request was not sent: {error.strerror}") from error
            else:
                return

    def wait_for(self, request: WireType, sequence: int, descriptors: list[int] | None = None) -> bytes:
        """Gives the body that answers `sequence`; everything else that comes is kept as an event."""
        self.flush()
        deadline = time.monotonic() + self._timeout_s
        while True:
            message = self._receive(descriptors)
            if message is None:
                if self._is_gone:
                    raise _gone()
                self._wait(select.POLLIN, deadline)
                continue
            kind, answered, error, body = message
            if not kind & wire.REPLY or answered != sequence:
                self._keep(message)
                continue
            if error:
                raise PlaneError(*wire.error_of(error))
            if kind != request | wire.REPLY:
                raise PlaneError("bad_reply", f"{request.name} was answered with type {kind:#06x}")
            return body

    def read_events(self, limit: int | None = None) -> list[Event]:
        """What came without being asked for, in order, `limit` of it at most; never waits."""
        while limit is None or len(self._events) < limit:
            message = self._receive()
            if message is None:
                break
            self._keep(message, room=None)
        count = len(self._events) if limit is None else min(limit, len(self._events))
        events = [self._events.popleft() for _ in range(count)]
        self._datagrams_kept -= sum(isinstance(event, DatagramEvent) for event in events)
        if self._is_gone and not self._events:
            events.append(PlaneGone())
        return events

    @property
    def has_events(self) -> bool:
        """Tells of events that were received and not read: no reader of the socket hears of them."""
        return bool(self._events) or bool(self._received) or self._is_gone

    def _take_all(self) -> None:
        while (message := self._receive()) is not None:
            self._keep(message)

    def _keep(self, message: Frame, room: int | None = DATAGRAMS_KEPT_MAX) -> None:
        kind, _, error, body = message
        if not kind & wire.REPLY:
            self._keep_event(read_event(kind, body), room)
        elif error and self._refused is not None:
            self._refused.append(PlaneError(*wire.error_of(error)))
        elif error:
            name, _ = wire.error_of(error)
            self._events.append(RequestRefused(_request_name(kind), name))

    def _keep_event(self, event: Event, room: int | None) -> None:
        if isinstance(event, DatagramEvent):
            # A flood comes faster than requests leave: what it may take of our memory is bounded.
            if room is not None and self._datagrams_kept >= room:
                self.overflowed += 1
                return
            self._datagrams_kept += 1
        self._events.append(event)

    def _receive(self, descriptors: list[int] | None = None) -> Frame | None:
        """The next reply or event, or None when nothing waits or nothing will ever come."""
        if not self._received:
            self._received.extend(frames_of(self._receive_message(descriptors)))
        return self._received.popleft() if self._received else None

    def _receive_message(self, descriptors: list[int] | None) -> bytes:
        """The next message as it came; empty when nothing waits or nothing will ever come."""
        if self._is_gone:
            return b""
        try:
            # Where none are wanted, the kernel closes what descriptors a message carries.
            data = self._socket.recv(_RECEIVE_MAX) if descriptors is None else self._take(descriptors)
        except BlockingIOError:
            return b""
        except ConnectionError:
            data = b""
        self._is_gone = not data
        if len(data) > wire.MESSAGE_MAX:
            raise PlaneError("bad_reply", f"the plane sent a message of {len(data)} bytes")
        return data

    def _take(self, descriptors: list[int]) -> bytes:
        room = socket.CMSG_SPACE(wire.FDS_MAX * _DESCRIPTOR_SIZE)
        data, ancillary, _, _ = self._socket.recvmsg(_RECEIVE_MAX, room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                passed = array.array("i")
                passed.frombytes(content[: len(content) - len(content) % _DESCRIPTOR_SIZE])
                descriptors.extend(passed)
        return data

    def _wait(self, events: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._socket, events)
        if not poll.poll(max(deadline - time.monotonic(), 0.0) * 1000):
            raise PlaneError("timeout", f"the plane did not answer within {self._timeout_s:g} s")


def frames_of(message: bytes) -> Iterator[Frame]:
    """Takes a message of the plane apart; raises PlaneError "bad_reply"."""
    at = 0
    while at < len(message):
        begin = at + wire.HEADER.size
        if begin > len(message):
            raise PlaneError("bad_reply", f"the plane sent {len(message) - at} bytes where a header begins")
        kind, sequence, error, length = _HEADER.unpack_from(message, at)
        at = begin + length
        if at > len(message):
            raise PlaneError("bad_reply", "the plane sent a message whose length is not what it says")
        yield kind, sequence, error, message[begin:at]


def _request_name(kind: int) -> str:
    try:
        return WireType(kind & ~wire.REPLY).name.lower()
    except ValueError:
        return f"request_{kind:#06x}"


def _gone() -> PlaneError:
    return PlaneError("gone", "the plane closed the connection")
