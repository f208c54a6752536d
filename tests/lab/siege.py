"""A hub with two honest spokes, and an attacker on the same switch who owns a /16 of addresses.

spoke a 10.9.0.11 ──────────┐
spoke b 10.9.0.12 ──────────┼─── switch, outer 10.9.0.0/24 ─── 10.9.0.1 hub
attacker 10.9.0.66 ─────────┘                                  (10.64.0.0/16 via 10.9.0.66)
         and 10.64.0.0/16
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tests.lab import star
from tests.lab.namespaces import Host, Lab
from tests.lab.star import HUB_OUTER, PORT, Star

ATTACKER = "10.9.0.66"
ONE_SOURCE, MANY_SOURCES = f"{ATTACKER}/32", "10.64.0.0/16"


@dataclass
class Siege:
    star: Star
    attacker: Host

    @contextlib.contextmanager
    def flood(self, rate: int, sources: str) -> Iterator[None]:
        """Sends first messages with a right mac1 while the block runs."""
        hub = self.star.hub_vpnd
        arguments = (hub.key.public, HUB_OUTER, str(PORT), str(rate), sources)
        process = self.attacker.start(
            *(sys.executable, "-m", "tests.lab.flood", *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            process.communicate(b"stop\n", timeout=20)


def build(lab: Lab, *, knock: bool = False) -> Siege:
    """Builds machines and configurations; starts nothing."""
    made = star.build(lab, ("a", "b"))
    attacker = lab.host("attacker")
    made.switch.join(attacker, "eth0")
    attacker.run(f"ip addr add {ATTACKER}/24 dev eth0")
    attacker.run(f"ip route add local {MANY_SOURCES} dev lo")
    made.hub.run(f"ip route add {MANY_SOURCES} via {ATTACKER}")
    if knock:
        secret = made.hub_vpnd.new_psk("knock")
        for vpnd in (made.hub_vpnd, made["a"].vpnd, made["b"].vpnd):
            text = vpnd.config_file.read_text()
            vpnd.config_file.write_text(text.replace("[local]", f'[local]\nknock = "{secret}"'))
    return Siege(made, attacker)
