"""What a thief of our memory would find after the handshakes: the static key, and no more."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.protocol.wiped_secrets import static_key

ROOT = Path(__file__).parents[2]
WRITABLE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw")
PROGRAM = [sys.executable, "-m", "tests.protocol.wiped_secrets"]


def memory_of(process: int) -> bytes:
    """Everything the process can write to, in one piece."""
    pieces = []
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            match = WRITABLE.match(line)
            if match is None:
                continue
            start, end = int(match[1], 16), int(match[2], 16)
            memory.seek(start)
            try:
                pieces.append(memory.read(end - start))
            except OSError:  # a guard page
                continue
    return b"".join(pieces)


def secrets_of_the_run() -> dict[bytes, str]:
    told = subprocess.run([*PROGRAM, "tell"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.split(" ", 1) for line in told.stdout.splitlines()]
    return {bytes.fromhex(value): name for name, value in lines}


def test_after_the_handshakes_no_secret_of_theirs_is_left_in_memory() -> None:
    """[G6] Ephemerals, shared secrets, states, field and transport keys: 0 hits in another process's memory.

    That the search works is shown by the static key, which has to be there.
    """
    if not Path("/proc/self/mem").exists():
        pytest.skip("/proc/PID/mem is not here")
    secrets = secrets_of_the_run()
    assert sorted(set(secrets.values())) == ["derived", "ephemeral", "shared", "state"]
    assert len(secrets) > 30
    with subprocess.Popen(
        [*PROGRAM, "keep"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            memory = memory_of(process.pid)
        finally:
            process.stdin.close()
    assert static_key("left").expose() in memory
    found = {name for value, name in secrets.items() for part in (value[:32], value[-32:]) if part in memory}
    assert found == set()
