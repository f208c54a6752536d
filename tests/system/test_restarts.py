"""Restarts, crashes and upgrades under traffic between the offices: who notices."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.lab.namespaces import eventually
from tests.lab.tools import iperf3
from tests.rounds import mostly
from tests.system.machine import Machine
from tests.system.pair import TUNNEL, Pair, Site
from tests.system.stream import Seen, stream

Traffic = Callable[[], AbstractContextManager[Seen]]
DAEMON, PLANE = "vpnd@site", "vpnd-plane@site"
ROUNDS = 3  # of what a busy machine may disturb
RETRANSMISSION_ROUNDS = 6
BATCH = 64  # packets
GAP_MS = 50  # without forwarding, at most


def leave_alone(_: Machine) -> None:
    pass


def restart(machine: Machine) -> None:
    machine.run("systemctl restart vpnd@site")


def kill(machine: Machine) -> None:
    machine.run(f"kill -KILL {machine.pid(DAEMON)}")


def restart_plane(machine: Machine) -> None:
    machine.run("systemctl restart vpnd-plane@site")


def kill_plane(machine: Machine) -> None:
    machine.run(f"kill -KILL {machine.pid(PLANE)}")


def crash_plane(machine: Machine) -> None:
    machine.run(f"kill -SEGV {machine.pid(PLANE)}")


def stop_plane(machine: Machine) -> None:
    machine.run(f"kill -STOP {machine.pid(PLANE)}")


def restart_target(machine: Machine) -> None:
    machine.run("systemctl restart vpnd.target")


def handshakes(site: Site) -> int:
    """How many there were with the one peer since the daemon's start."""
    status = json.loads(site.machine.output("vpnctl -i site --json status"))
    return int(status["instances"][0]["peers"][0]["handshakes"])


@pytest.fixture
def young(pair: Pair) -> Pair:
    """The tunnel with a session so young that no rekey comes of itself."""
    before = handshakes(pair.b)
    pair.a.machine.run("vpnctl -i site reconnect b")
    eventually(lambda: handshakes(pair.b) == before + 1, what="a young session")
    return pair


def settle(site: Site) -> None:
    """Waits until the daemon is there and has heard of the session, and a standby is ready again."""
    eventually(
        lambda: (
            site.machine.output("systemctl show -P StatusText vpnd@site") == "1 of 1 peers up"
            and site.machine.run("vpnctl -i site wait --timeout 5", check=False).returncode == 0
        ),
        what="the daemon's word",
    )
    eventually(
        lambda: site.machine.output("systemctl show -P StatusText vpnd-standby@site") == "stands by",
        what="a standby",
    )


def disturb(site: Site, unit: str, act: Callable[[Machine], None], traffic: Traffic) -> Seen:
    """What becomes of a stream while something is done to the site that gives the unit another process."""
    former = site.machine.pid(unit)
    with traffic() as seen:
        time.sleep(0.5)
        act(site.machine)
        eventually(lambda: site.machine.pid(unit) not in {0, former}, what=f"another process of {unit}")
        settle(site)
        time.sleep(0.3)
    print(f"{act.__name__}: {seen}")
    return seen


@pytest.mark.parametrize("act", [restart, kill])
def test_a_restart_of_the_daemon_is_noticed_by_nobody(young: Pair, act: Callable[[Machine], None]) -> None:
    """Not one datagram is lost at 500 Mbit/s, the packet mover is the same process, the session too."""
    a, b = young.a, young.b
    plane, before = a.machine.pid(PLANE), handshakes(b)
    traffic = partial(stream, a.office, b.office, b.office_address, mbit=500)
    mostly(partial(disturb, a, DAEMON, act, traffic), lambda seen: seen.lost == 0)
    assert a.machine.pid(PLANE) == plane
    assert handshakes(b) == before


def retransmissions(pair: Pair, act: Callable[[Machine], None]) -> int:
    """How many there were in three seconds of TCP, in the middle of which something is done."""
    acting = threading.Timer(1.0, act, (pair.a.machine,))
    acting.start()
    end = iperf3(pair.a.office, pair.b.office, pair.b.office_address, seconds=3, options="-b 100M")
    acting.join()
    settle(pair.a)
    sent = end["sum_sent"]
    assert isinstance(sent, dict)
    return int(sent["retransmits"])


