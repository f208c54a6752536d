"""A short run of every fuzz target, from the same seed each time.

A long one is `build/fuzz/vpnd/plane/c/fuzz-<name> <a folder for what it finds>`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.plane import building

TARGETS = sorted(path.stem for path in Path(__file__).parent.glob("*.c"))
RUNS = 20_000


def test_every_target_is_found() -> None:
    assert len(TARGETS) >= 5


@pytest.mark.parametrize("name", TARGETS)
def test_random_input_finds_no_error(name: str, tmp_path: Path) -> None:
    """[H3] No crash, no sanitizer report, and what each target promises holds."""
    if building.sanitizer():
        pytest.skip("the fuzz targets bring sanitizers of their own")
    program = building.fuzz_target(name)
    command = [str(program), f"-runs={RUNS}", "-seed=1", "-max_len=2048", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {RUNS} runs" in done.stderr
