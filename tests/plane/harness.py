"""A running plane with a real link and real sockets, and far ends played by the test.

Owns the building of the program, its start, and the waiting. Knows no test's reason.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TypeVar

from tests.plane import building, far
from tests.plane.far import Session, endpoint_of
from tests.plane.namespace import Link, Namespace
from vpnd.endpoint import Endpoint
from vpnd.keys import PublicKey
from vpnd.plane import wire
from vpnd.plane.channel import frames_of
from vpnd.plane.client import PlaneClient
from vpnd.plane.counters import PeerCounters
from vpnd.plane.events import Event, read_event
from vpnd.plane.inventory import Inventory
from vpnd.plane.program import start_child

FEATURE_TUN, FEATURE_TAP, FEATURE_CSUM, FEATURE_PATH = 1, 2, 4, 32

# The limits of the specification, lowered so that a test lives to see them.
SHORT_LIVES = {
    "SESSION_LIFE_S": "3u",
    "UNCONFIRMED_LIFE_S": "1u",
    "PREVIOUS_LIFE_S": "1u",
    "MESSAGES_LIMIT": "UINT64_C(300)",
    "FORGED_LIMIT": "UINT64_C(20)",
}
SHORT_SESSION_S, SHORT_UNCONFIRMED_S, SHORT_PREVIOUS_S = 3.0, 1.0, 1.0
SHORT_MESSAGES, SHORT_FORGED = 300, 20

_SET_UP_S = 20.0  # a busy machine under a sanitizer included
_E = TypeVar("_E")
_T = TypeVar("_T")


# ---- the program ----


@cache
def plane_program() -> Path:
    """The program under test: VPND_PLANE_PROGRAM, or built here."""
    named = os.environ.get("VPND_PLANE_PROGRAM")
    return Path(named).resolve() if named else building.plane_program()


@cache
def short_lived_program() -> Path:
    """The same program with SHORT_LIVES, built with the same sanitizers in a directory of its own."""
    kind = sanitizer()
    directory = building.SOURCE / "build" / f"short-lives-{kind.replace(',', '-')}"
    definitions = " ".join(f"-D{name}={value}" for name, value in SHORT_LIVES.items())
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "build.ninja").exists():
            options = [f"-Dc_args={definitions}", f"-Db_sanitize={kind}", "-Db_lundef=false"]
            building.run(building.tool("meson"), "setup", str(directory), str(building.SOURCE), *options)
        target = f"{building.PLANE}/vpnd-plane"
        building.run(building.tool("ninja"), "-C", str(directory), target)
    return directory / target


def is_sanitized() -> bool:
    return sanitizer() != "none"


@cache
def sanitizer() -> str:
    """What the program under test was built with, in meson's words; a built one's directory tells."""
    for directory in plane_program().parents:
        options = directory / "meson-info" / "intro-buildoptions.json"
        if options.exists():
            named = {option["name"]: option["value"] for option in json.loads(options.read_text())}
            value = named["b_sanitize"]
            return (",".join(value) if isinstance(value, list) else str(value)) or "none"
    return "none"


# ---- waiting ----


def wait_until(condition: Callable[[], _T], what: str, timeout_s: float = _SET_UP_S) -> _T:
    """Gives the first true answer of `condition`; fails with `what` when it never comes."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.002)


# ---- one plane ----


