"""Clocks that a test moves under a running daemon and its plane: sleep, and a wall clock that is set.

Owns the shim (shifted_clock.c), built once per lab, and one file of shifts per machine. The programs are
the installed ones; only what the C library tells them of two clocks is changed.
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from tests.lab.vpnd import Vpnd

_SOURCE = Path(__file__).with_name("shifted_clock.c")
_SHIFTS = struct.Struct("=qq")


class ShiftedClock:
    """The clocks of one machine's daemon and plane, which must not have been started yet."""

    def __init__(self, vpnd: Vpnd) -> None:
        self._file = vpnd.host.folder / "clock"
        self._boottime_s = self._realtime_s = 0.0
        self._write()
        vpnd.environment |= {"LD_PRELOAD": str(_shim(vpnd.host.lab.folder)), "SHIFTED_CLOCK": str(self._file)}

    def sleep(self, seconds: float) -> None:
        """Lets the machine have been asleep for so long, just now."""
        self._boottime_s += seconds
        self._realtime_s += seconds
        self._write()

    def set_wall_clock(self, shift_s: float) -> None:
        """Sets the wall clock to so much after what it really is."""
        self._realtime_s = shift_s
        self._write()

    def _write(self) -> None:
        shifts = _SHIFTS.pack(int(self._boottime_s * 1e9), int(self._realtime_s * 1e9))
        # In place: the file is mapped by those who read it.
        if self._file.exists():
            with self._file.open("r+b", buffering=0) as file:
                file.write(shifts)
        else:
            self._file.write_bytes(shifts)


def _shim(folder: Path) -> Path:
    library = folder / "shifted_clock.so"
    if not library.exists():
        command = ("gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
        subprocess.run([*command, "-o", library, _SOURCE, "-ldl"], check=True)
    return library
