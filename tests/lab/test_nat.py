"""Real NAT between the ends: nftables in namespaces of their own, with a short memory for UDP.

caller 192.168.1.2 ──── .1 home 203.0.113.1 ──── 203.0.113.2 called                 (one NAT)
caller 192.168.1.2 ──── .1 home 203.0.113.1 ──── 203.0.113.9 office .1 ──── 192.168.2.2 called
                                                 (two; the office forwards UDP port 5180)
"""

from __future__ import annotations

import json
import subprocess
import time

from tests.lab.namespaces import Host, Lab, eventually
from tests.lab.pair import CALLED_INNER, CALLED_INNER6, CALLER_INNER, CALLER_INNER6, PORT, Pair, pair
from tests.lab.relay import Road, Rules

MEMORY_S = 2  # how long a NAT of these tests remembers a silent flow
STEADY_BIT_S = 10_000_000
HOME_OUTER = "203.0.113.1"


def make_nat(host: Host, outside: str, *, rules: str = "") -> None:
    """Makes a router that hides what is behind it, with a new port for each flow."""
    host.sysctl("net.ipv4.ip_forward", 1)
    host.nft(f"""
        table ip nat {{
            chain out {{
                type nat hook postrouting priority srcnat;
                oifname "{outside}" masquerade fully-random
            }}
            {rules}
        }}""")
    for kind in ("", "_stream"):
        host.sysctl(f"net.netfilter.nf_conntrack_udp_timeout{kind}", MEMORY_S)


def forget_flows(nat: Host) -> None:
    nat.run("conntrack -F")


def behind_nat(lab: Lab, *, keepalive: int = 0, delay_s: float = 0.0) -> tuple[Pair, Host]:
    """The caller behind a NAT, some way off, the called with an address of its own; gives the NAT too."""
    caller, home, called = lab.host("caller"), lab.host("home"), lab.host("called")
    if delay_s:
        Road(lab, caller, "eth0", home, "inside", seed=4).set(Rules(delay_s=delay_s))
    else:
        lab.cable(caller, "eth0", home, "inside")
    lab.cable(home, "outside", called, "eth0")
    caller.run("ip addr add 192.168.1.2/24 dev eth0")
    home.run("ip addr add 192.168.1.1/24 dev inside")
    home.run(f"ip addr add {HOME_OUTER}/24 dev outside")
    called.run("ip addr add 203.0.113.2/24 dev eth0")
    caller.run("ip route add default via 192.168.1.1")
    make_nat(home, "outside")
    ends = pair(caller, called)
    ends.configure(f"203.0.113.2:{PORT}", caller_peer=f"keepalive = {keepalive}")
    ends.start()
    assert ends.called.endpoint("caller").startswith(f"{HOME_OUTER}:")
    return ends, home


def test_a_nat_that_forgets_is_kept_open_by_keepalives(lab: Lab) -> None:
    """[C5] Silence longer than the NAT's memory, then the called side speaks first."""
    ends, home = behind_nat(lab, keepalive=1)
    time.sleep(MEMORY_S + 1)
    assert "203.0.113.2" in home.output("conntrack -L -p udp")
    assert ends.called.host.pings(CALLER_INNER)
    ends.assert_no_error()


def test_without_keepalives_the_called_side_cannot_speak_first(lab: Lab) -> None:
    """The NAT of these tests really forgets; the caller's next packet opens it again. [C5]"""
    ends, home = behind_nat(lab)
    eventually(lambda: "203.0.113.2" not in home.output("conntrack -L -p udp"), what="the NAT's forgetting")
    assert not ends.called.host.pings(CALLER_INNER)
    assert ends.caller.host.pings(CALLED_INNER)
    assert ends.called.host.pings(CALLER_INNER)
    ends.assert_no_error()


def test_a_download_goes_on_when_the_nat_forgets_it(lab: Lab) -> None:
    """[C6] The NAT gives the flow another port in the middle of a steady transfer towards the caller,
    and as much arrives as before: at once where an acknowledgement is still on its way to the NAT and
    opens it anew, else when the caller, hearing nothing, probes the peer three seconds later.
    """
    ends, home = behind_nat(lab, delay_s=0.02)
    before = ends.called.endpoint("caller")
    ends.called.host.start("iperf3", "-s", "-1", "-B", CALLED_INNER)
    eventually(lambda: ":5201" in ends.called.host.output("ss -ltn"), what="iperf3 listening")
    client = ends.caller.host.start(
        *("iperf3", "-J", "-R", "-c", CALLED_INNER, "-t", "9", "-i", "1", "-b", str(STEADY_BIT_S)),
        stdout=subprocess.PIPE,
    )
    time.sleep(2.5)
    forget_flows(home)
    output, _ = client.communicate(timeout=30)
    assert ends.called.endpoint("caller") != before
    assert ends.called.endpoint("caller").startswith(f"{HOME_OUTER}:")
    rates = [float(each["sum"]["bits_per_second"]) for each in json.loads(output)["intervals"]]
    steady = rates[7:9]  # the binding changed in the third second
    # What one second's end is late with comes in the next.
    assert min(steady) >= 0.5 * STEADY_BIT_S, rates
    assert sum(steady) >= 0.9 * len(steady) * STEADY_BIT_S, rates
    ends.assert_no_error()


def test_both_ends_behind_nat_with_one_port_forwarded(lab: Lab) -> None:
    """[C7] The caller's NAT hides it, the called side's forwards one port; both may speak first,
    and a new binding at either NAT is followed.
    """
    caller, home, office, called = (lab.host(name) for name in ("caller", "home", "office", "called"))
    lab.cable(caller, "eth0", home, "inside")
    lab.cable(home, "outside", office, "outside")
    lab.cable(office, "inside", called, "eth0")
    for host, link, address in (
        (caller, "eth0", "192.168.1.2/24"),
        (home, "inside", "192.168.1.1/24"),
        (home, "outside", f"{HOME_OUTER}/24"),
        (office, "outside", "203.0.113.9/24"),
        (office, "inside", "192.168.2.1/24"),
        (called, "eth0", "192.168.2.2/24"),
    ):
        host.run(f"ip addr add {address} dev {link}")
    caller.run("ip route add default via 192.168.1.1")
    called.run("ip route add default via 192.168.2.1")
    make_nat(home, "outside")
    forward = f"""
        chain in {{
            type nat hook prerouting priority dstnat;
            iifname "outside" udp dport {PORT} dnat to 192.168.2.2
        }}"""
    make_nat(office, "outside", rules=forward)
    ends = pair(caller, called)
    ends.configure(f"203.0.113.9:{PORT}", caller_peer="keepalive = 1")
    ends.start()
    for inner in (CALLED_INNER, CALLED_INNER6):
        assert caller.pings(inner, count=5)
    for inner in (CALLER_INNER, CALLER_INNER6):
        assert called.pings(inner, count=5)
    for nat in (home, office):
        forget_flows(nat)
        # A probe of the called side's may have taken the flow's place in the NAT for two seconds.
        eventually(lambda: caller.pings(CALLED_INNER), what="the call")
        eventually(lambda: called.pings(CALLER_INNER), what="the answer")
    assert ends.caller.endpoint("called") == f"203.0.113.9:{PORT}"
    assert ends.called.endpoint("caller").startswith(f"{HOME_OUTER}:")
    ends.assert_no_error()
