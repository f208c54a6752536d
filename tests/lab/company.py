"""A hub with an office behind it and two hundred road warriors, each a vpnd of its own.

     house 0  10.9.1.0 ───┐                                                     ┌─ office 10.20.0.3, fd20::3
     house 1  10.9.1.1 ───┼─ switch, outer 10.9.0.0/16 ─── hub 10.9.0.1 ────────┤  web :80, knocks, and names
          …               │                               10.8.0.1, fd00:8::1   └─ 10.20.0.53 of corp.example
     house 19 10.9.1.19 ──┘

Ten clients share a house, which is one namespace, and each has a link of its own there: vpn0 to vpn9. As all
of them are pushed the same routes, each has a metric of its own, and what shall use one link is bound to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.namespaces import Host, Lab, Switch, eventually
from tests.lab.vpnd import Vpnd

HOUSES, EACH = 20, 10
HUB_OUTER, PORT = "10.9.0.1", 5180
HUB, HUB6 = "10.8.0.1", "fd00:8::1"
POOL, POOL6 = "10.8.0.0/20", "fd00:8::/64"
OFFICE, OFFICE6 = "10.20.0.3", "fd20::3"
NAMES = "10.20.0.53"
PUSHED = ("10.20.0.0/16", "fd20::/64")
_KNOCK = Path(__file__).with_name("knock.py")
_STARTING_AT_ONCE = 2  # houses; as many as the machine has processors


@dataclass
class Client:
    number: int
    house: Host
    vpnd: Vpnd

    @property
    def name(self) -> str:
        return f"p{self.number}"

    @property
    def link(self) -> str:
        return f"vpn{self.number % EACH}"

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = self.vpnd.ask("status")["instances"][0]
        return found

    @property
    def addresses(self) -> list[str]:
        """What it was given, the IPv4 address first."""
        given: list[str] = self.report()["link"]["addresses"]
        return [each.partition("/")[0] for each in given]


@dataclass
class Company:
    hub: Host
    hub_vpnd: Vpnd
    office: Host
    clients: list[Client] = field(default_factory=list)

    @property
    def peer_files(self) -> Path:
        return self.hub_vpnd.config_dir / "site.d"

    def houses(self) -> Iterator[list[Client]]:
        """Gives the clients of one house after the other."""
        for first in range(0, len(self.clients), EACH):
            yield self.clients[first : first + EACH]

    def configure_hub(self, groups: str, *, routes: Sequence[str] = PUSHED, mtu: int = 1380) -> None:
        self.hub_vpnd.configure(f"""\
[interface]
name = "vpn"
addresses = ["{HUB}/20", "{HUB6}/64"]
[local]
listen = ["0.0.0.0:{PORT}"]
[routing]
forward = true
[pool]
ipv4 = "{POOL}"
ipv6 = "{POOL6}"
[push]
routes = {json.dumps(routes)}
dns = {{ servers = ["{NAMES}"], domains = ["~corp.example"] }}
mtu = {mtu}
{groups}""")

    def admit(self, client: Client, *groups: str) -> None:
        """Writes the client's file at the hub."""
        text = f'public_key = "{client.vpnd.key.public}"\ngroups = {json.dumps(groups)}\n'
        (self.peer_files / f"{client.name}.toml").write_text(text)

    def start_clients(self) -> None:
        """Some houses at a time: all at once would only wait for each other."""
        houses = list(self.houses())
        for number, house in enumerate(houses):
            for client in house:
                client.vpnd.start(wait=False)
            if number >= _STARTING_AT_ONCE:
                wait_up(houses[number - _STARTING_AT_ONCE])
        wait_up(self.clients)

    def assert_no_error(self) -> None:
        for vpnd in (self.hub_vpnd, *(client.vpnd for client in self.clients)):
            vpnd.assert_no_error()


def build(lab: Lab) -> Company:
    """Builds machines, cables and the clients' files; starts nothing and admits nobody."""
    switch, hub, office = lab.switch("switch"), lab.host("hub"), lab.host("office")
    # Two hundred daemons and planes beside it: it would wait a second for its turn, and queues run over.
    hub.comes_first = True
    _join(switch, hub, f"{HUB_OUTER}/16")
    lab.cable(hub, "office", office, "eth0")
    hub.run("ip addr add 10.20.0.1/16 dev office")
    hub.run("ip addr add fd20::1/64 dev office")
    for address in (f"{OFFICE}/16", f"{NAMES}/16", f"{OFFICE6}/64"):
        office.run(f"ip addr add {address} dev eth0")
    for router in ("10.20.0.1", "fd20::1"):
        office.run(f"ip route add default via {router}")
    for key in ("ipv4.icmp_ratelimit", "ipv6.icmp.ratelimit"):
        hub.sysctl(f"net.{key}", 0)  # every refusal is answered, not one a second
    hub.sysctl("net.ipv4.icmp_msgs_per_sec", 100_000)
    hub.sysctl("net.ipv4.icmp_msgs_burst", 100_000)
    company = Company(hub, Vpnd(hub, own_plane=True), office)
    company.peer_files.mkdir()
    for number in range(HOUSES):
        house = lab.host(f"house{number}")
        _join(switch, house, f"10.9.1.{number}/16")
        for each in range(EACH):
            _settle(company, house, number * EACH + each)
    return company


