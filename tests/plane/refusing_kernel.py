"""The orders for refusing_kernel.c: which refusal, to whom, and how far the clock has jumped."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from tests.plane import building, sanitize

_SOURCE = Path(__file__).with_suffix(".c")
_ORDERS = struct.Struct("=qqqqq")


class RefusingKernel:
    """What a plane that was started with `environment` is answered."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "orders"
        self._file.write_bytes(_ORDERS.pack(0, 0, 0, 0, 0))
        self._library = folder / "refusing_kernel.so"
        command = ("gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
        building.run(*command, "-o", str(self._library), str(_SOURCE), "-ldl")

    def environment(self) -> dict[str, str]:
        """Of the plane. A sanitizer's library has to come before ours."""
        first = os.environ.get("LD_PRELOAD", "")
        if building.sanitizer() == "thread":
            first = sanitize.library("libtsan.so")
        return {"LD_PRELOAD": f"{first} {self._library}".strip(), "REFUSING_KERNEL": str(self._file)}

    def refuse(self, error: int, port: int) -> None:
        """Messages with UDP_SEGMENT to this port get the error from now on; 0 for none."""
        self._write(0, error, port)

    def jump(self, seconds: int) -> None:
        """CLOCK_BOOTTIME goes on from so much later than it really is."""
        self._write(2, seconds * 10**9)

    def hold(self, *, is_stuck: bool) -> None:
        """Whoever receives datagrams does not come back from it until this is over."""
        self._write(4, int(is_stuck))

    def refused(self) -> int:
        """How many messages were refused so far."""
        return int(_ORDERS.unpack(self._file.read_bytes())[3])

    def _write(self, place: int, *values: int) -> None:
        # In place: the file is mapped by the program.
        with self._file.open("r+b", buffering=0) as file:
            file.seek(place * 8)
            file.write(struct.pack(f"={len(values)}q", *values))
