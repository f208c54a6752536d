"""From a fresh Debian to a tunnel that survives a reboot, and back to a machine without a trace."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.lab.namespaces import eventually
from tests.lab.tools import machine as shape_of
from tests.packaging.deb import ROOT
from tests.system.machine import Machine
from tests.system.pair import Pair


def traces(machine: Machine) -> list[str]:
    """What is vpnd's on the disk, by name, place or owner; the package that we brought left out."""
    named = "find / -xdev -name '*vpnd*' -not -path '/root/*'"
    owned = "find / -xdev \\( -user vpnd -o -user vpnd-plane -o -group vpnd-admin \\)"
    places = "find /etc/vpnd"
    return sorted({line for each in (named, owned, places) for line in machine.output(each).splitlines()})


def test_a_tunnel_from_two_files_that_is_there_again_after_a_reboot(bare_pair: Pair, package: Path) -> None:
    """apt, key gen, an editor, enable --now: nothing else is done."""
    sites = (bare_pair.a, bare_pair.b)
    before = {site.name: shape_of(site.machine.host) for site in sites}
    for site in sites:
        site.install(package)
    bare_pair.introduce()
    bare_pair.start()
    assert bare_pair.a.office.pings(bare_pair.a.far_office, count=3)
    for site in sites:
        machine = site.machine
        eventually(
            lambda: machine.output("systemctl show -P StatusText vpnd@site") == "1 of 1 peers up",  # noqa: B023
            what="the human line",
        )
        explained = machine.output("journalctl --sync; journalctl --no-pager -x -u vpnd@site -g '^ready'")
        assert "ready: " in explained
        assert "Subject: " in explained
        users = machine.output("ps -o user= -p $(pgrep -d, vpnd)").split()
        assert set(users) == {"vpnd", "vpnd-plane"}
    machine = bare_pair.a.machine
    machine.reboot()
    bare_pair.b.machine.reboot()
    for site in sites:
        eventually(lambda: site.office.pings(site.far_office), within_s=20, what="the tunnel")  # noqa: B023
        site.machine.run("vpnctl -i site wait --timeout 5")

    for site in sites:
        site.machine.run("systemctl stop vpnd@site")
        eventually(
            lambda: shape_of(site.machine.host) == before[site.name],  # noqa: B023
            what=f"machine {site.name} as it was",
        )
        eventually(
            lambda: site.machine.output("ls /run/vpnd; pgrep -a vpnd; true") == "",  # noqa: B023
            what="no process and no socket",
        )
        site.machine.run("apt-get purge -y vpnd", timeout_s=120)
        assert traces(site.machine) == [
            "/etc/vpnd",
            "/etc/vpnd/keys",
            "/etc/vpnd/keys/site.key",
            "/etc/vpnd/site.toml",
        ]


def test_the_tests_that_debian_runs_of_a_package_pass(bare_pair: Pair, package: Path) -> None:
    """debian/tests by autopkgtest, which installs the package itself; the other machine has no part in it."""
    machine = bare_pair.a.machine
    shutil.copytree(ROOT / "debian", machine.root / "root/source/debian")
    # "//": a tree that is built already. A booted container has all that the tests need of a machine.
    options = "--ignore-restrictions=isolation-machine"
    runner = f"cd /root && autopkgtest {options} {machine.bring(package)} source// -- null 2>&1"
    done = machine.run(runner, check=False, timeout_s=240)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "units                PASS" in done.stdout
