"""The Debian package, built as ./run deb builds it and installed in a root that knows nothing of us."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.deb import OTHER, USUAL, build, compare
from tests.packaging.roots import RootError, bare_root, run_in, scratch

RELEASE = "bookworm"
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="a root of its own takes root"),
]

INSTALL = """
set -e
apt-get update -q
apt-get install -y -q --no-install-recommends /package/vpnd_*.deb
"""
KEPT = "/etc/vpnd/keys/site.key"


@dataclass(frozen=True)
class Machine:
    """A minimal root with the package in it; what is done there goes with the test run."""

    root: Path
    changes: Path

    def run(self, script: str) -> str:
        return run_in(self.root, self.changes, ["sh", "-c", script])


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """What a build leaves, after lintian found nothing in it."""
    return build(RELEASE, USUAL, lint=True)


@pytest.fixture(scope="module")
def machine(files: dict[str, bytes]) -> Iterator[Machine]:
    root = bare_root(RELEASE)
    with scratch() as changes:
        package = changes / "upper/package"
        package.mkdir()
        for name, content in files.items():
            if name.endswith(".deb"):
                (package / name).write_bytes(content)
        each = Machine(root, changes)
        each.run(INSTALL)
        yield each


def test_a_build_gives_a_package_its_source_and_nothing_else(files: dict[str, bytes]) -> None:
    kinds = {".deb", ".dsc", ".xz", ".buildinfo", ".changes"}
    assert {Path(name).suffix for name in files} == kinds


def test_two_builds_in_other_surroundings_give_the_same_bytes(files: dict[str, bytes]) -> None:
    compare(files, build(RELEASE, OTHER))


def test_a_difference_would_be_seen(files: dict[str, bytes]) -> None:
    changed = {name: content + b"\0" for name, content in files.items()}
    with pytest.raises(RootError, match=r"two builds differ: vpnd"):
        compare(files, changed)


def test_the_programs_run_with_the_release_s_own_libraries(machine: Machine) -> None:
    said = machine.run("vpnd --version; vpnctl --version; /usr/lib/vpnd/vpnd-plane --version")
    names = [line.split()[0] for line in said.splitlines()]
    assert names == ["vpnd", "vpnctl", "vpnd-plane"]


def test_a_configuration_is_checked_and_its_mistakes_are_told(machine: Machine) -> None:
    said = machine.run(
        "cp /usr/share/doc/vpnd/examples/tap.toml /etc/vpnd/lan.toml;"
        "vpnctl key gen /etc/vpnd/keys/lan.key >/dev/null; vpnctl check /etc/vpnd/lan.toml;"
        "sed -i s/tap/tub/ /etc/vpnd/lan.toml; vpnctl check /etc/vpnd/lan.toml; echo status $?;"
        "rm /etc/vpnd/lan.toml /etc/vpnd/keys/lan.key"
    )
    assert "no mistakes" in said
    assert "status 78" in said


def test_users_groups_and_folders_are_there(machine: Machine) -> None:
    said = machine.run(
        "getent passwd vpnd vpnd-plane | cut -d: -f1,7; getent group vpnd-admin | cut -d: -f1;"
        "stat -c '%n %a %U' /etc/vpnd /etc/vpnd/keys"
    )
    assert said.splitlines() == [
        "vpnd:/usr/sbin/nologin",
        "vpnd-plane:/usr/sbin/nologin",
        "vpnd-admin",
        "/etc/vpnd 755 root",
        "/etc/vpnd/keys 700 root",
    ]


def test_systemd_has_nothing_to_say_about_the_installed_units(machine: Machine) -> None:
    units = "vpnd@site.service vpnd-plane@site.service vpnd-plane@site.socket"
    units += " vpnd-standby@site.service vpnd-standby@site.socket vpnd-link@site.service"
    units += " vpnd-wait-online@site.service vpnd.target"
    said = machine.run(f"for unit in {units}; do systemd-analyze verify --man=no $unit; done")
    assert said == ""


def test_manual_pages_and_completion_lie_where_they_are_looked_for(machine: Machine) -> None:
    # A minimal root leaves manual pages out as they are unpacked; the package's own list has them.
    listed = machine.run("dpkg -L vpnd").split()
    for page in ("man8/vpnd.8", "man8/vpnctl.8", "man5/vpnd.toml.5", "man7/vpnd-protocol.7"):
        assert f"/usr/share/man/{page}.gz" in listed
    assert "/usr/share/bash-completion/completions/vpnctl" in listed


def test_purge_takes_the_state_and_leaves_the_keys_with_a_notice(machine: Machine) -> None:
    said = machine.run(
        f"mkdir -p /var/lib/vpnd/site; vpnctl key gen {KEPT} >/dev/null;"
        "DEBIAN_FRONTEND=noninteractive apt-get purge -y -q vpnd 2>&1"
    )
    assert "the keys in /etc/vpnd/keys are kept" in said
    left = machine.run(f"ls -d /var/lib/vpnd {KEPT} /usr/lib/vpnd /usr/sbin/vpnd 2>/dev/null || true")
    assert left.split() == [KEPT]
    again = machine.run(f"{INSTALL} rm {KEPT}; apt-get purge -y -q vpnd 2>&1; ls -d /etc/vpnd || true")
    assert "are kept" not in again
    assert "cannot access '/etc/vpnd'" in again
