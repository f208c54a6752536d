"""Everything that one instance can make of a machine, and that nothing is left of it.

    hub 10.9.0.1, fd09::1 ── eth0 10.9.0.5, fd09::5 ── here ── eth1 192.168.60.1, fd60::1 ── a LAN

`here` has a systemd-resolved, and routes, rules, a table and sysctls of somebody else.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.resolved import running, unpacked
from tests.lab.namespaces import Host, Lab
from tests.lab.tools import machine
from tests.lab.vpnd import Vpnd

PEER, CLIENT = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=", "YGdHIjOBkzSyAJ1nkE5X5vtJKXG/8SMQdAiIdHuSfUI="
BYSTANDER = """
table inet bystander {
    chain seen {
        type filter hook forward priority 0; policy accept;
        ip saddr 10.77.0.1 drop
    }
}
"""
# As little as an instance can have, with another address and another network.
LITTLE = f"""\
[interface]
name = "vpn-here"
addresses = ["10.66.0.1/24"]
[local]
[peer.hub]
public_key = "{PEER}"
endpoint = "10.9.0.1:5180"
networks = ["10.67.0.0/16"]
"""
EVERYTHING = f"""\
[interface]
name = "vpn-here"
addresses = ["10.8.0.1/24", "fd00:8::1/64"]
[local]
listen = ["0.0.0.0:5180", "[::]:5180"]
[peer.hub]
public_key = "{PEER}"
endpoint = "10.9.0.1:5180"
networks = ["0.0.0.0/0", "::/0"]
[peer.client]
public_key = "{CLIENT}"
groups = ["staff"]
[routing]
full_tunnel = true
kill_switch = true
forward = true
masquerade = ["10.8.0.0/24", "fd00:8::/64"]
client_to_client = false
[groups.staff]
allow = ["192.168.60.0/24:tcp/443", "icmp"]
[pool]
ipv4 = "10.8.0.0/24"
ipv6 = "fd00:8::/64"
[push]
routes = ["192.168.60.0/24"]
dns = {{ servers = ["10.8.0.1"], domains = ["~corp.example"] }}
[dns]
servers = ["192.168.60.3"]
domains = ["~lab.example"]
"""


class Here:
    """The machine with the instance, and what it looks like."""

    def __init__(self, host: Host, resolvectl: Path) -> None:
        self.host = host
        self.vpnd = Vpnd(host)
        self._resolvectl = resolvectl

    def look(self) -> dict[str, str]:
        """As `machine`, and what resolved was told of each link; without what counts packets or is random."""
        told = [
            re.sub(r"Link \d+", "Link", line)
            for line in self.host.output(f"{self._resolvectl} --no-pager status").splitlines()
            if not line.lstrip().startswith("Current")
        ]
        rules = self.host.output("nft -s -t list ruleset")
        look = machine(self.host) | {"names": "\n".join(told), "nftables": rules}
        # The kernel makes a link-local address anew for each TUN link.
        own = re.search(r"^vpn-\w+ inet6 (fe80:[^/]*)", look["addresses"], re.MULTILINE)
        return {part: text.replace(own[1], "fe80::own") for part, text in look.items()} if own else look

    def begin(self, text: str) -> dict[str, str]:
        """Starts the instance with a configuration and tells what it has made of the machine."""
        self.vpnd.configure(text)
        self.vpnd.start()
        assert "dns-failed" not in str(self.vpnd.ask("status"))
        return self.look()


@pytest.fixture
def here(lab: Lab, tmp_path: Path) -> Iterator[Here]:
    host, hub, lan = lab.host("here"), lab.host("hub"), lab.host("lan")
    lab.cable(host, "eth0", hub, "eth0")
    lab.cable(host, "eth1", lan, "eth0")
    for link, address in (
        *(("eth0", "10.9.0.5/24"), ("eth0", "fd09::5/64")),
        *(("eth1", "192.168.60.1/24"), ("eth1", "fd60::1/64")),
    ):
        host.run(f"ip addr add {address} dev {link}")
    for router in ("10.9.0.1", "fd09::1"):
        host.run(f"ip route add default via {router}")
    host.run("ip route add 10.77.0.0/16 via 10.9.0.1 table 77 proto static")
    host.run("ip rule add from 10.77.0.0/16 lookup 77")
    host.sysctl("net.ipv4.conf.eth1.rp_filter", 1)
    host.sysctl("net.ipv6.conf.eth1.accept_ra", 2)
    host.nft(BYSTANDER)
    unpacked()
    with running(tmp_path / "resolved", within=("ip", "netns", "exec", host.namespace)) as resolvectl:
        yield Here(host, resolvectl)


def test_nothing_is_left_of_everything_after_a_stop_nor_after_a_kill(here: Here) -> None:
    """[E11] Stopped and torn down; killed and torn down; killed, and started with a file that wants little,
    or with one that names another link."""
    vpnd, before = here.vpnd, here.look()
    little = here.begin(LITTLE)
    vpnd.stop()
    vpnd.teardown()
    assert differences(here.look(), before) == []

    everything = here.begin(EVERYTHING)
    for part in ("links", "addresses", "routes", "rules", "nftables", "sysctls", "names"):
        assert everything[part] != before[part], part
    vpnd.stop()
    assert differences(without_state(here.look()), without_state(everything)) == []
    vpnd.teardown()
    assert differences(here.look(), before) == []

    assert differences(here.begin(EVERYTHING), everything) == []
    vpnd.kill()
    vpnd.teardown()
    assert differences(here.look(), before) == []

    vpnd.own_plane = True  # it goes on while the daemon is dead, and holds the link
    here.begin(EVERYTHING)
    vpnd.kill()
    assert differences(here.begin(LITTLE), little) == []
    vpnd.kill()
    assert differences(here.begin(EVERYTHING), everything) == []
    vpnd.kill()
    renamed = here.begin(LITTLE.replace("vpn-here", "vpn-there"))
    named_back = {part: text.replace("vpn-there", "vpn-here") for part, text in renamed.items()}
    assert differences(named_back, little) == []
    vpnd.stop()
    vpnd.kill_plane()
    vpnd.teardown()
    assert differences(here.look(), before) == []
    assert not {file.name for file in vpnd.state_dir.iterdir()} & {"host.json", "dns"}
    vpnd.assert_no_error()


def without_state(look: dict[str, str]) -> dict[str, str]:
    """Leaves out what follows from nobody holding the link open."""
    return {part: text.replace(" linkdown", "") for part, text in look.items()}


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Gives the lines that only one of the two has; their order is the tools' own."""
    return [
        line
        for part, text in one.items()
        for line in difflib.ndiff(sorted(text.splitlines()), sorted(other[part].splitlines()))
        if not line.startswith(" ")
    ]
