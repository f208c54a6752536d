import ipaddress

from tests.host.namespace import a_veth, in_namespace, set_sysctl, sh
from vpnd.endpoint import Endpoint
from vpnd.host import facts
from vpnd.host.plan import RoutePlan


def ip(text: str) -> facts.Address:
    return ipaddress.ip_address(text)


def a_link() -> None:
    a_veth()
    sh("ip addr add 192.0.2.1/24 dev v0 && ip addr add 2001:db8::1/64 dev v0 nodad")


@in_namespace
def test_the_reverse_path_filter_is_the_larger_of_the_links_and_the_machines() -> None:
    a_link()
    assert facts.rp_filter("v0") == 0
    set_sysctl("net/ipv4/conf/all/rp_filter", "1")
    assert facts.rp_filter("v0") == 1
    set_sysctl("net/ipv4/conf/v0/rp_filter", "2")
    assert facts.rp_filter("v0") == 2
    assert facts.rp_filter("nowhere") is None


@in_namespace
def test_forwarding_is_told_per_link_and_family() -> None:
    a_link()
    assert (facts.forwarding("v0", 4), facts.forwarding("v0", 6)) == (False, False)
    set_sysctl("net/ipv4/conf/v0/forwarding", "1")
    assert (facts.forwarding("v0", 4), facts.forwarding("v1", 4)) == (True, False)
    set_sysctl("net/ipv6/conf/all/forwarding", "1")
    assert facts.forwarding("v0", 6) is True
    assert facts.forwarding("nowhere", 4) is None


@in_namespace
def test_a_route_is_told_with_its_link_and_source() -> None:
    a_link()
    sh("ip route add 10.0.0.0/8 via 192.0.2.2 && ip -6 route add fd00::/16 via 2001:db8::2")
    assert facts.route_to(ip("10.1.2.3")) == ("v0", ip("192.0.2.1"))
    assert facts.route_to(ip("fd00::7")) == ("v0", ip("2001:db8::1"))
    assert facts.route_to(ip("192.0.2.1")) == ("lo", ip("192.0.2.1"))


@in_namespace
def test_the_source_towards_an_endpoint_follows_the_better_route() -> None:
    a_link()
    sh("ip link add w0 type veth peer name w1 && ip addr add 198.51.100.1/24 dev w0 && ip link set w0 up")
    sh("ip route add 10.0.0.0/8 via 192.0.2.2 metric 100")
    far = Endpoint(ip("10.1.2.3"), 5180)
    assert facts.source_to(far) == ip("192.0.2.1")
    sh("ip route add 10.0.0.0/8 via 198.51.100.2 metric 50")
    assert facts.source_to(far) == ip("198.51.100.1")
    assert facts.source_to(Endpoint(ip("2001:db8::2"), 5180)) == ip("2001:db8::1")
    assert facts.source_to(Endpoint(ip("203.0.113.1"), 5180)) is None


@in_namespace
def test_the_source_towards_an_endpoint_obeys_the_mark() -> None:
    a_link()
    sh("ip rule add fwmark 7 table 77 && ip route add unreachable default table 77")
    here = Endpoint(ip("192.0.2.9"), 5180)
    assert facts.source_to(here) == ip("192.0.2.1")
    assert facts.source_to(here, 7) is None


@in_namespace
def test_the_least_mtu_of_the_routes_into_a_link() -> None:
    """[D3] Routes without one, and routes into other links, do not count."""
    a_link()
    assert facts.least_route_mtu("v0") is None
    sh("ip route add 10.0.0.0/8 dev v0 mtu 1299 && ip -6 route add fd00::/16 dev v0 mtu 1290")
    sh("ip route add 10.9.0.0/16 dev lo mtu 600")
    assert facts.least_route_mtu("v0") == 1290
    assert facts.least_route_mtu("nowhere") is None


@in_namespace
def test_no_route_and_a_refusing_route_are_none() -> None:
    a_link()
    sh("ip route add unreachable 10.1.0.0/16 && ip -6 route add blackhole fd00:1::/32")
    for address in ("198.51.100.1", "10.1.2.3", "fd00:1::1", "fd00:2::1"):
        assert facts.route_to(ip(address)) is None, address


@in_namespace
def test_a_mark_takes_its_own_way() -> None:
    """A lookup with the fwmark follows the policy rules for that mark."""
    a_link()
    sh("ip link add w0 type veth peer name w1 && ip addr add 198.51.100.1/24 dev w0 && ip link set w0 up")
    sh("ip route add default via 192.0.2.2 && ip route add default via 198.51.100.2 table 77")
    sh("ip rule add fwmark 0x5180 table 77")
    assert facts.route_to(ip("203.0.113.9")) == ("v0", ip("192.0.2.1"))
    assert facts.route_to(ip("203.0.113.9"), mark=0x5180) == ("w0", ip("198.51.100.1"))


@in_namespace
def test_our_routes_into_a_link_are_told_with_table_and_metric() -> None:
    """Those of others, and ours into other links, are not."""
    a_link()
    sh("ip link add w0 type veth peer name w1 && ip link set w0 up")
    sh("ip route add 10.0.0.0/8 dev v0 proto 176 metric 50 && ip route add 10.9.0.0/16 dev v0 proto static")
    sh("ip route add fd00::/16 dev v0 proto 176 metric 50 table 77")
    sh("ip route add 10.8.0.0/16 dev w0 proto 176")
    assert facts.routes_into("v0") == {
        RoutePlan(ipaddress.ip_network("10.0.0.0/8"), 254, 50),
        RoutePlan(ipaddress.ip_network("fd00::/16"), 77, 50),
    }
    assert facts.routes_into("nowhere") == frozenset()


@in_namespace
def test_a_link_is_told_as_it_stands() -> None:
    a_link()
    sh("ip tuntap add dev vpn-site mode tap && ip link set vpn-site address 02:00:00:00:00:01 up")
    found = facts.link("vpn-site")
    assert found is not None
    assert (found.type, found.is_up, found.has_carrier, found.mac) == (
        "tap",
        True,
        False,
        bytes.fromhex("020000000001"),
    )
    found = facts.link("v0")
    assert found is not None
    assert (found.type, found.is_up, found.has_carrier, found.mtu) == ("veth", True, True, 1500)
    assert ipaddress.ip_interface("192.0.2.1/24") in found.addresses
    assert ipaddress.ip_interface("2001:db8::1/64") in found.addresses
    assert facts.link("nowhere") is None
