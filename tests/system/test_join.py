"""A fresh machine joins a hub by its token, and is shut out, where the units allow both what they have to."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.lab.namespaces import eventually
from tests.system.packages import install
from tests.system.pair import OUTER, PORT, TUNNEL, Pair

SERVED = "192.0.2.80"
POOL = '[pool]\nipv4 = "192.168.53.0/24"\n[push]\nroutes = ["192.168.70.0/24"]\n'
NAMES = f'dns = {{ servers = ["{TUNNEL["b"]}"], domains = ["~corp.example"] }}\n'


def test_from_token_to_ping_with_one_command_on_each_side(pair: Pair) -> None:
    """The unit runs and is enabled; a block ends it at once; what vpnd knows outlives its restart."""
    hub, client = pair.b.machine, pair.a.machine
    client.run("systemctl disable --now vpnd@site")
    token = hub.output(f"vpnctl peer invite anna --endpoint {OUTER['b']}:{PORT} 2>/dev/null")
    client.write("/root/token", token + "\n", mode=0o600)
    client.run("vpnctl join - office < /root/token")
    eventually(lambda: client.host.pings(TUNNEL["b"]), within_s=20, what="the first ping")
    assert client.output("systemctl is-enabled vpnd@office; stat -c '%a %U' /etc/vpnd/keys/office.key") == (
        "enabled\n600 root"
    )
    hub.run("systemctl restart vpnd@site")
    eventually(lambda: client.host.pings(TUNNEL["b"]), within_s=20, what="the ping after the hub's restart")
    hub.run("vpnctl -i site peer block anna")
    assert not client.host.pings(TUNNEL["b"])
    assert "disabled" in hub.output("vpnctl -i site status anna; true")
    hub.run("vpnctl -i site peer unblock anna")
    eventually(lambda: client.host.pings(TUNNEL["b"]), within_s=30, what="the ping of one let in again")
    for machine in (hub, client):
        assert token[80:120] not in machine.output("journalctl --no-pager")


def test_who_joins_a_hub_with_a_pool_asks_its_name_servers_by_leave_of_polkit(pair: Pair) -> None:
    """The daemon is no root: without polkitd resolved refuses it, and that is told; with it names resolve,
    until the hub or the operator takes them back.
    """
    hub, client = pair.b.machine, pair.a.machine
    client.run("systemctl stop vpnd.target")
    install(client, "systemd-resolved")
    # Debian starts it before the bus knows its user, and it never comes to have its name there.
    client.run("systemctl restart systemd-resolved")
    key = client.output("vpnctl key pub /etc/vpnd/keys/site.key")
    pair.b.configure(key, more=POOL + NAMES)
    hub.run("vpnctl -i site reload")
    hub.host.start(sys.executable, Path(__file__).with_name("names.py"), TUNNEL["b"], SERVED)
    token = hub.output(f"vpnctl peer invite clara --endpoint {OUTER['b']}:{PORT} 2>/dev/null")
    client.write("/root/token", token + "\n", mode=0o600)
    client.run("vpnctl join - names < /root/token; vpnctl -i names wait --timeout 20")
    leased = hub.output("vpnctl -i site show leases | grep clara")
    (given,) = re.findall(r"inet (192\.168\.53\.\d+)/24", client.output("ip addr show vpn-names"))
    assert given in leased.split()
    assert "192.168.70.0/24" in client.output("ip route show proto 176")

    def status() -> str:
        return client.run("vpnctl -i names status", check=False).stdout

    eventually(lambda: "dns-failed" in status(), what="the finding")
    assert "which needs polkitd to run" in status()
    install(client, "polkitd")

    def asks() -> bool:
        return TUNNEL["b"] in client.output("resolvectl dns vpn-names")

    eventually(asks, within_s=30, what="the name server of the link")
    assert "~corp.example" in client.output("resolvectl domain vpn-names")
    assert client.output("getent ahostsv4 www.corp.example").startswith(f"{SERVED} ")
    assert "dns-failed" not in status()
    pair.b.configure(key, more=POOL)
    hub.run("vpnctl -i site reload")
    eventually(lambda: not asks(), within_s=30, what="no name server after the hub took it back")
    pair.b.configure(key, more=POOL + NAMES)
    hub.run("vpnctl -i site reload")
    eventually(asks, within_s=30, what="the name server once more")
    client.run("systemctl stop vpnd@names")

    def is_forgotten() -> bool:
        shown = client.output("resolvectl status --no-pager")
        return not any(word in shown for word in (TUNNEL["b"], "corp.example", "vpn-names"))

    eventually(is_forgotten, what="no trace after the stop")
    assert client.run("getent ahostsv4 www.corp.example", check=False).returncode != 0
