"""The road between the ends: sources, routes, names, links that come and go, and refusals of every kind."""

from __future__ import annotations

import time

import pytest

from tests.lab.namespaces import Lab, eventually
from tests.lab.pair import CALLED_INNER, CALLED_INNER6, CALLER_INNER, CALLER_INNER6, PORT, Pair, pair
from tests.lab.tools import Capture, UdpStream

CALLER_OUTER, CALLED_OUTER = "10.9.0.5", "10.9.0.11"
CALLER_OUTER6, CALLED_OUTER6 = "fd09::5", "fd09::11"
FAR = "198.51.100.1"  # an address of the called behind a route
FAR6 = "fd98::1"
BUSY = 0.3  # processor seconds a second: far above what the daemons need, far below a busy loop
NEVER_S = 600.0  # a retry interval that no test waits for


def cabled(lab: Lab) -> Pair:
    """Both ends on one cable, which each calls eth0; nothing is started."""
    caller, called = lab.host("caller"), lab.host("called")
    lab.cable(caller, "eth0", called, "eth0")
    for host, addresses in (
        (caller, (f"{CALLER_OUTER}/24", f"{CALLER_OUTER6}/64")),
        (called, (f"{CALLED_OUTER}/24", f"{CALLED_OUTER6}/64")),
    ):
        host.sysctl("net.ipv4.conf.eth0.promote_secondaries", 1)
        for address in addresses:
            host.run(f"ip addr add {address} dev eth0")
    ends = pair(caller, called)
    ends.configure(f"{CALLED_OUTER}:{PORT}")
    return ends


def routed(lab: Lab) -> Pair:
    """As `cabled`, but the called is called at an address that takes a route."""
    ends = cabled(lab)
    ends.called.host.run(f"ip addr add {FAR}/32 dev lo")
    ends.called.host.run(f"ip addr add {FAR6}/128 dev lo")
    ends.caller.host.run(f"ip route add {FAR} via {CALLED_OUTER}")
    ends.configure(f"{FAR}:{PORT}")
    return ends


# -- our own address --


def test_a_local_address_is_replaced_on_either_side(lab: Lab) -> None:
    """[C8] The address we sent from goes away, another is there: the next ping works."""
    ends = cabled(lab)
    ends.start()
    ends.caller.host.run("ip addr add 10.9.0.6/24 dev eth0")
    ends.caller.host.run(f"ip addr del {CALLER_OUTER}/24 dev eth0")
    assert ends.caller.host.pings(CALLED_INNER)
    eventually(
        lambda: ends.called.endpoint("caller").startswith("10.9.0.6:"), what="the caller's other address"
    )
    ends.called.host.run("ip addr add 10.9.0.12/24 dev eth0")
    ends.called.host.run(f"ip addr del {CALLED_OUTER}/24 dev eth0")
    assert ends.called.host.pings(CALLER_INNER)
    eventually(
        lambda: ends.caller.endpoint("called") == f"10.9.0.12:{PORT}", what="the called's other address"
    )
    ends.assert_no_error()


def test_answers_leave_from_the_address_that_was_called(lab: Lab) -> None:
    """[C9] Four local addresses of each family, one of them on another link: each is answered as itself."""
    ends = cabled(lab)
    called = ends.called.host
    called.run("ip link add other type bridge")
    called.run("ip link set other up")
    addresses = [CALLED_OUTER, "10.9.0.12", "10.9.0.13", "10.99.0.1"]
    addresses6 = [CALLED_OUTER6, "fd09::12", "fd09::13", "fd99::1"]
    for address in (*addresses[1:3], *addresses6[1:3]):
        called.run(f"ip addr add {address}/{64 if ':' in address else 24} dev eth0")
    for address in (addresses[3], addresses6[3]):
        called.run(f"ip addr add {address}/{128 if ':' in address else 32} dev other")
    ends.caller.host.run(f"ip route add 10.99.0.1 via {CALLED_OUTER}")
    ends.caller.host.run(f"ip -6 route add fd99::1 via {CALLED_OUTER6}")
    ends.start()
    for address in addresses + addresses6:
        endpoint = f"[{address}]:{PORT}" if ":" in address else f"{address}:{PORT}"
        ends.configure(endpoint)
        ends.caller.ctl("reload")
        assert ends.caller.host.pings(CALLED_INNER)
        # Echoes alone, by their size: a probe is answered to where it came from, though that changed since.
        echoes = f"udp src port {PORT} and greater 150 and less 180"
        answers = Capture(ends.caller.host, "eth0", echoes)
        assert ends.caller.host.pings(CALLED_INNER, count=3)
        assert called.pings(CALLER_INNER, count=3)
        answers.stop()
        assert len(answers.lines()) >= 6
        assert {line.split()[2] for line in answers.lines()} == {f"{address}.{PORT}"}
        assert ends.caller.endpoint("called") == endpoint
    ends.assert_no_error()


