"""Metrics, captures and events on a booted machine: by the units among the examples, and who may."""

from __future__ import annotations

import json

from tests.lab.namespaces import eventually
from tests.system.pair import TUNNEL, Pair

SCRAPE = "python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:9586/metrics\").read().decode())'"


def test_an_operator_watches_it(pair: Pair) -> None:
    """The scrape's user has no account and sees nothing but the sockets; admins may, others may not."""
    machine = pair.a.machine
    machine.run("ip link set lo up; cp /usr/share/doc/vpnd/examples/vpnd-metrics* /etc/systemd/system/")
    machine.run("systemctl daemon-reload && systemctl start vpnd-metrics.socket")
    assert 'vpnd_peer_up{instance="site",peer="b"} 1\n' in machine.output(SCRAPE)
    eventually(
        lambda: machine.output("systemctl list-units --no-legend 'vpnd-metrics@*'") == "",
        what="nothing left of the scrape",
    )
    assert machine.output("journalctl --no-pager -q -p warning -u 'vpnd-metrics@*'") == ""

    capture = machine.start("vpnctl pcap -c 4 -w /root/packets")
    eventually(lambda: machine.run("test -s /root/packets", check=False).returncode == 0, what="the file")
    assert pair.a.office.pings(TUNNEL["b"], count=2)
    assert capture.wait(20) == 0
    assert int(machine.output("stat -c %s /root/packets")) > 4 * 84

    machine.run("useradd -G vpnd-admin admin; useradd guest")
    begin = machine.run("timeout 5 runuser -u admin -- vpnctl monitor | head -n 1").stdout
    assert json.loads(begin)["peers"] == {"b": "up"}
    for words in ("pcap -w /dev/null", "monitor"):
        assert machine.run(f"runuser -u guest -- vpnctl -i site {words}", check=False).returncode == 5
