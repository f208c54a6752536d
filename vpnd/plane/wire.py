"""The structs of the plane socket and of the shared counters, as `c/wire.h` lays them out.

Owns formats, numbers and names, and nothing that moves: no socket, no memory map. A test
compiles a C program that prints every size, offset and number of the header and compares.
All integers are little-endian; a field whose name begins with "zero" is written as zeros.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from mmap import mmap
from typing import Any, Final, TypeAlias

from vpnd.endpoint import Endpoint

Buffer: TypeAlias = bytes | bytearray | memoryview | mmap

VERSION: Final = 1
MESSAGE_MAX: Final = 65536  # bytes of one message, header included
DATAGRAM_MAX: Final = 1500  # bytes of a handshake or control message carried
REPLY: Final = 0x8000
EVENT: Final = 0x4000
FDS_MAX: Final = 64
SOCKETS_MAX: Final = 64
OFFLOADS_COUNT: Final = 3
QUEUES_MAX: Final = 32
NAME_SIZE: Final = 16  # IFNAMSIZ
MACS_MAX: Final = 256  # static MAC addresses of one peer
VLANS_SIZE: Final = 512  # bytes of a set of VLANs, a bit for each number

COUNTERS_MAGIC: Final = 0x63647076
COUNTERS_LAYOUT: Final = 1
COUNTERS_WORKERS_MAX: Final = 64
COUNTERS_DROPS_MAX: Final = 64
COUNTERS_PEER_MAX: Final = 65536

CAPTURE_MAGIC: Final = 0x70647076
CAPTURE_LAYOUT: Final = 1
CAPTURE_SLOTS: Final = 4096
CAPTURE_BYTES: Final = 1968  # of a packet that are kept at most
CAPTURE_EVERY_PEER: Final = 0xFFFF_FFFF
CAPTURE_WRITING: Final = 0xFFFF_FFFF_FFFF_FFFF
CAPTURE_ALL: Final = 7


class WireType(IntEnum):
    """What a message asks or tells. A reply has REPLY added to its request's type."""

    HELLO = 1
    INVENTORY = 2
    LIST_PEERS = 3
    LIST_SESSIONS = 4
    LIST_MACS = 5
    SET_LINK = 6
    SET_SOCKETS = 7
    SET_PEER = 8
    REMOVE_PEER = 9
    INSTALL_SESSION = 10
    RETIRE_SESSION = 11
    SEND_DATAGRAM = 12
    SEND_CONTROL = 13
    SEND_KEEPALIVE = 14
    FLUSH_STAGED = 15
    SET_OPTIONS = 16
    STOP = 17
    SET_GATE = 18
    SET_PEER_MTU = 19
    CLOSE_GATE = 20
    START_CAPTURE = 21
    STOP_CAPTURE = 22
    SET_PEER_FRAMES = 23

    EVENT_DATAGRAM = 0x4001
    EVENT_CONTROL = 0x4002
    EVENT_SESSION_WANTED = 0x4003
    EVENT_SESSION_PLACED = 0x4004
    EVENT_SESSION_ENDED = 0x4005
    EVENT_PEER_ROAMED = 0x4006
    EVENT_LINK_FAILED = 0x4007
    EVENT_SOCKET_FAILED = 0x4008


class Offload(IntFlag):
    """What the kernel may do for a run of packets in one step."""

    UDP_GSO = 1
    UDP_GRO = 2
    TUN_VNET = 4
    ALL = 7


class LinkType(IntEnum):
    NONE = 0
    TUN = 1
    TAP = 2


class SessionSlot(IntEnum):
    UNCONFIRMED = 1
    CURRENT = 2
    PREVIOUS = 3


class SessionEnd(IntEnum):
    NONE = 0
    AGE = 1
    MESSAGES = 2
    FORGED = 3
    REPLACED = 4


class RoamState(IntEnum):
    PROBATION = 0
    VALIDATED = 1
    FAILED = 2


