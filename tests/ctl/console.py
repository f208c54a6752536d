"""Runs vpnctl as a shell would, with streams, clock and folders of the test's own."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vpnd.ctl.context import Context
from vpnd.ctl.main import execute, parse
from vpnd.ctl.terminal import Terminal


class Stream(io.TextIOWrapper):
    """A text stream into memory that may pretend to be a terminal."""

    def __init__(self, encoding: str, *, is_terminal: bool = False) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding, newline="")
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def text(self) -> str:
        self.flush()
        return self.bytes.getvalue().decode(self.encoding)


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


@dataclass
class Console:
    """The operator's shell: everything vpnctl can see of the world.

    `now` moves by `sleep` alone; `on_sleep` is called with the number of the sleep, from 1.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"
    is_terminal: bool = False
    stdin: bytes = b""
    now: float = 1000.0
    on_sleep: Callable[[int], None] = lambda _: None
    out: io.TextIOWrapper | None = None

    @property
    def runtime_dir(self) -> Path:
        return self.folder / "run"

    @property
    def config_dir(self) -> Path:
        return self.folder / "etc"

    def run(self, *argv: str) -> Result:
        folders = ["--runtime-dir", str(self.runtime_dir), "--config-dir", str(self.config_dir)]
        arguments = parse([*folders, *argv])
        memory, err = Stream(self.encoding, is_terminal=self.is_terminal), Stream(self.encoding)
        out = self.out or memory
        numbers = itertools.count(1)

        def sleep(seconds: float) -> None:
            self.now += seconds
            self.on_sleep(next(numbers))

        context = Context(
            terminal=Terminal.of(out, err, self.environment, may_colour=not arguments.no_color),
            runtime_dir=arguments.runtime_dir,
            config_dir=arguments.config_dir,
            instance=arguments.instance,
            as_json=arguments.json,
            environment=self.environment,
            stdin=io.BytesIO(self.stdin),
            clock=lambda: self.now,
            sleep=sleep,
        )
        return Result(execute(context, arguments), memory.text(), err.text())
