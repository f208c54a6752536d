"""What a plane is handed: options, link and sockets, each only where it has not got them."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vpnd.config import Config, load
from vpnd.daemon import planes, transports
from vpnd.daemon.settings import Settings
from vpnd.endpoint import Endpoint
from vpnd.errors import HostError, PlaneError
from vpnd.host.plan import LinkPlan
from vpnd.plane.client import PlaneClient
from vpnd.plane.inventory import Inventory, Offloads
from vpnd.plane.wire import Offload

LINK = LinkPlan("vpn-site", "tun")
NOTHING = Inventory(
    link_type="none",
    link_works=False,
    link_name="",
    queues=0,
    mtu=0,
    padding_mtu=0,
    offloads=Offloads(Offload.ALL, Offload(0), 0, {}),
    sockets=(),
    peers=(),
    sessions=(),
)
HOLDS_LINK = replace(
    NOTHING, link_type="tun", link_works=True, link_name="vpn-site", queues=1, mtu=1420, padding_mtu=1420
)


class FakePlane:
    """Notes what it is given; holds copies of sockets as the real one does."""

    def __init__(self) -> None:
        self.options: list[tuple[int, int, Offload]] = []
        self.links: list[tuple[str, int, int, int]] = []
        self.sockets: list[socket.socket] = []
        self.workers: list[int] = []

    def set_options(self, mac_limit: int, mac_age_s: int, offloads: Offload) -> None:
        self.options.append((mac_limit, mac_age_s, offloads))

    def set_link(self, kind: str, name: str, mtu: int, queues: tuple[int, ...], *, padding_mtu: int) -> None:
        self.links.append((name, mtu, padding_mtu, len(queues)))

    def set_sockets(self, descriptors: list[int], *, workers: int = 1) -> None:
        new = [socket.socket(fileno=os.dup(each)) for each in descriptors]
        transports.close_sockets(self.sockets)
        self.sockets = new
        self.workers.append(workers)

    @property
    def inventory(self) -> Inventory:
        bound = (Endpoint.from_sockaddr(each.getsockname()) for each in self.sockets)
        return replace(NOTHING, sockets=tuple(bound))


@pytest.fixture
def plane() -> Iterator[Any]:
    made = FakePlane()
    yield made
    transports.close_sockets(made.sockets)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How many queues were opened, beside how many held ones."""
    calls: list[tuple[int, int]] = []

    def open_link(plan: LinkPlan, *, held: int) -> tuple[int, ...]:
        calls.append((plan.queues, held))
        return tuple(os.open(os.devnull, os.O_RDONLY) for _ in range(plan.queues))

    monkeypatch.setattr(planes, "open_link", open_link)
    return calls


def config(folder: Path, local: str) -> Config:
    file = folder / "site.toml"
    file.write_text(f"[local]\n{local}\n")
    return load("site", file)


def settings(folder: Path) -> Settings:
    return Settings("site", folder / "site.toml", folder, folder, "info")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def give(plane: Any, folder: Path, local: str, workers: int = 1) -> None:
    planes.give_sockets(plane, plane.inventory, config(folder, local), settings(folder), workers)


# -- which plane --


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was started instead of being connected to."""
    started: list[str] = []
    monkeypatch.setattr(planes, "find_program", lambda: "vpnd-plane")
    monkeypatch.setattr(PlaneClient, "spawn", started.append)
    return started


def test_where_no_plane_listens_one_is_started(tmp_path: Path, spawned: list[str]) -> None:
    planes.connect(settings(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left_behind:
        left_behind.bind(str(tmp_path / "plane.sock"))
    planes.connect(settings(tmp_path))
    assert spawned == ["vpnd-plane"] * 2


def test_a_plane_that_goes_away_while_it_is_greeted_is_waited_for(tmp_path: Path, spawned: list[str]) -> None:
    """Its service manager starts it again, and with it comes back what it had."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "plane.sock"))
        listener.listen()

        def die() -> None:
            accepted, _ = listener.accept()
            accepted.close()

        dying = threading.Thread(target=die)
        dying.start()
        with pytest.raises(PlaneError) as caught:
            planes.connect(settings(tmp_path))
        dying.join()
    assert caught.value.code == "gone"
    assert spawned == []


# -- options --


@pytest.mark.parametrize(
    ("local", "wanted"),
    [
        ('offload = "auto"', Offload.ALL),
        ('offload = "off"', Offload(0)),
        ("offload = []", Offload(0)),
        ('offload = ["udp-gso", "tun-vnet"]', Offload.UDP_GSO | Offload.TUN_VNET),
    ],
)
def test_offloads_are_told_once(plane: Any, tmp_path: Path, local: str, wanted: Offload) -> None:
    other = replace(NOTHING, offloads=Offloads(Offload.UDP_GRO, Offload(0), 0, {}))
    planes.give_options(plane, other, config(tmp_path, local))
    assert plane.options == [(planes.MAC_LIMIT, planes.MAC_AGE_S, wanted)]
    told = replace(NOTHING, offloads=Offloads(wanted, Offload(0), 0, {}))
    planes.give_options(plane, told, config(tmp_path, local))
    assert len(plane.options) == 1


