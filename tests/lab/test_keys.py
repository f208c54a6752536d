"""Keys are replaced by reloads while the tunnel is in use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.lab.classical import GATEWAY_TUNNEL, U_TUNNEL, V_INNER, Classical, build, configure
from tests.lab.namespaces import Lab, eventually
from tests.lab.tools import UdpStream
from tests.lab.vpnd import KeyPair, Vpnd

QUICK = {"rekey_after_s": 1.0, "rekey_jitter_s": 0.2, "rekey_responder_s": 2.0}


def replace(vpnd: Vpnd, old: str | Path, new: str | Path, *, reload: bool = True) -> None:
    """Changes the configuration in one place and has the daemon read it."""
    text = vpnd.config_file.read_text()
    assert text.count(str(old)) == 1
    vpnd.config_file.write_text(text.replace(str(old), str(new)))
    if reload:
        vpnd.ctl("reload")


OVERLAP_S = 20  # of a key that is replaced


def told(vpnd: Vpnd, old: KeyPair, new: KeyPair, *, reload: bool = True) -> None:
    """A daemon reads that its peer has a new key; the old one is still taken."""
    replace(vpnd, f'"{old.public}"', f'"{new.public}"\nprevious_public_key = "{old.public}"', reload=reload)


def rotated(vpnd: Vpnd, old: KeyPair, new: KeyPair, *, reload: bool = True) -> None:
    """A daemon reads its own new key; the old one still answers."""
    replace(vpnd, f'"{old.file}"', f'"{new.file}"\nprevious_private_key = "{old.file}"', reload=reload)


def handshakes(vpnd: Vpnd, peer: str) -> int:
    count: int = vpnd.peer(peer)["handshakes"]
    return count


def test_another_private_key_works_within_a_second(classical: Classical) -> None:
    """[A17] U changes its key, then the gateway; each time the other side is told first."""
    gateway, u = classical.gateway_vpnd, classical.u_vpnd
    for changed, other in ((u, gateway), (gateway, u)):
        assert classical.u.pings(V_INNER)
        new = changed.new_key("new")
        replace(other, changed.key.public, new.public)
        replace(changed, changed.key.file, new.file)
        assert classical.u.pings(GATEWAY_TUNNEL)
        assert changed.status()["public_key"] == new.public
    assert classical.v.pings(U_TUNNEL)


def test_the_old_private_key_is_worth_nothing_once_the_other_side_has_the_new(classical: Classical) -> None:
    """[A17] The gateway knows only U's new key: what U still does with its old one is refused."""
    new = classical.u_vpnd.new_key("new")
    assert classical.u.pings(V_INNER)
    replace(classical.gateway_vpnd, classical.u_vpnd.key.public, new.public)
    assert not classical.u.pings(V_INNER)
    classical.u_vpnd.ctl("reconnect gateway")
    eventually(
        lambda: classical.gateway_vpnd.drops().get("hs_unknown_peer", 0) > 0, what="the old key's refusal"
    )
    replace(classical.u_vpnd, classical.u_vpnd.key.file, new.file)
    assert classical.u.pings(V_INNER)


@pytest.mark.parametrize("first", ["u", "gateway"])
def test_a_preshared_key_rolls_over_without_a_lost_packet(lab: Lab, first: str) -> None:
    """[A16] One side has the new key, later the other; sessions are renewed in every stage of it."""
    topology = build(lab)
    u, gateway = topology.u_vpnd, topology.gateway_vpnd
    u.timers = gateway.timers = QUICK
    old, new = u.new_psk("old"), u.new_psk("new")
    line = f'preshared_key = "{old}"'
    configure(topology, u_peer=line, gateway_peer=line)
    topology.start()
    streams = {
        "u to v": UdpStream(topology.u, topology.v, V_INNER, rate=200),
        "v to u": UdpStream(topology.v, topology.u, U_TUNNEL, rate=200),
    }

    def renew(what: str) -> None:
        before = handshakes(u, "gateway")
        eventually(lambda: handshakes(u, "gateway") >= before + 2, within_s=15, what=f"two rekeys {what}")

    renew("under the old key")
    for side in (u, gateway) if first == "u" else (gateway, u):
        replace(side, old, new)
        renew(f"after {side.host} has the new key")
    for name, stream in streams.items():
        sent, received = stream.stop()
        assert received == sent, f"{name}: {sent - received} of {sent} lost"
    u.assert_no_error()
    gateway.assert_no_error()


