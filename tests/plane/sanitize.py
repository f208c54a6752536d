"""Runs plane tests under a sanitizer: `python -m tests.plane.sanitize address|thread [pytest arguments]`.

AddressSanitizer wants to be the first library of the process, so the interpreter that loads the
leaves is started with it in place. Python does not run under ThreadSanitizer: there a C program
drives the leaves. Without arguments the tests of the leaves are run that work under the sanitizer.
"""

from __future__ import annotations

import os
import subprocess
import sys

LEAVES = {"address": "tests/plane/leaves", "thread": "tests/plane/leaves/test_threads.py"}


def library(name: str) -> str:
    """Path of the compiler's own shared library."""
    asked = ["gcc", f"-print-file-name={name}"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def environment(kind: str) -> dict[str, str]:
    """Returns the variables that a pytest under this sanitizer needs."""
    variables = {
        "VPND_SANITIZE": kind,
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        # The interpreter's own leaks would drown ours.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "TSAN_OPTIONS": "halt_on_error=1:exitcode=66",
        # Every object from malloc, so that AddressSanitizer sees its bounds.
        "PYTHONMALLOC": "malloc",
    }
    if kind == "address":
        variables["LD_PRELOAD"] = f"{library('libasan.so')} {library('libubsan.so')}"
    return variables


def main() -> None:
    kind, *arguments = sys.argv[1:] or ["address"]
    if kind not in LEAVES:
        sys.exit(f"{kind!r} is no sanitizer known here: address, thread")
    command = [sys.executable, "-m", "pytest", *(arguments or [LEAVES[kind], "-q"])]
    os.execve(sys.executable, command, {**os.environ, **environment(kind)})


if __name__ == "__main__":
    main()
