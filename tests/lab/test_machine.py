"""What a machine looks like after vpnd went, and when vpnd could not come (topology in classical.py)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.lab.classical import (
    GATEWAY_TUNNEL,
    Classical,
    build,
    configure,
)
from tests.lab.namespaces import Lab, eventually
from tests.lab.tools import machine
from tests.lab.vpnd import Vpnd


def leave_at_once(vpnd: Vpnd) -> None:
    """Nothing happens between start and end."""


def restart(vpnd: Vpnd) -> None:
    assert vpnd.stop() == 0
    vpnd.start()


def kill(vpnd: Vpnd) -> None:
    vpnd.kill()
    vpnd.start()


def kill_plane(vpnd: Vpnd) -> None:
    vpnd.kill_plane()


@pytest.mark.parametrize("live", [leave_at_once, restart, kill, kill_plane])
@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_the_machine_is_afterwards_as_it_was_before(
    lab: Lab, kind: str, live: Callable[[Vpnd], None]
) -> None:
    """[E11] Links, addresses, routes of all tables, rules, nftables and sysctls: no difference."""
    topology = build(lab, kind=kind)
    both = topology.u_vpnd, topology.gateway_vpnd
    configure(topology, kind=kind, routing='forward = true\nmasquerade = ["192.168.53.0/24", "fd53::/64"]')
    if kind == "tap":
        file = topology.u_vpnd.config_file
        networks = '["192.168.60.0/24", "fd60::/64"]'
        file.write_text(file.read_text().replace("networks = []", f"networks = {networks}"))
    before = machine(topology.u), machine(topology.gateway)
    topology.start()
    during = machine(topology.u), machine(topology.gateway)
    for name in ("links", "addresses", "routes"):
        assert during[0][name] != before[0][name]
    assert "masquerade" in during[1]["nftables"]
    for vpnd in both:
        live(vpnd)
    eventually(lambda: topology.u.pings(GATEWAY_TUNNEL), within_s=20, what="the tunnel after it")
    for vpnd in both:
        assert vpnd.stop() == 0
        assert not list(vpnd.runtime_dir.glob("*.sock"))
        vpnd.teardown()
        vpnd.teardown()  # a second one finds nothing, and says so by doing nothing
    assert machine(topology.u) == before[0]
    assert machine(topology.gateway) == before[1]


def test_an_ended_daemon_leaves_everything_standing(classical: Classical) -> None:
    """[E11] SIGTERM alone takes nothing away: the next start finds its work done."""
    before = machine(classical.gateway)
    assert classical.gateway_vpnd.stop() == 0
    after = machine(classical.gateway)
    # A link that nobody holds open has no carrier, and its routes say so.
    assert {name: text.replace(" linkdown", "") for name, text in after.items()} == before
    classical.gateway_vpnd.start()
    assert machine(classical.gateway) == before


@pytest.mark.parametrize(
    ("taken", "words"),
    [
        ("ip link add vpn-u type bridge", "neither TUN nor TAP"),
        ("ip tuntap add vpn-u mode tap", '"tap"'),
    ],
)
def test_a_link_name_that_is_taken_ends_the_start_and_changes_nothing(
    lab: Lab, taken: str, words: str
) -> None:
    """[E11] Exit status 1, one line with link, reason and remedy, and an untouched machine."""
    topology = build(lab)
    topology.u.run(taken)
    before = machine(topology.u)
    vpnd = topology.u_vpnd
    vpnd.start(wait=False)
    assert vpnd.daemon is not None
    assert vpnd.daemon.wait(15) == 1
    errors = [line for line in vpnd.log().splitlines() if "vpn-u" in line]
    assert len(errors) == 1, vpnd.log()
    assert words in errors[0]
    assert "ip link delete vpn-u" in errors[0]
    assert "Traceback" not in vpnd.log()
    assert machine(topology.u) == before
    vpnd.teardown()
    assert machine(topology.u) == before


def test_a_link_that_another_program_holds_is_left_to_it(lab: Lab) -> None:
    """[E11] A TUN link in use elsewhere: exit status 1, and its owner goes on."""
    topology = build(lab)
    owner = topology.u.start(*("python3", "-c", _HOLD_A_TUN), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"ready\n"
    before = machine(topology.u)
    topology.u_vpnd.start(wait=False)
    assert topology.u_vpnd.daemon is not None
    assert topology.u_vpnd.daemon.wait(15) == 1
    assert "vpn-u" in topology.u_vpnd.log()
    assert "Traceback" not in topology.u_vpnd.log()
    assert machine(topology.u) == before
    assert owner.poll() is None
    owner.communicate(b"end\n", timeout=5)
    assert "vpn-u" not in topology.u.output("ip -br link"), "it lived as long as its program, and still does"


_HOLD_A_TUN = """
import fcntl, os, struct, sys
held = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(held, 0x400454CA, struct.pack("16sH22x", b"vpn-u", 0x1001))
print("ready", flush=True)
sys.stdin.readline()
"""
