"""One thing wrong at a time: what `vpnctl why` names first, on both sides (topology in classical.py).

U calls, the gateway is called. LIVE and AT_START are the table: a fault, how it comes and goes, and the first
check that fails on either side; None where that side has nothing to say, as it cannot know. What V does is
beyond both: whether it knows the way back to the tunnel's addresses, no daemon can see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.lab.classical import (
    GATEWAY_OUTER,
    PORT,
    U_OUTER,
    U_TUNNEL,
    V_INNER,
    Classical,
    build,
    configure,
)
from tests.lab.faults import (
    STRANGER,
    Cause,
    Fault,
    all_of,
    another_key,
    another_knock,
    by_gateway,
    by_u,
    clock_of_u,
    drop,
    edited,
    gateway,
    mend_firewalls,
    ping_v,
    preshared_key,
    reconnect,
    reload_u,
    start_gateway,
    stop_gateway,
    tap_at_gateway,
    three_for_two,
    u,
)
from tests.lab.namespaces import Lab, eventually, laboratory
from tests.lab.vpnd import Vpnd

# So that a peer's silence is noticed within two seconds rather than ten.
IMPATIENT = {
    "probe_s": [0.2, 0.3, 0.4],
    "probe_handshake_s": 0.5,
    "hs_retry_s": [0.3],
    "hs_retry_jitter_s": 0.1,
}


# -- the table --

SILENT = ("handshake", f"{GATEWAY_OUTER}:{PORT} has not answered")
CLOSED = ("handshake", "nothing listens on this port")
NOT_CALLED = ("handshake", "the peer has not called")
RP_FILTER = "sysctl -qw net.ipv4.conf.vpn-gw.rp_filter"
GROUPS = '[groups.staff]\npeers = ["u"]\nallow = ["icmp"]\n'
OTHER = f'[peer.other]\npublic_key = "{STRANGER}"\nnetworks = ["{U_TUNNEL}/32"]\n[peer.u]'

LIVE = (
    Fault(
        "a route deleted by hand", ("routes", "192.168.60.0/24 is routed nowhere"), None,
        by_u("ip route del 192.168.60.0/24 dev vpn-u"), reload_u,
    ),
    Fault(
        "routes switched off", ("routes", "192.168.60.0/24 is routed nowhere"), None,
        edited(u, "endpoint =", "route = false\nendpoint ="), edited(u, "route = false\n", ""),
    ),
    Fault(
        "an address deleted by hand", ("link", f"vpn-u has lost its address {U_TUNNEL}/24"), None,
        by_u(f"ip addr del {U_TUNNEL}/24 dev vpn-u"), reload_u,
    ),
    Fault(
        "the link set down", ("link", "vpn-u was set down"), None,
        by_u("ip link set vpn-u down"), reload_u,
    ),
    Fault(
        "the MTU changed by hand", ("link", "vpn-u has an MTU of 1300, and not 1420"), None,
        by_u("ip link set vpn-u mtu 1300"), reload_u,
    ),
    Fault(
        "forwarding not configured", None, ("forwarding", "are not forwarded"),
        all_of(
            edited(gateway, "forward = true", "forward = false"),
            by_gateway("sysctl -qw net.ipv4.conf.vpn-gw.forwarding=0"),
            ping_v,
        ),
        edited(gateway, "forward = false", "forward = true"),
    ),
    Fault(
        "strict reverse-path filtering", None, ("rp_filter", "strict reverse-path filtering on vpn-gw"),
        by_gateway(f"{RP_FILTER}=1", f"ip route add {U_TUNNEL}/32 dev inner metric 1"),
        by_gateway(f"{RP_FILTER}=0", f"ip route del {U_TUNNEL}/32 dev inner"),
    ),
    Fault(
        "a group that forbids", None, ("groups", f"udp to {V_INNER} "),
        all_of(
            edited(gateway, "[routing]", f"{GROUPS}[routing]"),
            lambda at: at.u.run(f"bash -c 'echo > /dev/udp/{V_INNER}/9'"),
        ),
        edited(gateway, GROUPS, ""),
    ),
    Fault(
        "no way to the endpoint", ("outer route", f"this machine has no route to {GATEWAY_OUTER}"), None,
        by_u(f"ip addr del {U_OUTER}/24 dev eth0"), by_u(f"ip addr add {U_OUTER}/24 dev eth0"),
    ),
    Fault(
        "the endpoint within the tunnel", ("outer route", "leads into vpn-u itself, a loop"), None,
        edited(u, "networks = [", f'networks = ["{GATEWAY_OUTER}/32", '),
        edited(u, f'"{GATEWAY_OUTER}/32", ', ""),
    ),
    Fault(
        "a firewall that came later", SILENT, None,
        all_of(lambda at: at.gateway.nft(drop("input", f"udp dport {PORT}")), ping_v),
        all_of(mend_firewalls, reconnect),
    ),
    Fault(
        "a clock that went back", SILENT, ("handshake", "its clock is behind one it showed before"),
        clock_of_u(-3600), clock_of_u(0),
    ),
    Fault(
        "a daemon that was stopped", CLOSED, ("daemon", "site is not running"),
        stop_gateway, start_gateway,
    ),
    Fault(
        "a pool without enough addresses", CLOSED,
        ("config", "10.8.0.0/31 has 2 addresses to give, 3 are needed"),
        all_of(stop_gateway, three_for_two), all_of(configure, start_gateway),
    ),
)  # fmt: skip

AT_START = (
    Fault(
        "another public key of the called", SILENT, ("handshake", "another public key for us"),
        another_key(u, gateway),
    ),
    Fault(
        "another public key of the caller", SILENT, ("handshake", "its public key is not configured here"),
        another_key(gateway, u),
    ),
    Fault(
        "preshared keys that differ", SILENT, ("handshake", "the preshared keys differ"),
        all_of(preshared_key(gateway, "peer.u", "one"), preshared_key(u, "peer.gateway", "other")),
    ),
    Fault(
        "a preshared key on one side", SILENT, ("handshake", "or one side has none"),
        preshared_key(gateway, "peer.u", "lone"),
    ),
    Fault("another knock", SILENT, ("handshake", "or with another knock"), another_knock),
    Fault("TUN against TAP", SILENT, ("handshake", "what it offers does not fit: link type"), tap_at_gateway),
    Fault(
        "a peer disabled by the called", SILENT, ("config", "u is disabled"),
        edited(gateway, "[peer.u]", "[peer.u]\nenabled = false"),
    ),
    Fault(
        "a peer disabled by the caller", ("config", "gateway is disabled"), NOT_CALLED,
        edited(u, "[peer.gateway]", "[peer.gateway]\nenabled = false"),
    ),
    Fault("a wrong port", CLOSED, NOT_CALLED, edited(u, f":{PORT}", ":5181")),
    Fault(
        "a name without an address", ("name", "gateway.invalid does not resolve"), NOT_CALLED,
        edited(u, GATEWAY_OUTER, "gateway.invalid"),
    ),
    Fault(
        "no socket of the endpoint's IP version", ("socket", "no socket of ours speaks IPv6"), NOT_CALLED,
        all_of(
            edited(u, f"{GATEWAY_OUTER}:{PORT}", f"[fd09::11]:{PORT}"),
            edited(u, "[local]", '[local]\nlisten = ["0.0.0.0:5182"]'),
        ),
    ),
    Fault(
        "a firewall of the caller", ("handshake", "this machine forbids itself to send there"), NOT_CALLED,
        lambda at: at.u.nft(drop("output", f"udp dport {PORT}")),
    ),
    Fault(
        "a firewall of the called", SILENT, NOT_CALLED,
        lambda at: at.gateway.nft(drop("input", f"udp dport {PORT}")),
    ),
    Fault(
        "no address to be given", ("push", "gateway gives this machine no address"),
        ("networks", "were dropped, the last"),
        all_of(
            edited(u, f'addresses = ["{U_TUNNEL}/24", "fd53::99/64"]', 'addresses = "assigned"'),
            edited(u, "[peer.gateway]", '[peer.gateway]\naccept = ["address"]'),
        ),
    ),
    Fault(
        "an inner source that is not expected",
        ("networks", "gateway drops our packets: inner source not in the networks it has for us"),
        ("networks", "were dropped, the last"),
        edited(gateway, f'"{U_TUNNEL}/32"', '"192.168.53.98/32"'),
    ),
    Fault(
        "a network that another peer has",
        ("networks", "gateway drops our packets: inner source not in the networks it has for us"),
        ("networks", f"{U_TUNNEL}/32 within them is other's"),
        all_of(
            edited(gateway, f'"{U_TUNNEL}/32"', '"192.168.53.96/28"'), edited(gateway, "[peer.u]", OTHER)
        ),
    ),
)  # fmt: skip


# -- the tests --


def cause(vpnd: Vpnd, peer: str) -> tuple[str, str] | None:
    """Tells the first check that failed; without a daemon vpnctl has the files to look at."""
    if (vpnd.runtime_dir / "control.sock").exists():
        findings = vpnd.ask("why", peer=peer)["findings"]
    else:
        done = vpnd.ctl(f"--json why {peer}", check=False)
        assert done.returncode == 3, done.stdout + done.stderr
        findings = json.loads(done.stdout)["findings"]
    return next(((each["name"], each["text"]) for each in findings if each["ok"] is False), None)


def assert_causes(at: Classical, caller: Cause, called: Cause) -> None:
    """Waits until either side names that cause first, which needs a handshake or two, or a packet."""
    said: list[tuple[str, str] | None] = []

    def as_wanted() -> bool:
        at.u.pings(V_INNER, wait_s=0.1)
        said[:] = cause(at.u_vpnd, "gateway"), cause(at.gateway_vpnd, "u")
        return all(map(_is, said, (caller, called)))

    try:
        eventually(as_wanted, within_s=30)
    except AssertionError:
        raise AssertionError(f"caller and called say {said}") from None


def _is(said: tuple[str, str] | None, wanted: Cause) -> bool:
    if said is None or wanted is None:
        return said is wanted
    return said[0] == wanted[0] and wanted[1] in said[1]


@pytest.fixture(scope="module")
def joined() -> Iterator[Classical]:
    """U and the gateway, joined; every test leaves them so."""
    with laboratory() as lab:
        at = build(lab)
        at.u_vpnd.timers = IMPATIENT
        at.gateway.sysctl("net.ipv4.icmp_ratelimit", 0)  # every datagram to a closed port is answered
        at.start()
        yield at
        at.u_vpnd.assert_no_error()


@pytest.fixture(scope="module")
def apart() -> Iterator[Classical]:
    """U and the gateway; every test starts and stops both."""
    with laboratory() as lab:
        at = build(lab)
        yield at
        at.u_vpnd.assert_no_error()
        at.gateway_vpnd.assert_no_error()


@pytest.mark.parametrize("fault", LIVE, ids=str)
def test_a_fault_that_comes_is_named_first_and_no_more_once_it_is_mended(
    joined: Classical, fault: Fault
) -> None:
    """[F2] By the side that can know, on both where both can."""
    assert fault.mend is not None
    assert_causes(joined, None, None)
    try:
        fault.inject(joined)
        assert_causes(joined, fault.caller, fault.called)
    finally:
        fault.mend(joined)
    assert_causes(joined, None, None)


@pytest.mark.parametrize("fault", AT_START, ids=str)
def test_a_fault_from_the_start_is_named_first(apart: Classical, fault: Fault) -> None:
    """[A13, A16] Neither side has ever been better."""
    both = apart.u_vpnd, apart.gateway_vpnd
    configure(apart)
    with ExitStack() as undone:
        undone.callback(mend_firewalls, apart)
        fault.inject(apart)
        for vpnd, link in zip(both, ("vpn-u", "vpn-gw"), strict=True):
            undone.callback(end, vpnd, link)
            vpnd.start(wait=False)
        for vpnd in both:
            vpnd.wait_ready()
        assert_causes(apart, fault.caller, fault.called)


def end(vpnd: Vpnd, link: str) -> None:
    """Stops a daemon and has it begin as new the next time."""
    vpnd.stop()
    (vpnd.state_dir / "endpoints.json").unlink(missing_ok=True)
    vpnd.host.run(f"ip link del {link}", check=False)  # none is there if the start failed


def test_a_clock_that_went_back_does_no_harm_while_its_mark_is_kept(lab: Lab) -> None:
    """[F1] The state directory remembers the last timestamp used."""
    topology = build(lab)
    topology.start()
    topology.u_vpnd.stop()
    topology.u_vpnd.clock_shift_s = -3600
    topology.u_vpnd.start()
    topology.u_vpnd.wait_up()
    assert topology.u.pings(V_INNER)
