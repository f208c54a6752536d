"""Mistakes in files, and files that change under a running daemon."""

from __future__ import annotations

from tests.lab.classical import V_INNER, Classical, build, configure
from tests.lab.namespaces import Lab
from tests.lab.tools import UdpStream

TEN_MISTAKES = """\
[interface]
name = "a-name-that-is-too-long"
type = "tunnel"
addresses = ["10.0.0.300/24"]
mtu = 99

[local]
listen = ["0.0.0.0"]
private_key = "/nowhere/key"
color = "blue"

[peer.one]
public_key = "AAAA"
networks = ["10.0.0.1/24"]

[peer.two]
public_key = "kpUfL2TFBfmvcfB5XBLzOkOXEI7ZoVqQJQ0hPnQXmzI="
endpoint = "two.example:99999"
keepalive = -1

[routing]
metric = "low"
"""
LINES = (2, 3, 4, 5, 8, 10, 13, 14, 18, 19, 22)


def test_ten_mistakes_are_reported_in_one_run_with_their_places(lab: Lab) -> None:
    """Every line with a mistake is named, the exit status is 78, and nothing was made."""
    topology = build(lab)
    vpnd = topology.u_vpnd
    vpnd.config_file.write_text(TEN_MISTAKES)
    for command in (f"check {vpnd.config_file}",):
        done = vpnd.ctl(command, check=False)
        assert done.returncode == 78
        for line in LINES:
            assert f"{vpnd.config_file.name}:{line}:" in done.stdout + done.stderr, (line, done.stderr)
    vpnd.start(wait=False)
    assert vpnd.daemon is not None
    assert vpnd.daemon.wait(10) == 78
    for line in LINES:
        assert f"{vpnd.config_file.name}:{line}:" in vpnd.log()
    assert "vpn-" not in topology.u.output("ip -br link")


def test_a_reload_with_mistakes_leaves_the_tunnel_untouched(classical: Classical) -> None:
    """The reload is refused with every mistake, and not a packet is lost meanwhile."""
    stream = UdpStream(classical.u, classical.v, V_INNER, rate=200)
    before = classical.u.output("ip addr"), classical.u.output("ip route")
    good = classical.u_vpnd.config_file.read_text()
    classical.u_vpnd.config_file.write_text(TEN_MISTAKES)
    done = classical.u_vpnd.ctl("reload", check=False)
    assert done.returncode == 78
    assert (done.stdout + done.stderr).count(f"{classical.u_vpnd.config_file.name}:") >= 10
    assert (classical.u.output("ip addr"), classical.u.output("ip route")) == before
    classical.u_vpnd.config_file.write_text(good)
    sent, received = stream.stop()
    assert received == sent
    assert classical.u_vpnd.peer("gateway")["state"] == "up"


def test_a_reload_changes_what_differs_and_a_dry_run_nothing(classical: Classical) -> None:
    """[I6] A network is added live; the session and its packets do not notice."""
    handshakes = classical.u_vpnd.peer("gateway")["handshakes"]
    configure(classical, u_networks=("192.168.53.11/32", "192.168.60.0/24", "10.77.0.0/16"))
    dry = classical.u_vpnd.ctl("reload --dry-run").stdout
    assert "10.77.0.0/16" in dry
    assert "10.77.0.0/16" not in classical.u.output("ip route")
    stream = UdpStream(classical.u, classical.v, V_INNER, rate=200)
    assert "10.77.0.0/16" in classical.u_vpnd.ctl("reload").stdout
    assert "10.77.0.0/16" in classical.u.output("ip route show dev vpn-u")
    sent, received = stream.stop()
    assert received == sent
    assert classical.u_vpnd.peer("gateway")["handshakes"] == handshakes
    assert "fd60::/64" not in classical.u.output("ip -6 route show dev vpn-u")


def test_a_reload_that_says_what_is_already_changes_nothing(classical: Classical) -> None:
    """The same file twice is no change."""
    assert "10." not in classical.u_vpnd.ctl("reload").stdout
