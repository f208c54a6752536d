"""The plane's leaf modules as Python objects, one class per module.

Owns the ctypes signatures and the lifetimes of what the C side allocates. Knows no expected
result; the tests do.
"""

from __future__ import annotations

import ctypes
import ipaddress
from collections.abc import Iterable, Sequence
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_bool,
    c_char_p,
    c_int,
    c_size_t,
    c_ubyte,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

NONE = 0xFFFF_FFFF
LINK = 65536  # in place of a peer: our side
USABLE = 16320
COUNTER_LIMIT = 2**33

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ReplayWindow(Structure):
    _fields_: ClassVar = [("top", c_uint64), ("next_top", c_uint64), ("words", c_uint64 * 256)]


class WireNetwork(Structure):
    _fields_: ClassVar = [
        ("family", c_uint8),
        ("prefix", c_uint8),
        ("zero", c_uint8 * 2),
        ("address", c_uint8 * 16),
    ]


class ListedMac(Structure):
    _fields_: ClassVar = [
        ("mac", c_uint8 * 6),
        ("vlan", c_uint16),
        ("peer", c_uint32),
        ("is_static", c_uint32),
        ("seen_at_ns", c_uint64),
    ]


KEY = c_void_p
OFFERS = CFUNCTYPE(c_bool, c_uint8)
KEY_NEW = CFUNCTYPE(c_int, POINTER(KEY), c_uint8, c_char_p)
KEY_FREE = CFUNCTYPE(None, KEY)
SEAL = CFUNCTYPE(None, KEY, c_char_p, c_char_p, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p)
OPEN = CFUNCTYPE(c_bool, KEY, c_char_p, c_char_p, c_size_t, c_void_p, c_size_t, c_void_p, c_char_p)


class Backend(Structure):
    """struct aead_backend."""

    _fields_: ClassVar = [
        ("name", c_char_p),
        ("offers", OFFERS),
        ("key_new", KEY_NEW),
        ("key_free", KEY_FREE),
        ("seal", SEAL),
        ("open", OPEN),
    ]


class AeadKey:
    """A key of one back end; sealing and opening happen in a buffer of the caller's or in a fresh one."""

    def __init__(self, backend: Backend, suite: int, key: bytes) -> None:
        self._backend = backend
        self._key = KEY()
        error = backend.key_new(byref(self._key), suite, key)
        if error != 0:
            raise OSError(-error, "key_new")

    def __del__(self) -> None:
        self._backend.key_free(self._key)

    def seal(self, nonce: bytes, aad: bytes, plain: bytes) -> tuple[bytes, bytes]:
        """Returns ciphertext and tag, made into buffers that start filled with other bytes."""
        source = ctypes.create_string_buffer(plain, len(plain) or 1)
        out = ctypes.create_string_buffer(b"\xa5" * (len(plain) or 1), len(plain) or 1)
        tag = ctypes.create_string_buffer(b"\xa5" * 16, 16)
        self._backend.seal(self._key, nonce, aad, len(aad), source, len(plain), out, tag)
        return out.raw[: len(plain)], tag.raw

    def open(self, nonce: bytes, aad: bytes, cipher: bytes, tag: bytes) -> tuple[bool, bytes]:
        """Returns the verdict and what stands in the plaintext's buffer after it."""
        source = ctypes.create_string_buffer(cipher, len(cipher) or 1)
        out = ctypes.create_string_buffer(b"\xa5" * (len(cipher) or 1), len(cipher) or 1)
        verdict = self._backend.open(self._key, nonce, aad, len(aad), source, len(cipher), out, tag)
        return bool(verdict), out.raw[: len(cipher)]

    def seal_in_place(self, nonce: bytes, aad: bytes, buffer: bytearray, at: int, size: int) -> None:
        """Seals buffer[at:at+size] where it stands and puts the tag directly behind."""
        array = (c_ubyte * len(buffer)).from_buffer(buffer)
        place = ctypes.addressof(array) + at
        self._backend.seal(self._key, nonce, aad, len(aad), place, size, place, place + size)

    def open_in_place(self, nonce: bytes, aad: bytes, buffer: bytearray, at: int, size: int) -> bool:
        """Opens buffer[at:at+size] where it stands; the tag is taken from directly behind."""
        tag = bytes(buffer[at + size : at + size + 16])
        array = (c_ubyte * len(buffer)).from_buffer(buffer)
        place = ctypes.addressof(array) + at
        return bool(self._backend.open(self._key, nonce, aad, len(aad), place, size, place, tag))


