"""One thing wrong at a time: `vpnctl why` names it, on the side that can know."""

from __future__ import annotations

from tests.lab.classical import GATEWAY_OUTER, PORT, V_INNER, Classical, build, configure
from tests.lab.namespaces import Lab, eventually


def started(lab: Lab, **changes: object) -> Classical:
    """Builds the topology with one thing wrong and starts both sides, which may never come up."""
    topology = build(lab)
    configure(topology, **changes)  # type: ignore[arg-type]
    topology.gateway_vpnd.start()
    topology.u_vpnd.start()
    return topology


def test_all_is_well(classical: Classical) -> None:
    """The other tests mean something because nothing is named when nothing is wrong."""
    for vpnd, peer in ((classical.u_vpnd, "gateway"), (classical.gateway_vpnd, "u")):
        done = vpnd.ctl(f"why {peer}", check=False)
        assert done.returncode == 0, done.stdout


def test_a_wrong_public_key_is_named_by_the_side_that_is_called(lab: Lab) -> None:
    """U has another key for the gateway: U hears nothing, the gateway turns it away."""
    topology = build(lab)
    other = topology.gateway_vpnd.new_key("other")
    file = topology.u_vpnd.config_file
    file.write_text(file.read_text().replace(topology.gateway_vpnd.key.public, other.public))
    topology.gateway_vpnd.start()
    topology.u_vpnd.start()
    eventually(
        lambda: "another public key for us" in topology.gateway_vpnd.why("u"), what="the gateway's answer"
    )
    eventually(lambda: "has not answered" in topology.u_vpnd.why("gateway"), what="U's answer")


def test_an_unknown_caller_is_named(lab: Lab) -> None:
    """The gateway has another key for U."""
    topology = build(lab)
    other = topology.u_vpnd.new_key("other")
    file = topology.gateway_vpnd.config_file
    file.write_text(file.read_text().replace(topology.u_vpnd.key.public, other.public))
    topology.gateway_vpnd.start()
    topology.u_vpnd.start()
    eventually(lambda: "hs_unknown_peer" in topology.gateway_vpnd.why("u"), what="the gateway's answer")


def test_different_preshared_keys_are_named(lab: Lab) -> None:
    """[A16] Both have one, but not the same."""
    topology = build(lab)
    ours, theirs = topology.u_vpnd.new_psk("one"), topology.gateway_vpnd.new_psk("two")
    configure(topology, u_peer=f'preshared_key = "{ours}"', gateway_peer=f'preshared_key = "{theirs}"')
    topology.gateway_vpnd.start()
    topology.u_vpnd.start()
    eventually(lambda: "preshared keys differ" in topology.gateway_vpnd.why("u"), what="the gateway's answer")


def test_a_name_that_does_not_resolve_is_named(lab: Lab) -> None:
    """The endpoint's name has no address."""
    topology = build(lab)
    file = topology.u_vpnd.config_file
    file.write_text(file.read_text().replace(f"{GATEWAY_OUTER}:{PORT}", f"gateway.invalid:{PORT}"))
    topology.u_vpnd.start()
    eventually(lambda: "does not resolve" in topology.u_vpnd.why("gateway"), within_s=30, what="U's answer")


def test_a_closed_port_is_named(lab: Lab) -> None:
    """Nobody listens at the endpoint."""
    topology = build(lab)
    topology.u_vpnd.start()
    assert "nothing listens on this port" in topology.u_vpnd.why("gateway")


def test_a_clock_that_went_back_is_named_by_the_other_side(lab: Lab) -> None:
    """[F2] U's clock is an hour behind what the gateway saw of it, and U's memory of that is gone."""
    topology = build(lab)
    topology.start()
    topology.u_vpnd.stop()
    for file in topology.u_vpnd.state_dir.iterdir():
        file.unlink()
    topology.u_vpnd.clock_shift_s = -3600
    topology.u_vpnd.start()
    eventually(lambda: "clock is behind" in topology.gateway_vpnd.why("u"), what="the gateway's answer")


def test_a_clock_that_went_back_does_no_harm_while_its_mark_is_kept(lab: Lab) -> None:
    """[F1] The state directory remembers the last timestamp used."""
    topology = build(lab)
    topology.start()
    topology.u_vpnd.stop()
    topology.u_vpnd.clock_shift_s = -3600
    topology.u_vpnd.start()
    topology.u_vpnd.wait_up()
    assert topology.u.pings(V_INNER)


def test_a_missing_route_is_named(lab: Lab) -> None:
    """Routes were switched off, and nobody made one by hand."""
    topology = started(lab, u_peer="route = false")
    topology.u_vpnd.wait_up()
    why = topology.u_vpnd.why("gateway")
    assert "192.168.60.0/24 is routed" in why
    assert "route = true" in why


def test_forwarding_that_is_off_is_named_by_the_gateway(lab: Lab) -> None:
    """U's packets reach the gateway and go no further."""
    topology = started(lab, routing="forward = false")
    topology.u_vpnd.wait_up()
    assert not topology.u.pings(V_INNER, count=2)
    done = topology.gateway_vpnd.ctl("why u", check=False)
    assert done.returncode == 1
    assert "are not forwarded" in done.stdout
    assert "routing.forward = true" in done.stdout


def test_a_disabled_peer_is_named(lab: Lab) -> None:
    """[A13] The gateway has switched U off: U gets no answer, and the gateway says why."""
    topology = started(lab, gateway_peer="enabled = false")
    assert "is disabled" in topology.gateway_vpnd.why("u")
    before = topology.gateway_vpnd.drops().get("hs_unknown_peer", 0)
    topology.u_vpnd.ctl("reconnect gateway")
    eventually(lambda: topology.gateway_vpnd.drops().get("hs_unknown_peer", 0) > before, what="the count")
    assert topology.u_vpnd.peer("gateway")["state"] != "up"


def test_a_dead_daemon_is_said_so(lab: Lab) -> None:
    """`why` without a daemon tells that there is none."""
    topology = build(lab)
    done = topology.u_vpnd.ctl("why gateway", check=False)
    assert done.returncode == 3, done.stdout + done.stderr
