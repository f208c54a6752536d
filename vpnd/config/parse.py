"""Reads single values out of the strings of a configuration: addresses, networks, names, paths.

Every function returns its value or raises ValueError whose text says what is wrong and, where
there is one, the remedy. Knows nothing of tables or files.
"""

from __future__ import annotations

import ipaddress
import re
import string
from pathlib import Path

from vpnd.config.reader import show_text
from vpnd.config.values import IPInterface, IPNetwork
from vpnd.endpoint import Endpoint, EndpointName, parse_endpoint
from vpnd.keys import PublicKey

_LINK_NAME_MAX = 15  # bytes; IFNAMSIZ of the kernel less the closing zero
_VLAN_MAX = 4094  # IEEE 802.1Q keeps 0 and 4095
_ENDPOINT_TEXT_MAX = 270  # characters; a host name has at most 253
_RESERVED_LINK_NAMES = frozenset({".", "..", "all", "default"})  # the last two are folders of net.ipv4.conf
_PEER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_KEY_LIKE = re.compile(r"[A-Za-z0-9+/_-]{43}=?|[A-Fa-f0-9]{64}")
_PLAIN_PREFIX = re.compile(r"[0-9A-Fa-f.:]+(/[0-9]{1,3})?")


def parse_link_name(text: str) -> str:
    """A name the kernel takes for a link, and takes literally."""
    size = len(text.encode())
    if size > _LINK_NAME_MAX:
        raise ValueError(f"{show_text(text)} has {size} bytes, a link's name at most {_LINK_NAME_MAX}")
    if not text:
        raise ValueError("empty; a link needs a name")
    if text in _RESERVED_LINK_NAMES:
        raise ValueError(f"{show_text(text)} is a name the kernel keeps for itself")
    for character in text:
        # "%" would make the kernel number the link, ":" once named aliases.
        if character in "/:%" or character.isspace() or not character.isprintable():
            raise ValueError(f"{show_text(text)} holds {show_text(character)}, a link's name must not")
    return text


def parse_peer_name(text: str) -> str:
    if not _PEER_NAME.fullmatch(text):
        raise ValueError(
            f"{show_text(text)} cannot name a peer; "
            'take up to 63 letters, digits, ".", "_" or "-", a letter or digit first'
        )
    return text


def parse_interface_address(text: str) -> IPInterface:
    """An address of the link with its prefix; without one it stands alone, /32 or /128."""
    if not _PLAIN_PREFIX.fullmatch(text):
        raise ValueError(_no_address(text))
    try:
        address = ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(_no_address(text)) from None
    if address.ip.is_unspecified or address.ip.is_multicast or address.ip.is_loopback:
        raise ValueError(f"{show_text(text)} cannot be the address of a link")
    network = address.network
    if network.version == 4 and network.prefixlen < 31:
        if address.ip == network.network_address:
            raise ValueError(f"{show_text(text)} is the network itself; take an address inside it")
        if address.ip == network.broadcast_address:
            raise ValueError(f"{show_text(text)} is the network's broadcast address; take one before it")
    return address


def parse_network(text: str) -> IPNetwork:
    """A prefix without host bits; a bare address is /32 or /128."""
    if not _PLAIN_PREFIX.fullmatch(text):
        raise ValueError(_no_network(text))
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(_no_network(text)) from None
    if network.network_address != ipaddress.ip_interface(text).ip:
        raise ValueError(f'{show_text(text)} has bits set beyond its prefix; the network is "{network}"')
    return network


def parse_host_mac(text: str) -> bytes:
    """The MAC address of one machine."""
    if not re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", text):
        raise ValueError(f"{show_text(text)} is not a MAC address; write it as 02:76:70:6e:00:01")
    mac = bytes.fromhex(text.replace(":", ""))
    if mac[0] & 1:
        raise ValueError(f"{show_text(text)} is a multicast address; a link needs a unicast one")
    if not any(mac):
        raise ValueError(f"{show_text(text)} is nobody's address")
    return mac


def parse_mac(text: str) -> bytes:
    """A unicast MAC address of the locally administered kind."""
    mac = parse_host_mac(text)
    if not mac[0] & 2:
        raise ValueError(
            f"{show_text(text)} belongs to a manufacturer; a locally administered one starts with 02"
        )
    return mac


def parse_vlans(text: str) -> range:
    """VLANs as numbers: one, some that follow each other, or "untagged", which is 0."""
    if text == "untagged":
        return range(1)
    found = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", text)
    if found is None:
        raise ValueError(f'{show_text(text)} is no VLAN; write "10", "100-199" or "untagged"')
    first, last = int(found[1]), int(found[2] or found[1])
    if not 1 <= first <= last <= _VLAN_MAX:
        raise ValueError(f"{show_text(text)} is no VLAN; they are numbered 1 to {_VLAN_MAX}")
    return range(first, last + 1)


def parse_listen(text: str) -> Endpoint:
    """A literal address and port of our own."""
    endpoint = _parse_endpoint(text)
    if isinstance(endpoint, EndpointName):
        raise ValueError(  # noqa: TRY004 - the type follows from the text
            f"{show_text(text)} is no literal address, such as 0.0.0.0:5180 or [::]:5180"
        )
    if endpoint.address.is_multicast:
        raise ValueError(f"{show_text(text)} is a multicast address")
    if endpoint.address.is_link_local and endpoint.address.version == 6 and not endpoint.scope:
        raise ValueError(f"{show_text(text)} needs the number of its link, as in [fe80::1%2]:5180")
    return endpoint


def parse_peer_endpoint(text: str) -> Endpoint | EndpointName:
    """Where a peer is called: a name or an address that can be one host's."""
    endpoint = _parse_endpoint(text)
    if isinstance(endpoint, EndpointName):
        return endpoint
    address = endpoint.address
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        raise ValueError(f"{show_text(text)} is no address of a single host")
    if address.is_link_local and address.version == 6 and not endpoint.scope:
        raise ValueError(f"{show_text(text)} needs the name of its link, as in [fe80::1%eth0]:5180")
    return endpoint


def _parse_endpoint(text: str) -> Endpoint | EndpointName:
    # parse_endpoint repeats the text in its errors as it is.
    if not text.isprintable() or len(text) > _ENDPOINT_TEXT_MAX:
        raise ValueError(f"{show_text(text)} is neither an address nor a host name")
    return parse_endpoint(text)


def parse_public_key(text: str) -> PublicKey:
    key = PublicKey.from_base64(text)
    if key.is_low_order():
        raise ValueError("a point of low order: anybody could compute the secrets shared with it")
    return key


def parse_secret_path(text: str) -> Path:
    """The path of a key file. What could be a key itself is refused, and never repeated."""
    stripped = "".join(text.split())
    if _KEY_LIKE.fullmatch(stripped) and not _is_likely_path(stripped):
        raise ValueError("looks like the key itself; keep that in a file of mode 0600 and name the file here")
    if not text.startswith("/"):
        raise ValueError("not an absolute path of a key file")
    if not text.isprintable():
        raise ValueError("the path holds control characters")
    return Path(text)


def _is_likely_path(text: str) -> bool:
    """One key in 64 starts with "/", but none does without capitals; a path of just that length may."""
    return text.startswith("/") and set(text) <= set(string.ascii_lowercase + string.digits + "/_-")


def _no_address(text: str) -> str:
    return f"{show_text(text)} is not an address with a prefix, such as 10.255.0.1/30 or fd00::1/64"


def _no_network(text: str) -> str:
    return f"{show_text(text)} is not a network, such as 10.20.0.0/16 or fd00:20::/48"