class PaddingMode(IntEnum):
    NONE = 0
    X16 = 1
    BUCKET = 2
    FULL = 3


class CaptureKind(IntFlag):
    INNER = 1
    OUTER = 2
    DROPS = 4


class CaptureWay(IntEnum):
    IN = 1
    OUT = 2


class PeerFlag(IntFlag):
    APPEND_NETWORKS = 1
    RENAME = 2


class FramesFlag(IntFlag):
    RELAYED = 1
    BY_VLAN = 2


# Number to name and text of a wire_error.
ERRORS: Final[dict[int, tuple[str, str]]] = {
    1: ("version_mismatch", "the two programs speak different versions of the plane socket"),
    2: ("no_hello", "the first request of a connection is hello"),
    3: ("unknown_request", "there is no such request"),
    4: ("bad_length", "the message has the wrong length for its type"),
    5: ("bad_value", "a field holds a value outside its range"),
    6: ("bad_descriptors", "the number or kind of descriptors passed is wrong"),
    7: ("no_such_peer", "no peer has this number"),
    8: ("peer_exists", "the number belongs to a peer with another public key"),
    9: ("no_such_session", "no session has this index"),
    10: ("session_exists", "the index belongs to another session"),
    11: ("no_session", "the peer has no session to send on"),
    12: ("no_endpoint", "the peer has no endpoint and none was given"),
    13: ("no_socket", "there is no socket for this address family"),
    14: ("table_full", "the table has no room for another entry"),
    15: ("no_memory", "memory ran out"),
    16: ("send_failed", "the kernel refused to send"),
    17: ("no_link", "no link was set"),
    18: ("unsupported_suite", "no AEAD back end offers this suite"),
}

# Name and text by number; the position is the number.
DROP_REASONS: Final[tuple[tuple[str, str], ...]] = (
    ("rx_malformed", "datagram too short, of unknown type or with reserved bits set"),
    ("data_noidx", "no session has the index it names"),
    ("data_expired", "its session is older than 180 s or its counter too high"),
    ("data_replay", "its counter was seen before or is too old"),
    ("data_auth", "it does not authenticate"),
    ("data_inner", "its plaintext is no packet, frame or control message of the protocol"),
    ("data_source", "inner source address is not in the peer's networks"),
    ("hs_queue_full", "the queue of handshake messages was full"),
    ("hs_no_daemon", "a handshake message came while no vpnd was connected"),
    ("control_rate", "more control messages than a peer may send"),
    ("path_failed", "the peer's new address did not answer the path challenge"),
    ("path_budget", "more bytes than may go to an unproven address"),
    ("link_not_ip", "what came from the link is no IP packet"),
    ("link_not_frame", "what came from the link is no Ethernet frame"),
    ("link_too_large", "the packet from the link is larger than the link's MTU"),
    ("link_offload", "the frame from the link asks for an offload that is not agreed"),
    ("no_peer", "no peer has a network for this destination"),
    ("no_endpoint", "the peer's endpoint is not known yet"),
    ("staged_overflow", "too many packets waited for a session, the oldest went"),
    ("staged_flushed", "no session came in time for packets that waited"),
    ("session_limit", "the session reached its age or message limit"),
    ("no_socket", "there is no socket for the endpoint's address family"),
    ("send_error", "the kernel refused to send the datagram"),
    ("send_full", "the socket's send buffer was full"),
    ("link_write", "the kernel refused the packet on the link"),
    ("mac_limit", "a peer showed more MAC addresses than it may"),
    ("receive_truncated", "the datagram was larger than any the protocol has"),
    ("rx_mac1", "initiation by a caller that has another public key for us, or another knock"),
    ("hs_cookie_sent", "initiation answered by a cookie, since we are under load"),
    ("hs_dup", "copy of an initiation that came before"),
    ("hs_ratelimited", "more initiations from one source than allowed under load"),
    ("link_loop", "it is wrapped too often: tunnels are routed into each other or themselves"),
    ("path_too_large", "the packet is larger than the path to the peer carries"),
    ("data_ecn", "marked by a congested router, and its inner packet cannot carry the mark"),
    ("frame_source", "its source MAC address is not one that the peer may use"),
    ("frame_vlan", "the peer may not use its VLAN"),
    ("frame_storm", "more broadcasts, multicasts and frames to nobody known than allowed"),
    ("frame_isolated", "it is for a peer that exchanges no frames with its sender"),
)


class Layout:
    """One struct of the header: its size, the offset of each field, and how to read and write it.

    A field is a name and a format of the struct module. A field of more than one value ("64Q")
    stands for its whole array. Fields named "zero…" are neither taken by `pack` nor given back.
    """

    __slots__ = ("name", "offsets", "size", "struct")

    def __init__(self, name: str, *fields: tuple[str, str]) -> None:
        self.name = name
        self.struct = struct.Struct(
            "<" + "".join(_blank(code) if field.startswith("zero") else code for field, code in fields)
        )
        self.size = self.struct.size
        self.offsets: dict[str, tuple[int, int]] = {}  # by field: offset and size
        offset = 0
        for field, code in fields:
            width = struct.calcsize("<" + code)
            self.offsets[field] = (offset, width)
            offset += width

    def pack(self, *values: int | bytes) -> bytes:
        return self.struct.pack(*values)

    def unpack(self, data: Buffer, offset: int = 0) -> tuple[Any, ...]:
        """Raises struct.error when `data` ends before the struct does."""
        return self.struct.unpack_from(data, offset)


def _blank(code: str) -> str:
    return f"{struct.calcsize('<' + code)}x"


_ENDPOINT = "24s"  # a nested wire_endpoint

HEADER = Layout(
    "wire_header", ("type", "H"), ("zero", "H"), ("sequence", "I"), ("error", "I"), ("length", "I")
)
ENDPOINT = Layout(
    "wire_endpoint", ("family", "B"), ("zero", "B"), ("port", "H"), ("scope", "I"), ("address", "16s")
)
NETWORK = Layout("wire_network", ("family", "B"), ("prefix", "B"), ("zero", "2s"), ("address", "16s"))
HELLO_REQUEST = Layout("hello_request", ("version", "I"), ("zero", "I"))
HELLO_REPLY = Layout(
    "hello_reply",
    ("version", "I"),
    ("counters_layout", "I"),
    ("started_at_ns", "Q"),
    ("peer_capacity", "I"),
    ("has_aes", "B"),
    ("zero", "3s"),
    ("aead", "32s"),
    ("program_version", "32s"),
)
INVENTORY_REPLY = Layout(
    "inventory_reply",
    ("link_type", "B"),
    ("link_works", "B"),
    ("queues", "H"),
    ("mtu", "I"),
    ("link_name", "16s"),
    ("peer_count", "I"),
    ("session_count", "I"),
    ("socket_count", "I"),
    ("padding_mtu", "I"),
    ("offloads", "I"),
    ("active_offloads", "I"),
    ("link_offloads", "I"),
    ("offload_errors", f"{OFFLOADS_COUNT}I"),
    ("sockets", f"{SOCKETS_MAX * 24}s"),
)
LIST_REQUEST = Layout("list_request", ("cursor", "I"), ("zero", "I"))
LIST_REPLY = Layout("list_reply", ("next_cursor", "I"), ("count", "I"))
LISTED_PEER = Layout(
    "listed_peer",
    ("peer", "I"),
    ("network_count", "I"),
    ("public_key", "32s"),
    ("endpoint", _ENDPOINT),
    ("mtu", "I"),
    ("zero", "I"),
)
LISTED_SESSION = Layout(
    "listed_session",
    ("peer", "I"),
    ("local_index", "I"),
    ("remote_index", "I"),
    ("suite", "B"),
    ("slot", "B"),
    ("is_initiator", "B"),
    ("preferred", "B"),
    ("created_at_ns", "Q"),
)
LISTED_MAC = Layout(
    "listed_mac", ("mac", "6s"), ("vlan", "H"), ("peer", "I"), ("is_static", "I"), ("seen_at_ns", "Q")
)
SET_LINK_REQUEST = Layout(
    "set_link_request", ("type", "B"), ("queues", "B"), ("padding_mtu", "H"), ("mtu", "I"), ("name", "16s")
)
SET_SOCKETS_REQUEST = Layout("set_sockets_request", ("count", "I"), ("workers", "I"))
SET_PEER_REQUEST = Layout(
    "set_peer_request",
    ("peer", "I"),
    ("flags", "I"),
    ("public_key", "32s"),
    ("endpoint", _ENDPOINT),
    ("network_count", "I"),
    ("zero", "I"),
)
PEER_REQUEST = Layout("peer_request", ("peer", "I"), ("zero", "I"))
SET_PEER_MTU_REQUEST = Layout("set_peer_mtu_request", ("peer", "I"), ("mtu", "I"))
MAC = Layout("wire_mac", ("mac", "6s"), ("zero", "2s"))
SET_PEER_FRAMES_REQUEST = Layout(
    "set_peer_frames_request",
    ("peer", "I"),
    ("flags", "I"),
    ("storm_limit", "I"),
    ("mac_count", "I"),
    ("vlans", f"{VLANS_SIZE}s"),
)
SESSION_REQUEST = Layout("session_request", ("peer", "I"), ("local_index", "I"))
# The keys are the last 72 bytes: key, salt, key, salt. They are copied in, never packed.
INSTALL_SESSION_REQUEST = Layout(
    "install_session_request",
    ("peer", "I"),
    ("local_index", "I"),
    ("remote_index", "I"),
    ("suite", "B"),
    ("is_initiator", "B"),
    ("preferred", "B"),
    ("padding", "B"),
    ("features", "I"),
    ("zero", "I"),
    ("endpoint", _ENDPOINT),
    ("send_key", "32s"),
    ("send_salt", "4s"),
    ("receive_key", "32s"),
    ("receive_salt", "4s"),
)
SEND_DATAGRAM_REQUEST = Layout("send_datagram_request", ("to", _ENDPOINT))
SEND_CONTROL_REQUEST = Layout("send_control_request", ("peer", "I"), ("local_index", "I"), ("to", _ENDPOINT))
SET_OPTIONS_REQUEST = Layout(
    "set_options_request", ("mac_limit", "I"), ("mac_age_s", "I"), ("offloads", "I"), ("zero", "I")
)
# Written field by field from secrets, never packed.
SET_GATE_REQUEST = Layout(
    "set_gate_request",
    ("mac1_key", "32s"),
    ("cookie_key", "32s"),
    ("secret", "32s"),
    ("previous_secret", "32s"),
    ("previous_mac1_key", "32s"),
    ("previous_cookie_key", "32s"),
    ("secret_count", "I"),
    ("versions", "I"),
    ("has_previous_key", "I"),
    ("zero", "I"),
)
CLOSE_GATE_REQUEST = Layout("close_gate_request", ("milliseconds", "I"), ("zero", "I"))
DATAGRAM_EVENT = Layout(
    "datagram_event", ("received_at_ns", "Q"), ("queue_depth", "I"), ("zero", "I"), ("from", _ENDPOINT)
)
CONTROL_EVENT = Layout(
    "control_event", ("received_at_ns", "Q"), ("peer", "I"), ("local_index", "I"), ("from", _ENDPOINT)
)
PEER_EVENT = Layout("peer_event", ("peer", "I"), ("zero", "I"))
SESSION_EVENT = Layout(
    "session_event",
    ("peer", "I"),
    ("local_index", "I"),
    ("slot", "B"),
    ("reason", "B"),
    ("zero", "H"),
    ("zero2", "I"),
)
ROAMED_EVENT = Layout("roamed_event", ("peer", "I"), ("state", "B"), ("zero", "3s"), ("endpoint", _ENDPOINT))
FAILED_EVENT = Layout("failed_event", ("error", "I"), ("zero", "I"))
COUNTERS_HEAD = Layout(
    "counters_head",
    ("magic", "I"),
    ("layout", "I"),
    ("peer_capacity", "I"),
    ("peer_stride", "I"),
    ("drop_reasons", "I"),
    ("workers", "I"),
    ("started_at_ns", "Q"),
    ("handshakes_queued", "Q"),
    ("rx_datagrams", "Q"),
    ("tx_datagrams", "Q"),
    ("link_rx_packets", "Q"),
    ("link_tx_packets", "Q"),
    ("heartbeats", f"{COUNTERS_WORKERS_MAX}Q"),
    ("drops", f"{COUNTERS_DROPS_MAX}Q"),
)
PEER_COUNTERS = Layout(
    "peer_counters",
    ("rx_bytes", "Q"),
    ("rx_packets", "Q"),
    ("tx_bytes", "Q"),
    ("tx_packets", "Q"),
    ("last_sent_ns", "Q"),
    ("last_received_ns", "Q"),
    ("last_data_sent_ns", "Q"),
    ("last_data_received_ns", "Q"),
    ("unanswered_sent_since_ns", "Q"),
    ("unanswered_received_since_ns", "Q"),
    ("session_messages", "Q"),
    ("session_bytes", "Q"),
    ("current_index", "I"),
    ("has_current", "I"),
    ("staged", "I"),
    ("gso_error", "I"),
    ("drops", f"{COUNTERS_DROPS_MAX}I"),
)

