"""One instance from start to stop: brings up link, plane, protocol and control socket, and heals them.

Owns the order of things and what happens when one of them goes away. It never tears the link
down: that outlives the daemon, and `vpnd --teardown` removes it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import struct
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace

from vpnd.config import Config, Secrets
from vpnd.daemon import planes, snmp, wanted
from vpnd.daemon.clock import boottime
from vpnd.daemon.driver import Driver
from vpnd.daemon.drop_trend import DropTrend
from vpnd.daemon.enrolments import Enrolments
from vpnd.daemon.following import Following
from vpnd.daemon.healing import Healing
from vpnd.daemon.joining import Joining
from vpnd.daemon.journal import Event, about
from vpnd.daemon.leasebook import LeaseBook
from vpnd.daemon.network_watch import NetworkWatch
from vpnd.daemon.overlaps import Overlaps
from vpnd.daemon.pings import Pings
from vpnd.daemon.pushed import Pushed
from vpnd.daemon.resolver import Resolver
from vpnd.daemon.runtime import make_runtime_directory
from vpnd.daemon.service import Service
from vpnd.daemon.settings import Settings
from vpnd.daemon.state import StateDirectory
from vpnd.endpoint import Endpoint
from vpnd.errors import HostError, PlaneError
from vpnd.host import facts
from vpnd.host.dns import LinkDns
from vpnd.host.host import Host
from vpnd.host.plan import HostPlan
from vpnd.keys import PublicKey, Secret
from vpnd.plane.client import PlaneClient
from vpnd.plane.inventory import Inventory
from vpnd.plane.wire import Offload
from vpnd.protocol.constants import EPOCH_SIZE, GoodbyeReason, PaddingMode, Timers
from vpnd.protocol.device import Device

_log = logging.getLogger(__name__)

HOUSEKEEPING_S = 1.0
PLANE_LOSSES_MANY = 3  # so many are remembered
ELSEWHERE_AFTER_ATTEMPTS = 3  # unanswered handshakes after which the configured endpoint is tried again
_GOODBYE_S = 0.05  # protocol section 9.3: three copies, 10 ms apart


def _epoch_of(plane: PlaneClient) -> bytes:
    """Sessions live as long as the plane: its birth, not ours, is what peers shall know sessions by."""
    return hashlib.blake2b(struct.pack("<d", plane.hello.started_at), digest_size=EPOCH_SIZE).digest()


class Instance:
    """Everything that runs for one configuration file."""

    def __init__(
        self,
        settings: Settings,
        config: Config,
        secrets: Secrets,
        service: Service,
        *,
        timers: Timers,
        wall_clock_ns: Callable[[], int],
    ) -> None:
        self.settings = settings
        self.secrets = secrets
        self.service = service
        self.started_at = boottime()
        self._tasks: set[asyncio.Task[None]] = set()
        self.healing = Healing(self.spawn)
        self.host = Host(settings.state_dir)
        self._dns = LinkDns(settings.state_dir)
        self.state = StateDirectory(settings.state_dir)
        self.wall_clock_ns = wall_clock_ns
        self.enrolments = Enrolments(self.state)
        self.config = self.in_force(config)
        self.leases = LeaseBook(self.state, wall_clock_ns)
        self.following = Following(self)
        self._pushed = Pushed(self)
        self.previous_keys: dict[PublicKey, Secret] = {}
        self.previous_until: Mapping[PublicKey, float] = {}  # when each key that is being replaced ends
        self.changing = asyncio.Lock()  # held while what is in force becomes another
        self._joining = Joining(self)
        self._overlaps = Overlaps(self.state)
        self.changed = asyncio.Event()
        self.pings = Pings()
        self.resolver = Resolver(self._resolved)
        self._news: set[PublicKey] = set()  # peers that changed in this turn of the loop
        self._has_moved = False  # an endpoint is not what the state directory has
        self._timers = timers
        self._known = self.state.load_endpoints()
        self._bound: tuple[Endpoint, ...] = ()
        self._address_errors = snmp.address_errors()
        self._looked_elsewhere: dict[str, int] = {}
        self.usable_cpus = len(os.sched_getaffinity(0))  # as of now: what follows from it changes at a start
        self.active_offloads = Offload(0)
        self.shaping = asyncio.Lock()  # held while the machine is brought to a plan, and until that is ours
        self._link_is_gone = False  # said by the kernel; the plane may not have noticed yet
        self._network = NetworkWatch(self)
        self.plane_started_at: float | None = None
        self.plane_lost_at: deque[float] = deque(maxlen=PLANE_LOSSES_MANY)
        self.drop_trend = DropTrend()
        self.tell_peers: Callable[[Iterable[PublicKey]], None] | None = None  # set while somebody watches
        self.driver: Driver

    @property
    def failures(self) -> dict[str, str]:
        """What is broken now, by part, for status and `why`."""
        return self.healing.failures

    # -- start and stop --

    async def start(self) -> None:
        """Brings everything up; when it returns, link, addresses and routes stand.

        Raises HostError or PlaneError; what was made of the link stays for the next try.
        """
        make_runtime_directory(self.settings.runtime_dir)
        self.config = self.leases.take(self.leases.settle(self.config))
        plane = planes.connect(self.settings)
        try:
            self.driver = Driver(
                self._new_device(plane),
                plane_gone=self._plane_gone,
                link_failed=self._link_failed,
                changed=self._peer_changed,
                pong=self.pings.answered,
                told=self.following.told,
                enrol=self._joining.wanted,
            )
            self.configure_device()
            await self._hand_over(plane)
        except BaseException:
            plane.close()
            raise
        self._network.start()
        self.resolver.watch(wanted.endpoint_names(self.config))
        self.driver.start()
        self.following.ask()
        self.following.follow_endpoints()
        self.spawn(self._pushed.tell())
        self.spawn(self._housekeeping())

    async def stop(self) -> None:
        """Says goodbye to peers unless the plane goes on without us, and lets go of everything."""
        for task in self._tasks:
            task.cancel()
        self.resolver.close()
        self._network.close()
        if self.driver.plane is not None and self.driver.plane.child is not None:
            # Our own plane ends with us, and with it the sessions: peers need not find out by timeout.
            self.driver.act(self.driver.device.goodbye(GoodbyeReason.RESTART, boottime()))
            await asyncio.sleep(_GOODBYE_S)
        self.store(at_once=True)
        self.driver.stop()
        self.driver.detach()

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Runs `work` beside everything else until it ends or the instance stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def store(self, *, at_once: bool = False) -> None:
        """Writes down what the next life needs."""
        device = self.driver.device
        wanted_keys = {peer.public_key for peer in self.config.peers}
        known = self._known | device.endpoints()
        self._known = {key: place for key, place in known.items() if key in wanted_keys}
        now = boottime()
        self._has_moved = not self.state.store(device.last_timestamp_ns, self._known, now, at_once=at_once)
        self._pushed.store()

    def wall_s(self) -> float:
        """Tells the time of day, in seconds since 1970."""
        return self.wall_clock_ns() / 1e9

    def in_force(self, config: Config) -> Config:
        """Gives what a configuration means by now: who was invited has joined, or may no longer."""
        return self.enrolments.apply(config, self.wall_s())

    def known_endpoints(self) -> dict[PublicKey, Endpoint]:
        """Tells where peers were last seen, in this life or the one before."""
        return dict(self._known)

    def listen_endpoints(self) -> tuple[Endpoint, ...]:
        """Tells what the plane's sockets are bound to, with their real ports."""
        return self._bound

    def unforwarded_packets(self) -> int:
        """Tells how many IPv4 packets the kernel has turned away since our start for want of forwarding."""
        return snmp.address_errors() - self._address_errors

    # -- the Device --

    def rebuild_device(self) -> None:
        """Replaces the Device after a change of identity or options; sessions serve until others come."""
        plane = self.driver.plane
        assert plane is not None
        self.store(at_once=True)
        self.driver.device = self._new_device(plane)
        self.configure_device()
        self.driver.renew_sessions({peer.public_key for peer in self.config.peers if peer.enabled})

    def _new_device(self, plane: PlaneClient) -> Device:
        device = Device(
            self.secrets.identity,
            knock=self.secrets.knock,
            options=wanted.device_options(self.config, has_aes=plane.hello.has_aes),
            wall_clock_ns=self.wall_clock_ns,
            random_bytes=os.urandom,
            last_timestamp_ns=self.state.load_timestamp_ns(),
            timers=self._timers,
            epoch=_epoch_of(plane),
        )
        if device.is_clock_behind:
            what = "the clock is behind the last handshake's timestamp; going on from that one"
            _log.warning(what, extra=about(Event.CLOCK_BEHIND))
        return device

    def configure_device(self) -> None:
        """Has the Device follow the configuration's peers and our previous key."""
        until = self._overlaps.until(self.config, self.secrets, boottime(), self.wall_s())
        self.previous_until = until
        options = wanted.peer_options(
            self.config, self.secrets, self._known, self.previous_keys, until, given=self.leases.given
        )
        # Goodbyes to peers that go are sent while the plane still knows them.
        self.driver.perform(self.driver.device.configure(options, boottime()))
        previous = self.secrets.previous
        self.driver.device.answer_also(previous, until[previous.public] if previous is not None else 0.0)

    # -- the plane --

    async def _hand_over(self, plane: PlaneClient) -> None:
        inventory = plane.inventory()
        planes.give_options(plane, inventory, self.config)
        await self.give_link(plane, inventory, self.plan_in_force())
        try:
            await self.shape_as_configured()
        except HostError as error:
            if not self.following.pushes.told:
                raise
            # What peers pushed may not fit this machine any more: that stands in nobody's way.
            await self.following.shape_without()
            self.following.fail(error)
        workers = wanted.workers(self.config.local, self.usable_cpus)
        planes.give_sockets(plane, inventory, self.config, self.settings, workers)
        self.note_plane(plane)
        self.driver.device.set_epoch(_epoch_of(plane))
        self.driver.attach(plane, wanted.wirings(self.config))
        self.plane_started_at = plane.hello.started_at
        await self.fit_padding()
        held = len(inventory.sessions)
        what = "plane %s, %d sessions taken over"
        _log.info(what, plane.hello.aead, held, extra=about(Event.PLANE_TAKEN))

    def note_plane(self, plane: PlaneClient) -> None:
        """Looks up what the plane's sockets are bound to, and which offloads run, after a change of them."""
        inventory = plane.inventory()
        self._bound = tuple(dict.fromkeys(inventory.sockets))
        self.active_offloads = inventory.offloads.active

    def _plane_gone(self) -> None:
        self.plane_started_at = None
        self.plane_lost_at.append(boottime())
        self.driver.device.plane_lost()
        self.healing.heal("plane", "the plane is gone", self._revive_plane)

    async def _revive_plane(self) -> None:
        plane = planes.connect(self.settings)
        try:
            await self._hand_over(plane)
        except BaseException:
            self.driver.detach()
            plane.close()
            raise
        self.driver.start()
        self.spawn(self._pushed.tell())

    # -- link and network --

    def _link_failed(self, error: int) -> None:
        if not self._has_sound_link():
            self.healing.heal("link", f"the link is gone ({os.strerror(error)})", self._revive_link)

    def link_deleted(self) -> None:
        """Brings the link back, which the kernel says is gone."""
        self._link_is_gone = True
        self.healing.heal("link", "the link was deleted", self._revive_link)

    def _has_sound_link(self) -> bool:
        """Tells whether the failed link was replaced before its failure was read."""
        try:
            return self.driver.plane is not None and self.driver.plane.inventory().link_works
        except PlaneError:
            return False  # the plane's own end follows

    async def _revive_link(self) -> None:
        plane = self.driver.plane
        if plane is None:
            return  # the plane's own revival brings the link
        inventory = plane.inventory()
        if self._link_is_gone:
            # The plane's descriptor may look sound for a moment more: what it holds is not the link.
            self._link_is_gone = False
            inventory = replace(inventory, link_works=False)
        await self.give_link(plane, inventory, self.plan_in_force())
        await self.shape_as_configured()
        self.note_plane(plane)
        await self.fit_padding()

    async def give_link(self, plane: PlaneClient, inventory: Inventory, plan: HostPlan) -> None:
        """Hands the link over, a new one where the standing one cannot have the queues. `shape_host` follows.

        Raises HostError, PlaneError.
        """
        async with self.shaping:
            # No turn of the loop between the two: nobody shall see the link missing.
            made = self.host.make_way(plan, is_held=planes.holds_link(inventory, plan.link))
            self._log_warnings()
            for change in made:
                _log.info("%s", change, extra=about(Event.LINK_REMADE))
            planes.give_link(
                plane, replace(inventory, link_works=inventory.link_works and not made), plan.link
            )

    def plan(self, config: Config, secrets: Secrets) -> HostPlan:
        """Tells what a configuration wants of the machine, together with what peers push."""
        accepted = self.following.pushes.accepted(config)
        return wanted.host_plan(config, secrets.identity.public, self.usable_cpus, accepted)

    def plan_in_force(self) -> HostPlan:
        """Tells what is wanted of the machine now."""
        return self.plan(self.config, self.secrets)

    async def shape_as_configured(self) -> None:
        """Brings the machine to what configuration and pushes want of it. Raises HostError."""
        async with self.shaping:
            await self.shape_host(self.plan_in_force())

    async def shape_host(self, plan: HostPlan) -> None:
        """Brings the machine to the plan, away from the loop: a thousand routes take a second.

        The caller holds `shaping`. Raises HostError.
        """
        for change in await asyncio.to_thread(self.host.apply, plan):
            _log.debug("%s", change)
        self.following.link_addresses, self.following.link_mtu = plan.link.addresses, plan.link.mtu
        self._log_warnings()
        try:
            await self._bring_dns(plan)
        except HostError as error:
            self.healing.heal("dns", str(error), self._revive_dns)

    async def _revive_dns(self) -> None:
        async with self.shaping:
            await self._bring_dns(self.plan_in_force())

    async def _bring_dns(self, plan: HostPlan) -> None:
        """Tells systemd-resolved of the link's name servers. Raises HostError."""
        for change in await asyncio.to_thread(self._dns.apply, plan.link.name, plan.dns):
            _log.info("%s", change.detail, extra=about(Event.NAME_SERVERS))

    def _log_warnings(self) -> None:
        for warning in self.host.warnings:
            _log.warning("%s", warning, extra=about(Event.MACHINE_ODD))

    async def fit_padding(self) -> None:
        """Has packets padded up to the link's MTU, or to a smaller one that a route into the link has."""
        if not self._may_pad():
            return
        link = self.plan_in_force().link
        least = await asyncio.to_thread(facts.least_route_mtu, link.name)
        plane = self.driver.plane
        if plane is not None:
            try:
                planes.give_link(plane, plane.inventory(), link, padding_mtu=least)
            except (HostError, PlaneError) as error:
                _log.warning("%s", error, extra=about(Event.MACHINE_ODD))

    def _may_pad(self) -> bool:
        if self.config.local.padding != "none":
            return True
        # The stronger wish of the two ends counts; of a session taken over it is not known here.
        seen = (self.driver.device.snapshot(peer.public_key) for peer in self.config.peers)
        return any(peer.current_index is not None and peer.padding is not PaddingMode.NONE for peer in seen)

    # -- peers --

    def _resolved(self, peer: str, endpoint: Endpoint) -> None:
        key = next((each.public_key for each in self.config.peers if each.name == peer), None)
        if key is not None and self.driver.device.snapshot(key).endpoint != endpoint:
            self.driver.act(self.driver.device.set_endpoint(key, endpoint, boottime()))

    def _peer_changed(self, key: PublicKey) -> None:
        if not self._news:
            asyncio.get_running_loop().call_soon(self._tell_news)
        self._news.add(key)

    def _tell_news(self) -> None:
        """Follows what changed since the loop's last turn: thousands of peers may come up in one."""
        for key in self._news:
            endpoint = self.driver.device.endpoint(key)
            self._network.sources.learn(key, endpoint, self.config.local.fwmark)
            if endpoint is not None and not self.state.has_endpoint(key, endpoint):
                self._has_moved = True
        self.following.follow_endpoints()
        if self.tell_peers is not None:
            self.tell_peers(self._news)
        self._news.clear()
        if self.state.is_due(boottime(), has_moved=self._has_moved):
            self.store()
        self.wake()

    def wake(self) -> None:
        """Has those look again who wait for a change."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def _housekeeping(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            self._look_elsewhere()
            self.drop_trend.note(self.driver.drops(), boottime())
            if self._joining.is_due():
                await self._joining.end_invitations()
            if self.state.is_due(boottime(), has_moved=self._has_moved):
                self.store()
                await self._write_record()

    async def _write_record(self) -> None:
        if self.host.has_unwritten and not self.shaping.locked():
            async with self.shaping:
                is_written = await asyncio.to_thread(self.host.write_record)
            if is_written:
                what = "the record of the machine can be written again"
                _log.info(what, extra=about(Event.STATE_WRITABLE))

    def _look_elsewhere(self) -> None:
        """Goes back to what the configuration says of peers that do not answer where they were last."""
        unanswered = self.driver.device.unanswered(ELSEWHERE_AFTER_ATTEMPTS)
        looked, self._looked_elsewhere = self._looked_elsewhere, {}
        for peer in self.config.peers if unanswered else ():
            if peer.endpoint is None or peer.public_key not in unanswered:
                continue
            rounds = unanswered[peer.public_key] // ELSEWHERE_AFTER_ATTEMPTS
            self._looked_elsewhere[peer.name] = rounds
            if rounds <= looked.get(peer.name, 0):
                continue
            if isinstance(peer.endpoint, Endpoint):
                self._resolved(peer.name, peer.endpoint)
            else:
                # The name may stand for another address by now.
                self.resolver.again(peer.name)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # What nobody expected ends the process; the service manager starts it anew.
            asyncio.get_running_loop().call_exception_handler({"message": "a task died", "exception": error})
