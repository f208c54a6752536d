"""Status reports to test with: one site with three peers, one of them down."""

from __future__ import annotations

from typing import Any

from vpnd.control import InstanceReport, LinkReport, PeerReport, PlaneReport, StatusReport

GIB = 1024**3
BERLIN_KEY = "YmVybGluYmVybGluYmVybGluYmVybGluYmVybGluISE="
LYON_KEY = "bHlvbmx5b25seW9ubHlvbmx5b25seW9ubHlvbmx5b24="
OSLO_KEY = "b3Nsb29zbG9vc2xvb3Nsb29zbG9vc2xvb3Nsb29zbG8="
SITE_KEY = "c2l0ZXNpdGVzaXRlc2l0ZXNpdGVzaXRlc2l0ZXNpdGU="

BERLIN = PeerReport(
    name="berlin",
    public_key=BERLIN_KEY,
    state="up",
    reason=None,
    endpoint="203.0.113.7:5180",
    handshake_age_s=41.3,
    handshakes=2205,
    rtt_ms=14.2,
    rx_bytes=int(1.2 * GIB),
    rx_packets=1_000_000,
    tx_bytes=int(3.4 * GIB),
    tx_packets=3_000_000,
    suite="aes-256-gcm",
    networks=("10.255.0.2/32", "10.20.0.0/16"),
    drops={"data_replay": 3},
    path_mtu=1480,
)
LYON = PeerReport(
    name="lyon",
    public_key=LYON_KEY,
    state="up",
    reason=None,
    endpoint="[2001:db8::9]:5180",
    handshake_age_s=62.9,
    handshakes=12,
    rtt_ms=9.14,
    rx_bytes=int(9.1 * GIB),
    rx_packets=8_000_000,
    tx_bytes=2 * GIB,
    tx_packets=2_000_000,
    suite="aes-256-gcm",
    networks=("10.30.0.0/16",),
    drops={},
    path_mtu=None,
)
OSLO = PeerReport(
    name="oslo",
    public_key=OSLO_KEY,
    state="down",
    reason="does not resolve (NXDOMAIN)",
    endpoint="oslo.example.net",
    handshake_age_s=None,
    handshakes=0,
    rtt_ms=None,
    rx_bytes=0,
    rx_packets=0,
    tx_bytes=0,
    tx_packets=0,
    suite=None,
    networks=("10.40.0.0/16",),
    drops={},
    path_mtu=None,
)


def site(**changes: Any) -> InstanceReport:
    """The instance, with some of its fields as the test wants them."""
    fields: dict[str, Any] = {
        "instance": "site",
        "state": "up",
        "uptime_s": 3 * 86400 + 4 * 3600 + 59.0,
        "link": LinkReport("vpn-site", "tun", 1420, ("10.255.0.1/30", "fd00:ff::1/64")),
        "listen": ("0.0.0.0:5180", "[::]:5180"),
        "public_key": SITE_KEY,
        "plane": PlaneReport(
            9 * 86400 + 3600.0, "aes-256-gcm (ipsec-mb)", ("udp-gso", "udp-gro", "tun-vnet")
        ),
        "peers": (BERLIN, LYON, OSLO),
        "drops": {"data_replay": 3, "rx_malformed": 17},
        "health": (),
    }
    return InstanceReport(**(fields | changes))


def status(**changes: Any) -> StatusReport:
    return StatusReport((site(**changes),))
