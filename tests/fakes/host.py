"""Machines on a fake wire: a real Device above a plane twin, and the loop that joins them.

Owns the driver's part in small: performs actions in order, carries events up, ticks when a
deadline is due. Refuses to know the protocol; whoever reads a test should see only the story.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from tests.fakes.clock import Clock, WallClock
from tests.fakes.plane import ControlReceived, Ended, Placed, PlaneTwin, Roamed, TwinSession, Wanted
from tests.fakes.wire import Datagram, Weather, Wire
from vpnd.endpoint import Endpoint
from vpnd.keys import Identity, PublicKey, Secret
from vpnd.protocol.actions import (
    Action,
    FlushStaged,
    InstallSession,
    ParametersReceived,
    PeerChanged,
    Pong,
    RetireSession,
    SendControl,
    SendDatagram,
    SendKeepalive,
    SetEndpoint,
    SetPeerMtu,
)
from vpnd.protocol.constants import TIMERS, Control, Feature, GoodbyeReason, PaddingMode, Timers
from vpnd.protocol.device import Activity, AdoptedSession, Device, DeviceOptions
from vpnd.protocol.peer import PeerOptions

LONGEST_SLEEP_S = 1.0
DATA = 0x0C

OPTIONS = DeviceOptions(
    has_aes=True, link_type=Feature.TUN, mtu=1420, padding=PaddingMode.NONE, suites_forced=None
)


def endpoint(address: str, port: int = 5180) -> Endpoint:
    return Endpoint(ip_address(address), port)


def identity(seed: int) -> Identity:
    """A key pair that is the same in every run."""
    return Identity.from_private(Secret.copy_of(random.Random(f"identity {seed}").randbytes(32)))


@dataclass(slots=True, eq=False)
class Host:
    """One machine. `device` is replaced when vpnd restarts, `plane` when the plane does."""

    name: str
    identity: Identity
    address: Endpoint
    clock: Clock
    wire: Wire
    seed: int = 0
    options: DeviceOptions = OPTIONS
    knock: Secret = field(default_factory=Secret.zero)
    timers: Timers = TIMERS
    is_running: bool = True
    shows_all: bool = False  # every stamp at every tick, not only those that moved
    last_shown: dict[PublicKey, Activity] = field(default_factory=dict)
    queue_depth: int = 0
    peers: list[PeerOptions] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    retired: list[int] = field(default_factory=list)
    wall: WallClock = field(init=False)
    epoch: bytes = field(init=False)
    device: Device = field(init=False)
    plane: PlaneTwin = field(init=False)
    stored_timestamp_ns: int = 0
    stuck_index: int | None = None
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.name} {self.seed}")
        self.wall = WallClock(self.clock)
        self.plane = PlaneTwin(lambda to, data: self.wire.send(self.address, to, data, self.clock.now))
        self.epoch = self._random.randbytes(8)
        self.device = self._new_device()

    @property
    def key(self) -> PublicKey:
        return self.identity.public

    # --- an operator's verbs ---

    def configure(self, *peers: PeerOptions) -> None:
        """Gives the peers to the device and the plane, as a start or a reload does."""
        wanted = {peer.public_key for peer in peers}
        for before in self.peers:
            for peer in peers:
                is_same = before.public_key in peer.public_keys() or peer.public_key in before.public_keys()
                if is_same and before.public_key not in wanted:
                    self.plane.rename_peer(before.public_key, peer.public_key)
        self.peers = list(peers)
        for peer in peers:
            self.plane.set_peer(peer.public_key, peer.endpoint)
        self.perform(self.device.configure(peers, self.clock.now))
        for gone in set(self.plane.peers) - {peer.public_key for peer in peers}:
            self.plane.remove_peer(gone)

    def start(self) -> None:
        self.perform(self.device.start(self.clock.now))

    def send(self, to: Host, packet: bytes = b"Epacket") -> None:
        """A packet from the link leaves for a peer."""
        self.plane.send_packet(to.key, packet, self.clock.now)
        self.drain_events()

    def change_key(self, identity: Identity, hold_s: float) -> None:
        """A reload with another private key; the one before answers so much longer."""
        now = self.clock.now
        before, self.identity = self.identity, identity
        self.stored_timestamp_ns = self.device.last_timestamp_ns
        self.device = self._new_device()
        self.perform(self.device.configure(self.peers, now))
        self.device.answer_also(before, now + hold_s)
        for peer in self.plane.peers.values():
            sessions = [_adopted(session) for session in peer.sessions()]
            self.device.adopt(peer.public_key, sessions, peer.endpoint, now, peer.mtu)
            if sessions:
                self.perform(self.device.reconnect(peer.public_key, now))

    def say_goodbye(self, reason: GoodbyeReason) -> None:
        self.perform(self.device.goodbye(reason, self.clock.now))

    def kill(self) -> None:
        """vpnd dies without a word; the plane goes on."""
        self.stored_timestamp_ns = self.device.last_timestamp_ns
        self.is_running = False

    def kill_plane(self) -> None:
        """The plane dies and its memory is lost; the next start of vpnd tells so by a new epoch."""
        self.epoch = self._random.randbytes(8)
        peers = self.plane.peers
        self.plane.by_index.clear()
        for peer in peers.values():
            peer.current = peer.previous = None
            peer.unconfirmed.clear()

    def boot(self, *, endpoint_cache: bool = True) -> None:
        """vpnd starts again: takes over what the plane still holds, then starts handshakes."""
        self.is_running = True
        now = self.clock.now
        self.plane.expire(now)
        self.plane.events.clear()
        self.device = self._new_device()
        self.perform(self.device.configure(self.peers, now))
        for peer in self.plane.peers.values():
            sessions = [_adopted(session) for session in peer.sessions()]
            known = peer.endpoint if endpoint_cache else None
            self.device.adopt(peer.public_key, sessions, known, now, peer.mtu)
        self.start()
        self.plane.want_again(now)
        self.drain_events()

    # --- the driver's work ---

    def take_datagram(self, datagram: Datagram) -> None:
        """Data goes to the plane; everything else up to the device."""
        now = self.clock.now
        if datagram.kind == DATA:
            self.plane.receive(datagram.data, datagram.source, now)
        elif self.is_running:
            self.perform(
                self.device.receive(datagram.data, datagram.source, now, queue_depth=self.queue_depth)
            )
        self.drain_events()

    def wake(self) -> None:
        """Whatever is due at this moment."""
        now = self.clock.now
        self.plane.expire(now)
        self.drain_events()
        if self.is_running:
            self.perform(self.device.tick(now, self.shown(now)))
            self.drain_events()

    def next_wake(self) -> float:
        """When to look again; never later than a second from now."""
        deadlines = [self.clock.now + LONGEST_SLEEP_S, self.plane.next_deadline()]
        if self.is_running:
            deadlines.append(self.device.next_deadline(self.clock.now))
        return min(deadline for deadline in deadlines if deadline is not None)

    def shown(self, now: float) -> dict[PublicKey, Activity]:
        """The stamps that the driver would show: those that moved, and those that are wanted."""
        activity, before = self.activity(), self.last_shown
        self.last_shown = activity
        if self.shows_all:
            return activity
        wanted = self.device.looks_wanted(now)
        return {key: seen for key, seen in activity.items() if key in wanted or seen != before.get(key)}

    def activity(self) -> dict[PublicKey, Activity]:
        return {
            key: Activity(
                last_sent=peer.stamps.last_sent,
                last_received=peer.stamps.last_received,
                last_data_sent=peer.stamps.last_data_sent,
                last_data_received=peer.stamps.last_data_received,
                unanswered_sent_since=peer.stamps.unanswered_sent_since,
                unanswered_received_since=peer.stamps.unanswered_received_since,
                session_messages=peer.current.counter if peer.current else 0,
                session_bytes=peer.current.bytes_sent if peer.current else 0,
            )
            for key, peer in self.plane.peers.items()
        }

    def drain_events(self) -> None:
        """Carries the plane's events up; without vpnd they are lost."""
        now = self.clock.now
        while self.plane.events:
            event = self.plane.events.popleft()
            if not self.is_running:
                continue
            match event:
                case Wanted(peer):
                    self.perform(self.device.want_session(peer, now))
                case Placed(peer, index, slot):
                    self.perform(self.device.session_placed(peer, index, slot, now))
                case Ended(peer, index):
                    self.perform(self.device.session_ended(peer, index, now))
                case Roamed(peer, to):
                    self.device.endpoint_moved(peer, to, now)
                case ControlReceived(peer, index, source, payload):
                    self.perform(self.device.receive_control(peer, index, source, payload, now))

    def perform(self, actions: Iterable[Action]) -> None:  # noqa: C901 - one arm per action
        """Does what the device wants, in its order."""
        now = self.clock.now
        for action in actions:
            self.actions.append(action)
            match action:
                case SendDatagram(to, data, _):
                    self.wire.send(self.address, to, data, now)
                case InstallSession():
                    self.plane.install_session(action, now)
                    action.send_key.wipe()
                    action.receive_key.wipe()
                case RetireSession(peer, index):
                    self.retired.append(index)
                    self.plane.retire_session(peer, index)
                case SendKeepalive(peer):
                    self.plane.send_keepalive(peer, now)
                case SendControl():
                    self.plane.send_control(action, now)
                case FlushStaged(peer):
                    self.plane.flush_staged(peer)
                case SetEndpoint(peer, to):
                    self.plane.set_peer(peer, to)
                case SetPeerMtu(peer, mtu):
                    self.plane.set_peer_mtu(peer, mtu)
                case PeerChanged() | Pong() | ParametersReceived():
                    pass
        self.drain_events()

    # --- what a test asks ---

    def current(self, peer: Host) -> TwinSession | None:
        """The session that packets for `peer` leave on."""
        self.plane.expire(self.clock.now)
        return self.plane.peers[peer.key].current

    def received(self) -> list[bytes]:
        """Packets that came out of the tunnel, in order."""
        return [packet for _, packet in self.plane.delivered]

    def count_of(self, kind: type[Action]) -> int:
        return sum(isinstance(action, kind) for action in self.actions)

    def _random_bytes(self, size: int) -> bytes:
        if self.stuck_index is not None and size == 4:
            return self.stuck_index.to_bytes(4, "little")
        return self._random.randbytes(size)

    def _new_device(self) -> Device:
        return Device(
            self.identity,
            knock=self.knock,
            options=self.options,
            wall_clock_ns=self.wall.now_ns,
            random_bytes=self._random_bytes,
            last_timestamp_ns=self.stored_timestamp_ns,
            timers=self.timers,
            epoch=self.epoch,
        )