@pytest.mark.parametrize("is_told_first", [True, False], ids=["told first", "told last"])
def test_both_ends_rotate_their_keys_under_traffic_without_a_lost_packet(
    lab: Lab, is_told_first: bool
) -> None:
    """[A17] One after the other, sessions are renewed all the while; then the old keys are refused."""
    topology = build(lab)
    u, gateway = topology.u_vpnd, topology.gateway_vpnd
    u.timers = gateway.timers = QUICK
    overlap = f"key_overlap = {OVERLAP_S}"
    configure(topology, u_local=overlap, gateway_local=overlap)
    topology.start()
    planes = u.plane_pid(), gateway.plane_pid()
    streams = {
        "u to v": UdpStream(topology.u, topology.v, V_INNER, rate=1000),
        "v to u": UdpStream(topology.v, topology.u, U_TUNNEL, rate=1000),
    }
    olds, news = {}, {}
    for changed, other, name in ((u, gateway, "gateway"), (gateway, u, "u")):
        old, new = changed.key, changed.new_key("new")
        olds[changed], news[changed] = old, new
        steps = [(told, other), (rotated, changed)]
        for step, vpnd in steps if is_told_first else reversed(steps):
            step(vpnd, old, new)
            before = handshakes(changed, name)
            eventually(
                lambda: handshakes(changed, name) >= before + 2,  # noqa: B023
                within_s=15,
                what=f"two rekeys, {changed.host} changing its key",
            )
        status = changed.status()
        assert status["public_key"] == new.public
        assert status["previous_key"]["public_key"] == old.public
        assert 0 < status["previous_key"]["left_s"] <= OVERLAP_S
        assert other.peer({"gateway": "u", "u": "gateway"}[name])["public_key"] == new.public
    for name, stream in streams.items():
        sent, received = stream.stop()
        print(f"{name}: {sent} sent, {received} received")
        assert sent > 2000
        assert received == sent, f"{name}: {sent - received} of {sent} lost"
    assert (u.plane_pid(), gateway.plane_pid()) == planes
    eventually(lambda: u.status()["previous_key"]["left_s"] == 0, within_s=OVERLAP_S + 5, what="the end")
    eventually(
        lambda: gateway.status()["previous_key"]["left_s"] == 0, within_s=OVERLAP_S + 5, what="the end"
    )
    assert topology.u.pings(V_INNER)
    assert_old_keys_are_refused(u, gateway, olds)
    assert not topology.u.pings(V_INNER)
    u.assert_no_error()
    gateway.assert_no_error()


def test_a_key_that_changed_while_the_daemon_was_away_costs_no_packet(lab: Lab) -> None:
    """[A17, I13] It finds the session of the peer's old key and goes on with it as the same peer's."""
    topology = build(lab, own_plane=True)
    topology.start()
    u, gateway = topology.u_vpnd, topology.gateway_vpnd
    new = u.new_key("new")
    streams = {
        "u to v": UdpStream(topology.u, topology.v, V_INNER, rate=1000),
        "v to u": UdpStream(topology.v, topology.u, U_TUNNEL, rate=1000),
    }
    for vpnd, change, peer in ((gateway, told, "u"), (u, rotated, "gateway")):
        vpnd.kill()
        change(vpnd, u.key, new, reload=False)
        vpnd.start()
        assert vpnd.log().endswith("ready: 1 of 1 peers up\n")
        vpnd.ctl(f"reconnect {peer}")
        eventually(lambda: handshakes(vpnd, peer) > 0, what="a handshake")  # noqa: B023
    for name, stream in streams.items():
        sent, received = stream.stop()
        assert received == sent, f"{name}: {sent - received} of {sent} lost"
    assert gateway.peer("u")["public_key"] == u.status()["public_key"] == new.public


def test_a_new_key_of_a_peer_that_is_taken_back_costs_no_packet(lab: Lab) -> None:
    """[A17, I6] The files before are put back, as after a mistake; the peer is the same throughout."""
    topology = build(lab)
    topology.start()
    gateway = topology.gateway_vpnd
    before = gateway.config_file.read_text()
    stream = UdpStream(topology.v, topology.u, U_TUNNEL, rate=1000)
    sent_before = gateway.peer_now("u")["tx_packets"]
    told(gateway, topology.u_vpnd.key, topology.u_vpnd.new_key("new"))
    gateway.config_file.write_text(before)
    gateway.ctl("reload")
    eventually(lambda: gateway.peer_now("u")["tx_packets"] > sent_before + 1000, what="traffic afterwards")
    count = handshakes(gateway, "u")
    gateway.ctl("reconnect u")
    eventually(lambda: handshakes(gateway, "u") > count, what="a handshake under the old key")
    sent, received = stream.stop()
    assert received == sent, f"{sent - received} of {sent} lost"
    assert gateway.peer("u")["public_key"] == topology.u_vpnd.key.public
    gateway.assert_no_error()


def assert_old_keys_are_refused(u: Vpnd, gateway: Vpnd, olds: Mapping[Vpnd, KeyPair]) -> None:
    """U calls once more for the gateway's old key, then under its own old one."""
    text = u.config_file.read_text()
    current = f'public_key = "{gateway.status()["public_key"]}"'
    assert current in text
    before = gateway.drops().get("rx_mac1", 0)
    without_previous = text.replace(f'previous_public_key = "{olds[gateway].public}"', "")
    u.config_file.write_text(without_previous.replace(current, f'public_key = "{olds[gateway].public}"'))
    u.ctl("reload")
    u.ctl("reconnect gateway", check=False)
    eventually(lambda: gateway.drops().get("rx_mac1", 0) > before, what="the gateway's old key being refused")
    before = gateway.drops().get("hs_unknown_peer", 0)
    private = next(line for line in text.splitlines() if line.lstrip().startswith("private_key"))
    previous = next(line for line in text.splitlines() if line.lstrip().startswith("previous_private_key"))
    old = without_previous.replace(private, f'private_key = "{olds[u].file}"').replace(previous, "")
    u.config_file.write_text(old)
    u.ctl("reload")
    u.ctl("reconnect gateway", check=False)
    eventually(lambda: gateway.drops().get("hs_unknown_peer", 0) > before, what="U's old key being refused")
