"""Keys are replaced by reloads while the tunnel is in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.classical import GATEWAY_TUNNEL, U_TUNNEL, V_INNER, Classical, build, configure
from tests.lab.namespaces import Lab, eventually
from tests.lab.tools import UdpStream
from tests.lab.vpnd import Vpnd

QUICK = {"rekey_after_s": 1.0, "rekey_jitter_s": 0.2, "rekey_responder_s": 2.0}


def replace(vpnd: Vpnd, old: str | Path, new: str | Path) -> None:
    """Changes the configuration in one place and has the daemon read it."""
    text = vpnd.config_file.read_text()
    assert text.count(str(old)) == 1
    vpnd.config_file.write_text(text.replace(str(old), str(new)))
    vpnd.ctl("reload")


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
