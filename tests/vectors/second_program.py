"""Builds and asks the second implementation of the handshake, a small C program beside this file.

Owns the compiler call and the line format. Refuses to know what the values mean.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCES = Path(__file__).parent / "second"
INPUT_NAMES = frozenset(
    [
        *("s_i", "s_r", "e_i", "e_r", "psk", "knock", "P1", "P2", "idx_i", "idx_r", "data"),
        *("cookie_secret", "cookie_nonce", "source", "urandom", "monotonic_ns"),
    ]
)

Vector = dict[str, str | int]


def compiler_is_here() -> bool:
    """Tells whether a C compiler and libcrypto's headers are installed."""
    if shutil.which("gcc") is None or shutil.which("pkg-config") is None:
        return False
    return subprocess.run(["pkg-config", "--exists", "libcrypto"], check=False).returncode == 0


def compile_second(into: Path) -> Path:
    """Compiles the program with warnings as errors and returns its path."""
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libcrypto"], check=True, capture_output=True, text=True
    ).stdout.split()
    program = into / "second"
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wconversion"]
    sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    command = ["gcc", "-std=c11", "-D_DEFAULT_SOURCE", "-O1", *warnings, *sources, "-o", str(program), *flags]
    subprocess.run(command, check=True)
    return program


def ask(program: Path, inputs: Mapping[str, str | int]) -> dict[str, str]:
    """Gives the inputs to the program and returns its outputs by name, in hexadecimal."""
    lines = "".join(f"{name} {value}\n" for name, value in inputs.items())
    answer = subprocess.run([str(program)], input=lines, capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in answer.stdout.splitlines())


def inputs_of(vector: Mapping[str, str | int]) -> Vector:
    """The part of a vector that goes in."""
    return {name: value for name, value in vector.items() if name in INPUT_NAMES}


def outputs_of(vector: Mapping[str, str | int]) -> Vector:
    """The part of a vector that must come out."""
    return {name: value for name, value in vector.items() if name not in INPUT_NAMES and name != "comment"}
