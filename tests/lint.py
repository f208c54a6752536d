"""The formatting and typing rules as one command; formatting is itself a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PYTHON_SOURCES = ("vpnd", "tests", "benchmarks", "docs", "run")


def main() -> int:
    c_files = sorted(
        str(path) for folder in ("vpnd", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.[ch]")
    )
    commands = (
        (BIN / "ruff", "check", *PYTHON_SOURCES),
        (BIN / "ruff", "format", "--check", *PYTHON_SOURCES),
        (BIN / "mypy", "--no-error-summary"),
        ("clang-format", "--dry-run", "--Werror", *c_files),
    )
    failed = 0
    for command in commands:
        status = subprocess.call([str(word) for word in command], cwd=ROOT)
        print(f"{'ok  ' if status == 0 else 'FAIL'} {Path(command[0]).name} {command[1]}", flush=True)
        failed += status != 0
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
