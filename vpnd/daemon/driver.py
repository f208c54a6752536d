"""Joins the protocol's Device with the plane: events go in, actions are carried out.

Owns what an event and an action mean on the other side, and when the next turn is due. Knows nothing of
links, routes or the control socket; it is handed a connected plane and can be handed another.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Container, Iterable, Sequence
from typing import assert_never

from vpnd.daemon.activity import activity_of
from vpnd.daemon.chatter import Chatter
from vpnd.daemon.clock import boottime
from vpnd.daemon.gatekeeper import Gatekeeper
from vpnd.daemon.handshake_cpu import HandshakeCpu
from vpnd.daemon.journal import Event, about
from vpnd.daemon.plane_peers import Held, PeerWiring, PlanePeers
from vpnd.daemon.strangers import Strangers
from vpnd.endpoint import Endpoint
from vpnd.errors import PlaneError
from vpnd.keys import PublicKey
from vpnd.plane import events
from vpnd.plane.client import PlaneClient
from vpnd.plane.wire import RoamState
from vpnd.protocol import actions
from vpnd.protocol.actions import Action
from vpnd.protocol.constants import Slot
from vpnd.protocol.device import Device
from vpnd.protocol.parameters import Parameters

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
        self.peers = PlanePeers(self._endpoint_of)
        self.strangers = Strangers()
        self._plane_gone = plane_gone
        self._link_failed = link_failed
        self._changed = changed
        self._pong = pong
        self._told = told
        self._enrol = enrol
        self._stranger_chatter = Chatter("strangers")
        self._chatter = Chatter("peers that are somewhere else now")
        self._gatekeeper: Gatekeeper | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._preparation: asyncio.TimerHandle | None = None
        self._asleep = boottime() - time.monotonic()
        self.last_turn = boottime()

    @property
    def plane(self) -> PlaneClient | None:
        return self.peers.plane

    # -- the plane comes and goes --

    def attach(self, plane: PlaneClient, wirings: Iterable[PeerWiring]) -> None:
        """Takes a connected plane over with all it holds of these peers.

        Sessions that it still has are adopted by the Device, so that traffic and keys go on.
        Raises PlaneError.
        """
        inventory = plane.inventory()
        now = boottime()
        self._gatekeeper = Gatekeeper(plane)
        self._gatekeeper.tend(self.device, now)
        wanted = tuple(wirings)
        held = self.peers.take_over(plane, inventory, wanted)
        for wiring in wanted:
            self._adopt(wiring.public_key, held.get(wiring.public_key, Held()), now)
        asyncio.get_running_loop().add_reader(plane.fileno(), self._read_plane)

    def renew_sessions(self, peers: Container[PublicKey]) -> None:
        """Tells a Device that is new to this plane what it holds of these peers, and makes it all anew.

        One that did not know a session would call its peer down while the plane goes on using it: the
        younger of two sessions does not always win (protocol section 8). Raises PlaneError.
        """
        assert self.plane is not None
        inventory, now = self.plane.inventory(), boottime()
        for key, held in self.peers.held(inventory).items():
            if key in peers:
                self._adopt(key, held, now)
                if held.sessions:
                    self.perform(self.device.reconnect(key, now))

    def _adopt(self, key: PublicKey, held: Held, now: float) -> None:
        self.device.adopt(key, held.sessions, held.endpoint, now, held.mtu)

    def detach(self) -> None:
        """Lets go of the plane without telling it anything."""
        if self.plane is not None:
            asyncio.get_running_loop().remove_reader(self.plane.fileno())
            self.plane.close()
            self.peers.plane, self._gatekeeper = None, None

    def start(self) -> None:
        """Begins handshakes with every peer that can be reached, and the turns of the clock."""
        self.perform(self.device.start(boottime()))
        self._schedule()

    def stop(self) -> None:
        for timer in filter(None, (self._timer, self._preparation)):
            timer.cancel()
        self._timer = self._preparation = None

    def choose_source(self, key: PublicKey) -> None:
        """Lets the kernel choose our own address towards the peer anew.

        Setting the endpoint would vouch for it, so a peer that is yet to prove its own is left alone.
        """
        endpoint = self.device.endpoint(key) if self.peers.number_of(key) is not None else None
        if endpoint is not None and key not in self.peers.unproven:
            self.act([actions.SetEndpoint(key, endpoint)])

    def _endpoint_of(self, key: PublicKey) -> Endpoint | None:
        return self.device.endpoint(key)  # another Device may take this one's place

    def drops(self) -> dict[str, int]:
        """Counts what was dropped or refused, by reason, those that are not zero."""
        total = {name: number for name, number in self.device.refusals.items() if number}
        for name, number in (self.plane.drops() if self.plane else {}).items():
            total[name] = total.get(name, 0) + number
        return total

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
        plane, number_of = self.plane, self.peers.number_of
        if plane is None:
            return
        match action:
            case actions.SendDatagram(endpoint, datagram):
                plane.send_datagram(endpoint, datagram, wait=False)
            case actions.InstallSession(peer):
                if (number := number_of(peer)) is not None:
                    self._install(plane, number, action)
            case actions.RetireSession(peer, local_index):
                self.peers.forget_session(peer, local_index)
                if (number := number_of(peer)) is not None:
                    plane.retire_session(number, local_index, wait=False)
            case actions.SendKeepalive(peer):
                if (number := number_of(peer)) is not None:
                    plane.send_keepalive(number, wait=False)
            case actions.SendControl(peer, payload, local_index, endpoint):
                if (number := number_of(peer)) is not None:
                    plane.send_control(
                        number, payload, local_index=local_index, endpoint=endpoint, wait=False
                    )
            case actions.FlushStaged(peer):
                if (number := number_of(peer)) is not None:
                    plane.flush_staged(number)
            case actions.SetEndpoint(peer, endpoint):
                self.peers.place(peer, endpoint)
                self._changed(peer)
            case actions.SetPeerMtu(peer, mtu):
                if (number := number_of(peer)) is not None:
                    self._set_mtu(plane, number, mtu)
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

    def _set_mtu(self, plane: PlaneClient, number: int, mtu: int) -> None:
        plane.set_peer_mtu(number, mtu)
        if mtu:
            text = f"the path carries packets of {mtu} bytes; the sender of a larger one is told so"
            _log.info(text, extra=about(Event.PATH_SMALLER, self.peers.name_of(number)))

    def _install(self, plane: PlaneClient, number: int, action: actions.InstallSession) -> None:
        self.peers.add_session(action.peer, action.local_index)
        plane.install_session(
            peer_id=number,
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
            case events.PeerRoamed(peer_id):
                self._with_peer(peer_id, lambda key: self._roamed(key, event, now))
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
        key = self.peers.key_of(peer_id)
        if key is not None:
            self.perform(decide(key))

    def _placed(self, key: PublicKey, local_index: int, slot: Slot, now: float) -> Sequence[Action]:
        wanted = self.device.session_placed(key, local_index, slot, now)
        if slot is Slot.CURRENT:
            # An echo nobody waits for: its round trip is what status shows.
            wanted += self.device.ping(key, now, UNASKED_PING)
        return wanted

    def _ended(self, key: PublicKey, local_index: int, now: float) -> Sequence[Action]:
        self.peers.forget_session(key, local_index)
        return self.device.session_ended(key, local_index, now)

    def _roamed(self, key: PublicKey, event: events.PeerRoamed, now: float) -> Sequence[Action]:
        if self._chatter.may_say(now):
            text = RoamState(event.state).name.lower()
            name = self.peers.name_of(event.peer_id)
            _log.info("now at %s (%s)", event.endpoint, text, extra=about(Event.ROAMED, name))
        if event.state == RoamState.PROBATION:
            self.peers.unproven.add(key)
        else:
            self.peers.unproven.discard(key)
        self.device.endpoint_moved(key, event.endpoint, now)
        self._changed(key)
        return ()

    # -- time --

    def turn(self) -> None:
        """One turn of the clock: reads the stamps, lets the Device decide, sets the next turn."""
        now = boottime()
        self.last_turn = now
        if self._slept():
            self.perform(self.device.resumed(now))
        counters = self.peers.fresh_counters(self.device.looks_wanted(now))
        activity = {key: activity_of(each) for key, each in counters.items()}
        self.perform(self.device.tick(now, activity))
        if self.plane is not None:
            if self._gatekeeper is not None:
                self._gatekeeper.tend(self.device, now)
            drops = {key: each.drops for key, each in counters.items()}
            self.perform(self.peers.notices.due(self.device, drops, now))
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
