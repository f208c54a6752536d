"""Many lives in a row: started and stopped at every moment, and nothing is left over."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

from tests.lab.classical import GATEWAY_TUNNEL, build
from tests.lab.namespaces import Host, Lab, eventually

ROUNDS = 100
QUICK_ROUNDS = 50


def processes(host: Host) -> list[str]:
    """The command names of everything that runs in the host's namespace."""
    listed = subprocess.run(
        ["ip", "netns", "pids", host.namespace], capture_output=True, text=True, check=True
    )
    return sorted(Path(f"/proc/{pid}/comm").read_text().strip() for pid in listed.stdout.split())


def test_a_hundred_rounds_of_start_ping_and_stop(lab: Lab) -> None:
    """[I10] Every round comes up, answers, and ends with status 0; the link stays the same one."""
    topology = build(lab)
    topology.gateway_vpnd.start()
    links = set()
    for number in range(ROUNDS):
        topology.u_vpnd.start(wait=False)
        eventually(lambda: topology.u.pings(GATEWAY_TUNNEL, wait_s=0.3), what=f"round {number}")
        links.add(topology.u.output("cat /sys/class/net/vpn-u/ifindex"))
        assert topology.u_vpnd.stop() == 0, topology.u_vpnd.log()
    assert len(links) == 1
    assert processes(topology.u) == []
    topology.u_vpnd.assert_no_error()
    topology.gateway_vpnd.assert_no_error()


def test_a_daemon_stopped_at_any_moment_of_its_start_leaves_nothing(lab: Lab) -> None:
    """[I5] Fifty lives that end at random moments, then one that works; keepalives every second."""
    topology = build(lab)
    config = topology.u_vpnd.config_file
    config.write_text(config.read_text().replace("[peer.gateway]", "[peer.gateway]\nkeepalive = 1"))
    topology.gateway_vpnd.start()
    chosen = random.Random(5)
    for _ in range(QUICK_ROUNDS):
        topology.u_vpnd.start(wait=False)
        daemon = topology.u_vpnd.daemon
        assert daemon is not None
        time.sleep(chosen.uniform(0, 0.8))
        daemon.send_signal(signal.SIGTERM)
        # Before its handlers stand the signal ends it as it ends any program; after that, in order.
        assert daemon.wait(10) in (0, -signal.SIGTERM)
    eventually(lambda: processes(topology.u) == [], what="the end of every process")
    topology.u_vpnd.start()
    topology.u_vpnd.wait_up()
    assert topology.u.pings(GATEWAY_TUNNEL)
    topology.u_vpnd.assert_no_error()
    topology.gateway_vpnd.assert_no_error()
