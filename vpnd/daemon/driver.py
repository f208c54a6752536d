"""Joins the protocol's Device with the plane: events go in, actions are carried out.

Owns which number the plane knows each peer by, and when the next turn is due. Knows nothing of
links, routes or the control socket; it is handed a connected plane and can be handed another.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import assert_never

from vpnd.daemon.activity import activity_of
from vpnd.daemon.chatter import Chatter
from vpnd.daemon.clock import boottime
from vpnd.daemon.gatekeeper import Gatekeeper
from vpnd.daemon.handshake_cpu import HandshakeCpu
from vpnd.daemon.journal import Event, about
from vpnd.daemon.notices import NoticeWriter
from vpnd.daemon.strangers import Strangers
from vpnd.endpoint import Endpoint
from vpnd.errors import PlaneError
from vpnd.keys import PublicKey
from vpnd.plane import events
from vpnd.plane.client import PlaneClient
from vpnd.plane.counters import PeerCounters
from vpnd.plane.frames import FrameRules
from vpnd.plane.inventory import Inventory
from vpnd.plane.wire import RoamState
from vpnd.protocol import actions
from vpnd.protocol.actions import Action
from vpnd.protocol.constants import Slot, Suite
from vpnd.protocol.device import Device
from vpnd.protocol.parameters import Parameters
from vpnd.protocol.sessions import AdoptedSession

_log = logging.getLogger(__name__)

TURN_S = 0.5  # how often stamps are read at most; deadlines of the protocol come in between
SLEPT_S = 1.0  # a suspension shorter than this is none
UNASKED_PING = 0  # the number of echoes that no operator asked for
PREPARED_AT_ONCE = 64  # peers: two or three milliseconds, in which nothing else is done
PREPARE_EVERY_S = 0.02
STRANGER_SAID_S = 60.0  # who called with an unknown key is told of once in so long
EVENTS_PER_TURN = 256  # so that a flood of handshakes leaves the loop time for the operator

Pongs = Callable[[PublicKey, int, float], None]
Tellings = Callable[[PublicKey, Parameters], None]


@dataclass(frozen=True, slots=True)
class PeerWiring:
    """What the plane is told of one peer besides its sessions."""

    public_key: PublicKey
    name: str
    networks: tuple[IPv4Network | IPv6Network, ...]
    previous_public_key: PublicKey | None = None  # under which it may have been known until now
    frames: FrameRules | None = None  # of a TAP link


class Driver:
    """Runs one Device against one plane on the running loop."""

    def __init__(
        self,
        device: Device,
        *,
        plane_gone: Callable[[], None],
        link_failed: Callable[[int], None],
        changed: Callable[[PublicKey], None],
        pong: Pongs,
        told: Tellings,
        enrol: Callable[[PublicKey, PublicKey], None],
    ) -> None:
        self.device = device
        self.plane: PlaneClient | None = None
        self.strangers = Strangers()
        self._plane_gone = plane_gone
        self._link_failed = link_failed
        self._changed = changed
        self._pong = pong
        self._told = told
        self._enrol = enrol
        self._ids: dict[PublicKey, int] = {}
        self._keys: dict[int, PublicKey] = {}
        self._wirings: dict[PublicKey, PeerWiring] = {}
        self._sessions: dict[PublicKey, set[int]] = {}  # of the peers that have any
        self._seen: dict[PublicKey, int] = {}  # marks of counters, as of the last turn
        self._dropping: set[PublicKey] = set()
        self._unproven: set[PublicKey] = set()
        self._notices = NoticeWriter()
        self._stranger_chatter = Chatter("strangers")
        self._chatter = Chatter("peers that are somewhere else now")
        self._gatekeeper: Gatekeeper | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._preparation: asyncio.TimerHandle | None = None
        self._asleep = boottime() - time.monotonic()
        self.last_turn = boottime()

    # -- the plane comes and goes --

    def attach(self, plane: PlaneClient, wirings: Iterable[PeerWiring]) -> None:
        """Takes a connected plane over: keeps what it holds and we want, removes the rest, adds what misses.

        Sessions that it still has are adopted by the Device, so that traffic and keys go on.
        Raises PlaneError.
        """
        inventory = plane.inventory()
        now = boottime()
        self.plane, self._gatekeeper = plane, Gatekeeper(plane)
        self._gatekeeper.tend(self.device, now)
        self._ids, self._keys, self._wirings, self._sessions = {}, {}, {}, {}
        self._seen, self._dropping = {}, set()
        wanted = {wiring.public_key: wiring for wiring in wirings}
        held_keys = {listed.public_key for listed in inventory.peers}
        successors = {
            wiring.previous_public_key: key for key, wiring in wanted.items() if key not in held_keys
        }
        known = {}
        for listed in inventory.peers:
            is_wanted = listed.public_key in wanted
            key = listed.public_key if is_wanted else successors.get(listed.public_key)
            if key is None:
                plane.remove_peer(listed.peer_id)
                continue
            known[key] = listed
            self._bind(key, listed.peer_id)
            if not is_wanted:
                plane.set_peer(listed.peer_id, key, wanted[key].networks, None, rename=True)
            # Drops of an earlier run are no news.
            self._notices.begin(key, plane.counters.peer(listed.peer_id).drops)
        held = self._held_sessions(inventory)
        for key, wiring in wanted.items():
            endpoint, mtu = (known[key].endpoint, known[key].mtu) if key in known else (None, 0)
            self._wire(wiring, self._endpoint(key) if endpoint is None else None)
            sessions = held.get(key, [])
            if sessions:
                self._sessions[key] = {session.local_index for session in sessions}
            self.device.adopt(key, sessions, endpoint, now, mtu)
        asyncio.get_running_loop().add_reader(plane.fileno(), self._read_plane)

    def renew_sessions(self, peers: Container[PublicKey]) -> None:
        """Tells a Device that is new to this plane what it holds of these peers, and makes it all anew.

        One that did not know a session would call its peer down while the plane goes on using it: the
        younger of two sessions does not always win (protocol section 8). Raises PlaneError.
        """
        assert self.plane is not None
        inventory, now = self.plane.inventory(), boottime()
        held = self._held_sessions(inventory)
        for listed in inventory.peers:
            key = listed.public_key
            if key in peers:
                self.device.adopt(key, held.get(key, []), listed.endpoint, now, listed.mtu)
                if key in held:
                    self.perform(self.device.reconnect(key, now))

    def _held_sessions(self, inventory: Inventory) -> defaultdict[PublicKey, list[AdoptedSession]]:
        held: defaultdict[PublicKey, list[AdoptedSession]] = defaultdict(list)
        for session in inventory.sessions:
            key = self._keys.get(session.peer_id)
            if key is not None:
                held[key].append(
                    AdoptedSession(
                        session.local_index,
                        session.remote_index,
                        Suite(session.suite),
                        Slot(session.slot),
                        session.is_initiator,
                        session.preferred,
                        session.created_at,
                    )
                )
        return held

    def detach(self) -> None:
        """Lets go of the plane without telling it anything."""
        if self.plane is not None:
            asyncio.get_running_loop().remove_reader(self.plane.fileno())
            self.plane.close()
            self.plane, self._gatekeeper = None, None

    def start(self) -> None:
        """Begins handshakes with every peer that can be reached, and the turns of the clock."""
        self.perform(self.device.start(boottime()))
        self._schedule()

    def stop(self) -> None:
        for timer in filter(None, (self._timer, self._preparation)):
            timer.cancel()
        self._timer = self._preparation = None

    # -- peers --

    def rename(self, wirings: Iterable[PeerWiring]) -> None:
        """Gives peers whose key was replaced, or put back, the new one; they keep all they have.

        The Device is told by its own configuration. Raises PlaneError.
        """
        wanted = {wiring.public_key: wiring for wiring in wirings}
        successors = {wiring.previous_public_key: key for key, wiring in wanted.items()}
        for key in [key for key in self._ids if key not in wanted]:
            former = self._wirings[key].previous_public_key
            after = successors.get(key, former if former in wanted else None)
            if after is not None and after not in self._ids:
                self._rename(key, wanted[after])

    def _rename(self, before: PublicKey, wiring: PeerWiring) -> None:
        assert self.plane is not None
        after, peer_id = wiring.public_key, self._ids[before]
        self.plane.set_peer(peer_id, after, wiring.networks, None, rename=True)
        self._set_frames(peer_id, self._wirings[before], wiring)
        sessions, seen = self._sessions.get(before), self._seen.get(before)
        is_dropping, is_unproven = before in self._dropping, before in self._unproven
        self._unbind(before)
        self._bind(after, peer_id)
        self._wirings[after] = wiring
        if sessions is not None:
            self._sessions[after] = sessions
        if seen is not None:
            self._seen[after] = seen
        if is_dropping:
            self._dropping.add(after)
        if is_unproven:
            self._unproven.add(after)
        self._notices.begin(after, self.plane.counters.peer(peer_id).drops)

    def wire(self, wirings: Iterable[PeerWiring]) -> None:
        """Makes the plane's peers be exactly these; those that stay keep their sessions."""
        assert self.plane is not None
        wanted = {wiring.public_key: wiring for wiring in wirings}
        for key in [key for key in self._ids if key not in wanted]:
            self.plane.remove_peer(self._ids[key])
            self._unbind(key)
        for wiring in wanted.values():
            if wiring != self._wirings.get(wiring.public_key):
                is_new = wiring.public_key not in self._ids
                self._wire(wiring, self._endpoint(wiring.public_key) if is_new else None)
                # Drops under other networks say nothing of these.
                if not is_new and (drops := self.plane.counters.peer(self._ids[wiring.public_key]).drops):
                    self._notices.begin(wiring.public_key, drops)

    def choose_source(self, key: PublicKey) -> None:
        """Lets the kernel choose our own address towards the peer anew.

        Setting the endpoint would vouch for it, so a peer that is yet to prove its own is left alone.
        """
        endpoint = self._endpoint(key) if key in self._ids else None
        if endpoint is not None and key not in self._unproven:
            self.act([actions.SetEndpoint(key, endpoint)])

    def counters(self, key: PublicKey) -> PeerCounters | None:
        """Reads the plane's counters of one peer, where it has the peer."""
        if self.plane is None or key not in self._ids:
            return None
        return self.plane.counters.peer(self._ids[key])

    def dropped_at(self, key: PublicKey, reason: str, now: float) -> float | None:
        """Tells when a peer's packets were last seen to be dropped for `reason`, as the peer is wired now."""
        counted = self.counters(key)
        return None if counted is None else self._notices.dropped_at(key, reason, counted.drops, now)

    def drops(self) -> dict[str, int]:
        """Counts what was dropped or refused, by reason, those that are not zero."""
        total = {name: number for name, number in self.device.refusals.items() if number}
        for name, number in (self.plane.drops() if self.plane else {}).items():
            total[name] = total.get(name, 0) + number
        return total

    def number_of(self, key: PublicKey) -> int | None:
        """Tells the number by which the plane knows the peer; None where it has not got it."""
        return self._ids.get(key)

    def numbered_names(self) -> dict[int, str]:
        """Tells the names of all peers that the plane has, by their numbers."""
        return {number: self._wirings[key].name for number, key in self._keys.items()}

    def name_of(self, peer_id: int) -> str | None:
        """Tells the name of the peer that the plane knows by this number."""
        key = self._keys.get(peer_id)
        return None if key is None else self._wirings[key].name

    def _wire(self, wiring: PeerWiring, endpoint: Endpoint | None) -> None:
        assert self.plane is not None
        if wiring.public_key not in self._ids:
            self._bind(wiring.public_key, self._free_id())
        self.plane.set_peer(self._ids[wiring.public_key], wiring.public_key, wiring.networks, endpoint)
        self._set_frames(self._ids[wiring.public_key], self._wirings.get(wiring.public_key), wiring)
        self._wirings[wiring.public_key] = wiring

    def _set_frames(self, peer_id: int, before: PeerWiring | None, wiring: PeerWiring) -> None:
        assert self.plane is not None
        if wiring.frames is not None and (before is None or before.frames != wiring.frames):
            self.plane.set_peer_frames(peer_id, wiring.frames)

    def _bind(self, key: PublicKey, peer_id: int) -> None:
        self._ids[key] = peer_id
        self._keys[peer_id] = key

    def _unbind(self, key: PublicKey) -> None:
        del self._keys[self._ids.pop(key)]
        self._sessions.pop(key, None)
        self._seen.pop(key, None)
        self._dropping.discard(key)
        self._wirings.pop(key, None)
        self._unproven.discard(key)
        self._notices.forget(key)

    def _free_id(self) -> int:
        candidate = len(self._keys)
        if candidate not in self._keys:
            return candidate
        return next(number for number in range(len(self._keys) + 1) if number not in self._keys)

    def _endpoint(self, key: PublicKey) -> Endpoint | None:
        return self.device.snapshot(key).endpoint

    # -- actions --

    def act(self, wanted: Sequence[Action]) -> None:
        """Performs actions that came from outside the driver's own turns, and looks when the next is due."""
        self.perform(wanted)
        self._schedule()

    def perform(self, wanted: Sequence[Action]) -> None:
        """Carries the Device's actions out in their order; what the plane refuses is logged, not raised."""
        for action in wanted:
            try:
                self._perform(action)
            except PlaneError as error:
                if error.code == "gone":
                    return
                _log.info(
                    "the plane refused %s: %s", type(action).__name__, error, extra=about(Event.PLANE_ODD)
                )

    def _perform(self, action: Action) -> None:  # noqa: C901, PLR0912 - one arm per action, none with a decision
        if self.plane is None:
            return
        match action:
            case actions.SendDatagram(endpoint, datagram):
                self.plane.send_datagram(endpoint, datagram, wait=False)
            case actions.InstallSession():
                self._install(self.plane, action)
            case actions.RetireSession(peer, local_index):
                self._forget_session(peer, local_index)
                if peer in self._ids:
                    self.plane.retire_session(self._ids[peer], local_index, wait=False)
            case actions.SendKeepalive(peer):
                if peer in self._ids:
                    self.plane.send_keepalive(self._ids[peer], wait=False)
            case actions.SendControl(peer, payload, local_index, endpoint):
                if peer in self._ids:
                    self.plane.send_control(
                        self._ids[peer], payload, local_index=local_index, endpoint=endpoint, wait=False
                    )
            case actions.FlushStaged(peer):
                if peer in self._ids:
                    self.plane.flush_staged(self._ids[peer])
            case actions.SetEndpoint(peer, endpoint):
                if peer in self._ids:
                    self._wire(self._wirings[peer], endpoint)
                self._changed(peer)
            case actions.SetPeerMtu(peer, mtu):
                self._set_mtu(peer, mtu)
            case actions.PeerChanged(peer):
                self._changed(peer)
            case actions.Pong(peer, opaque, rtt_s):
                self._pong(peer, opaque, rtt_s)
            case actions.EnrolWanted(peer, public_key):
                self._enrol(peer, public_key)
            case actions.EnrolAnswered():
                pass  # only vpnctl asks to be enrolled
            case actions.ParametersReceived(peer, parameters):
                self._told(peer, parameters)
            case _:
                assert_never(action)

    def _set_mtu(self, key: PublicKey, mtu: int) -> None:
        if self.plane is None or key not in self._ids:
            return
        self.plane.set_peer_mtu(self._ids[key], mtu)
        if mtu:
            text = f"the path carries packets of {mtu} bytes; the sender of a larger one is told so"
            _log.info(text, extra=about(Event.PATH_SMALLER, self._wirings[key].name))

    def _install(self, plane: PlaneClient, action: actions.InstallSession) -> None:
        if action.peer not in self._ids:
            return
        self._sessions.setdefault(action.peer, set()).add(action.local_index)
        plane.install_session(
            peer_id=self._ids[action.peer],
            local_index=action.local_index,
            remote_index=action.remote_index,
            suite=action.suite,
            is_initiator=action.is_initiator,
            preferred=action.preferred,
            padding=action.padding,
            features=action.features,
            endpoint=action.endpoint,
            send_key=action.send_key,
            receive_key=action.receive_key,
            wait=False,
        )
        action.send_key.wipe()
        action.receive_key.wipe()

    def _forget_session(self, key: PublicKey, local_index: int) -> None:
        sessions = self._sessions.get(key, set())
        sessions.discard(local_index)
        if not sessions:
            self._sessions.pop(key, None)
            self._seen.pop(key, None)

    # -- events --

    def _read_plane(self) -> None:
        if self.plane is None:
            return
        spent = HandshakeCpu(self.device.note_handshake_cpu)
        came = self.plane.read_events(EVENTS_PER_TURN)
        try:
            with self.plane.gathering():
                for event in came:
                    spent.before(is_handshake=isinstance(event, events.DatagramEvent))
                    self._take(event)
        except PlaneError as error:
            if error.code != "gone":  # which is an event of its own
                _log.warning("the plane took no requests: %s", error, extra=about(Event.PLANE_ODD))
        spent.note()
        if self.plane is None:
            return
        if self._gatekeeper is not None:
            self._gatekeeper.share_load(self.device, boottime())
        self._schedule()
        if self.plane is not None and self.plane.has_events:
            asyncio.get_running_loop().call_soon(self._read_plane)

    def _take(self, event: events.Event) -> None:  # noqa: C901 - one arm per event
        now = boottime()
        match event:
            case events.DatagramEvent(endpoint, data, queue_depth):
                wanted = self.device.receive(data, endpoint, now, queue_depth=queue_depth)
                if self.device.last_refusal is not None:
                    self._turned_away(endpoint, self.device.last_refusal, now)
                self.perform(wanted)
            case events.ControlEvent(peer_id, local_index, endpoint, data, received_at):
                self._with_peer(
                    peer_id,
                    lambda key: self.device.receive_control(key, local_index, endpoint, data, received_at),
                )
            case events.SessionWanted(peer_id):
                self._with_peer(peer_id, lambda key: self.device.want_session(key, now))
            case events.SessionPlaced(peer_id, local_index, slot):
                self._with_peer(peer_id, lambda key: self._placed(key, local_index, Slot(slot), now))
            case events.SessionEnded(peer_id, local_index):
                self._with_peer(peer_id, lambda key: self._ended(key, local_index, now))
            case events.PeerRoamed(peer_id, endpoint, state):
                self._with_peer(peer_id, lambda key: self._roamed(key, endpoint, state, now))
            case events.LinkFailed(error):
                self._link_failed(error)
            case events.SocketFailed(error):
                what = os.strerror(error)
                _log.warning("a UDP socket of the plane failed: %s", what, extra=about(Event.PLANE_ODD))
            case events.RequestRefused(kind, code):
                _log.debug("the plane refused %s: %s", kind, code)
            case events.PlaneGone():
                self.detach()
                self._plane_gone()
            case _:
                assert_never(event)

    def _turned_away(self, source: Endpoint, reason: str, now: float) -> None:
        before = self.strangers.latest(now - STRANGER_SAID_S, source)
        is_news = before is None or before.reason != reason
        if reason == "hs_unknown_peer" and is_news and self._stranger_chatter.may_say(now):
            what = "handshake from %s: no enabled peer has its key; a token may be used, expired or forged"
            _log.info(what, source, extra=about(Event.STRANGER))
        self.strangers.note(source, reason, now)

    def _with_peer(self, peer_id: int, decide: Callable[[PublicKey], Sequence[Action]]) -> None:
        # An event may name a peer that was removed while it was on its way.
        key = self._keys.get(peer_id)
        if key is not None:
            self.perform(decide(key))

    def _placed(self, key: PublicKey, local_index: int, slot: Slot, now: float) -> Sequence[Action]:
        wanted = self.device.session_placed(key, local_index, slot, now)
        if slot is Slot.CURRENT:
            # An echo nobody waits for: its round trip is what status shows.
            wanted += self.device.ping(key, now, UNASKED_PING)
        return wanted

    def _ended(self, key: PublicKey, local_index: int, now: float) -> Sequence[Action]:
        self._forget_session(key, local_index)
        return self.device.session_ended(key, local_index, now)

    def _roamed(self, key: PublicKey, endpoint: Endpoint, state: int, now: float) -> Sequence[Action]:
        if self._chatter.may_say(now):
            text = RoamState(state).name.lower()
            name = self._wirings[key].name
            _log.info("now at %s (%s)", endpoint, text, extra=about(Event.ROAMED, name))
        if state == RoamState.PROBATION:
            self._unproven.add(key)
        else:
            self._unproven.discard(key)
        self.device.endpoint_moved(key, endpoint, now)
        self._changed(key)
        return ()

    # -- time --

    def turn(self) -> None:
        """One turn of the clock: reads the stamps, lets the Device decide, sets the next turn."""
        now = boottime()
        self.last_turn = now
        if self._slept():
            self.perform(self.device.resumed(now))
        counters = self._read_counters(now)
        activity = {key: activity_of(each) for key, each in counters.items()}
        self.perform(self.device.tick(now, activity))
        if self.plane is not None:
            if self._gatekeeper is not None:
                self._gatekeeper.tend(self.device, now)
            drops = {key: each.drops for key, each in counters.items()}
            self.perform(self._notices.due(self.device, drops, now))
        self._read_plane()  # what came while a request waited, no reader hears of
        self._schedule()
        if self._preparation is None:
            self._prepare()

    def _prepare(self) -> None:
        """Has the Device prepare for handshakes to come, a little at a time, unless they are here already."""
        is_loaded = boottime() < self.device.loaded_until
        has_more = not is_loaded and self.device.prepare(PREPARED_AT_ONCE)
        loop = asyncio.get_running_loop()
        self._preparation = loop.call_later(PREPARE_EVERY_S, self._prepare) if has_more else None

    def _slept(self) -> bool:
        """Tells once after the machine was suspended: only CLOCK_BOOTTIME goes on meanwhile."""
        asleep = boottime() - time.monotonic()
        grown, self._asleep = asleep - self._asleep, asleep
        return grown > SLEPT_S

    def _schedule(self) -> None:
        now = boottime()
        deadline = self.device.next_deadline(now)
        due = self.last_turn + TURN_S if deadline is None else min(deadline, self.last_turn + TURN_S)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due - now), self.turn)

    def _read_counters(self, now: float) -> Mapping[PublicKey, PeerCounters]:
        """Copies the numbers of peers with sessions, of those that somebody waits for or that moved.

        Most of ten thousand peers are quiet at any moment.
        """
        if self.plane is None:
            return {}
        counters, seen = self.plane.counters, self._seen
        wanted = self.device.looks_wanted(now)
        read: dict[PublicKey, PeerCounters] = {}
        for key in self._sessions:
            peer_id = self._ids[key]
            mark = counters.mark(peer_id)
            # Where packets were dropped, a notice may wait for its time.
            if seen.get(key) != mark or key in wanted or key in self._dropping:
                seen[key] = mark
                read[key] = counters.peer(peer_id)
                if read[key].drops:
                    self._dropping.add(key)
        return read