def _join(switch: Switch, host: Host, address: str) -> None:
    switch.join(host, "eth0")
    host.run(f"ip addr add {address} dev eth0")


def _settle(company: Company, house: Host, number: int) -> None:
    private_key = hashlib.sha256(f"road warrior {number}".encode()).digest()
    client = Client(number, house, Vpnd(house, f"c{number % EACH}", private_key=private_key))
    client.vpnd.environment["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={house.folder}/no-bus"
    client.vpnd.configure(f"""\
[interface]
name = "{client.link}"
addresses = "assigned"
[local]
[routing]
metric = {50 + number % EACH}
[peer.hub]
public_key = "{company.hub_vpnd.key.public}"
endpoint = "{HUB_OUTER}:{PORT}"
networks = ["10.8.0.0/15", "10.20.0.0/15", "{POOL6}", "fd20::/64"]
route = false
accept = ["address", "routes", "dns", "mtu"]
""")
    company.clients.append(client)


def wait_up(clients: Iterable[Client]) -> None:
    """Waits until these have a session and have been given their addresses."""
    for client in clients:
        eventually(lambda: _is_up(client), within_s=60, what=f"{client.name}")  # noqa: B023


def _is_up(client: Client) -> bool:
    assert client.vpnd.daemon is not None
    assert client.vpnd.daemon.poll() is None, client.vpnd.log()
    with contextlib.suppress(OSError):
        report = client.report()
        return report["peers"][0]["state"] == "up" and len(report["link"]["addresses"]) == 2
    return False


# -- the office --


def open_office(office: Host) -> None:
    """A web page that tells every visitor its address, ports that answer, and the names of corp.example."""
    (office.folder / "nginx.conf").write_text(f"""
        user root; daemon off; pid {office.folder}/nginx.pid; error_log {office.folder}/nginx.err;
        events {{ worker_connections 64; }}
        http {{ access_log off; server {{
            listen {OFFICE}:80; listen [{OFFICE6}]:80; location / {{ return 200 "$remote_addr\\n"; }}
        }} }}
    """)
    office.start("nginx", "-c", office.folder / "nginx.conf", "-e", office.folder / "nginx.err")
    office.start(
        *("dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces"),
        *(f"--listen-address={NAMES}", "--log-queries", "--log-facility=-", "--conf-file=/dev/null"),
        *("--local=/corp.example/", f"--address=/intranet.corp.example/{OFFICE}", "--pid-file="),
        log="dnsmasq.log",
    )
    listener = office.start(sys.executable, _KNOCK, "answer", "22", "443", "8080", stdout=subprocess.PIPE)
    assert listener.stdout is not None
    assert listener.stdout.readline() == b"ready\n"
    eventually(lambda: f"{NAMES}:53" in office.output("ss -lun"), what="the name server")
    eventually(lambda: f"[{OFFICE6}]:80" in office.output("ss -ltn"), what="the web server")


def queries(office: Host) -> list[tuple[str, str]]:
    """Tells which names the office's server was asked for, and from where."""
    lines = (office.folder / "dnsmasq.log").read_text().splitlines()
    words = [line.split() for line in lines if " query[" in line]
    return [(each[-3], each[-1]) for each in words]


# -- what clients do --


def each_prints(clients: Sequence[Client], command: str) -> list[str]:
    """Runs a command in its house for each client, with LINK being its link; gives the lines of all."""
    printed: list[str] = []
    for first in range(0, len(clients), EACH):
        house = clients[first : first + EACH]
        links = " ".join(client.link for client in house)
        script = f"for LINK in {links}; do {command}; done"
        done = house[0].house.run(f"sh -c '{script}'", check=False)
        printed += done.stdout.splitlines()
    return printed


def knocks(wanted: Sequence[tuple[Client, Sequence[str]]]) -> list[str]:
    """Has clients of the same house try targets, each out of its own link; tells what came of each."""
    house = wanted[0][0].house
    targets = [f"{target}/{client.link}" for client, each in wanted for target in each]
    return house.output(f"{sys.executable} {_KNOCK} try {' '.join(targets)}").split()


class Echoes:
    """Every client asks the office for an echo five times a second."""

    def __init__(self, company: Company) -> None:
        self._company = company
        self._processes = [
            house[0].house.start(
                *(sys.executable, "-m", "tests.lab.echoes", OFFICE, *(client.link for client in house)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for house in company.houses()
        ]
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"

    def lost(self) -> dict[str, int]:
        """Tells who lost how much since this was asked before; everybody has asked meanwhile."""
        time.sleep(0.5)
        told: list[list[int]] = []
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        for process in self._processes:
            assert process.stdout is not None
            told += json.loads(process.stdout.readline())
        assert all(sent > 0 for sent, _ in told)
        pairs = zip(self._company.clients, told, strict=True)
        return {client.name: lost for client, (_, lost) in pairs if lost}

    def stop(self) -> None:
        for process in self._processes:
            process.communicate(b"\n", timeout=30)
