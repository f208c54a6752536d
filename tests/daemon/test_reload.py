"""Reloads: nothing on a mistake, the smallest change else, and the way back when the machine says no."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vpnd.config import Config, Secrets, load, read_secrets
from vpnd.control.reports import ReloadReport
from vpnd.daemon import planes, reload, wanted
from vpnd.daemon.leasebook import LeaseBook
from vpnd.daemon.pushes import NOTHING, Accepted
from vpnd.daemon.state import StateDirectory
from vpnd.endpoint import Endpoint
from vpnd.errors import ControlError, HostError, PlaneError
from vpnd.host.plan import HostPlan
from vpnd.keys import PublicKey, Secret
from vpnd.plane.wire import Offload
from vpnd.protocol.peer import PeerOptions

PRIVATE = "YAwKKFkZLbAAvMKQBpUOQbVKMTa8OBbi4mUaF6Q4c3E=\n"
OTHER_PRIVATE = "iKGMVr3nG7CDUAdMnyBFVBdEzYzBbMsGPKWBQvIZ+Xk=\n"
PSK_ONE, PSK_TWO = "C" * 42 + "A=\n", "B" * 42 + "A=\n"
BERLIN = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
LYON = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="


NEW_PEER = f'[peer.lyon]\npublic_key = "{LYON}"\nnetworks = ["10.30.0.0/16"]\n'


class FakePlane:
    def inventory(self) -> str:
        return "inventory"


class FakeService:
    def __init__(self, events: list[str]) -> None:
        self._events = events

    def reloading(self) -> None:
        self._events.append("RELOADING")

    def ready(self) -> None:
        self._events.append("READY")


class FakePeers:
    def __init__(self, events: list[str]) -> None:
        self._events = events
        self.renamed: list[tuple[PublicKey | None, PublicKey]] = []
        self.wired: list[str] = []

    def rename(self, wirings: Any) -> None:
        self.renamed = [(wiring.previous_public_key, wiring.public_key) for wiring in wirings]

    def wire(self, wirings: Any) -> None:
        self.wired = [wiring.name for wiring in wirings]
        self._events.append("wire")


class FakeDriver:
    """Device and driver in one: notes what it is configured with."""

    def __init__(self, events: list[str]) -> None:
        self._events = events
        self.plane: FakePlane | None = FakePlane()
        self.device = self
        self.configured: list[PeerOptions] = []
        self.peers = FakePeers(events)

    def configure(self, options: list[PeerOptions], now: float) -> list[str]:
        self.configured = options
        return ["goodbyes"]

    def perform(self, actions: list[str]) -> None:
        assert actions == ["goodbyes"]
        self._events.append("goodbyes")

    def start(self) -> None:
        self._events.append("start")


class FakeHost:
    def __init__(self) -> None:
        self.error: HostError | None = None

    def difference(self, plan: HostPlan) -> tuple[()]:
        if self.error is not None:
            raise self.error
        return ()


class FakeResolver:
    def __init__(self) -> None:
        self.watched: dict[str, object] = {}

    def watch(self, names: dict[str, object]) -> None:
        self.watched = names


class FakeSettings:
    def __init__(self, folder: Path) -> None:
        self.instance = "site"
        self.config_file = folder / "site.toml"
        self.credentials = None


class FakeInstance:
    """An Instance as a reload sees it. `refusals` are raised by the step of that name, one a time."""

    def __init__(self, folder: Path) -> None:
        self.events: list[str] = []
        self.settings = FakeSettings(folder)
        self.config = load("site", self.settings.config_file)
        self.secrets = read_secrets(self.config, None)
        self.service = FakeService(self.events)
        self.driver = FakeDriver(self.events)
        self.host = FakeHost()
        self.resolver = FakeResolver()
        self.failures: dict[str, str] = {}
        self.previous_keys: dict[PublicKey, Secret] = {}
        state = StateDirectory(folder / "lib")
        self.leases = LeaseBook(state, lambda: 10**18)
        self.config = self.leases.take(self.leases.settle(self.config))
        self.following = SimpleNamespace(ask=lambda: None)
        self.refusals: dict[str, list[Exception | None]] = {}
        self.shaped: list[HostPlan] = []
        self.shaping = asyncio.Lock()
        self.listens: list[tuple[Endpoint, ...]] = []
        self.usable_cpus = 1
        self.accepted = NOTHING  # of what peers push
        self.queues: list[int] = []
        self.sockets: list[int] = []
        self.offloads: list[Offload] = []

    def refuse(self, step: str) -> None:
        waiting = self.refusals.get(step)
        if waiting:
            error = waiting.pop(0)
            if error is not None:
                raise error

    async def shape_host(self, plan: HostPlan) -> None:
        self.refuse("host")
        self.shaped.append(plan)

    def plan(self, config: Config, secrets: Secrets) -> HostPlan:
        return wanted.host_plan(config, secrets.identity.public, self.usable_cpus, self.accepted)

    def in_force(self, config: Config) -> Config:
        return config

    async def fit_padding(self) -> None:
        pass

    def configure_device(self) -> None:
        until = {peer.previous_public_key: 1.0 for peer in self.config.peers if peer.previous_public_key}
        given = self.leases.given
        options = wanted.peer_options(self.config, self.secrets, {}, self.previous_keys, until, given=given)
        self.driver.perform(self.driver.configure(options, 0.0))

    async def give_link(self, plane: FakePlane, inventory: str, plan: HostPlan) -> None:
        self.refuse("link")
        self.queues.append(plan.link.queues)

    def note_plane(self, plane: FakePlane) -> None:
        self.events.append("sockets")

    def rebuild_device(self) -> None:
        self.events.append("device")
        self.configure_device()

    def reload(self, *, dry_run: bool = False) -> ReloadReport:
        return asyncio.run(reload.reload(self, dry_run=dry_run))  # type: ignore[arg-type]


class Site:
    """The files of one instance, and the instance that was started with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key("site.key", PRIVATE)
        self.write()
        self.instance = FakeInstance(folder)

    def write(self, *, interface: str = "", local: str = "", berlin: str = "", peers: str = "") -> None:
        """Writes the configuration; the arguments are lines added to a section, `peers` whole sections."""
        listen = "" if "listen" in local else 'listen = ["0.0.0.0:5180"]'
        (self.folder / "site.toml").write_text(f"""\
[interface]
addresses = ["10.255.0.1/24"]
{interface}
[local]
private_key = "{self.folder}/site.key"
{listen}
{local}
[peer.berlin]
public_key = "{BERLIN}"
networks = ["10.255.0.2/32"]
{berlin}
{peers}
""")

    def key(self, name: str, content: str) -> Path:
        file = self.folder / name
        file.touch(mode=0o600)
        file.write_text(content)
        return file


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path)
    instance = made.instance

    def give_options(plane: object, inventory: str, config: Config) -> None:
        instance.offloads.append(wanted.offloads(config))

    def give_sockets(plane: object, inventory: str, config: Config, settings: object, workers: int) -> None:
        instance.refuse("sockets")
        instance.listens.append(config.local.listen)
        instance.sockets.append(workers)

    monkeypatch.setattr(planes, "give_options", give_options)
    monkeypatch.setattr(planes, "give_sockets", give_sockets)
    return made


def summary(report: ReloadReport) -> list[tuple[str, str]]:
    return [(change.action, change.what) for change in report.changes]


# -- what changes --


def test_the_same_files_change_nothing_and_nobody_hears_of_it(site: Site) -> None:
    """[I6]"""
    assert site.instance.reload() == ReloadReport(False, ())
    assert site.instance.events == []
    assert site.instance.shaped == []


def test_a_mistake_in_the_files_changes_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """[I6] All mistakes are in the answer, and in the log, each with its line."""
    site.write(interface="mtu = 99", local='color = "blue"')
    before = site.instance.config
    with pytest.raises(ControlError) as caught:
        site.instance.reload()
    assert caught.value.code == "config"
    assert len(caught.value.text.splitlines()) == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"reload: {mistake}" for mistake in caught.value.text.splitlines()
    ]
    assert site.instance.config is before
    assert site.instance.events == []


def test_what_a_peer_pushes_during_a_reload_comes_into_force_with_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[I6] The machine is brought to what is pushed then, and not to what was when the reload began."""
    instance = site.instance
    pushed = Accepted(routes=(ip_network("10.40.0.0/16"),))

    async def give_link(plane: FakePlane, inventory: str, plan: HostPlan) -> None:
        instance.accepted = pushed

    monkeypatch.setattr(instance, "give_link", give_link)
    site.write(interface="mtu = 1400")
    instance.reload()
    assert pushed.routes[0] in {route.prefix for route in instance.shaped[-1].routes}


def test_a_dry_run_tells_and_does_nothing(site: Site) -> None:
    """[I6]"""
    site.write(peers=NEW_PEER, interface="mtu = 1300")
    report = site.instance.reload(dry_run=True)
    assert summary(report) == [("change", "interface.mtu"), ("add", "peer lyon")]
    assert report.dry_run
    assert site.instance.events == []
    assert site.instance.shaped == []


def test_a_peer_is_added_and_removed_in_the_right_order(site: Site) -> None:
    """[I6, E7] Goodbyes leave before the plane forgets the peer."""
    site.write(peers=NEW_PEER)
    assert summary(site.instance.reload()) == [("add", "peer lyon")]
    assert site.instance.driver.peers.wired == ["berlin", "lyon"]
    site.write()
    assert summary(site.instance.reload()) == [("remove", "peer lyon")]
    assert site.instance.driver.peers.wired == ["berlin"]
    assert site.instance.events == 2 * ["RELOADING", "sockets", "goodbyes", "wire", "start", "READY"]


def test_a_renamed_peer_is_told_as_such(site: Site) -> None:
    """[I6] It has key and session on, so nothing is removed and nothing added."""
    site.write(peers=NEW_PEER)
    site.instance.reload()
    site.write(peers=NEW_PEER.replace("lyon", "nice") + "keepalive = 5\n")
    (change,) = site.instance.reload().changes
    assert (change.action, change.what) == ("change", "peer lyon")
    assert change.detail == "name: lyon → nice; keepalive: 0 → 5"
    assert site.instance.driver.peers.wired == ["berlin", "nice"]


def test_what_changed_of_a_peer_is_told(site: Site) -> None:
    """[I6] Old and new value of each key, and that there is another secret, never which."""
    secret = site.key("berlin.psk", PSK_ONE)
    site.write(berlin=f'keepalive = 25\nendpoint = "192.0.2.1:5180"\npreshared_key = "{secret}"')
    (change,) = site.instance.reload().changes
    assert (change.action, change.what) == ("change", "peer berlin")
    assert "keepalive: 0 → 25" in change.detail
    assert "endpoint: none → 192.0.2.1:5180" in change.detail
    assert "preshared_key: another key" in change.detail
    assert PSK_ONE.strip() not in change.detail


def test_another_port_gives_other_sockets(site: Site) -> None:
    """[I6]"""
    site.write(local='listen = ["0.0.0.0:5181"]')
    site.instance.reload()
    assert [str(each) for each in site.instance.listens[0]] == ["0.0.0.0:5181"]
    assert "sockets" in site.instance.events


def test_other_workers_give_other_queues_and_sockets(site: Site) -> None:
    """[I6] And every part of the machine is told of as many."""
    for workers in (2, 1):
        site.write(local=f"workers = {workers}")
        assert summary(site.instance.reload())[0] == ("change", "local.workers")
        assert site.instance.queues[-1] == site.instance.sockets[-1] == workers
        assert site.instance.shaped[-1].link.queues == workers


def test_other_offloads_are_told_to_the_plane(site: Site) -> None:
    """[I6] Only the link's own makes another device: peers agree with it what a packet may look like."""
    site.write(local='offload = ["tun-vnet"]')
    site.instance.reload()
    assert site.instance.offloads == [Offload.TUN_VNET]
    assert "device" not in site.instance.events
    site.write(local='offload = "off"')
    site.instance.reload()
    assert site.instance.offloads == [Offload.TUN_VNET, Offload(0)]
    assert "device" in site.instance.events


@pytest.mark.parametrize("what", ["key", "knock", "mtu", "padding"])
def test_what_all_sessions_hang_on_makes_another_device(site: Site, what: str) -> None:
    """[A17, I6] And nothing else does."""
    match what:
        case "key":
            site.key("site.key", OTHER_PRIVATE)
        case "knock":
            site.write(local=f'knock = "{site.key("knock", PSK_ONE)}"')
        case "mtu":
            site.write(interface="mtu = 1300")
        case "padding":
            site.write(local='padding = "full"')
    site.instance.reload()
    assert "device" in site.instance.events
    site.instance.events.clear()
    site.write(peers=NEW_PEER) if what == "key" else site.key("unused", PSK_TWO)
    site.instance.reload()
    assert "device" not in site.instance.events


def test_our_key_before_is_told_of_when_it_serves_on(site: Site) -> None:
    """[A17, I6] As it ends; adding or removing it alone makes no other device."""
    before = site.instance.secrets.identity
    site.key("before.key", PRIVATE)
    site.key("site.key", OTHER_PRIVATE)
    previous = f'previous_private_key = "{site.folder}/before.key"'
    site.write(local=f"{previous}\nkey_overlap = 60")
    details = {change.what: change.detail for change in site.instance.reload().changes}
    assert details["local.private_key"] == "another key; the one before answers too for 60 s"
    assert details["local.previous_private_key"] == f"the key {before.public}"
    assert "device" in site.instance.events
    assert site.instance.secrets.previous == before
    site.instance.events.clear()
    site.write()
    (_, _, ended) = site.instance.reload().changes
    assert (ended.what, ended.detail) == ("local.previous_private_key", "no key")
    assert "device" not in site.instance.events


def test_a_peer_with_another_key_is_renamed_before_anything_else(site: Site) -> None:
    """[A17, I6] And its preshared key may be replaced in the same reload."""
    old, new = PublicKey.from_base64(BERLIN), PublicKey.from_base64(LYON)
    site.write(berlin=f'preshared_key = "{site.key("berlin.psk", PSK_ONE)}"')
    site.instance.reload()
    shared = site.instance.secrets.preshared_keys["berlin"]
    text = (site.folder / "site.toml").read_text()
    (site.folder / "site.toml").write_text(
        text.replace(f'"{BERLIN}"', f'"{LYON}"\nprevious_public_key = "{BERLIN}"')
    )
    site.key("berlin.psk", PSK_TWO)
    (change,) = site.instance.reload().changes
    assert f"previous_public_key: none → {old}" in change.detail
    assert site.instance.driver.peers.renamed == [(old, new)]
    assert site.instance.previous_keys == {new: shared}
    site.instance.events.clear()
    site.key("unused", PSK_TWO)
    site.instance.reload()
    (options,) = site.instance.driver.configured
    assert (options.public_key, options.previous_public_key) == (new, old)
    assert options.previous_preshared_key == shared


def test_a_replaced_preshared_key_serves_on_beside_the_new_one(site: Site) -> None:
    """[A16] Both ends need not change theirs in the same second; a later reload forgets it no sooner."""
    secret = site.key("berlin.psk", PSK_ONE)
    site.write(berlin=f'preshared_key = "{secret}"')
    site.instance.reload()
    assert site.instance.previous_keys == {}
    old = site.instance.secrets.preshared_keys["berlin"]
    site.key("berlin.psk", PSK_TWO)
    assert summary(site.instance.reload()) == [("change", "peer berlin")]
    key = PublicKey.from_base64(BERLIN)
    assert site.instance.previous_keys == {key: old}
    (options,) = site.instance.driver.configured
    assert options.previous_preshared_key == old
    assert options.preshared_key != old
    site.write(berlin=f'preshared_key = "{secret}"\nkeepalive = 9')
    site.instance.reload()
    assert site.instance.previous_keys == {key: old}


# -- the way back --


REFUSALS = {
    "link": HostError("open vpn-site", "somebody holds it"),
    "host": HostError("add route", "no"),
    "sockets": HostError("bind udp 0.0.0.0:5181", "another program has the port"),
}


@pytest.mark.parametrize("step", REFUSALS)
def test_a_refused_step_puts_everything_back(site: Site, step: str, caplog: pytest.LogCaptureFixture) -> None:
    """[I9] The answer says why, the configuration before is in force, and READY follows RELOADING."""
    instance = site.instance
    before = (instance.config, instance.secrets)
    site.write(local='listen = ["0.0.0.0:5181"]', interface="mtu = 1300", peers=NEW_PEER)
    instance.refusals = {step: [REFUSALS[step]]}
    with pytest.raises(ControlError) as caught:
        instance.reload()
    assert caught.value.code == "refused"
    assert str(REFUSALS[step]) in caught.value.text
    assert "stays in force" in caught.value.text
    assert [record.getMessage() for record in caplog.records] == [f"reload: {caught.value.text}"]
    assert (instance.config, instance.secrets) == before
    assert instance.shaped[-1].link.mtu == before[0].interface.mtu
    if instance.listens:
        assert instance.listens[-1] == before[0].local.listen
    assert instance.driver.peers.wired == ["berlin"]
    assert instance.failures == {}
    assert (instance.events[0], instance.events[-1]) == ("RELOADING", "READY")


def test_sockets_that_were_lost_on_the_way_are_opened_again(site: Site) -> None:
    """[I9] The old ones were closed to make room, then the new port was taken."""
    site.write(local='listen = ["0.0.0.0:5181"]')
    site.instance.refusals = {"sockets": [REFUSALS["sockets"]]}
    with pytest.raises(ControlError):
        site.instance.reload()
    assert site.instance.listens == [site.instance.config.local.listen]
    assert [str(each) for each in site.instance.listens[0]] == ["0.0.0.0:5180"]


def test_a_way_back_that_is_barred_is_shown_until_a_reload_succeeds(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """[I9] The machine says no twice; `health` tells it, and a reload of any files that works ends it."""
    instance = site.instance
    site.write(interface="mtu = 1300")
    instance.refusals = {"host": [REFUSALS["host"], REFUSALS["host"]]}
    with pytest.raises(ControlError):
        instance.reload()
    assert "could not be put back: add route: no" in instance.failures["reload"]
    assert instance.events[-1] == "READY"
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    site.write()  # as it was at first: nothing differs, but nobody can be sure
    assert instance.reload().changes == ()
    assert instance.failures == {}
    assert len(instance.shaped) == len(instance.listens) == 1


def test_while_the_plane_is_away_a_reload_is_refused(site: Site) -> None:
    """[I9] It is being brought back, with the configuration there is."""
    site.write(interface="mtu = 1300")
    site.instance.driver.plane = None
    with pytest.raises(ControlError, match="being brought back"):
        site.instance.reload()
    assert site.instance.config.interface.mtu != 1300


def test_a_plane_that_refuses_puts_everything_back(site: Site) -> None:
    """[I9]"""
    site.write(interface="mtu = 1300")
    site.instance.refusals = {"link": [PlaneError("bad_value", "a field is wrong")]}
    with pytest.raises(ControlError, match="stays in force"):
        site.instance.reload()
    assert site.instance.config.interface.mtu != 1300


def test_a_machine_that_cannot_be_looked_at_refuses_before_anything_changes(site: Site) -> None:
    """[I9]"""
    site.instance.host.error = HostError("list routes", "no")
    site.write(interface="mtu = 1300")
    with pytest.raises(ControlError, match="nothing was changed"):
        site.instance.reload()
    assert site.instance.events == []
