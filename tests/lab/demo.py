"""The demo: the main job on three hosts made of network namespaces, shown step by step.

./run demo            runs through and cleans up
./run demo --shell    leaves the hosts standing and opens a shell on U
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from rich.console import Console

from tests.lab.classical import GATEWAY_OUTER, PORT, V_INNER, Classical, build
from tests.lab.namespaces import Host, laboratory
from tests.lab.shell_login import Login
from tests.lab.tools import Capture, iperf3, tcp_mbit
from tests.lab.vpnd import BIN

_DRAWING = """
  host U 10.9.0.5 ───── outer 10.9.0.0/24 ───── 10.9.0.11 gateway 192.168.60.11 ───── 192.168.60.5 host V
          └──────────── tunnel 192.168.53.0/24: U .99, gateway .11 ────────────┘
"""
_console = Console(highlight=False, markup=False, soft_wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run demo", description="Shows the main job in namespaces.")
    parser.add_argument("--shell", action="store_true", help="stay in it, with a shell on host U")
    options = parser.parse_args()
    began = time.monotonic()
    with laboratory() as lab:
        _say("Three hosts, each a network namespace. V's network is private: U has no way to it.")
        _console.print(_DRAWING, style="cyan")
        topology = build(lab)
        if options.shell:
            return _play(topology)
        for step in (_without, _start, _outer, _traffic, _status, _break):
            step(topology)
    _say(f"Everything is removed again. That took {time.monotonic() - began:.0f} s.")
    _console.print(
        "It showed: no way without the tunnel; two daemons from one file each; only UDP outside,\n"
        "unreadable; ping and TCP inside; what an operator sees; and a killed daemon that an open login\n"
        "never noticed.\n"
        "Play yourself: sudo ./run demo --shell"
    )
    return 0


def _without(topology: Classical) -> None:
    _say("Without the tunnel, U's ping to V fails:")
    _show(topology.u, f"ping -n -c 1 -W 1 {V_INNER}", fails=True)


def _start(topology: Classical) -> None:
    _say("One file per machine. This is U's:")
    lines = topology.u_vpnd.config_file.read_text().splitlines()
    _console.print("\n".join(f"  {line}" for line in lines if line.strip()), style="green")
    _say("Both daemons start and find each other:")
    topology.gateway_vpnd.start()
    topology.u_vpnd.start()
    topology.u_vpnd.wait_up()
    _console.print(topology.u_vpnd.log().strip(), style="dim")


def _outer(topology: Classical) -> None:
    _say("Now the ping works, and the wire outside shows nothing but UDP:")
    capture = Capture(topology.gateway, "outer", "ip")
    _show(topology.u, f"ping -n -c 3 -i 0.2 {V_INNER}")
    capture.stop()
    for line in capture.lines()[:6]:
        _console.print(f"  {line}", style="dim")
    strangers = capture.lines(f"not (udp and host {GATEWAY_OUTER} and port {PORT})")
    _console.print(f"  packets outside that are not the tunnel's UDP: {len(strangers)}")
    if strangers:
        raise AssertionError(strangers)


def _traffic(topology: Classical) -> None:
    _say("A TCP transfer from U to V through the tunnel, three seconds:")
    end = iperf3(topology.u, topology.v, V_INNER, seconds=3)
    _console.print(f"  {tcp_mbit(end):.0f} Mbit/s")


def _status(topology: Classical) -> None:
    for vpnd in (topology.u_vpnd, topology.gateway_vpnd):
        _say(f"vpnctl status on {vpnd.host}:")
        _console.print(vpnd.ctl("status", check=False).stdout.strip(), style="green")


def _break(topology: Classical) -> None:
    _say("A login from U to V is open. The daemon on the gateway is killed with kill -9 and started again:")
    with Login(topology.u, topology.v, V_INNER) as login:
        _console.print(f"  $ echo before   → {login.says('echo before')}")
        topology.gateway_vpnd.kill()
        login.type("echo typed while the gateway had no daemon")
        time.sleep(1)
        topology.gateway_vpnd.start()
        login.hears("typed while the gateway had no daemon", within_s=30)
        _console.print("  typed while it was gone, arrived: typed while the gateway had no daemon")
        _console.print(f"  $ echo after    → {login.says('echo after')}")


def _play(topology: Classical) -> int:
    _start(topology)
    path = f"{BIN}:{os.environ['PATH']}"
    runtime = topology.u_vpnd.runtime_root
    _say("You are on host U. Try:")
    _console.print(
        f"  ping {V_INNER}\n"
        f"  vpnctl --runtime-dir {runtime} status\n"
        f"  vpnctl --runtime-dir {runtime} why gateway\n"
        f"  the gateway:  ip netns exec {topology.gateway.namespace} bash    (its runtime dir: "
        f"{topology.gateway_vpnd.runtime_root})\n  exit ends the demo and removes everything",
        style="cyan",
    )
    command = ["ip", "netns", "exec", topology.u.namespace, os.environ.get("SHELL", "/bin/bash")]
    return subprocess.call(command, env=os.environ | {"PATH": path, "PS1": "U# "})


def _say(text: str) -> None:
    _console.print(f"\n▶ {text}", style="bold")


def _show(host: Host, command: str, *, fails: bool = False) -> None:
    _console.print(f"  {host}$ {command}", style="yellow")
    done = host.run(command, check=False)
    for line in (done.stdout + done.stderr).strip().splitlines():
        _console.print(f"  {line}", style="dim")
    if (done.returncode != 0) != fails:
        raise AssertionError(f"{command} ended with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
