"""The plane as vpnd sees it: requests with their answers, and events as they come.

Owns one connection, the counters that came with it, and the child if it started one.
Refuses to know why a request is made. Keys pass through memory that is wiped.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Self, TypeVar

from vpnd.endpoint import Endpoint
from vpnd.errors import PlaneError
from vpnd.keys import PublicKey, Secret
from vpnd.plane import wire
from vpnd.plane.channel import UNAWAITED, Channel
from vpnd.plane.counters import PlaneCounters
from vpnd.plane.events import Event
from vpnd.plane.frames import FrameRules, pack_rules
from vpnd.plane.inventory import (
    HelloReply,
    Inventory,
    ListedMac,
    read_hello,
    read_inventory,
    read_mac,
    read_peer,
    read_session,
)
from vpnd.plane.program import start_child
from vpnd.plane.wire import CaptureKind, Layout, LinkType, Offload, PeerFlag, WireType

_KEY = 32
_KEY_AND_SALT = 36
_GATE_SECRETS = ("secret", "previous_secret")
_GATE_SECRETS_MAX = len(_GATE_SECRETS)
_GATE_PREVIOUS = ("previous_mac1_key", "previous_cookie_key")
_SESSION_WITHOUT_KEYS = struct.Struct("<3I4BI4x24s")  # install_session_request up to send_key
_PAGES_MAX = 65536  # a list longer than this does not end
_CHILD_END_S = 2.0

_Entry = TypeVar("_Entry")


class PlaneClient:
    """One connection to a plane. Every request raises PlaneError with the plane's own name for
    its refusal, "timeout" when no answer came, "gone" when the plane is not there any more,
    "no_plane" when none listens.

    Requests with `wait` may be sent with wait=False: they return at once, and a refusal comes
    as the event RequestRefused.
    """

    def __init__(self, connection: socket.socket, *, timeout_s: float = 5.0) -> None:
        """Takes over `connection`, an AF_UNIX SOCK_SEQPACKET socket, and says hello on it."""
        self.child: subprocess.Popen[bytes] | None = None
        self._channel = Channel(connection, timeout_s)
        try:
            self.hello, self.counters = _say_hello(self._channel)
        except BaseException:
            self._channel.close()
            raise

    @classmethod
    def connect(cls, path: Path, *, timeout_s: float = 5.0) -> Self:
        """Connects to the plane that listens at `path`."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            raise PlaneError("no_plane", f"{path}: {error.strerror or error}") from error
        try:
            return cls(connection, timeout_s=timeout_s)
        except PlaneError as error:
            if error.code != "gone":
                raise
            who = "it lets in root, its own user and the socket's owner"
            raise PlaneError("gone", f"{path}: {error.text} to user {os.geteuid()}; {who}") from error

    @classmethod
    def spawn(cls, program: Path, *, timeout_s: float = 5.0, arguments: Sequence[str] = ()) -> Self:
        """Starts `program` as a child that lives as long as this connection."""
        child, connection = start_child(program, arguments)
        try:
            client = cls(connection, timeout_s=timeout_s)
        except PlaneError as error:
            child.kill()
            status = child.wait()
            if error.code != "gone":
                raise
            what = f"{program} ended at its start with status {status}; its own lines say why"
            raise PlaneError("gone", what) from error
        except BaseException:
            child.kill()
            child.wait()
            raise
        client.child = child
        return client

    def fileno(self) -> int:
        return self._channel.fileno()

    def close(self) -> None:
        """Ends the connection; a child ends with it and is waited for. Twice is once."""
        self._channel.close()
        self.counters.close()
        if self.child is None:
            return
        try:
            self.child.wait(_CHILD_END_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def drops(self) -> dict[str, int]:
        """Every reason that is not zero, those included that were dropped on the way up to here."""
        counted = self.counters.drops()
        if self._channel.overflowed:
            counted["hs_queue_full"] = counted.get("hs_queue_full", 0) + self._channel.overflowed
        return counted

    def read_events(self, limit: int | None = None) -> list[Event]:
        """What came without being asked for, in order, `limit` of it at most, also what came while a
        request waited for its answer; never waits. The last of a lost connection is PlaneGone.
        """
        return self._channel.read_events(limit)

    def gathering(self) -> AbstractContextManager[None]:
        """While it lasts, requests with wait=False leave together, at its end at the latest."""
        return self._channel.gathering()

    def together(self) -> AbstractContextManager[None]:
        """While it lasts, changes of peers and their networks are not waited for one by one; at its end all
        were made, or PlaneError tells why the first of the others was not.
        """
        return self._channel.together()

    @property
    def has_events(self) -> bool:
        """Tells of events that came while a request waited: the descriptor does not show them."""
        return self._channel.has_events

    # ---- what the plane holds ----

    def inventory(self) -> Inventory:
        """Asks for everything the plane holds but the learned MAC addresses."""
        body = self._channel.ask(WireType.INVENTORY)
        peers = self._list(WireType.LIST_PEERS, wire.LISTED_PEER, read_peer)
        sessions = self._list(WireType.LIST_SESSIONS, wire.LISTED_SESSION, read_session)
        return read_inventory(body, peers, sessions)

    def list_macs(self) -> tuple[ListedMac, ...]:
        """Asks for the MAC addresses behind peers (TAP), learned and static."""
        return self._list(WireType.LIST_MACS, wire.LISTED_MAC, read_mac)

    # ---- link, sockets, peers ----

    def set_link(
        self, link_type: str, name: str, mtu: int, queues: Sequence[int], *, padding_mtu: int = 0
    ) -> None:
        """Gives the link's descriptors, one per queue; `link_type` is "tun" or "tap".

        Padding makes no packet larger than `padding_mtu`, or than `mtu` where that is 0. The plane
        has its own copies of the descriptors; ours stay the caller's to close.
        """
        kind = LinkType[link_type.upper()]
        body = wire.SET_LINK_REQUEST.pack(kind, len(queues), padding_mtu, mtu, name.encode())
        self._channel.ask(WireType.SET_LINK, body, pass_descriptors=queues)

    def set_sockets(self, descriptors: Sequence[int], *, workers: int = 1) -> None:
        """Gives bound UDP sockets in place of those the plane had; ours stay the caller's to close.

        `workers` threads receive, each from every workers-th of them.
        """
        body = wire.SET_SOCKETS_REQUEST.pack(len(descriptors), workers)
        self._channel.ask(WireType.SET_SOCKETS, body, pass_descriptors=descriptors)

    def set_peer(
        self,
        peer_id: int,
        public_key: PublicKey,
        networks: Iterable[IPv4Network | IPv6Network],
        endpoint: Endpoint | None,
        *,
        rename: bool = False,
    ) -> None:
        """Adds a peer or replaces its networks; None leaves its endpoint as it is.

        To `rename` one is to say that it has another public key from now on; its sessions stay.
        """
        packed = [wire.pack_network(network) for network in networks]
        flags = PeerFlag.RENAME if rename else PeerFlag(0)
        for start in range(0, max(len(packed), 1), wire.NETWORKS_PER_MESSAGE):
            chunk = packed[start : start + wire.NETWORKS_PER_MESSAGE]
            head = wire.SET_PEER_REQUEST.pack(
                peer_id, flags, public_key.raw, wire.pack_endpoint(endpoint), len(chunk)
            )
            self._channel.do(WireType.SET_PEER, head + b"".join(chunk))
            flags, endpoint = PeerFlag.APPEND_NETWORKS, None

    def remove_peer(self, peer_id: int) -> None:
        """Forgets the peer with its networks, sessions and staged packets."""
        self._channel.do(WireType.REMOVE_PEER, wire.PEER_REQUEST.pack(peer_id))

    def flush_staged(self, peer_id: int) -> None:
        """Drops the packets that wait for a session with the peer."""
        self._channel.ask(WireType.FLUSH_STAGED, wire.PEER_REQUEST.pack(peer_id))

    def set_peer_mtu(self, peer_id: int, mtu: int) -> None:
        """Tells how large an inner packet the path to the peer carries; 0: as large as the link's."""
        self._channel.ask(WireType.SET_PEER_MTU, wire.SET_PEER_MTU_REQUEST.pack(peer_id, mtu))

    def set_peer_frames(self, peer_id: int, rules: FrameRules) -> None:
        """Sets what Ethernet frames the peer may send and get (TAP), whole each time."""
        self._channel.do(WireType.SET_PEER_FRAMES, pack_rules(peer_id, rules))

    def set_options(self, mac_limit: int, mac_age_s: int, offloads: Offload = Offload.ALL) -> None:
        """Sets how many MAC addresses one peer may show, how long an unseen one is kept, and which
        offloads may run.
        """
        body = wire.SET_OPTIONS_REQUEST.pack(mac_limit, mac_age_s, offloads)
        self._channel.ask(WireType.SET_OPTIONS, body)

    def set_gate(
        self,
        mac1_key: Secret,
        cookie_key: Secret,
        secrets: Sequence[Secret],
        versions: Iterable[int],
        previous: tuple[Secret, Secret] | None = None,
    ) -> None:
        """Lets the plane answer initiations by cookies while too many wait for us; no secret, no gate.

        `previous` are the keys of mac1 and of cookies of another static key that answers too.
        """
        if len(secrets) > _GATE_SECRETS_MAX or any(
            key.size != _KEY for key in (mac1_key, cookie_key, *secrets, *(previous or ()))
        ):
            raise PlaneError(
                "bad_value", f"the gate takes {_GATE_SECRETS_MAX} secrets of {_KEY} bytes at most"
            )
        sequence = self._channel.next_sequence()
        body = self._channel.place(WireType.SET_GATE, wire.SET_GATE_REQUEST.size, sequence)
        body[:] = bytes(len(body))
        keys = dict(zip(_GATE_SECRETS, secrets, strict=False))
        keys |= {"mac1_key": mac1_key, "cookie_key": cookie_key}
        if previous is not None:
            keys |= zip(_GATE_PREVIOUS, previous, strict=True)
        known = sum(1 << version for version in versions)
        _fill_gate(body, keys, (len(secrets), known, previous is not None))
        self._channel.leave()
        self._channel.wait_for(WireType.SET_GATE, sequence)

    def close_gate(self, seconds: float) -> None:
        """Lets the plane ask for a cookie from now on, for some seconds, however few messages wait."""
        self._request(WireType.CLOSE_GATE, wire.CLOSE_GATE_REQUEST.pack(round(seconds * 1000)), wait=False)

    def start_capture(self, ring: int, kinds: CaptureKind, peer_id: int | None) -> None:
        """Has copies of packets put into the ring, memory of CAPTURE_SIZE bytes that cannot shrink; a
        capture that ran ends.
        """
        peer = wire.CAPTURE_EVERY_PEER if peer_id is None else peer_id
        body = wire.START_CAPTURE_REQUEST.pack(kinds, peer)
        self._channel.ask(WireType.START_CAPTURE, body, pass_descriptors=(ring,))

    def stop_capture(self) -> None:
        self._channel.ask(WireType.STOP_CAPTURE)

    def stop(self) -> None:
        """Ends the plane for good; what follows on this connection is PlaneGone."""
        self._channel.ask(WireType.STOP)

    # ---- sessions and messages ----

    def install_session(
        self,
        *,
        peer_id: int,
        local_index: int,
        remote_index: int,
        suite: int,
        is_initiator: bool,
        preferred: bool,
        padding: int,
        features: int,
        endpoint: Endpoint | None,
        send_key: Secret,
        receive_key: Secret,
        wait: bool = True,
    ) -> None:
        """Hands over a session; each key is 32 bytes with its 4 of salt, and the caller's to wipe."""
        if send_key.size != _KEY_AND_SALT or receive_key.size != _KEY_AND_SALT:
            raise PlaneError("bad_value", f"a session's key with its salt has {_KEY_AND_SALT} bytes")
        sequence = self._channel.next_sequence() if wait else UNAWAITED
        size = wire.INSTALL_SESSION_REQUEST.size
        view = self._channel.place(WireType.INSTALL_SESSION, size, sequence)
        numbers = (peer_id, local_index, remote_index, suite, is_initiator, preferred, padding, features)
        _SESSION_WITHOUT_KEYS.pack_into(view, 0, *numbers, wire.pack_endpoint(endpoint))
        keys = _SESSION_WITHOUT_KEYS.size
        view[keys : keys + _KEY_AND_SALT] = send_key.buffer()
        view[keys + _KEY_AND_SALT :] = receive_key.buffer()
        self._channel.leave()
        if wait:
            self._channel.wait_for(WireType.INSTALL_SESSION, sequence)

    def retire_session(self, peer_id: int, local_index: int, *, wait: bool = True) -> None:
        """Ends a session and wipes its keys."""
        self._request(WireType.RETIRE_SESSION, wire.SESSION_REQUEST.pack(peer_id, local_index), wait)

    def send_datagram(self, endpoint: Endpoint, data: bytes, *, wait: bool = True) -> None:
        """Sends a handshake message as it is, from a socket of the endpoint's family."""
        head = wire.SEND_DATAGRAM_REQUEST.pack(wire.pack_endpoint(endpoint))
        self._request(WireType.SEND_DATAGRAM, head + data, wait)

    def send_control(
        self,
        peer_id: int,
        data: bytes,
        local_index: int = 0,
        endpoint: Endpoint | None = None,
        *,
        wait: bool = True,
    ) -> None:
        """Seals and sends a control message; index 0 and endpoint None mean the current ones."""
        head = wire.SEND_CONTROL_REQUEST.pack(peer_id, local_index, wire.pack_endpoint(endpoint))
        self._request(WireType.SEND_CONTROL, head + data, wait)

    def send_keepalive(self, peer_id: int, *, wait: bool = True) -> None:
        """Sends an empty message on the current session."""
        self._request(WireType.SEND_KEEPALIVE, wire.PEER_REQUEST.pack(peer_id), wait)

    def _request(self, request: WireType, body: bytes, wait: bool) -> None:
        if wait:
            self._channel.ask(request, body)
        else:
            self._channel.tell_only(request, body)

    def _list(
        self, request: WireType, entry: Layout, read: Callable[[bytes, int], _Entry]
    ) -> tuple[_Entry, ...]:
        entries: list[_Entry] = []
        cursor = 0
        for _ in range(_PAGES_MAX):
            body = self._channel.ask(request, wire.LIST_REQUEST.pack(cursor))
            cursor, count = wire.LIST_REPLY.unpack(body)
            if len(body) != wire.LIST_REPLY.size + count * entry.size:
                raise PlaneError("bad_reply", f"{len(body)} bytes do not hold {count} {entry.name}")
            entries.extend(read(body, at) for at in range(wire.LIST_REPLY.size, len(body), entry.size))
            if cursor == 0:
                return tuple(entries)
        raise PlaneError("bad_reply", f"{request.name} does not end")


def _say_hello(channel: Channel) -> tuple[HelloReply, PlaneCounters]:
    descriptors: list[int] = []
    try:
        body = channel.ask(
            WireType.HELLO, wire.HELLO_REQUEST.pack(wire.VERSION), take_descriptors=descriptors
        )
        if len(descriptors) != 1:
            raise PlaneError("bad_reply", f"hello was answered with {len(descriptors)} descriptors")
        return read_hello(body), PlaneCounters(descriptors[0])
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _fill_gate(body: memoryview, keys: Mapping[str, Secret], numbers: tuple[int, int, bool]) -> None:
    """Writes a set_gate_request into zeros; no secret is copied on its way."""
    for field, key in keys.items():
        start, size = wire.SET_GATE_REQUEST.offsets[field]
        body[start : start + size] = key.buffer()
    struct.pack_into("<3I", body, wire.SET_GATE_REQUEST.offsets["secret_count"][0], *numbers)
