"""What stands in the way of a start: one clear line in the journal each, and no restart in a loop."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.namespaces import eventually
from tests.system.machine import Machine
from tests.system.pair import Pair

GOOD = """\
[interface]
name = "vpn-other"
addresses = ["192.168.99.1/24"]
[local]
listen = ["0.0.0.0:5199"]
"""


@contextmanager
def instance(machine: Machine, text: str, *, key: bool = True) -> Iterator[None]:
    """An instance "other" with this configuration; nothing is left of it afterwards."""
    machine.write("/etc/vpnd/other.toml", text)
    if key:
        machine.run("vpnctl key gen /etc/vpnd/keys/other.key")
    try:
        yield
    finally:
        machine.run(
            "systemctl stop vpnd@other; systemctl reset-failed;"
            " rm -f /etc/vpnd/other.toml /etc/vpnd/keys/other.key"
        )
        eventually(lambda: "vpn-other" not in machine.output("ip -br link"), what="the link gone")


def started(machine: Machine) -> tuple[str, str, str]:
    """Starts the instance and tells how that ended: the unit's state, its exit status, its journal."""
    machine.run("systemctl start vpnd@other", check=False)
    state = machine.output("systemctl show -P ActiveState vpnd@other")
    status = machine.output("systemctl show -P ExecMainStatus vpnd@other")
    life = machine.output("systemctl show -P InvocationID vpnd@other")
    machine.run("journalctl --sync")
    return state, status, machine.output(f"journalctl --no-pager -o cat _SYSTEMD_INVOCATION_ID={life}")


def test_a_wrong_configuration_is_told_once_mistake_by_mistake(pair: Pair) -> None:
    machine = pair.a.machine
    wrong = GOOD.replace("192.168.99.1/24", "192.168.99.1/64").replace("5199", "70000") + "colour = 3\n"
    with instance(machine, wrong):
        state, status, journal = started(machine)
        assert (state, status) == ("failed", "78")
        for mistake in ("/64", "70000", "colour"):
            assert mistake in journal
        assert machine.output("systemctl show -P NRestarts vpnd@other") == "0"


def test_a_missing_key_is_named_with_the_command_that_makes_it(pair: Pair) -> None:
    machine = pair.a.machine
    with instance(machine, GOOD, key=False):
        state, status, journal = started(machine)
        assert (state, status) == ("failed", "78")
        assert re.search(r"/etc/vpnd/keys/other\.key.*vpnctl key gen", journal)


def test_a_link_of_another_owner_is_left_alone_and_named(pair: Pair) -> None:
    machine = pair.a.machine
    with instance(machine, GOOD):
        machine.run("ip link add vpn-other type bridge")
        try:
            state, _, journal = started(machine)
            assert state != "active"
            assert "vpn-other" in journal
            assert "bridge" in machine.output("ip -d link show vpn-other")
        finally:
            machine.run("systemctl stop vpnd@other; ip link del vpn-other")


def test_a_port_that_is_taken_is_named(pair: Pair) -> None:
    machine = pair.a.machine
    with instance(machine, GOOD.replace("5199", "5180")):
        state, _, journal = started(machine)
        assert state != "active"
        assert "5180" in journal


def test_a_read_only_etc_hinders_nothing(pair: Pair) -> None:
    machine = pair.a.machine
    with instance(machine, GOOD):
        machine.run("mount --bind /etc /etc && mount -o remount,ro,bind /etc")
        try:
            assert started(machine)[0] == "active"
        finally:
            machine.run("umount /etc")


def test_what_is_killed_for_memory_comes_back(pair: Pair) -> None:
    """As the kernel ends a process when memory is short: by SIGKILL, the daemon first, then the plane."""
    machine = pair.a.machine
    with instance(machine, GOOD):
        assert started(machine)[0] == "active"
        for unit in ("vpnd@other", "vpnd-plane@other"):
            before = machine.pid(unit)
            machine.run(f"kill -KILL {before}")
            eventually(lambda: machine.pid(unit) not in {0, before}, what=f"{unit} again")  # noqa: B023
        eventually(
            lambda: (
                machine.output("systemctl is-active vpnd@other vpnd-plane@other; true").split()
                == ["active"] * 2
            ),
            what="both",
        )


@pytest.mark.parametrize(
    ("unit", "most"), [("vpnd@site", 2.0), ("vpnd-plane@site", 1.0), ("vpnd-standby@site", 1.0)]
)
def test_the_units_are_as_little_exposed_as_is_said(pair: Pair, unit: str, most: float) -> None:
    printed = pair.a.machine.output(f"systemd-analyze security --no-pager {unit}")
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", printed)
    assert found is not None
    print(f"{unit}: exposure {found[1]}")
    assert float(found[1]) <= most