def _adopted(session: TwinSession) -> AdoptedSession:
    return AdoptedSession(
        local_index=session.local_index,
        remote_index=session.remote_index,
        suite=session.suite,
        slot=session.slot,
        is_initiator=session.is_initiator,
        preferred=session.preferred,
        created_at=session.created_at,
    )


class Network:
    """All machines, one clock, one wire; runs them until a time or a condition."""

    def __init__(self, seed: int = 0, weather: Weather | None = None) -> None:
        self.seed = seed
        self.clock = Clock()
        self.wire = Wire(seed)
        if weather is not None:
            self.wire.weather = weather
        self.hosts: list[Host] = []

    def add(self, name: str, number: int, **settings: object) -> Host:
        """A machine at 192.0.2.`number` with the identity of that number."""
        host = Host(
            name=name,
            identity=identity(number),
            address=endpoint(f"192.0.2.{number}"),
            clock=self.clock,
            wire=self.wire,
            seed=self.seed,
            **settings,  # type: ignore[arg-type]
        )
        self.hosts.append(host)
        return host

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Lets time pass; returns how much did before `until` held (all of it if it never did)."""
        start = self.clock.now
        end = start + seconds
        self._settle()
        while not (until is not None and until()):
            moment = min([host.next_wake() for host in self.hosts] + [end])
            arrival = self.wire.next_arrival()
            if arrival is not None:
                moment = min(moment, arrival)
            # A deadline that is due and stays due must not stop the clock.
            self.clock.advance_to(max(moment, self.clock.now + 1e-6))
            if self.clock.now >= end:
                self.clock.now = max(end, start)
                self._settle()
                break
            self._settle()
        return self.clock.now - start

    def _settle(self) -> None:
        for datagram in self.wire.arrivals(self.clock.now):
            for host in self.hosts:
                if host.address == datagram.destination:
                    host.take_datagram(datagram)
        for host in self.hosts:
            host.wake()


def peer_of(
    host: Host, *, at: Endpoint | None = None, psk: Secret | None = None, **settings: object
) -> PeerOptions:
    """How another machine configures `host`."""
    return peer_of_key(host.key, at=at, psk=psk, name=host.name, **settings)


def peer_of_key(
    key: PublicKey, *, at: Endpoint | None = None, psk: Secret | None = None, **settings: object
) -> PeerOptions:
    """How one configures whoever has this key."""
    options = PeerOptions(public_key=key, name="peer", preshared_key=psk or Secret.zero(), endpoint=at)
    return replace(options, **settings)  # type: ignore[arg-type]


def joined(
    seed: int = 0,
    *,
    weather: Weather | None = None,
    psk: Secret | None = None,
    right_psk: Secret | None = None,
    left_knows: bool = True,
    both_know: bool = True,
    **settings: object,
) -> tuple[Network, Host, Host]:
    """Two machines that know each other: (network, left, right). Nothing has been sent yet.

    `left_knows` and `both_know` tell whether left, and right too, know where the other is.
    """
    network = Network(seed, weather)
    left, right = network.add("left", 1, **settings), network.add("right", 2, **settings)
    left.configure(peer_of(right, at=right.address if left_knows else None, psk=psk))
    right_knows = left_knows and both_know
    right.configure(peer_of(left, at=left.address if right_knows else None, psk=right_psk or psk))
    return network, left, right


def is_up(one: Host, other: Host) -> bool:
    """Whether both send, each on a session that the other can open."""
    ours, theirs = one.current(other), other.current(one)
    if ours is None or theirs is None:
        return False
    return ours.remote_index in other.plane.by_index and theirs.remote_index in one.plane.by_index


def share_session(one: Host, other: Host) -> bool:
    """Whether both send on one and the same session."""
    ours, theirs = one.current(other), other.current(one)
    return ours is not None and theirs is not None and ours.remote_index == theirs.local_index


def connect(network: Network, left: Host, right: Host) -> None:
    """Brings the tunnel up by one packet from left to right."""
    left.send(right, b"Efirst")
    network.run(5.0, until=lambda: share_session(left, right) and b"Efirst" in right.received())
    assert share_session(left, right)


def lose_controls(host: Host, kind: Control, times: int) -> None:
    """The next `times` control messages of a kind never reach the wire."""
    send = host.plane.send_control
    left_over = [times]

    def send_some(control: SendControl, now: float) -> None:
        if control.payload[0] == kind and left_over[0] > 0:
            left_over[0] -= 1
        else:
            send(control, now)

    host.plane.send_control = send_some  # type: ignore[method-assign]