# -- link --


@pytest.mark.parametrize(
    ("inventory", "queues", "call"),
    [
        (NOTHING, 1, (1, 0)),
        (NOTHING, 3, (3, 0)),
        (HOLDS_LINK, 1, None),
        (HOLDS_LINK, 2, (2, 1)),
        (replace(HOLDS_LINK, queues=4), 1, (1, 4)),
        (replace(HOLDS_LINK, queues=4, link_works=False), 4, (4, 0)),
        (replace(HOLDS_LINK, link_name="other"), 1, (1, 0)),
        (replace(HOLDS_LINK, link_type="tap"), 1, (1, 0)),
    ],
)
def test_queues_are_opened_where_the_plane_has_not_as_many(
    plane: Any, opened: list[tuple[int, int]], inventory: Inventory, queues: int, call: tuple[int, int] | None
) -> None:
    """[I6] Those of a link that went do not count as held."""
    planes.give_link(plane, inventory, replace(LINK, queues=queues))
    assert opened == ([] if call is None else [call])
    assert plane.links == ([] if call is None else [("vpn-site", 1420, 1420, queues)])


def test_another_mtu_needs_no_other_queue(plane: Any, opened: list[tuple[int, int]]) -> None:
    planes.give_link(plane, HOLDS_LINK, replace(LINK, mtu=1400), padding_mtu=1300)
    assert opened == []
    assert plane.links == [("vpn-site", 1400, 1300, 0)]


# -- sockets --


def test_sockets_are_left_alone_where_they_serve(plane: Any, tmp_path: Path) -> None:
    """[I6] As many as workers, on the right ports, with the right mark."""
    local = f'listen = ["127.0.0.1:{free_port()}"]'
    give(plane, tmp_path, local, 2)
    give(plane, tmp_path, local, 2)
    assert plane.workers == [2]
    give(plane, tmp_path, local + "\nfwmark = 7", 2)
    give(plane, tmp_path, local + "\nfwmark = 7", 1)
    assert plane.workers == [2, 2, 1]


def test_a_note_that_cannot_be_written_costs_a_warning_and_new_sockets_next_time(
    plane: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """[I12] Of the mark, which cannot be read back from the plane."""
    local = f'listen = ["127.0.0.1:{free_port()}"]'
    note = settings(tmp_path).runtime_dir / "fwmark"
    note.mkdir(parents=True)
    give(plane, tmp_path, local)
    give(plane, tmp_path, local)
    assert plane.workers == [1, 1]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert f"{note} cannot be written (Is a directory)" in caplog.text


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_an_ephemeral_port_stays_when_the_sockets_change(plane: Any, tmp_path: Path, workers: int) -> None:
    """[I6] Peers know us by it, and it is never free in between."""
    give(plane, tmp_path, "", 2)
    endpoints = set(plane.inventory.sockets)
    give(plane, tmp_path, "fwmark = 7", workers)
    assert set(plane.inventory.sockets) == endpoints
    assert len(plane.inventory.sockets) == workers * len(endpoints)
    assert plane.workers == [2, workers]


def test_without_a_port_in_the_files_a_named_one_is_given_up(plane: Any, tmp_path: Path) -> None:
    port = free_port()
    give(plane, tmp_path, f'listen = ["127.0.0.1:{port}"]')
    give(plane, tmp_path, "")
    assert {each.address for each in plane.inventory.sockets} <= {
        each.address for each in transports.EPHEMERAL
    }
    assert port not in {each.port for each in plane.inventory.sockets}


def test_sockets_that_share_no_port_go_before_the_new_ones_come(plane: Any, tmp_path: Path) -> None:
    """Such as those of a plane that an earlier version of vpnd gave them to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.bind(("127.0.0.1", 0))
        port = plain.getsockname()[1]
        plane.set_sockets([plain.fileno()])
    give(plane, tmp_path, f'listen = ["127.0.0.1:{port}"]', 2)
    assert [each.port for each in plane.inventory.sockets] == [port, port]


def test_a_port_that_another_has_is_refused(plane: Any, tmp_path: Path) -> None:
    """[I9]"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        with pytest.raises(HostError, match="another program has the port"):
            give(plane, tmp_path, f'listen = ["127.0.0.1:{other.getsockname()[1]}"]')
