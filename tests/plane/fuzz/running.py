"""One run of a fuzz target: its command, and what it printed at its end.

Owns libFuzzer's options. Knows no target.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.plane import building

INPUT_MAX = 4096  # bytes
_END_S = 60  # from the time that was asked for to the very end
_DONE = re.compile(r"^Done (\d+) runs", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended; `runs` is 0 if it was cut short by a finding."""

    status: int
    runs: int
    output: str


class Run:
    """A target at work. What it finds, and with a corpus what it learned, stays in `folder`."""

    def __init__(self, name: str, folder: Path, *options: str, keeps_corpus: bool = False) -> None:
        corpus = folder / "corpus"
        if keeps_corpus:
            corpus.mkdir(parents=True, exist_ok=True)
        command = [
            *(str(building.fuzz_target(name)), f"-artifact_prefix={folder}/", f"-max_len={INPUT_MAX}"),
            *("-print_final_stats=1", *options, *([str(corpus)] if keeps_corpus else [])),
        ]
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def wait(self, seconds: float) -> Outcome:
        """Waits for the end, which is due after so long."""
        output, _ = self._process.communicate(timeout=seconds + _END_S)
        done = _DONE.search(output)
        return Outcome(self._process.returncode, int(done[1]) if done else 0, output)
