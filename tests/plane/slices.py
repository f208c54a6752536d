"""How long a slice of processor time a thread has, as sched_getattr(2) tells."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from pathlib import Path

SHORT_NS = 100_000

_CALLS = {"x86_64": 315, "aarch64": 275}
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # struct sched_attr, its first version; the runtime is the sixth
_libc = ctypes.CDLL(None, use_errno=True)


def kernel_knows_slices() -> bool:
    """Tells whether the wish for a slice means anything: since Linux 6.12."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (6, 12)


def slice_ns(thread: int) -> int:
    """0 before Linux 6.12."""
    content = ctypes.create_string_buffer(_ATTRIBUTES.size)
    if _libc.syscall(_CALLS[platform.machine()], thread, content, _ATTRIBUTES.size, 0) != 0:
        raise OSError(ctypes.get_errno(), "sched_getattr")
    return int(_ATTRIBUTES.unpack(content.raw)[5])


def slices_of(process: int) -> list[int]:
    """Those of all threads, in ns."""
    return [slice_ns(int(each.name)) for each in Path(f"/proc/{process}/task").iterdir()]
