"""The meter of datagrams, over loopback."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.build import meter


def free_port() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@contextmanager
def listening(*words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([str(meter()), *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def run(*words: str) -> list[int]:
    done = subprocess.run([str(meter()), *words], capture_output=True, text=True, check=True, timeout=20)
    return [int(word) for word in done.stdout.split()]


def test_the_sink_counts_what_a_blast_sends() -> None:
    """Never more than was sent; of two sizes that take turns, half of the bytes' sum each."""
    port = free_port()
    with listening("sink", "127.0.0.1", port, "1") as sink:
        (sent,) = run("blast", "127.0.0.1", port, "1.5", "100,300")
        assert sink.stdout is not None
        counted, size, total = map(int, sink.stdout.read().split())
    assert 0 < counted < total <= sent
    assert 100 * counted < size < 300 * counted


def test_a_sink_that_hears_nothing_ends_by_itself() -> None:
    with listening("sink", "127.0.0.1", free_port(), "0.1") as sink:
        assert sink.stdout is not None
        assert sink.stdout.read().split() == ["0", "0", "0"]


def test_round_trips_come_back_from_the_echo() -> None:
    port = free_port()
    with listening("echo", "127.0.0.1", port):
        sent, *times = run("rtt", "127.0.0.1", port, "0.2")
    assert sent == 200
    assert 0 < len(times) <= sent
    assert all(0 < time < 1_000_000_000 for time in times)


def test_round_trips_without_an_echo_are_none() -> None:
    assert run("rtt", "127.0.0.1", free_port(), "0.05") == [50]
