"""Metrics by the way that the documentation tells: a socket, vpnctl behind it, and a real Prometheus."""

from __future__ import annotations

import re
from pathlib import Path

from tests.lab.namespaces import Lab, eventually
from tests.lab.pair import CALLED_INNER, narrow_pair
from tests.lab.prometheus import Prometheus, programs
from tests.lab.vpnd import BIN, Vpnd
from tests.test_dashboard import EXPRESSIONS

DOCS = Path(__file__).resolve().parents[2] / "docs"
LISTEN = "127.0.0.1:9586"


def serve(daemon: Vpnd) -> None:
    """Does what vpnd-metrics.socket and its service do, without a service manager."""
    unit = (DOCS / "metrics/vpnd-metrics@.service").read_text()
    (command,) = re.findall(r"^ExecStart=/usr/bin/vpnctl (.*)$", unit, re.MULTILINE)
    assert f"ListenStream={LISTEN}\nAccept=yes" in (DOCS / "metrics/vpnd-metrics.socket").read_text()
    daemon.host.run("ip link set lo up")
    daemon.host.start(
        *("systemd-socket-activate", "--accept", "--inetd", "--listen", LISTEN),
        *(BIN / "vpnctl", "--runtime-dir", daemon.runtime_root, *command.split()),
        log="metrics.log",
    )


def configuration() -> str:
    """The one that operating.md shows, asked every second."""
    text = (DOCS / "operating.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    return f"global: {{ scrape_interval: 1s }}\n{block}"


def test_a_prometheus_scrapes_what_status_tells_and_every_panel_of_the_dashboard_works(lab: Lab) -> None:
    made = narrow_pair(lab)
    made.start()
    daemon = made.caller
    serve(daemon)
    prometheus = Prometheus(daemon.host, configuration())
    eventually(
        lambda: (
            prometheus.value('vpnd_peer_up{instance="site",peer="called"}') == 1
            and prometheus.value('up{job="vpnd"}') == 1
        ),
        within_s=30,
        what="the first scrape",
    )

    assert made.caller.host.pings(CALLED_INNER, count=5)
    sent = 'vpnd_peer_transmit_packets_total{instance="site",peer="called"}'
    eventually(
        lambda: (prometheus.value(sent) or 0) >= daemon.peer_now("called")["tx_packets"] - 1,
        what="the packets being counted",
    )
    for expression in EXPRESSIONS:
        asked = expression.replace("$instance", ".*").replace("$peer", ".*").replace("$__rate_interval", "1m")
        # Where one scrape took too long there is nothing until the next.
        if "drops" not in asked:
            eventually(lambda: bool(prometheus.query(asked)), what=f"data of {asked}")  # noqa: B023

    text = daemon.ctl("metrics --format prometheus").stdout
    checked = daemon.host.run(f"{programs()}/promtool check metrics", text=text)
    assert (checked.stdout, checked.stderr) == ("", "")

    made.called.stop()
    eventually(
        lambda: prometheus.value(sent.replace("transmit_packets_total", "up")) == 0, what="the peer down"
    )
    daemon.stop()
    eventually(
        lambda: prometheus.value('up{job="vpnd"}') == 0, within_s=30, what="a scrape that found nobody"
    )