def test_answers_from_another_address_are_followed(lab: Lab) -> None:
    """[C11] What the called sends is given another source on the way out; handshake and data work."""
    ends = cabled(lab)
    called = ends.called.host
    called.run("ip addr add 10.9.0.12/24 dev eth0")
    called.nft(f"""
        table ip asymmetric {{
            chain out {{
                type filter hook postrouting priority 300;
                ip saddr {CALLED_OUTER} udp sport {PORT} ip saddr set 10.9.0.12
            }}
        }}""")
    ends.start()
    assert ends.caller.host.pings(CALLED_INNER, count=5)
    assert called.pings(CALLER_INNER6, count=5)
    assert ends.caller.endpoint("called") == f"10.9.0.12:{PORT}"
    ends.assert_no_error()


# -- routes --


def test_a_change_of_metric_moves_the_path_and_the_source(lab: Lab) -> None:
    """[C10] Two ways lead to the called; the better one changes under traffic, and so does our address."""
    ends = routed(lab)
    caller, called = ends.caller.host, ends.called.host
    lab.cable(caller, "eth1", called, "eth1")
    caller.run("ip addr add 10.10.0.5/24 dev eth1")
    called.run("ip addr add 10.10.0.11/24 dev eth1")
    caller.run(f"ip route del {FAR}")
    caller.run(f"ip route add {FAR} via {CALLED_OUTER} metric 100")
    caller.run(f"ip route add {FAR} via 10.10.0.11 metric 200")
    ends.start()
    for old, new, seen in ((100, 300, "10.10.0.5"), (300, 100, CALLER_OUTER)):
        stream = UdpStream(caller, called, CALLED_INNER, rate=100)
        caller.run(f"ip route add {FAR} via {CALLED_OUTER} metric {new}")
        caller.run(f"ip route del {FAR} via {CALLED_OUTER} metric {old}")
        eventually(lambda seen=seen: ends.called.endpoint("caller").startswith(f"{seen}:"), what=seen)  # type: ignore[misc]
        sent, received = stream.stop()
        assert received >= sent - 1, f"{sent - received} of {sent} lost"
        assert called.pings(CALLER_INNER)
    ends.assert_no_error()


FORBID = f"""
    table inet f {{
        chain o {{
            type filter hook output priority 0;
            udp dport {PORT} drop
        }}
    }}"""