class Replay:
    """One replay window."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.window = ReplayWindow()
        self._place = byref(self.window)

    def is_new(self, counter: int) -> bool:
        return bool(self._library.replay_is_new(self._place, counter))

    def accept(self, counter: int) -> bool:
        return bool(self._library.replay_accept(self._place, counter))

    def accept_run(self, first: int, count: int) -> bool:
        return bool(self._library.replay_accept_run(self._place, first, count))

    def resume(self) -> None:
        self._library.replay_resume(self._place)

    def state(self) -> bytes:
        return bytes(self.window)


def wire_network(prefix: Prefix) -> WireNetwork:
    """The prefix as the plane socket carries it."""
    network = WireNetwork(family=prefix.version, prefix=prefix.prefixlen)
    packed = prefix.network_address.packed
    network.address[: len(packed)] = list(packed)
    return network


def prefix_of(network: WireNetwork) -> Prefix:
    size = 4 if network.family == 4 else 16
    return ipaddress.ip_network((bytes(network.address[:size]), network.prefix))


class Networks:
    """The tries of one plane."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._networks = library.networks_new()
        if not self._networks:
            raise MemoryError

    def __del__(self) -> None:
        self._library.networks_free(self._networks)

    def add(self, prefix: Prefix, peer: int) -> int:
        return int(self._library.networks_add(self._networks, byref(wire_network(prefix)), peer))

    def add_wire(self, network: WireNetwork, peer: int) -> int:
        return int(self._library.networks_add(self._networks, byref(network), peer))

    def add_all(self, prefixes: Iterable[tuple[WireNetwork, int]]) -> int:
        """Adds them one by one and returns how many were refused."""
        call, place = self._library.networks_add, self._networks
        return sum(call(place, byref(network), peer) != 0 for network, peer in prefixes)

    def reserve(self, count: int) -> int:
        return int(self._library.networks_reserve(self._networks, count))

    def remove(self, prefix: Prefix, peer: int) -> int:
        return int(self._library.networks_remove(self._networks, byref(wire_network(prefix)), peer))

    def remove_peer(self, peer: int) -> None:
        self._library.networks_remove_peer(self._networks, peer)

    def find(self, address: Address) -> int:
        return int(self._library.networks_find(self._networks, address.version, address.packed))

    def count(self, peer: int) -> int:
        return int(self._library.networks_count(self._networks, peer))

    def list(self, peer: int) -> list[Prefix]:
        room = (WireNetwork * self.count(peer))()
        written = self._library.networks_list(self._networks, peer, room, len(room))
        assert written == len(room)
        return [prefix_of(network) for network in room]


@dataclass(frozen=True, slots=True)
class Seen:
    """One entry of the MAC table as listed."""

    mac: bytes
    vlan: int
    peer: int
    seen_at_ns: int
    is_static: bool


class MacTable:
    """One table of learned Ethernet addresses; times are seconds here."""

    KNOWN, NEW, MOVED, REFUSED, FORBIDDEN = range(5)

    def __init__(self, library: ctypes.CDLL, limit: int, age_s: int) -> None:
        self._library = library
        self._table = library.mac_table_new(limit, age_s)
        if not self._table:
            raise MemoryError

    def __del__(self) -> None:
        self._library.mac_table_free(self._table)

    def set_limits(self, limit: int, age_s: int) -> None:
        self._library.mac_table_set_limits(self._table, limit, age_s)

    def learn(self, mac: bytes, peer: int, now_s: float, *, vlan: int = 0) -> int:
        now = round(now_s * 1e9)
        return int(self._library.mac_table_learn(self._table, mac, vlan, peer, now))

    def set_static(self, macs: Sequence[bytes], peer: int) -> int:
        packed = b"".join(mac + b"\0\0" for mac in macs)
        return int(self._library.mac_table_set_static(self._table, packed, len(macs), peer))

    def find(self, mac: bytes, now_s: float, *, vlan: int = 0) -> int:
        return int(self._library.mac_table_find(self._table, mac, vlan, round(now_s * 1e9)))

    def age(self, now_s: float) -> None:
        self._library.mac_table_age(self._table, round(now_s * 1e9))

    def remove_peer(self, peer: int) -> None:
        self._library.mac_table_remove_peer(self._table, peer)

    def list(self, page: int = 64) -> list[Seen]:
        found: list[Seen] = []
        room = (ListedMac * page)()
        cursor = c_uint32(0)
        while True:
            written = self._library.mac_table_list(self._table, room, page, byref(cursor))
            found += [
                Seen(bytes(e.mac), e.vlan, e.peer, e.seen_at_ns, bool(e.is_static)) for e in room[:written]
            ]
            if cursor.value == 0:
                return found


