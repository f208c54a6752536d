"""Builds what only the benchmarks need: the meter, and planes with another choice of AEAD.

Owns build/bench. A variant of the plane is the shipped one, compiled and linked by the commands
that its own build files give, with aead.c replaced by one file of benchmarks/plane; nothing of it
is installed.
"""

from __future__ import annotations

import functools
import shlex
import subprocess
from pathlib import Path

from tests.plane.building import PLANE, SOURCE, BuildError, bring_up_to_date, tool

HERE = Path(__file__).resolve().parent
BUILD = SOURCE / "build" / "bench"
PROGRAM = f"{PLANE}/vpnd-plane"
REPLACED = "aead.c"
_AS_INSTALLED = ("-Dbuildtype=release", "-Db_ndebug=if-release")  # what meson-python builds


@functools.cache
def meter() -> Path:
    """Builds benchmarks/c/meter.c and returns the program."""
    BUILD.mkdir(parents=True, exist_ok=True)
    program = BUILD / "meter"
    flags = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wconversion")
    _run(["gcc", *flags, "-o", str(program), str(HERE / "c" / "meter.c")], SOURCE)
    return program


@functools.cache
def plane_variant(name: str) -> Path:
    """Builds the plane with benchmarks/plane/aead_NAME.c in place of aead.c; returns the program."""
    directory = BUILD / "plane"
    bring_up_to_date(directory, _AS_INSTALLED, [PROGRAM])
    printed = _run([tool("ninja"), "-C", str(directory), "-t", "commands", PROGRAM], SOURCE)
    commands = [shlex.split(line) for line in printed.splitlines() if line.strip()]
    program = BUILD / f"vpnd-plane-{name}"
    for command in variant_commands(commands, HERE / "plane" / f"aead_{name}.c", program):
        _run(command, directory)
    return program


def variant_commands(commands: list[list[str]], source: Path, program: Path) -> list[list[str]]:
    """Takes all commands of the plane's build; gives the two that compile `source` and link `program`."""
    compiling = [words for words in commands if "-c" in words and Path(words[-1]).name == REPLACED]
    linking = [words for words in commands if _after(words, "-o").endswith("/vpnd-plane")]
    if len(compiling) != 1 or len(linking) != 1:
        raise BuildError(f"{len(compiling)} commands compile {REPLACED} and {len(linking)} link {PROGRAM}")
    replaced, made = _after(compiling[0], "-o"), f"{program}.o"
    swaps = {compiling[0][-1]: str(source), replaced: made, f"{replaced}.d": f"{made}.d"}
    return [
        [swaps.get(word, word) for word in compiling[0]],
        [swaps.get(word, str(program) if word == _after(linking[0], "-o") else word) for word in linking[0]],
    ]


def _after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1] if option in words else ""


def _run(command: list[str], directory: Path) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(
            f"{' '.join(command[:3])} … ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout
