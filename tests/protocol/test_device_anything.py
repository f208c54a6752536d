"""Anything in any order: two machines, a hostile wire, and an operator with shaking hands."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fakes.forge import flipped
from tests.fakes.host import Host, endpoint, joined, peer_of
from tests.fakes.wire import Datagram, Weather
from vpnd.keys import Secret
from vpnd.protocol.actions import InstallSession
from vpnd.protocol.constants import GoodbyeReason

SIDES = st.sampled_from(["left", "right"])
PSKS = [bytes(32), bytes(range(32))]


class TwoMachines(RuleBasedStateMachine):
    """Every verb of a Device at any moment; what the wire does is drawn as well.

    Never an exception, never an index or a key twice, never a session past its age; and once
    the wire heals and both configurations fit, packets pass both ways again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network, self.left, self.right = joined()
        self.ports = 5180
        self.psk = {self.left: 0, self.right: 0}
        self.enabled = {self.left: True, self.right: True}
        self.keepalive = {self.left: 0, self.right: 0}
        self.packets = 0

    def host(self, side: str) -> Host:
        return self.left if side == "left" else self.right

    def other(self, host: Host) -> Host:
        return self.right if host is self.left else self.left

    def configure(self, host: Host) -> None:
        other = self.other(host)
        options = peer_of(
            other,
            at=other.address,
            psk=Secret.copy_of(PSKS[self.psk[host]]),
            enabled=self.enabled[host],
            keepalive_s=self.keepalive[host],
        )
        if host.is_running:
            host.configure(options)
        else:
            host.peers = [options]

    # --- what may happen ---

    @rule(side=SIDES, count=st.integers(1, 5))
    def send(self, side: str, count: int) -> None:
        host = self.host(side)
        for _ in range(count):
            self.packets += 1
            host.send(self.other(host), b"E%d" % self.packets)

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.015, 0.05, 0.3, 1.0, 4.0, 12.0, 31.0, 115.0, 200.0]))
    def wait(self, seconds: float) -> None:
        self.network.run(seconds)

    @rule(side=SIDES)
    def reconnect(self, side: str) -> None:
        host = self.host(side)
        if host.is_running:
            host.perform(host.device.reconnect(self.other(host).key, self.network.clock.now))

    @rule(side=SIDES, reason=st.sampled_from(list(GoodbyeReason)))
    def goodbye(self, side: str, reason: GoodbyeReason) -> None:
        host = self.host(side)
        if host.is_running:
            host.say_goodbye(reason)

    @rule(side=SIDES, with_plane=st.booleans())
    def die(self, side: str, with_plane: bool) -> None:
        host = self.host(side)
        host.kill() if host.is_running else None
        if with_plane:
            host.kill_plane()

    @rule(side=SIDES)
    def come_back(self, side: str) -> None:
        host = self.host(side)
        if not host.is_running:
            host.boot()

    @rule(side=SIDES, on=st.booleans())
    def switch(self, side: str, on: bool) -> None:
        self.enabled[self.host(side)] = on
        self.configure(self.host(side))

    @rule(side=SIDES, which=st.sampled_from([0, 1]))
    def change_preshared_key(self, side: str, which: int) -> None:
        self.psk[self.host(side)] = which
        self.configure(self.host(side))

    @rule(side=SIDES, seconds=st.sampled_from([0, 1, 25]))
    def change_keepalive(self, side: str, seconds: int) -> None:
        self.keepalive[self.host(side)] = seconds
        self.configure(self.host(side))

    @rule(side=SIDES, offset=st.sampled_from([-1e9, -3600.0, 0.0, 3600.0, 1e8]))
    def set_the_clock(self, side: str, offset: float) -> None:
        self.host(side).wall.offset_s = offset

    @rule(side=SIDES)
    def move(self, side: str) -> None:
        self.ports += 1
        self.host(side).address = endpoint("198.51.100.1" if side == "left" else "198.51.100.2", self.ports)

    @rule(side=SIDES)
    def notice_another_network(self, side: str) -> None:
        host = self.host(side)
        if host.is_running:
            host.perform(host.device.network_changed(self.network.clock.now))

    @rule(side=SIDES)
    def wake_from_sleep(self, side: str) -> None:
        host = self.host(side)
        if host.is_running:
            host.perform(host.device.resumed(self.network.clock.now))

    @rule(side=SIDES, opaque=st.integers(0, 2**64 - 1))
    def ping(self, side: str, opaque: int) -> None:
        host = self.host(side)
        if host.is_running:
            host.perform(host.device.ping(self.other(host).key, self.network.clock.now, opaque))

    @rule(side=SIDES, depth=st.sampled_from([0, 100]))
    def load(self, side: str, depth: int) -> None:
        self.host(side).queue_depth = depth

    @rule(
        loss=st.sampled_from([0.0, 0.3, 1.0]),
        duplicate=st.sampled_from([0.0, 0.5]),
        corrupt=st.sampled_from([0.0, 0.2]),
        jitter=st.sampled_from([0.0, 0.5, 3.0]),
    )
    def change_weather(self, loss: float, duplicate: float, corrupt: float, jitter: float) -> None:
        self.network.wire.weather = Weather(
            delay_s=0.01, jitter_s=jitter, loss=loss, duplicate=duplicate, corrupt=corrupt
        )

    @precondition(lambda self: self.network.wire.captured)
    @rule(data=st.data(), side=SIDES, bit=st.none() | st.integers(0, 2000))
    def replay(self, data: st.DataObject, side: str, bit: int | None) -> None:
        old = data.draw(st.sampled_from(self.network.wire.captured[-40:]))
        content = old.data if bit is None else flipped(old.data, bit % (8 * len(old.data)))
        host = self.host(side)
        source = endpoint("203.0.113.66", 666) if bit is None else old.source
        self.network.wire.inject(Datagram(source, host.address, content), self.network.clock.now)

    @rule(side=SIDES, content=st.binary(max_size=300))
    def receive_garbage(self, side: str, content: bytes) -> None:
        host = self.host(side)
        source = endpoint("203.0.113.66", 666)
        self.network.wire.inject(Datagram(source, host.address, content), self.network.clock.now)

    @rule(side=SIDES, payload=st.binary(min_size=1, max_size=40), index=st.integers(0, 2**32 - 1))
    def receive_odd_control(self, side: str, payload: bytes, index: int) -> None:
        host = self.host(side)
        session = host.current(self.other(host))
        index = session.local_index if session is not None and index % 2 else index
        if host.is_running:
            other = self.other(host)
            host.perform(
                host.device.receive_control(other.key, index, other.address, payload, self.network.clock.now)
            )

    # --- what never may ---

    @invariant()
    def no_index_and_no_key_serves_twice(self) -> None:
        keys = self.left.plane.installed_send_keys + self.right.plane.installed_send_keys
        assert len(set(keys)) == len(keys)
        for host in (self.left, self.right):
            installs = [action for action in host.actions if isinstance(action, InstallSession)]
            assert len({install.local_index for install in installs}) == len(installs)

    @invariant()
    def no_session_is_too_old(self) -> None:
        for host in (self.left, self.right):
            host.plane.expire(self.network.clock.now)
            for session in host.plane.by_index.values():
                assert self.network.clock.now - session.created_at < 180.0

    @invariant()
    def no_packet_comes_twice(self) -> None:
        for host in (self.left, self.right):
            assert len(set(host.received())) == len(host.received())

    def teardown(self) -> None:
        """The wire heals, both sides are on and fit together: packets must pass within two minutes."""
        self.network.wire.heal()
        for host in (self.left, self.right):
            self.psk[host], self.enabled[host], host.queue_depth = 0, True, 0
            if not host.is_running:
                host.boot()
        for host in (self.left, self.right):
            self.configure(host)
            # As after a name's resolution: where both moved unseen, somebody has to tell.
            other = self.other(host)
            host.perform(host.device.set_endpoint(other.key, other.address, self.network.clock.now))
        for number in range(120):
            for host in (self.left, self.right):
                host.send(self.other(host), b"Elast %d" % number)
            self.network.run(1.0)
            if self.left.received()[-1:] == self.right.received()[-1:] == [b"Elast %d" % number]:
                return
        raise AssertionError("two minutes after the wire healed no packet passes")


TestTwoMachines = TwoMachines.TestCase
TestTwoMachines.settings = settings(
    max_examples=200,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)
