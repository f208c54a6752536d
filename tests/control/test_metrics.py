# ruff: noqa: E501 -- the lines of the format are as long as they are
import io
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_fd_to_metric_families

from tests.fakes.status_reports import BERLIN, BERLIN_KEY, OSLO, SITE_KEY, site, status
from vpnd.control import HealthFinding, PlaneReport, StatusReport
from vpnd.control.metrics import metric_names, to_openmetrics, to_prometheus

GOLDEN = f"""\
# TYPE vpnd_instance info
# HELP vpnd_instance What the instance is.
vpnd_instance_info{{instance="site",public_key="{SITE_KEY}",state="up",link="vpn-site",link_type="tun",aead="aes-256-gcm (ipsec-mb)"}} 1
# TYPE vpnd_uptime_seconds gauge
# UNIT vpnd_uptime_seconds seconds
# HELP vpnd_uptime_seconds Time since the daemon started.
vpnd_uptime_seconds{{instance="site"}} 273659.0
# TYPE vpnd_plane_uptime_seconds gauge
# UNIT vpnd_plane_uptime_seconds seconds
# HELP vpnd_plane_uptime_seconds Time since the packet mover started.
vpnd_plane_uptime_seconds{{instance="site"}} 781200.0
# TYPE vpnd_offload_active gauge
# HELP vpnd_offload_active 1 while the kernel's offload is in use.
vpnd_offload_active{{instance="site",offload="udp-gso"}} 1
vpnd_offload_active{{instance="site",offload="udp-gro"}} 1
vpnd_offload_active{{instance="site",offload="tun-vnet"}} 1
# TYPE vpnd_health_findings gauge
# HELP vpnd_health_findings Findings that wait for the operator.
vpnd_health_findings{{instance="site"}} 0
# TYPE vpnd_health_finding gauge
# HELP vpnd_health_finding How many findings there are with this code.
# TYPE vpnd_drops counter
# HELP vpnd_drops Packets dropped, by reason, with and without a peer.
vpnd_drops_total{{instance="site",reason="data_replay"}} 3
vpnd_drops_total{{instance="site",reason="rx_malformed"}} 17
# TYPE vpnd_peer info
# HELP vpnd_peer What the peer is.
vpnd_peer_info{{instance="site",peer="berlin",public_key="{BERLIN_KEY}",endpoint="203.0.113.7:5180",suite="aes-256-gcm"}} 1
# TYPE vpnd_peer_up gauge
# HELP vpnd_peer_up 1 while the peer has a working session.
vpnd_peer_up{{instance="site",peer="berlin"}} 1
# TYPE vpnd_peer_state stateset
# HELP vpnd_peer_state The peer's state.
vpnd_peer_state{{instance="site",peer="berlin",vpnd_peer_state="up"}} 1
vpnd_peer_state{{instance="site",peer="berlin",vpnd_peer_state="connecting"}} 0
vpnd_peer_state{{instance="site",peer="berlin",vpnd_peer_state="down"}} 0
vpnd_peer_state{{instance="site",peer="berlin",vpnd_peer_state="disabled"}} 0
# TYPE vpnd_peer_receive_bytes counter
# UNIT vpnd_peer_receive_bytes bytes
# HELP vpnd_peer_receive_bytes Inner bytes received from the peer.
vpnd_peer_receive_bytes_total{{instance="site",peer="berlin"}} 1288490188
# TYPE vpnd_peer_receive_packets counter
# HELP vpnd_peer_receive_packets Inner packets received from the peer.
vpnd_peer_receive_packets_total{{instance="site",peer="berlin"}} 1000000
# TYPE vpnd_peer_transmit_bytes counter
# UNIT vpnd_peer_transmit_bytes bytes
# HELP vpnd_peer_transmit_bytes Inner bytes sent to the peer.
vpnd_peer_transmit_bytes_total{{instance="site",peer="berlin"}} 3650722201
# TYPE vpnd_peer_transmit_packets counter
# HELP vpnd_peer_transmit_packets Inner packets sent to the peer.
vpnd_peer_transmit_packets_total{{instance="site",peer="berlin"}} 3000000
# TYPE vpnd_peer_handshakes counter
# HELP vpnd_peer_handshakes Handshakes completed with the peer.
vpnd_peer_handshakes_total{{instance="site",peer="berlin"}} 2205
# TYPE vpnd_peer_handshake_age_seconds gauge
# UNIT vpnd_peer_handshake_age_seconds seconds
# HELP vpnd_peer_handshake_age_seconds Time since the last handshake.
vpnd_peer_handshake_age_seconds{{instance="site",peer="berlin"}} 41.3
# TYPE vpnd_peer_rtt_seconds gauge
# UNIT vpnd_peer_rtt_seconds seconds
# HELP vpnd_peer_rtt_seconds Last measured round trip.
vpnd_peer_rtt_seconds{{instance="site",peer="berlin"}} 0.0142
# TYPE vpnd_peer_path_mtu_bytes gauge
# UNIT vpnd_peer_path_mtu_bytes bytes
# HELP vpnd_peer_path_mtu_bytes Largest outer packet that was seen to arrive at the peer.
vpnd_peer_path_mtu_bytes{{instance="site",peer="berlin"}} 1480
# TYPE vpnd_peer_drops counter
# HELP vpnd_peer_drops Packets of the peer dropped, by reason.
vpnd_peer_drops_total{{instance="site",peer="berlin",reason="data_replay"}} 3
# EOF
"""


def samples(report: StatusReport) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Reads the text as a strict collector does; a sample twice fails there."""
    families = list(text_string_to_metric_families(to_openmetrics(report)))  # type: ignore[no-untyped-call]
    found = [
        ((sample.name, tuple(sorted(sample.labels.items()))), sample.value)
        for family in families
        for sample in family.samples
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_the_text_is_exactly_this() -> None:
    assert to_openmetrics(status(peers=(BERLIN,))) == GOLDEN


def test_a_strict_parser_reads_every_sample() -> None:
    found = samples(status())
    assert found["vpnd_peer_up", (("instance", "site"), ("peer", "oslo"))] == 0
    assert found["vpnd_peer_receive_bytes_total", (("instance", "site"), ("peer", "berlin"))] == 1288490188
    assert found["vpnd_drops_total", (("instance", "site"), ("reason", "rx_malformed"))] == 17
    assert found["vpnd_peer_rtt_seconds", (("instance", "site"), ("peer", "berlin"))] == 0.0142
    assert sum(value for (name, _), value in found.items() if name == "vpnd_peer_state") == 3


def test_what_is_not_known_has_no_sample() -> None:
    names = {name for name, _ in samples(status(peers=(OSLO,), link=None, plane=None))}
    assert "vpnd_peer_handshakes_total" in names
    assert not names & {
        "vpnd_peer_rtt_seconds",
        "vpnd_peer_handshake_age_seconds",
        "vpnd_plane_uptime_seconds",
        "vpnd_offload_active",
    }


def test_each_offload_is_on_or_off() -> None:
    found = samples(status(plane=PlaneReport(1.0, None, ("udp-gro",))))
    active = {dict(labels)["offload"]: value for (name, labels), value in found.items() if "offload" in name}
    assert active == {"udp-gso": 0, "udp-gro": 1, "tun-vnet": 0}


def test_findings_are_counted_by_code() -> None:
    silent, clock = (
        HealthFinding("peer-silent", "", ""),
        HealthFinding("clock-behind", "", "", level="notice"),
    )
    found = samples(status(health=(silent, clock, silent)))
    counted = {labels: value for (name, labels), value in found.items() if name == "vpnd_health_finding"}
    assert counted == {
        (("code", "peer-silent"), ("instance", "site"), ("level", "warning")): 2,
        (("code", "clock-behind"), ("instance", "site"), ("level", "notice")): 1,
    }


def test_prometheus_own_format_has_the_same_samples_under_types_it_knows() -> None:
    report = status()
    text = to_prometheus(report)
    kinds = {line.split()[3] for line in text.splitlines() if line.startswith("# TYPE ")}
    assert kinds == {"counter", "gauge"}
    assert "# UNIT" not in text
    assert "# EOF" not in text
    older = [
        (sample.name, sample.labels, sample.value)
        for family in text_fd_to_metric_families(io.StringIO(text))
        for sample in family.samples
    ]
    newer = [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(to_openmetrics(report))  # type: ignore[no-untyped-call]
        for sample in family.samples
    ]
    assert older == newer
    assert {name for name, _, _ in newer} <= set(metric_names())


def test_two_instances_share_one_exposition() -> None:
    two = StatusReport((site(), site(instance="hub")))
    instances = {dict(labels)["instance"] for _, labels in samples(two)}
    assert instances == {"site", "hub"}
    assert to_openmetrics(two).count("# TYPE vpnd_peer_up gauge\n") == 1
    assert to_openmetrics(two).endswith("\n# EOF\n")


@settings(max_examples=50)
@given(st.text(max_size=10), st.integers(0, 2**64), st.floats(0, 1e9))
def test_any_text_and_figure_is_read_back(name: str, count: int, rtt_ms: float) -> None:
    peer = replace(BERLIN, name=name, tx_bytes=count, rtt_ms=rtt_ms)
    found = samples(status(peers=(peer,)))
    labels = (("instance", "site"), ("peer", name))
    assert found["vpnd_peer_transmit_bytes_total", labels] == count
    assert found["vpnd_peer_rtt_seconds", labels] == round(rtt_ms / 1000, 9)