OBSTACLES = {
    # name: commands on the caller that break the way, commands that mend it
    "ENETUNREACH": (f"ip route del {FAR}", f"ip route add {FAR} via {CALLED_OUTER}"),
    "EHOSTUNREACH": (
        f"ip route replace unreachable {FAR}",
        f"ip route replace {FAR} via {CALLED_OUTER}",
    ),
    "EACCES": (f"ip route replace prohibit {FAR}", f"ip route replace {FAR} via {CALLED_OUTER}"),
    "EINVAL": (f"ip route replace blackhole {FAR}", f"ip route replace {FAR} via {CALLED_OUTER}"),
    "EPERM": ("nft -f -", "nft delete table inet f"),
    "link down": ("ip link set eth0 down", "ip link set eth0 up"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_a_way_that_is_refused_costs_no_processor_and_works_again_when_it_is_back(
    lab: Lab, obstacle: str
) -> None:
    """[C12] Under traffic the kernel refuses to send; the session is there when it no longer does."""
    ends = routed(lab)
    ends.start()
    caller = ends.caller.host
    broken, mended = OBSTACLES[obstacle]
    assert caller.pings(CALLED_INNER)
    caller.run(broken, text=FORBID)
    stream = UdpStream(caller, ends.called.host, CALLED_INNER, rate=100)
    before = ends.caller.cpu_s()
    time.sleep(3)
    assert ends.caller.cpu_s() - before < 3 * BUSY
    sent, received = stream.stop()
    assert sent > 100
    assert received == 0
    caller.run(mended)
    if obstacle == "link down":
        caller.run(f"ip route replace {FAR} via {CALLED_OUTER}")
    eventually(lambda: caller.pings(CALLED_INNER), within_s=3, what="a ping when the way is back")
    assert ends.caller.log().count("\n") < 50
    ends.assert_no_error()


def test_a_port_that_is_closed_costs_no_processor_and_works_when_it_opens(lab: Lab) -> None:
    """[C12] ECONNREFUSED: nobody listens at the endpoint, then somebody does."""
    ends = routed(lab)
    ends.caller.timers = {"hs_retry_s": [0.5]}
    ends.caller.start()
    before = ends.caller.cpu_s()
    time.sleep(3)
    assert ends.caller.cpu_s() - before < 3 * BUSY
    ends.called.start()
    ends.caller.wait_up(timeout_s=10)
    assert ends.caller.host.pings(CALLED_INNER)
    ends.assert_no_error()


@pytest.mark.parametrize("wait_s", [0.0, 0.5, 2.0])
def test_a_route_that_appears_starts_the_handshake_at_once(lab: Lab, wait_s: float) -> None:
    """[C12] Without a session and with no retry in sight: the kernel's news of the route is what starts it,
    however shortly before the last attempt was.
    """
    ends = routed(lab)
    ends.caller.host.run(f"ip route del {FAR}")
    ends.caller.timers = {"hs_retry_s": [NEVER_S]}
    ends.called.start()
    ends.caller.start()
    ends.caller.ctl("reconnect called")
    time.sleep(wait_s)
    ends.caller.host.run(f"ip route add {FAR} via {CALLED_OUTER}")
    ends.caller.wait_up(timeout_s=5)
    assert ends.caller.host.pings(CALLED_INNER)
    ends.assert_no_error()


# -- names --


def test_a_name_is_asked_again_when_its_address_goes_unanswered(lab: Lab) -> None:
    """[C13] The called moves, and its name with it; nothing but the name tells the caller where to."""
    ends = cabled(lab)
    caller, called = ends.caller.host, ends.called.host
    caller.names({"called.example": CALLED_OUTER})
    ends.configure(f"called.example:{PORT}")
    ends.caller.timers = {"hs_retry_s": [0.5]}
    ends.start()
    assert ends.caller.endpoint("called") == f"{CALLED_OUTER}:{PORT}"
    ends.called.stop()
    for file in ends.called.state_dir.iterdir():
        file.unlink()  # the called does not know where the caller is
    called.run("ip addr add 10.9.0.12/24 dev eth0")
    called.run(f"ip addr del {CALLED_OUTER}/24 dev eth0")
    caller.names({"called.example": "10.9.0.12"})
    ends.called.start()
    eventually(lambda: ends.caller.endpoint("called") == f"10.9.0.12:{PORT}", what="the name's new address")
    ends.caller.wait_up()
    assert caller.pings(CALLED_INNER)
    ends.assert_no_error()


def test_a_name_is_asked_again_when_the_network_comes(lab: Lab) -> None:
    """[C12, C13] The machine starts without a network and so without the name; both come later."""
    ends = routed(lab)
    caller = ends.caller.host
    caller.run(f"ip route del {FAR}")
    caller.names({})
    ends.configure(f"called.example:{PORT}")
    ends.called.start()
    ends.caller.start()
    time.sleep(2.5)  # it was asked for at 0 and 2 s; without news the next time would be at 7 s
    assert "does not resolve" in ends.caller.peer("called")["reason"]
    caller.names({"called.example": FAR})
    caller.run(f"ip route add {FAR} via {CALLED_OUTER}")
    ends.caller.wait_up(timeout_s=3)
    assert caller.pings(CALLED_INNER)
    ends.assert_no_error()


# -- links --


def test_an_interface_that_returns_with_another_number_carries_on(lab: Lab) -> None:
    """[C14] The dock is unplugged and plugged in again: the link, its addresses, its number."""
    caller, called = lab.host("caller"), lab.host("called")
    switch = lab.switch("dock")
    switch.join(caller, "eth0")
    switch.join(called, "eth0")
    caller.run(f"ip addr add {CALLER_OUTER}/24 dev eth0")
    called.run(f"ip addr add {CALLED_OUTER}/24 dev eth0")
    ends = pair(caller, called)
    ends.configure(f"{CALLED_OUTER}:{PORT}")
    ends.start()
    assert caller.pings(CALLED_INNER)
    number, handshakes = caller.index_of("eth0"), ends.caller.peer("called")["handshakes"]
    caller.run("ip link del eth0")
    assert not caller.pings(CALLED_INNER)
    switch.join(caller, "eth0")
    caller.run(f"ip addr add {CALLER_OUTER}/24 dev eth0")
    assert caller.index_of("eth0") != number
    eventually(lambda: caller.pings(CALLED_INNER), within_s=2, what="a ping over the returned link")
    assert called.pings(CALLER_INNER)
    assert ends.caller.peer("called")["handshakes"] == handshakes
    ends.assert_no_error()


def test_a_link_local_endpoint_works(lab: Lab) -> None:
    """[C15] The address needs the link's name to mean something."""
    ends = cabled(lab)
    for host, address in ((ends.caller.host, "fe80::5"), (ends.called.host, "fe80::11")):
        host.run(f"ip addr add {address}/64 dev eth0")
    ends.configure(f"[fe80::11%eth0]:{PORT}")
    ends.start()
    for inner in (CALLED_INNER, CALLED_INNER6):
        assert ends.caller.host.pings(inner, count=3)
    assert ends.called.host.pings(CALLER_INNER)
    number = ends.caller.host.index_of("eth0")
    assert ends.caller.endpoint("called") == f"[fe80::11%{number}]:{PORT}"
    ends.assert_no_error()


def test_a_link_local_endpoint_is_found_again_behind_another_number(lab: Lab) -> None:
    """[C14, C15] The link's name in the endpoint means the link that bears it now."""
    caller, called = lab.host("caller"), lab.host("called")
    switch = lab.switch("dock")
    for host, address in ((caller, "fe80::5"), (called, "fe80::11")):
        switch.join(host, "eth0")
        host.run(f"ip addr add {address}/64 dev eth0")
    ends = pair(caller, called)
    ends.configure(f"[fe80::11%eth0]:{PORT}")
    ends.start()
    caller.run("ip link del eth0")
    switch.join(caller, "eth0")
    caller.run("ip addr add fe80::5/64 dev eth0")
    eventually(lambda: caller.pings(CALLED_INNER), within_s=5, what="a ping over the returned link")
    number = caller.index_of("eth0")
    assert ends.caller.endpoint("called") == f"[fe80::11%{number}]:{PORT}"
    ends.assert_no_error()


def test_a_default_route_through_the_tunnel_does_not_swallow_the_tunnel(lab: Lab) -> None:
    """[C16] Everything goes through the tunnel by a table of its own, what bears the mark does not;
    a hundred flood pings of each family come back, and each costs one datagram.
    """
    ends = routed(lab)
    caller = ends.caller.host
    caller.run(f"ip route del {FAR}")
    caller.run(f"ip route add default via {CALLED_OUTER}")
    ends.configure(
        f"{FAR}:{PORT}",
        caller_local="fwmark = 0x5180",
        caller_routing="table = 5180",
        caller_networks='"0.0.0.0/0", "::/0"',
    )
    for family in ("-4", "-6"):
        caller.run(f"ip {family} rule add not fwmark 0x5180 table 5180")
        caller.run(f"ip {family} rule add table main suppress_prefixlength 0")
    ends.start()
    outer = Capture(caller, "eth0", f"udp dst port {PORT}")
    before = ends.caller.peer("called")["tx_packets"]
    for inner in (CALLED_INNER, CALLED_INNER6, FAR6):
        assert caller.pings(inner, count=100, options="-i 0.01")
    outer.stop()
    # Somewhat more where ping lost patience, fewer lines where some left together.
    assert 300 <= ends.caller.peer("called")["tx_packets"] - before < 450
    assert 0 < len(outer.lines()) < 450
    assert "dev vpn-caller" in caller.output(f"ip route get {FAR}")
    ends.assert_no_error()


# -- a change of what handshakes agree on --


@pytest.mark.parametrize("turn", range(4))
def test_a_reload_just_after_the_others_handshake_leaves_the_tunnel_up(lab: Lab, turn: int) -> None:
    """[I6] Either session may win by the greater key; both ends know the one that does."""
    ends = cabled(lab)
    ends.start()
    changed = ends.called if turn % 2 else ends.caller
    text = changed.config_file.read_text()
    changed.config_file.write_text(text.replace("[local]", '[local]\npadding = "16"', 1))
    changed.ctl("reload")
    host, far = ends.caller.host, CALLED_INNER
    assert host.pings(far, count=10, options="-i 0.2")
    for end, peer in ((ends.caller, "called"), (ends.called, "caller")):
        assert end.peer(peer)["state"] == "up", end.peer(peer)
    ends.assert_no_error()