@pytest.mark.parametrize("act", [restart, kill])
def test_a_restart_of_the_daemon_costs_tcp_no_retransmission(
    young: Pair, act: Callable[[Machine], None]
) -> None:
    """What a busy machine costs comes now and then, and without it too; what it cost would come each time."""
    counts, without = [retransmissions(young, act)], [0]
    while 0 not in counts and len(counts) < RETRANSMISSION_ROUNDS:
        without.append(retransmissions(young, leave_alone))
        counts.append(retransmissions(young, act))
    print(f"{act.__name__}: retransmissions {counts}, and without it {without[1:]}")
    assert min(counts) <= max(without)


def is_undisturbed(seen: Seen) -> bool:
    return seen.gap_ms <= GAP_MS and seen.lost == 0


@pytest.mark.parametrize("act", [restart_plane, kill_plane, crash_plane, stop_plane, restart_target])
def test_a_restart_of_the_packet_mover_costs_milliseconds_and_no_packet(
    young: Pair, act: Callable[[Machine], None]
) -> None:
    """Queues of link and sockets hold what comes meanwhile; the session goes on, with no new handshake.

    A process that is killed between reading and sending loses what it has in its hands.
    """
    a, b = young.a, young.b
    before = handshakes(b)
    traffic = partial(stream, b.office, a.office, a.office_address, mbit=100)
    rounds = mostly(partial(disturb, a, PLANE, act, traffic), is_undisturbed, least=ROUNDS)
    assert handshakes(b) == before
    most = BATCH if act in {kill_plane, crash_plane, stop_plane} else 0
    assert max(seen.lost for seen in rounds) <= most, rounds


def test_a_packet_mover_that_hangs_is_ended_by_its_watchdog_and_the_session_goes_on(young: Pair) -> None:
    """Without a standby, which would have seen it before."""
    a, b = young.a, young.b
    a.machine.run("systemctl stop vpnd-standby@site")
    plane, before = a.machine.pid(PLANE), handshakes(b)
    a.machine.run(f"kill -STOP {plane}")
    eventually(lambda: a.machine.pid(PLANE) not in {0, plane}, within_s=30, what="a new one")
    settle(a)
    assert a.office.pings(a.far_office, count=3)
    assert handshakes(b) == before
    assert "watchdog" in a.machine.output(
        "systemctl show -P Result vpnd-plane@site; journalctl -u vpnd-plane@site"
    )


def same_version(_: Machine, package: Path) -> str:
    return f"/root/{package.name}"


def higher_version(machine: Machine, package: Path) -> str:
    machine.run(f"dpkg-deb -R /root/{package.name} /root/next")
    machine.run("sed -i 's/^Version: .*/&+next/' /root/next/DEBIAN/control")
    machine.run("dpkg-deb -b /root/next /root/next.deb")
    return "/root/next.deb"


def administer(pair: Pair, command: str) -> str:
    """Runs it on the left machine as an administrator does who comes in by the tunnel from the right one."""
    a, b = pair.a.machine, pair.b.machine
    key = "/root/.ssh/id_ed25519"
    b.run(f"test -e {key} || ssh-keygen -q -t ed25519 -N '' -f {key}")
    a.write("/root/.ssh/authorized_keys", b.output(f"cat {key}.pub") + "\n", mode=0o600)
    ssh = f"ssh -o StrictHostKeyChecking=no -o ServerAliveInterval=2 root@{TUNNEL['a']} '{command}'"
    return b.output(ssh, timeout_s=120)


@pytest.mark.parametrize("file", [same_version, higher_version])
def test_the_package_is_installed_over_the_tunnel_itself(
    young: Pair, package: Path, file: Callable[[Machine, Path], str]
) -> None:
    """Reinstalled and upgraded; the ssh session sees the whole of it through."""
    a, b = young.a, young.b
    before = handshakes(b)
    gaps: list[float] = []
    command = f"apt-get install -y --reinstall {file(a.machine, package)} && echo whole"
    while len(gaps) < ROUNDS and min(gaps, default=GAP_MS + 1) > GAP_MS:
        plane, daemon = a.machine.pid(PLANE), a.machine.pid(DAEMON)
        with stream(b.office, a.office, a.office_address, mbit=100) as seen:
            printed = administer(young, command)
            settle(a)
        print(f"{file.__name__} over the tunnel: {seen}")
        assert printed.splitlines()[-1] == "whole"
        assert plane != a.machine.pid(PLANE)
        assert daemon != a.machine.pid(DAEMON)
        assert seen.lost == 0
        gaps.append(seen.gap_ms)
    assert handshakes(b) == before
    assert min(gaps) <= GAP_MS
