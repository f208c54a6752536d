"""The AppArmor profiles, as far as their own compiler judges them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PROFILES = Path(__file__).resolve().parent.parent.parent / "debian/apparmor"


def compile_profile(profile: Path) -> subprocess.CompletedProcess[str]:
    """Compiles a profile without loading it: the kernel need not have AppArmor."""
    if shutil.which("apparmor_parser") is None:
        pytest.skip("apparmor is not installed")
    words = ["apparmor_parser", "--skip-kernel-load", "--skip-cache", str(profile)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("name", ["usr.sbin.vpnd", "usr.lib.vpnd.vpnd-plane"])
def test_a_profile_compiles(name: str) -> None:
    done = compile_profile(PROFILES / name)
    assert done.returncode == 0, done.stderr


def test_a_profile_with_a_mistake_does_not_compile(tmp_path: Path) -> None:
    text = (PROFILES / "usr.sbin.vpnd").read_text()
    (tmp_path / "profile").write_text(text.replace("capability net_admin,", "capability net_admn,"))
    assert compile_profile(tmp_path / "profile").returncode != 0
