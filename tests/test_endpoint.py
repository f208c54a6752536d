"""Outer addresses: reading, printing, and the way to and from Python's socket calls."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpnd.endpoint import Endpoint, EndpointName, parse_endpoint


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("192.0.2.1:5180", Endpoint(IPv4Address("192.0.2.1"), 5180)),
        ("[2001:db8::1]:65535", Endpoint(IPv6Address("2001:db8::1"), 65535)),
        ("[fe80::1%3]:1", Endpoint(IPv6Address("fe80::1"), 1, 3)),
        ("[fe80::1%eth0]:5180", EndpointName("fe80::1%eth0", 5180)),
        ("vpn.example.net:5180", EndpointName("vpn.example.net", 5180)),
        ("vpn.example.net.:5180", EndpointName("vpn.example.net.", 5180)),
        ("_vpn-1.example:05180", EndpointName("_vpn-1.example", 5180)),
        ("localhost:80", EndpointName("localhost", 80)),
    ],
)
def test_a_well_formed_endpoint_is_read(text: str, endpoint: Endpoint | EndpointName) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", '"" has no port; write host:port, or [address]:port for IPv6'),
        ("vpn.example.net", '"vpn.example.net" has no port; write host:port, or [address]:port for IPv6'),
        (":5180", '":5180" has no port; write host:port, or [address]:port for IPv6'),
        ("a:0", '"0" is not a port; ports are 1 to 65535'),
        ("a:65536", '"65536" is not a port; ports are 1 to 65535'),
        ("a:-1", '"-1" is not a port; ports are 1 to 65535'),
        ("a:٣", '"٣" is not a port; ports are 1 to 65535'),
        ("a:80\n", '"80\n" is not a port; ports are 1 to 65535'),
        ("a:" + "9" * 5000, f'"{"9" * 5000}" is not a port; ports are 1 to 65535'),
        (
            "2001:db8::1:5180",
            '"2001:db8::1:5180": an IPv6 address stands in brackets, as in [2001:db8::1]:5180',
        ),
        ("[2001:db8::x]:1", '"2001:db8::x" is not an IPv6 address'),
        ("[192.0.2.1]:1", '"192.0.2.1" is not an IPv6 address'),
        ("[2001:db8::1%3]:1", '"2001:db8::1%3": only a link-local address (fe80::/10) has a scope'),
        ("[fe80::1%]:1", '"" is neither the name nor the number of an interface'),
        ("[fe80::1%0]:1", '"0" is neither the name nor the number of an interface'),
        ("[fe80::1%4294967296]:1", '"4294967296" is neither the name nor the number of an interface'),
        ("[fe80::1%a b]:1", '"a b" is neither the name nor the number of an interface'),
        ("300.0.2.1:1", '"300.0.2.1" is neither an address nor a host name'),
        ("10.1:1", '"10.1" is neither an address nor a host name'),
        ("-a.example:1", '"-a.example" is neither an address nor a host name'),
        ("a..example:1", '"a..example" is neither an address nor a host name'),
        ("a b:1", '"a b" is neither an address nor a host name'),
        (f"{'a' * 64}:1", f'"{"a" * 64}" is neither an address nor a host name'),
        (f"{'a.' * 127}b:1", f'"{"a." * 127}b" is neither an address nor a host name'),
    ],
)
def test_a_malformed_endpoint_is_explained(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_endpoint(text)
    assert str(raised.value) == problem


def test_an_ipv4_address_in_ipv6_clothes_is_the_ipv4_address() -> None:
    plain = Endpoint(IPv4Address("192.0.2.1"), 5180)
    assert parse_endpoint("[::ffff:192.0.2.1]:5180") == plain
    assert Endpoint.from_sockaddr(("::ffff:192.0.2.1", 5180, 0, 0)) == plain


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=30) | st.from_regex(r"\[?[0-9a-f:.%]{1,12}\]?:[0-9]{1,6}", fullmatch=True))
def test_any_text_is_read_or_refused_with_a_reason(text: str) -> None:
    try:
        found = parse_endpoint(text)
    except ValueError as error:
        problem = str(error)
    else:
        problem = ""
        assert parse_endpoint(str(found)) == found
    assert problem == "" or problem.endswith(
        ("IPv6", "65535", ":5180", "address", "name", "scope", "interface")
    )


ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(v=6).map(
    lambda address: IPv6Address(int(address) | 1 << 127)
)


@settings(max_examples=100, deadline=None)
@given(address=ADDRESSES, port=st.integers(1, 65535))
def test_an_endpoint_survives_printing_and_the_socket_calls(
    address: IPv4Address | IPv6Address, port: int
) -> None:
    endpoint = Endpoint(address, port)
    assert parse_endpoint(str(endpoint)) == endpoint
    assert Endpoint.from_sockaddr(endpoint.to_sockaddr()) == endpoint


def test_a_scope_survives_printing_and_the_socket_calls() -> None:
    endpoint = Endpoint(IPv6Address("fe80::1"), 5180, 3)
    assert str(endpoint) == "[fe80::1%3]:5180"
    assert endpoint.to_sockaddr() == ("fe80::1", 5180, 0, 3)
    assert Endpoint.from_sockaddr(("fe80::1%eth0", 5180, 0, 3)) == endpoint


def test_names_print_as_they_are_read() -> None:
    assert str(EndpointName("vpn.example.net", 5180)) == "vpn.example.net:5180"
    assert str(EndpointName("fe80::1%eth0", 5180)) == "[fe80::1%eth0]:5180"


def test_the_sixteen_bytes_are_those_of_an_ipv6_socket_address() -> None:
    assert Endpoint(ip_address("192.0.2.1"), 1).ip16 == socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.1")
    assert Endpoint(ip_address("2001:db8::1"), 1).ip16 == socket.inet_pton(socket.AF_INET6, "2001:db8::1")
