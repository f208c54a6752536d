"""`vpnctl pcap [PEER] [--inner] [--outer] [--drops] [-w FILE]`: packets as they pass, as pcapng.

Owns where they are written and when it ends: between two packets, never within one. The packets
come by memory that the plane fills; reading them is vpnd.control's, their format pcapng.py's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import PROT_READ, mmap
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from vpnd import __version__
from vpnd.control import EXIT_DONE, Pcap
from vpnd.control.capture import CAPTURE_LAYOUT, CaptureReport, Copy, Ring
from vpnd.ctl.client import Client
from vpnd.ctl.context import Context, Verb
from vpnd.ctl.pcapng import INNER, OUTER, PcapngWriter
from vpnd.errors import ControlError

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class _Recording:
    """What a capture is read from and written to."""

    client: Client
    report: CaptureReport
    ring: Ring
    writer: PcapngWriter


def run(context: Context, arguments: Namespace) -> int:
    """Writes until it is interrupted, or `-c` packets came; then tells how many there were."""
    is_plain = not (arguments.inner or arguments.outer or arguments.drops)
    request = Pcap(arguments.peer, arguments.inner or is_plain, arguments.outer, arguments.drops)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(context.open_one())
        out = stack.enter_context(_output(context, arguments.file))
        report, descriptor = client.take_descriptor(request, CaptureReport)
        memory = stack.enter_context(_mapped(report, descriptor))
        interruption = stack.enter_context(_Interruption())
        recording = _Recording(
            client,
            report,
            Ring(memory, report.slots, report.slot_size, context.clock),
            PcapngWriter(out, report.link, report.link_type, f"vpnctl {__version__}"),
        )
        try:
            _follow(context, recording, arguments.count, interruption)
        finally:
            _finish(context, recording, INNER if request.inner or request.drops else OUTER)
    return EXIT_DONE


class _Interruption:
    """Ctrl-C and `kill` ask for the end; said twice, they end the process as they do others.

    What is ignored, as by a shell's background jobs, stays so.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def __enter__(self) -> _Interruption:
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.is_asked = True
        signal.signal(number, self._before[signal.Signals(number)])


def _follow(context: Context, recording: _Recording, count: int | None, interruption: _Interruption) -> None:
    """Takes what comes until the end is asked for, and then what came before that."""
    recording.writer.flush()
    while not interruption.is_asked:
        if _take(recording, count):
            return
        recording.client.check_silence()
        context.sleep(_POLL_S)
    end = recording.ring.end
    while not _take(recording, count) and recording.ring.at < end:
        context.sleep(_POLL_S)


def _take(recording: _Recording, count: int | None) -> bool:
    """Writes what is there, up to `count` packets in all; tells whether there are that many."""
    writer, report = recording.writer, recording.report
    since_boot_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    if writer.written != count:
        for copy in recording.ring.read():
            writer.packet(copy, copy.at_ns + since_boot_ns, _comment(report, copy))
            if writer.written == count:
                break
    writer.flush()
    return writer.written == count


def _finish(context: Context, recording: _Recording, lost_on: int) -> None:
    recording.writer.statistics(time.time_ns(), recording.ring.lost, lost_on)
    recording.writer.flush()
    context.terminal.print_error(f"{recording.writer.written} packets, {recording.ring.lost} lost")


def _comment(report: CaptureReport, copy: Copy) -> str | None:
    if copy.drop is None:
        return None
    known = copy.drop < len(report.reasons)
    text = f"dropped: {report.reasons[copy.drop] if known else copy.drop}"
    if copy.peer is not None:
        text += f"; peer {report.peers.get(str(copy.peer), copy.peer)}"
    return text


@contextlib.contextmanager
def _output(context: Context, file: Path | None) -> Iterator[BinaryIO]:
    """The file, which nobody else may read, or standard output. Raises ControlError for a terminal."""
    if file is None or str(file) == "-":
        if context.terminal.out.isatty():
            raise ControlError("usage", "packets are no text: -w FILE, or | tcpdump -r -")
        yield context.terminal.out.buffer
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise ControlError("refused", f"{file}: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as out:
        yield out


@contextlib.contextmanager
def _mapped(report: CaptureReport, descriptor: int) -> Iterator[mmap]:
    try:
        if report.layout != CAPTURE_LAYOUT:
            raise ControlError("refused", "vpnd's captures have another layout; use its own vpnctl")
        memory = mmap(descriptor, 0, prot=PROT_READ)
    finally:
        os.close(descriptor)
    with memory:
        yield memory


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("peer", nargs="?", metavar="PEER", help="only this peer's, by name or public key")
    parser.add_argument("--inner", action="store_true", help="packets inside the tunnel (the default)")
    parser.add_argument("--outer", action="store_true", help="datagrams that carry the tunnel")
    parser.add_argument("--drops", action="store_true", help="what is dropped, with the reason as comment")
    parser.add_argument("-c", dest="count", type=int, default=None, metavar="N", help="end after N packets")
    parser.add_argument(
        "-w", dest="file", type=Path, default=None, metavar="FILE", help="default: standard output"
    )


VERB = Verb("pcap", "packets as they pass, for tcpdump and Wireshark", _add_arguments, run)
