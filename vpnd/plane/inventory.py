"""What the plane says it is and holds, as values.

Owns the answers to hello, inventory and the lists. Knows no socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vpnd.endpoint import Endpoint
from vpnd.keys import PublicKey
from vpnd.plane import wire
from vpnd.plane.wire import LinkType, Offload

_NS = 1e9


@dataclass(frozen=True, slots=True)
class HelloReply:
    """Who answered: its age on CLOCK_BOOTTIME, its limits and its AEAD back end."""

    version: int
    started_at: float
    peer_capacity: int
    has_aes: bool
    aead: str
    program_version: str


@dataclass(frozen=True, slots=True)
class ListedPeer:
    peer_id: int
    public_key: PublicKey
    network_count: int
    endpoint: Endpoint | None
    mtu: int  # 0: the link's own


@dataclass(frozen=True, slots=True)
class ListedSession:
    """A session by its numbers; its keys never come back."""

    peer_id: int
    local_index: int
    remote_index: int
    suite: int
    slot: int
    is_initiator: bool
    preferred: bool
    created_at: float


@dataclass(frozen=True, slots=True)
class ListedMac:
    """An Ethernet address behind a peer; a static one holds in every VLAN and was never seen."""

    mac: bytes
    vlan: int
    peer_id: int
    seen_at: float
    is_static: bool = False


@dataclass(frozen=True, slots=True)
class Offloads:
    """What the kernel may do for runs of packets (`wanted`) and does (`active`).

    `errors` are errno by which it refused one of them. `link` are the TUN_F_* that it granted
    (linux/if_tun.h).
    """

    wanted: Offload
    active: Offload
    link: int
    errors: Mapping[Offload, int]


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything the plane holds but learned MAC addresses; `link_type` is "none", "tun" or "tap"."""

    link_type: str
    link_works: bool
    link_name: str
    queues: int
    mtu: int
    padding_mtu: int
    offloads: Offloads
    sockets: tuple[Endpoint, ...]
    peers: tuple[ListedPeer, ...]
    sessions: tuple[ListedSession, ...]


def read_hello(body: bytes) -> HelloReply:
    version, _, started_at_ns, peer_capacity, has_aes, aead, program_version = wire.HELLO_REPLY.unpack(body)
    return HelloReply(
        version, started_at_ns / _NS, peer_capacity, bool(has_aes), _text(aead), _text(program_version)
    )


def read_inventory(
    body: bytes, peers: tuple[ListedPeer, ...], sessions: tuple[ListedSession, ...]
) -> Inventory:
    link_type, works, queues, mtu, name, _, _, count, padding_mtu, *offloads, sockets = (
        wire.INVENTORY_REPLY.unpack(body)
    )
    size = wire.ENDPOINT.size
    endpoints = [wire.unpack_endpoint(sockets[at * size : (at + 1) * size]) for at in range(count)]
    return Inventory(
        link_type=LinkType(link_type).name.lower(),
        link_works=bool(works),
        link_name=_text(name),
        queues=queues,
        mtu=mtu,
        padding_mtu=padding_mtu,
        offloads=_read_offloads(*offloads),
        sockets=tuple(endpoint for endpoint in endpoints if endpoint is not None),
        peers=peers,
        sessions=sessions,
    )


def _read_offloads(wanted: int, active: int, link: int, *errors: int) -> Offloads:
    single = (Offload.UDP_GSO, Offload.UDP_GRO, Offload.TUN_VNET)
    refused = {offload: error for offload, error in zip(single, errors, strict=True) if error}
    return Offloads(Offload(wanted), Offload(active), link, refused)


def read_peer(body: bytes, offset: int) -> ListedPeer:
    peer, network_count, public_key, endpoint, mtu = wire.LISTED_PEER.unpack(body, offset)
    return ListedPeer(peer, PublicKey(public_key), network_count, wire.unpack_endpoint(endpoint), mtu)


def read_session(body: bytes, offset: int) -> ListedSession:
    peer, local, remote, suite, slot, is_initiator, preferred, created_at_ns = wire.LISTED_SESSION.unpack(
        body, offset
    )
    return ListedSession(
        peer, local, remote, suite, slot, bool(is_initiator), bool(preferred), created_at_ns / _NS
    )


def read_mac(body: bytes, offset: int) -> ListedMac:
    mac, vlan, peer, is_static, seen_at_ns = wire.LISTED_MAC.unpack(body, offset)
    return ListedMac(mac, vlan, peer, seen_at_ns / _NS, bool(is_static))


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode()