class Packets:
    """The pure functions of packet.c; every packet is handed over in a buffer of exactly its size."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    @staticmethod
    def _exact(packet: bytes) -> Any:
        return (c_uint8 * len(packet)).from_buffer_copy(packet)

    def ip_length(self, packet: bytes) -> int:
        return int(self._library.packet_ip_length(self._exact(packet), len(packet)))

    def kind(self, packet: bytes) -> int:
        return int(self._library.packet_kind_of(self._exact(packet), len(packet)))

    def _address(self, call: Any, packet: bytes) -> Address:
        family = c_uint8(0)
        exact = self._exact(packet)
        size = 4 if packet[0] >> 4 == 4 else 16
        place = call(exact, byref(family))
        assert family.value == packet[0] >> 4
        return ipaddress.ip_address(ctypes.string_at(place, size))

    def source(self, packet: bytes) -> Address:
        return self._address(self._library.packet_source, packet)

    def destination(self, packet: bytes) -> Address:
        return self._address(self._library.packet_destination, packet)

    def checksum_place(self, packet: bytes) -> tuple[int, int] | None:
        start, offset = c_uint16(0), c_uint16(0)
        exact = self._exact(packet)
        found = self._library.packet_checksum_place(exact, len(packet), byref(start), byref(offset))
        return (start.value, offset.value) if found else None

    def udp_with(self, packet: bytes, first: int) -> int | None:
        """The hops left of a UDP packet whose payload begins with `first`."""
        hops = c_uint8(0)
        found = self._library.packet_is_udp_with(self._exact(packet), len(packet), first, byref(hops))
        return hops.value if found else None

    def unreachable(self, packet: bytes) -> bytes:
        """What its sender is told, or nothing."""
        answer = (c_uint8 * 1280)()
        size = self._library.icmp_unreachable(self._exact(packet), len(packet), answer)
        return bytes(answer[:size])

    def too_big(self, packet: bytes, mtu: int) -> bytes:
        """What the sender of a packet larger than `mtu` is told, or nothing."""
        answer = (c_uint8 * 1280)()
        size = self._library.icmp_too_big(self._exact(packet), len(packet), mtu, answer)
        return bytes(answer[:size])

    def frame_too_big(self, frame: bytes, mtu: int) -> bytes:
        """The same in a frame."""
        answer = (c_uint8 * 1302)()
        size = self._library.icmp_frame_too_big(self._exact(frame), len(frame), mtu, answer)
        return bytes(answer[:size])

    def clamp(self, packet: bytes, mtu: int, *, is_partial: bool = False) -> bytes:
        """The packet with its MSS lowered; the verdict and the bytes agree."""
        exact = self._exact(packet)
        done = self._library.mss_clamp(exact, len(packet), mtu, is_partial)
        assert done == (bytes(exact)[: len(packet)] != packet)
        return bytes(exact)[: len(packet)]

    def complete_checksum(self, packet: bytes, start: int, offset: int) -> bytes | None:
        exact = self._exact(packet)
        done = self._library.packet_complete_checksum(exact, len(packet), start, offset)
        assert done or bytes(exact) == packet
        return bytes(exact) if done else None

    def checksum_add(self, start: int, data: bytes) -> int:
        return int(self._library.checksum_add(start, self._exact(data), len(data)))

    def padded_length(self, plaintext: int, mode: int, mtu: int) -> int:
        return int(self._library.padded_length(plaintext, mode, mtu))

    def vlan(self, frame: bytes) -> int:
        return int(self._library.frame_vlan(self._exact(frame), len(frame)))

    def payload(self, frame: bytes) -> tuple[int, int]:
        ether_type = c_uint16(0)
        exact = self._exact(frame)
        at = self._library.frame_payload(exact, len(frame), byref(ether_type))
        return int(at), ether_type.value

    def is_group(self, mac: bytes) -> bool:
        return bool(self._library.frame_is_group(mac))

    def addresses(self, frame: bytes) -> tuple[bytes, bytes]:
        exact = self._exact(frame)
        return (
            ctypes.string_at(self._library.frame_destination(exact), 6),
            ctypes.string_at(self._library.frame_source(exact), 6),
        )


class Gate:
    """One gate; times are seconds here, `keys` a set_gate_request, `source` a wire_endpoint."""

    PASS, MALFORMED, MAC1, COOKIE, RATE = range(5)

    def __init__(self, library: ctypes.CDLL, keys: bytes) -> None:
        self._library = library
        self._gate = library.gate_new()
        if not self._gate:
            raise MemoryError
        self.set(keys)

    def __del__(self) -> None:
        self._library.gate_free(self._gate)

    def set(self, keys: bytes) -> None:
        self._library.gate_set(self._gate, keys)

    def note_depth(self, waiting: int, now_s: float) -> None:
        self._library.gate_note_depth(self._gate, waiting, round(now_s * 1e9))

    def is_closed(self, now_s: float) -> bool:
        return bool(self._library.gate_is_closed(self._gate, round(now_s * 1e9)))

    def has_seen(self, datagram: bytes, now_s: float) -> bool:
        exact = (c_uint8 * len(datagram)).from_buffer_copy(datagram)
        return bool(self._library.gate_has_seen(self._gate, exact, len(datagram), round(now_s * 1e9)))

    def remember(self, datagram: bytes, now_s: float) -> None:
        exact = (c_uint8 * len(datagram)).from_buffer_copy(datagram)
        self._library.gate_remember(self._gate, exact, len(datagram), round(now_s * 1e9))

    def source(self, source: bytes) -> int:
        return int(self._library.gate_source(self._gate, source))

    def judge(self, source: bytes, datagram: bytes, now_s: float) -> tuple[int, bytes]:
        """Returns the verdict and the cookie message that goes with it, zeros where there is none."""
        cookie = ctypes.create_string_buffer(64)
        exact = (c_uint8 * len(datagram)).from_buffer_copy(datagram)
        now = round(now_s * 1e9)
        verdict = int(self._library.gate_judge(self._gate, source, exact, len(datagram), now))
        if verdict == self.COOKIE:
            assert self._library.gate_make_cookie(self._gate, source, exact, len(datagram), cookie)
        return verdict, cookie.raw

    def may_ask(self, source: bytes, now_s: float) -> bool:
        return bool(self._library.gate_may_ask(self._gate, source, round(now_s * 1e9)))


SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "replay_is_new": (c_bool, [c_void_p, c_uint64]),
    "replay_accept": (c_bool, [c_void_p, c_uint64]),
    "replay_resume": (None, [c_void_p]),
    "replay_accept_run": (c_bool, [c_void_p, c_uint64, ctypes.c_uint]),
    "networks_new": (c_void_p, []),
    "networks_free": (None, [c_void_p]),
    "networks_reserve": (c_int, [c_void_p, c_size_t]),
    "networks_add": (c_int, [c_void_p, c_void_p, c_uint32]),
    "networks_remove": (c_int, [c_void_p, c_void_p, c_uint32]),
    "networks_remove_peer": (None, [c_void_p, c_uint32]),
    "networks_find": (c_uint32, [c_void_p, c_uint8, c_char_p]),
    "networks_count": (c_size_t, [c_void_p, c_uint32]),
    "networks_list": (c_size_t, [c_void_p, c_uint32, c_void_p, c_size_t]),
    "gate_new": (c_void_p, []),
    "gate_free": (None, [c_void_p]),
    "gate_set": (None, [c_void_p, c_char_p]),
    "gate_note_depth": (None, [c_void_p, ctypes.c_uint, c_uint64]),
    "gate_is_closed": (c_bool, [c_void_p, c_uint64]),
    "gate_has_seen": (c_bool, [c_void_p, c_void_p, c_size_t, c_uint64]),
    "gate_remember": (None, [c_void_p, c_void_p, c_size_t, c_uint64]),
    "gate_source": (c_uint32, [c_void_p, c_char_p]),
    "gate_judge": (c_int, [c_void_p, c_char_p, c_void_p, c_size_t, c_uint64]),
    "gate_make_cookie": (c_bool, [c_void_p, c_char_p, c_void_p, c_size_t, c_void_p]),
    "gate_may_ask": (c_bool, [c_void_p, c_char_p, c_uint64]),
    "mac_table_new": (c_void_p, [c_uint32, c_uint32]),
    "mac_table_free": (None, [c_void_p]),
    "mac_table_set_limits": (None, [c_void_p, c_uint32, c_uint32]),
    "mac_table_learn": (c_int, [c_void_p, c_char_p, c_uint16, c_uint32, c_uint64]),
    "mac_table_set_static": (c_int, [c_void_p, c_char_p, c_uint32, c_uint32]),
    "mac_table_find": (c_uint32, [c_void_p, c_char_p, c_uint16, c_uint64]),
    "mac_table_age": (None, [c_void_p, c_uint64]),
    "mac_table_remove_peer": (None, [c_void_p, c_uint32]),
    "mac_table_list": (c_size_t, [c_void_p, c_void_p, c_size_t, c_void_p]),
    "packet_kind_of": (c_int, [c_void_p, c_size_t]),
    "packet_ip_length": (c_size_t, [c_void_p, c_size_t]),
    "packet_source": (c_void_p, [c_void_p, c_void_p]),
    "packet_destination": (c_void_p, [c_void_p, c_void_p]),
    "packet_checksum_place": (c_bool, [c_void_p, c_size_t, c_void_p, c_void_p]),
    "packet_is_udp_with": (c_bool, [c_void_p, c_size_t, c_uint32, c_void_p]),
    "icmp_unreachable": (c_size_t, [c_void_p, c_size_t, c_void_p]),
    "icmp_too_big": (c_size_t, [c_void_p, c_size_t, c_uint32, c_void_p]),
    "icmp_frame_too_big": (c_size_t, [c_void_p, c_size_t, c_uint32, c_void_p]),
    "mss_clamp": (c_bool, [c_void_p, c_size_t, c_size_t, c_bool]),
    "packet_complete_checksum": (c_bool, [c_void_p, c_size_t, c_size_t, c_size_t]),
    "checksum_add": (c_uint16, [c_uint16, c_void_p, c_size_t]),
    "padded_length": (c_size_t, [c_size_t, c_int, c_size_t]),
    "frame_vlan": (c_uint16, [c_void_p, c_size_t]),
    "frame_payload": (c_size_t, [c_void_p, c_size_t, c_void_p]),
    "frame_is_group": (c_bool, [c_char_p]),
    "frame_destination": (c_void_p, [c_void_p]),
    "frame_source": (c_void_p, [c_void_p]),
    "aead_choose": (POINTER(Backend), [c_char_p]),
    "aead_cpu_has_aes": (c_bool, []),
}


class Leaves:
    """The loaded library."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.library = ctypes.CDLL(str(path))
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(self.library, name)
            function.restype, function.argtypes = result, arguments
        self.packets = Packets(self.library)

    def replay(self) -> Replay:
        return Replay(self.library)

    def networks(self) -> Networks:
        return Networks(self.library)

    def mac_table(self, limit: int = 1024, age_s: int = 300) -> MacTable:
        return MacTable(self.library, limit, age_s)

    def has_aes(self) -> bool:
        return bool(self.library.aead_cpu_has_aes())

    def choose(self, wanted: str | None) -> Backend | None:
        """Returns the back end of that name, or the best one."""
        found = self.library.aead_choose(None if wanted is None else wanted.encode())
        return found.contents if found else None

    def backends(self) -> dict[str, Backend]:
        """Returns every back end that works on this machine."""
        found = {name: self.choose(name) for name in ("openssl", "ipsec-mb")}
        return {name: backend for name, backend in found.items() if backend is not None}
