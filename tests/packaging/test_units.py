"""The systemd units, as far as they can be judged without a booted machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
UNITS = ROOT / "systemd"
BIN = Path(sys.executable).parent
# A packaged program, and where this checkout has it: verify looks whether it can be run.
PROGRAMS = {
    "/usr/sbin/vpnd ": f"{BIN}/vpnd ",
    "/usr/bin/vpnctl ": f"{BIN}/vpnctl ",
    "/usr/lib/vpnd/vpnd-plane": f"{BIN}/vpnd-plane",
}
NAMES = sorted(
    path.name for path in UNITS.glob("vpnd*.*") if path.suffix in (".service", ".socket", ".target")
)
BOOT = "[Unit]\nRequires=sysinit.target sockets.target basic.target vpnd.target vpnd@site.service\n"
HARDENED = ("vpnd@.service", "vpnd-plane@.service")
# What guards a unit; the rest says what it does.
GUARDS = re.compile(
    r"(?:Private|Protect|Restrict|SystemCall|Capability|Ambient|NoNew|Lock|Memory|Device|IPAddress"
    r"|RemoveIPC|UMask|User|Group|Supplementary|TemporaryFile|Bind|ReadWrite|LimitCORE|LimitMEMLOCK|LoadCred)\w*="
)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with their programs where this checkout has them, in a folder of their own."""
    for name in NAMES:
        text = (UNITS / name).read_text()
        for packaged, here in PROGRAMS.items():
            text = text.replace(f"={packaged}", f"={here}")
        (tmp_path / name).write_text(text)
    return tmp_path


def analyze(units: Path, *words: str) -> str:
    """Gives what systemd-analyze printed; its status is judged by what it says."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        ["systemd-analyze", *words],
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{units}:", "SYSTEMD_LOG_LEVEL": "warning", "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout


def exposure(units: Path, name: str) -> float:
    said = analyze(units, "security", "--offline=yes", "--no-pager", str(units / name))
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", said)
    assert found is not None, said
    return float(found[1])


@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_nothing_to_say_about_a_unit(units: Path, name: str) -> None:
    instance = name.replace("@.", "@site.")
    assert analyze(units, "verify", "--man=no", instance) == ""


def test_a_machine_that_boots_with_an_instance_finds_no_ordering_cycle(units: Path) -> None:
    (units / "boot.target").write_text(BOOT)
    assert "cycle" not in analyze(units, "verify", "--man=no", "boot.target")


def test_an_ordering_cycle_would_be_seen(units: Path) -> None:
    (units / "boot.target").write_text(BOOT)
    with (units / "vpnd-plane@.socket").open("a") as file:
        file.write("[Unit]\nBefore=sockets.target\n")
    assert "cycle" in analyze(units, "verify", "--man=no", "boot.target")


def test_systemd_would_say_what_it_does_not_know(units: Path) -> None:
    with (units / "vpnd@.service").open("a") as file:
        file.write("[Service]\nProtectEverything=yes\n")
    assert "ProtectEverything" in analyze(units, "verify", "--man=no", "vpnd@site.service")


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("vpnd@.service", 2.0),
        ("vpnd-plane@.service", 1.0),
        ("vpnd-standby@.service", 1.0),
        ("vpnd-link@.service", 2.0),
        ("vpnd-wait-online@.service", 1.0),
    ],
)
def test_a_unit_is_exposed_no_further_than_promised(units: Path, name: str, limit: float) -> None:
    assert exposure(units, name) <= limit


def test_an_unguarded_unit_would_be_seen(units: Path) -> None:
    lines = (units / "vpnd@.service").read_text().splitlines()
    (units / "vpnd@.service").write_text("\n".join(line for line in lines if not GUARDS.match(line)))
    assert exposure(units, "vpnd@.service") > 7.0


@pytest.mark.parametrize("name", HARDENED)
def test_every_guard_has_its_reason_beside_it(name: str) -> None:
    reason = ""
    for line in (UNITS / name).read_text().splitlines():
        if line.startswith("# --") or not line:
            reason = ""  # a headline is no reason, and a reason ends with its paragraph
        elif line.startswith("#"):
            reason = line
        elif GUARDS.match(line):
            assert reason, f"{name}: {line} has no reason"


def test_the_plane_gets_no_capability_and_no_network(units: Path) -> None:
    lines = (UNITS / "vpnd-plane@.service").read_text().splitlines()
    assert {"CapabilityBoundingSet=", "AmbientCapabilities=", "PrivateNetwork=yes", "User=vpnd-plane"} <= set(
        lines
    )


def test_the_daemon_is_not_restarted_over_mistakes_in_its_configuration() -> None:
    lines = (UNITS / "vpnd@.service").read_text().splitlines()
    assert "RestartPreventExitStatus=78" in lines


@pytest.mark.parametrize("kind", ["sysusers", "tmpfiles"])
def test_users_and_folders_are_made_in_an_empty_root(tmp_path: Path, kind: str) -> None:
    if shutil.which(f"systemd-{kind}") is None:
        pytest.skip(f"systemd-{kind} is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root makes files of others")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    words = [f"systemd-{kind}", f"--root={tmp_path}", *(["--create"] if kind == "tmpfiles" else [])]
    subprocess.run([*words, str(UNITS / f"vpnd.{kind}")], check=True, capture_output=True, timeout=60)
    if kind == "sysusers":
        users = [line.split(":")[0] for line in (tmp_path / "etc/passwd").read_text().splitlines()]
        groups = [line.split(":")[0] for line in (tmp_path / "etc/group").read_text().splitlines()]
        assert {"vpnd", "vpnd-plane"} <= set(users)
        assert "vpnd-admin" in groups
    else:
        assert (tmp_path / "etc/vpnd").stat().st_mode & 0o777 == 0o755
        assert (tmp_path / "etc/vpnd/keys").stat().st_mode & 0o777 == 0o700
