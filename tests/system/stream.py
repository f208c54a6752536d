"""Traffic that is watched while something happens to a machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.lab.namespaces import Host

_GAP = (sys.executable, "-m", "tests.system.gap")


@dataclass
class Seen:
    """What a steady stream went through: datagrams sent and lost, and the longest silence."""

    sent: int = 0
    lost: int = 0
    gap_ms: float = 0.0


@contextmanager
def stream(sender: Host, receiver: Host, address: str, *, mbit: int, size: int = 1200) -> Iterator[Seen]:
    """Sends numbered datagrams while the block runs; what came of them stands in the value afterwards."""
    seen = Seen()
    hears = _start(receiver, "receive", address)
    assert hears.stdout is not None
    assert hears.stdout.readline() == b"ready\n"
    sends = _start(sender, "send", address, str(mbit), str(size))
    try:
        yield seen
    finally:
        sent, _ = sends.communicate(b"\n", timeout=20)
        received, _ = hears.communicate(b"\n", timeout=20)
    seen.sent = int(sent)
    count, gap_ms = received.split()
    seen.lost, seen.gap_ms = seen.sent - int(count), float(gap_ms)


def _start(host: Host, *words: str) -> subprocess.Popen[bytes]:
    return host.start(*_GAP, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