START_CAPTURE_REQUEST = Layout("start_capture_request", ("kinds", "I"), ("peer", "I"))
CAPTURE_HEAD = Layout(
    "capture_head",
    ("magic", "I"),
    ("layout", "I"),
    ("slots", "I"),
    ("slot_size", "I"),
    ("next", "Q"),
    ("zero", "5Q"),
)
CAPTURE_SLOT = Layout(
    "capture_slot",
    ("number", "Q"),
    ("at_ns", "Q"),
    ("peer", "I"),
    ("size", "I"),
    ("kept", "H"),
    ("is_outer", "B"),
    ("way", "B"),
    ("is_dropped", "B"),
    ("reason", "B"),
    ("zero", "H"),
    ("remote", _ENDPOINT),
    ("local", _ENDPOINT),
    ("bytes", f"{CAPTURE_BYTES}s"),
)

LAYOUTS: Final[tuple[Layout, ...]] = tuple(
    value for value in list(globals().values()) if isinstance(value, Layout)
)

CAPTURE_SIZE: Final = CAPTURE_HEAD.size + CAPTURE_SLOTS * CAPTURE_SLOT.size

NETWORKS_PER_MESSAGE: Final = (MESSAGE_MAX - HEADER.size - SET_PEER_REQUEST.size) // NETWORK.size

_NO_ENDPOINT = bytes(ENDPOINT.size)


def pack_endpoint(endpoint: Endpoint | None) -> bytes:
    """None becomes family 0, which means "none" or "as it is", by the request."""
    if endpoint is None:
        return _NO_ENDPOINT
    packed = endpoint.address.packed
    return ENDPOINT.pack(endpoint.address.version, endpoint.port, endpoint.scope, packed.ljust(16, b"\0"))


def unpack_endpoint(data: Buffer) -> Endpoint | None:
    family, port, scope, address = ENDPOINT.unpack(data)
    if family == 4:
        return Endpoint(IPv4Address(address[:4]), port)
    if family == 6:
        return Endpoint(IPv6Address(address), port, scope)
    return None


def pack_network(network: IPv4Network | IPv6Network) -> bytes:
    packed = network.network_address.packed.ljust(16, b"\0")
    return NETWORK.pack(network.version, network.prefixlen, packed)


def error_of(number: int) -> tuple[str, str]:
    """Name and text of a wire_error; a number we do not know is named by itself."""
    return ERRORS.get(
        number, (f"error_{number}", "the plane answered with an error this version does not know")
    )
