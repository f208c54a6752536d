"""What stands in the way of a start: one clear line in the journal each, and no restart in a loop."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
REFUSED, MISTAKEN = "1", "78"  # exit statuses: by the machine, in the configuration


@dataclass(frozen=True)
class Start:
    """How a start of the instance ended: the unit's state, its exit status, its lines in the journal."""

    state: str
    status: str
    lines: list[str]
    errors: list[str]


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
        eventually(
            lambda: machine.output("systemctl show -P ActiveState vpnd-link@other") == "inactive",
            what="the link gone",
        )


def started(machine: Machine) -> Start:
    """Starts it. It may have been tried again by the time of the look: what was said twice counts once."""
    began = machine.output("date '+%F %T.%6N'")
    machine.run("systemctl start vpnd@other", check=False)
    state = machine.output("systemctl show -P ActiveState vpnd@other")
    status = machine.output("systemctl show -P ExecMainStatus vpnd@other")
    machine.run("journalctl --sync")
    journal = f"journalctl --no-pager -q -o cat --since '{began}' SYSLOG_IDENTIFIER=vpnd VPND_INSTANCE=other"
    lines, errors = (machine.output(each).splitlines() for each in (journal, f"{journal} -p err"))
    return Start(state, status, list(dict.fromkeys(lines)), list(dict.fromkeys(errors)))


def ends_with_one_line(machine: Machine, status: str, *words: str) -> None:
    """Starts it, and sees that it ends so, with one line that holds all of `words`.

    A mistake in the configuration is not tried again; what the machine refused is, every few seconds.
    """
    start = started(machine)
    assert start.status == status
    assert len(start.errors) == 1, start.lines
    assert all(word in start.errors[0] for word in words), start.errors
    if status == MISTAKEN:
        assert start.state == "failed"
        assert machine.output("systemctl show -P NRestarts vpnd@other") == "0"
    else:
        assert start.state == "activating"


def test_a_wrong_configuration_is_told_once_mistake_by_mistake(pair: Pair) -> None:
    machine = pair.a.machine
    wrong = GOOD.replace("192.168.99.1/24", "192.168.99.1/64").replace("5199", "70000") + "colour = 3\n"
    with instance(machine, wrong):
        start = started(machine)
        assert (start.state, start.status) == ("failed", MISTAKEN)
        assert len(start.errors) == 3
        for mistake, line in zip(("/64", "70000", "colour"), start.errors, strict=True):
            assert mistake in line
        assert machine.output("systemctl show -P NRestarts vpnd@other") == "0"


def test_a_missing_key_is_named_with_the_command_that_makes_it(pair: Pair) -> None:
    with instance(pair.a.machine, GOOD, key=False):
        ends_with_one_line(pair.a.machine, MISTAKEN, "/etc/vpnd/keys/other.key", "vpnctl key gen")


def test_a_key_that_every_user_can_read_is_refused_though_systemd_hands_it_over(pair: Pair) -> None:
    machine = pair.a.machine
    with instance(machine, GOOD):
        machine.run("chmod 755 /etc/vpnd/keys && chmod 644 /etc/vpnd/keys/other.key")
        try:
            ends_with_one_line(machine, MISTAKEN, "chmod 600 /etc/vpnd/keys/other.key")
        finally:
            machine.run("chmod 700 /etc/vpnd/keys")


def test_a_machine_without_the_tun_device_is_told_how_to_get_it(pair: Pair) -> None:
    machine = pair.a.machine
    with instance(machine, GOOD), machine.drop_in("vpnd@other", "PrivateDevices=yes"):
        ends_with_one_line(machine, REFUSED, "/dev/net/tun is missing", "modprobe tun")


def test_a_tun_device_that_may_not_be_opened_is_named(pair: Pair) -> None:
    machine = pair.a.machine
    with instance(machine, GOOD), machine.drop_in("vpnd@other", "InaccessiblePaths=/dev/net/tun"):
        ends_with_one_line(machine, REFUSED, "no permission for /dev/net/tun", "read and write that file")


def test_a_link_of_another_owner_is_left_alone_and_named(pair: Pair) -> None:
    machine = pair.a.machine
    with instance(machine, GOOD):
        machine.run("ip link add vpn-other type bridge")
        try:
            ends_with_one_line(machine, REFUSED, "vpn-other", "choose another [interface] name, or delete it")
            assert "bridge" in machine.output("ip -d link show vpn-other")
        finally:
            machine.run("systemctl stop vpnd@other; ip link del vpn-other")


def test_a_port_that_is_taken_is_named(pair: Pair) -> None:
    with instance(pair.a.machine, GOOD.replace("5199", "5180")):
        ends_with_one_line(pair.a.machine, REFUSED, "5180", "another program has the port", "choose another")


def test_a_read_only_etc_hinders_nothing(pair: Pair) -> None:
    machine = pair.a.machine
    with instance(machine, GOOD):
        machine.run("mount --bind /etc /etc && mount -o remount,ro,bind /etc")
        try:
            assert started(machine).state == "active"
        finally:
            machine.run("umount /etc")


def test_a_full_state_directory_hinders_nothing_and_is_said_once(pair: Pair) -> None:
    """Also the stop takes away what was made, as `instance` sees."""
    machine = pair.a.machine
    folder = "/var/lib/vpnd/other"
    with instance(machine, GOOD):
        machine.run(f"mkdir -p {folder} && mount -t tmpfs -o size=16k tmpfs {folder}")
        try:
            machine.run(f"head -c 16k /dev/zero > {folder}/fill; chown -R vpnd: {folder}")
            start = started(machine)
            assert start.state == "active"
            (complaint,) = (line for line in start.lines if "No space left" in line)
            assert re.search(rf"{folder}/host\.json.*going on without it", complaint)
            assert "192.168.99.1/24" in machine.output("ip -br addr show vpn-other")
        finally:
            machine.run(f"systemctl stop vpnd@other vpnd-link@other; umount {folder}")
