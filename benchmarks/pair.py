"""Two hosts and the cable between them, on which each system builds its tunnel.

left 10.1.0.1 ──── cable, MTU 1500 ──── 10.1.0.2 right
       └───── tunnel 10.2.0.1 ─ 10.2.0.2, MTU 1420 ─────┘

What is measured goes from left to right, or with "back" the other way. Knows no system.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.build import meter
from tests.lab.namespaces import Host, Lab, eventually

LEFT, RIGHT = "10.1.0.1", "10.1.0.2"
TUNNEL_LEFT, TUNNEL_RIGHT = "10.2.0.1", "10.2.0.2"
MTU = 1420
ECHO_PORT, SINK_PORT = 7007, 9009
_WITHIN_S = 30.0


@dataclass(frozen=True)
class Pair:
    """Two hosts; `address` is where the left one reaches the right one."""

    left: Host
    right: Host
    address: str

    def is_alive(self) -> bool:
        """Tells whether any of a few pings is answered."""
        return any(self.left.pings(self.address) for _ in range(3))


def cable(lab: Lab) -> Pair:
    """Makes the two hosts, joined by nothing but the cable."""
    left, right = lab.host("left"), lab.host("right")
    lab.cable(left, "eth0", right, "eth0")
    left.run(f"ip addr add {LEFT}/24 dev eth0")
    right.run(f"ip addr add {RIGHT}/24 dev eth0")
    return Pair(left, right, RIGHT)


def tunnelled(pair: Pair) -> Pair:
    """Waits until the tunnel carries packets of its full size, and gives the pair as seen through it."""
    full = MTU - 28  # what remains of a packet after the headers of IP and ICMP
    eventually(
        lambda: pair.left.pings(TUNNEL_RIGHT, options=f"-M do -s {full}"),
        within_s=_WITHIN_S,
        every_s=0.3,
        what=f"a ping of {full} bytes through the tunnel",
    )
    return Pair(pair.left, pair.right, TUNNEL_RIGHT)


def with_echo(pair: Pair) -> Pair:
    """Starts the echo that round trips are measured against; it ends with the lab."""
    pair.right.start(meter(), "echo", pair.address, str(ECHO_PORT))
    eventually(lambda: f":{ECHO_PORT}" in pair.right.output("ss -lun"), what="the echo listening")
    return pair