def descriptors_of(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def public_key(number: int) -> PublicKey:
    return PublicKey((number + 1).to_bytes(4, "big") * 8)


class Rig:
    """One plane and everything around it."""

    def __init__(self, namespace: Namespace, program: Path, arguments: Sequence[str] = ()) -> None:
        self.namespace = namespace
        self.child, connection = start_child(program, arguments)
        self._raw = connection.dup()
        self._raw_sequence = 0xF000_0000
        self._seen: list[Event] = []
        self._closing: list[Callable[[], None]] = []
        self.client = PlaneClient(connection)
        self.client.child = self.child
        self.links: list[Link] = []
        self.sockets: list[socket.socket] = []

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def link(self) -> Link:
        return self.links[-1]

    def descriptors(self) -> int:
        """How many descriptors the plane has open."""
        return descriptors_of(self.pid)

    # -- set-up --

    def add_link(
        self, kind: str = "tun", *, mtu: int = 1420, link_mtu: int | None = None, queues: int = 1
    ) -> Link:
        link = Link(
            self.namespace,
            kind,
            f"pt-{os.getpid() % 10000}-{len(self.links)}",
            mtu=link_mtu or mtu,
            queues=queues,
        )
        self._closing.append(link.close)
        self.links.append(link)
        self.client.set_link(kind, link.name, mtu, link.queues)
        return link

    def add_sockets(self, *addresses: str) -> list[socket.socket]:
        """Binds UDP sockets and gives them to the plane."""
        self.sockets = [self.udp_socket(address) for address in addresses]
        self.client.set_sockets([each.fileno() for each in self.sockets])
        return self.sockets

    def udp_socket(
        self, address: str, port: int = 0, *, scope: int = 0, dual_stack: bool = False
    ) -> socket.socket:
        """A socket in the namespace that is closed with the rig."""
        opened = self.namespace.udp_socket(address, port, scope=scope, dual_stack=dual_stack)
        self._closing.append(opened.close)
        return opened

    def add_peer(
        self,
        peer_id: int = 1,
        networks: Sequence[str] = ("10.2.0.0/16",),
        *,
        address: str = "127.0.0.2",
        endpoint: Endpoint | None = None,
        knows_endpoint: bool = True,
    ) -> Far:
        """A peer whose far end is a socket of the test's at `address`."""
        sock = self.udp_socket(address)
        peer = Far(self, peer_id, sock)
        if knows_endpoint and endpoint is None:
            endpoint = endpoint_of(sock)
        self.client.set_peer(peer_id, peer.public_key, [ip_network(each) for each in networks], endpoint)
        return peer

    def on_close(self, close: Callable[[], None]) -> None:
        self._closing.append(close)

    # -- asking --

    def request(
        self, kind: int, body: bytes = b"", descriptors: Sequence[int] = (), **header: int
    ) -> tuple[str, bytes]:
        """Sends any bytes as a request; the name of the error ("" for none) and the answer's body."""
        self._raw_sequence += 1
        fields = {"sequence": self._raw_sequence, "error": 0, "length": len(body)} | header
        head = wire.HEADER.pack(kind & 0xFFFF, fields["sequence"], fields["error"], fields["length"])
        return self.send_raw(head + body, descriptors, fields["sequence"])

    def send_raw(
        self, message: bytes, descriptors: Sequence[int] = (), sequence: int | None = None
    ) -> tuple[str, bytes]:
        passed = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        self._raw.setblocking(True)
        self._raw.settimeout(_SET_UP_S)
        self._raw.sendmsg([message], passed)
        while True:
            answer, _, _, _ = self._raw.recvmsg(
                wire.MESSAGE_MAX, socket.CMSG_SPACE(64), socket.MSG_CMSG_CLOEXEC
            )
            if not answer:
                raise EOFError("the plane closed the connection")
            for kind, answered, error, body in frames_of(answer):
                if kind & wire.REPLY:
                    assert sequence in (None, answered)
                    self._raw.setblocking(False)
                    return (wire.error_of(error)[0] if error else "", body)
                self._seen.append(read_event(kind, body))

    def drops(self) -> dict[str, int]:
        return self.client.counters.drops()

    def dropped(self) -> int:
        return sum(self.drops().values())

    def wait_drops(self, reason: str, count: int) -> None:
        wait_until(
            lambda: self.drops().get(reason, 0) >= count, f"{reason} {count} times, but {self.drops()}"
        )
        assert self.drops()[reason] == count

    def received(self) -> int:
        """Datagrams that came in by the sockets."""
        return self.client.counters.totals().rx_datagrams

    def state(self) -> tuple[object, ...]:
        """Everything a refused request must leave alone. Peers' counters of the first few numbers."""
        inventory = self.client.inventory()
        peers = tuple(self.client.counters.peer(number) for number in range(8))
        return (inventory, peers, self.drops(), self.client.list_macs())

    def slots(self, peer_id: int = 1) -> dict[int, int]:
        """Sessions of a peer: local index to slot."""
        return {each.local_index: each.slot for each in self.inventory().sessions if each.peer_id == peer_id}

    def inventory(self) -> Inventory:
        return self.client.inventory()

    # -- events --

    def events(self) -> list[Event]:
        """All events not yet taken, in order."""
        seen = self._seen + self.client.read_events()
        self._seen = []
        return seen

    def wait_event(self, kind: type[_E], timeout_s: float = _SET_UP_S) -> _E:
        """The first event of this type not yet taken; those before it stay."""

        def look() -> bool:
            self._seen += self.client.read_events()
            return any(isinstance(each, kind) for each in self._seen)

        wait_until(look, f"an event {kind.__name__}, but {self._seen[-5:]}", timeout_s)
        for at, each in enumerate(self._seen):
            if isinstance(each, kind):
                del self._seen[at]
                return each
        raise AssertionError("unreachable")

    def no_event(self, kind: type[_E]) -> None:
        """No such event came. A request's answer comes after all events before it."""
        self.client.inventory()
        self._seen += self.client.read_events()
        assert not [each for each in self._seen if isinstance(each, kind)]

    # -- the end --

    def close(self) -> None:
        self._raw.close()
        self.client.child = None  # a sanitizer's program on a busy machine takes longer than the daemon waits
        self.client.close()
        self.child.wait(_SET_UP_S)
        for each in reversed(self._closing):
            each()
        assert self.child.returncode == 0, f"the plane ended with {self.child.returncode}"


class Far:
    """A peer's far end: one socket, and the sessions installed for it."""

    def __init__(self, rig: Rig, peer_id: int, sock: socket.socket) -> None:
        self.rig = rig
        self.peer_id = peer_id
        self.public_key = public_key(peer_id)
        self.socket = sock

    @property
    def endpoint(self) -> Endpoint:
        return endpoint_of(self.socket)

    def install(
        self,
        session: Session | None = None,
        *,
        suite: int = far.CHACHA20_POLY1305,
        is_initiator: bool = True,
        preferred: bool = False,
        padding: int = 0,
        features: int = FEATURE_TUN | FEATURE_TAP | FEATURE_PATH,
        endpoint: Endpoint | None = None,
    ) -> Session:
        """Installs a session; by default the plane's side initiated it, so that it is current."""
        session = session or far.new_session(suite)
        self.rig.client.install_session(
            peer_id=self.peer_id,
            local_index=session.local_index,
            remote_index=session.remote_index,
            suite=session.suite,
            is_initiator=is_initiator,
            preferred=preferred,
            padding=padding,
            features=features,
            endpoint=endpoint or self.endpoint,
            send_key=session.send_key,
            receive_key=session.receive_key,
        )
        return session

    def send(self, datagram: bytes, *, via: socket.socket | None = None) -> None:
        """Sends to the plane's socket of the same family."""
        via = via or self.socket
        (target,) = [each for each in self.rig.sockets if each.family == via.family]
        host, port = target.getsockname()[:2]
        if ip_address(host).is_unspecified:
            host = "127.0.0.1" if via.family == socket.AF_INET else "::1"
        via.sendto(datagram, (host, port))

    def receive(self, timeout_s: float = 20.0) -> bytes:
        return far.receive(self.socket, timeout_s)

    def counters(self) -> PeerCounters:
        return self.rig.client.counters.peer(self.peer_id)


@contextlib.contextmanager
def running_rig(namespace: Namespace, program: Path, arguments: Sequence[str] = ()) -> Iterator[Rig]:
    rig = Rig(namespace, program, arguments)
    try:
        yield rig
    except BaseException:
        rig.child.kill()
        with contextlib.suppress(AssertionError):
            rig.close()
        raise
    rig.close()
