"""Two ends of a tunnel, and whatever a test puts between them.

caller ──────────── what the test builds ──────────── called, listens on port 5180
  └───────── tunnel 10.53.0.0/24, fd53::/64: caller .1, called .2 ─────────┘
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.lab.namespaces import Host, Lab
from tests.lab.vpnd import Vpnd

CALLER_INNER, CALLED_INNER = "10.53.0.1", "10.53.0.2"
CALLER_INNER6, CALLED_INNER6 = "fd53::1", "fd53::2"
CALLED_OUTER = "192.0.2.2"
PORT = 5180


@dataclass
class Pair:
    """The two daemons; each knows the other by its role's name."""

    caller: Vpnd
    called: Vpnd

    def configure(
        self,
        endpoint: str,
        *,
        caller_local: str = "",
        caller_peer: str = "",
        caller_routing: str = "",
        caller_networks: str = f'"{CALLED_INNER}/32", "{CALLED_INNER6}/128"',
        called_listen: str = f'"0.0.0.0:{PORT}", "[::]:{PORT}"',
        called_peer: str = "",
    ) -> None:
        """Writes both files; `endpoint` is where the caller calls, the rest are lines added."""
        self.caller.configure(f"""
            [interface]
            name = "vpn-caller"
            addresses = ["{CALLER_INNER}/24", "{CALLER_INNER6}/64"]
            [local]
            {caller_local}
            [peer.called]
            public_key = "{self.called.key.public}"
            endpoint = "{endpoint}"
            networks = [{caller_networks}]
            {caller_peer}
            [routing]
            {caller_routing}
        """)
        self.called.configure(f"""
            [interface]
            name = "vpn-called"
            addresses = ["{CALLED_INNER}/24", "{CALLED_INNER6}/64"]
            [local]
            listen = [{called_listen}]
            [peer.caller]
            public_key = "{self.caller.key.public}"
            networks = ["{CALLER_INNER}/32", "{CALLER_INNER6}/128"]
            {called_peer}
        """)

    def start(self) -> None:
        self.called.start()
        self.caller.start()
        self.caller.wait_up()
        self.called.wait_up()

    def assert_no_error(self) -> None:
        self.caller.assert_no_error()
        self.called.assert_no_error()


def pair(caller: Host, called: Host) -> Pair:
    """Prepares a daemon on each host; nothing is configured or started yet."""
    return Pair(Vpnd(caller), Vpnd(called))


def narrow_pair(lab: Lab) -> Pair:
    """Joins two hosts by a cable that carries little, and configures their daemons.

    The caller's plane is one that outlives its daemon; it calls again at once whom it lost.
    """
    made = pair(lab.host("caller"), lab.host("called"))
    lab.cable(made.caller.host, "eth0", made.called.host, "eth0", mtu=1300)
    made.caller.host.run("ip addr add 192.0.2.1/24 dev eth0")
    made.called.host.run(f"ip addr add {CALLED_OUTER}/24 dev eth0")
    made.configure(f"{CALLED_OUTER}:{PORT}", caller_peer="keepalive = 1")
    made.caller.own_plane = True
    return made
