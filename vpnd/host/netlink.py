"""A conversation with the kernel's rtnetlink: one request, its answers, or an OSError.

Owns the socket; pyroute2 owns the language: every message is one of its classes, but for routes
(route_messages.py) and the writing of rules. Its own sockets are not used, because since 0.9 they
drive an asyncio loop and refuse to work in a thread whose loop runs already, which is where the daemon
lives. This one is plain and blocking, and the kernel answers before `send` returns. Safe on a loop's
thread and in an executor alike; a Netlink belongs to the thread that opened it and to the network
namespace that thread was in.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple

# linux/netlink.h
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
_NLM_F_DUMP_INTR, _NLM_F_ACK_TLVS = 0x10, 0x200
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLMSGERR_ATTR_MSG = 1
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")  # its length with this, its kind
_NUMBER = struct.Struct("=HHI")  # the same of a number of 32 bits, with it
_NLA_TYPE_MASK = 0x3FFF

# The kernel fills at most 32 KiB per dump message; a single link with many queues may be larger.
_RECEIVE_BYTES = 256 * 1024
_ANSWER_TIMEOUT_S = 5
_DUMP_TRIES = 8
_NEWS_READS = 256  # at once; the socket stays readable for the rest


class Frame(NamedTuple):
    """One netlink message as it came: its header's fields, and all of its bytes."""

    kind: int
    flags: int
    sequence: int
    data: bytes


class Netlink:
    """An open rtnetlink socket, to be used as a context manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._sequence = 0
        self._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _ANSWER_TIMEOUT_S, 0)
        )
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            try:
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:  # an older kernel: answers are then only longer or less wordy
                continue

    def __enter__(self) -> Netlink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def dump(self, message: Any, kind: int) -> list[Any]:
        """Gives all objects that match `message`, decoded into its class.

        A listing that the kernel says was disturbed by a change is asked for again.
        """
        frames = _undisturbed(lambda: self._converse(message, kind, NLM_F_DUMP))
        return [_decoded(message, frame) for frame in frames]

    def dump_raw(self, body: bytes, kind: int) -> list[bytes]:
        """The same for a message that the caller has written; it and the answers are without the header."""
        frames = _undisturbed(lambda: self._converse_raw(body, kind, NLM_F_DUMP))
        return [frame.data[_HEADER.size :] for frame in frames]

    def get(self, message: Any, kind: int) -> Any:
        """Gives the one object that `message` asks for; OSError where there is none."""
        frames, _ = self._converse(message, kind, NLM_F_ACK)
        if not frames:
            raise OSError(errno.ENODATA, "the kernel acknowledged and gave no answer")
        return _decoded(message, frames[0])

    def change(self, message: Any, kind: int, flags: int = 0) -> None:
        """Makes one change; OSError with the kernel's own words where it refuses."""
        self._converse(message, kind, NLM_F_ACK | flags)

    def change_raw(self, body: bytes, kind: int, flags: int = 0) -> None:
        """Makes a change whose message the caller has written; `body` is what follows the header."""
        self._converse_raw(body, kind, NLM_F_ACK | flags)

    def _converse_raw(self, body: bytes, kind: int, flags: int) -> tuple[list[Frame], bool]:
        self._sequence += 1
        length = _HEADER.size + len(body)
        header = _HEADER.pack(length, kind, NLM_F_REQUEST | flags, self._sequence, 0)
        return self._exchange(header + body)

    def _converse(self, message: Any, kind: int, flags: int) -> tuple[list[Frame], bool]:
        self._sequence += 1
        header = message["header"]
        header["type"], header["flags"] = kind, NLM_F_REQUEST | flags
        header["sequence_number"], header["pid"] = self._sequence, 0
        message.reset()
        message.encode()
        return self._exchange(bytes(message.data))

    def _exchange(self, request: bytes) -> tuple[list[Frame], bool]:
        self._socket.send(request)
        frames: list[Frame] = []
        is_disturbed = False
        while True:
            for frame in split_frames(self._receive()):
                if frame.sequence != self._sequence:
                    continue
                is_disturbed = is_disturbed or bool(frame.flags & _NLM_F_DUMP_INTR)
                if frame.kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    _raise_refusal(frame)
                    return frames, is_disturbed
                frames.append(frame)

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            raise TimeoutError(errno.ETIMEDOUT, "the kernel gave no netlink answer") from None


def split_frames(data: bytes) -> Iterator[Frame]:
    """Cuts what one read brought into messages; ends at the first that is not whole."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        yield Frame(kind, flags, sequence, data[offset : offset + length])
        offset += (length + 3) & ~3


def read_news(source: socket.socket) -> Iterator[Frame | None]:
    """Gives the messages that wait in a socket of multicast groups, and None where the kernel dropped some
    because nobody read for long. Ends when nothing waits, at an error, and after so many reads that others
    of the loop would wait; never waits, never raises OSError.
    """
    for _ in range(_NEWS_READS):
        try:
            data = source.recv(_RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                return
            yield None
        else:
            yield from split_frames(data)


def pack_number(kind: int, value: int) -> bytes:
    """Writes an attribute that is a number of 32 bits."""
    return _NUMBER.pack(_NUMBER.size, kind, value)


def split_attributes(message: bytes, offset: int) -> Iterator[tuple[int, int, int]]:
    """Gives kind, begin and end of each attribute from `offset` on; ends at the first that is not whole."""
    while offset + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, offset)
        if length < _ATTRIBUTE.size or offset + length > len(message):
            return
        yield kind & _NLA_TYPE_MASK, offset + _ATTRIBUTE.size, offset + length
        offset += (length + 3) & ~3


def attribute(message: Any, *path: str) -> Any:
    """Gives the attribute at the end of a path of nested names, or None where a part is missing."""
    for name in path:
        if message is None or not hasattr(message, "get_attr"):
            return None
        message = message.get_attr(name)
    return message


def _undisturbed(ask: Callable[[], tuple[list[Frame], bool]]) -> list[Frame]:
    for _ in range(_DUMP_TRIES):
        frames, is_disturbed = ask()
        if not is_disturbed:
            return frames
    raise OSError(errno.EAGAIN, "the kernel's tables change too fast to be listed")


def _decoded(message: Any, frame: Frame) -> Any:
    answer = type(message)(frame.data)
    answer.decode()
    return answer


def _raise_refusal(frame: Frame) -> None:
    if len(frame.data) < _HEADER.size + 4:
        return
    (code,) = struct.unpack_from("=i", frame.data, _HEADER.size)
    if code == 0:
        return
    text = os.strerror(-code)
    # An error carries the request's header before its attributes, the end of a dump does not.
    start = _HEADER.size + 4 + (_HEADER.size if frame.kind == _NLMSG_ERROR else 0)
    if frame.flags & _NLM_F_ACK_TLVS:
        said = _kernel_words(frame.data[start:])
        text = f"{text}: {said}" if said else text
    raise OSError(-code, text)


def _kernel_words(attributes: bytes) -> str:
    for kind, begin, end in split_attributes(attributes, 0):
        if kind == _NLMSGERR_ATTR_MSG:
            return attributes[begin:end].rstrip(b"\0").decode(errors="replace")
    return ""
