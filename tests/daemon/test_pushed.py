"""A daemon that starts again calls the peers that know something else than what is pushed now."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from tests.fakes.host import Host, Network, connect, joined, lose_controls, peer_of
from vpnd.daemon.pushed import Pushed
from vpnd.daemon.state import StateDirectory
from vpnd.keys import PublicKey
from vpnd.protocol.actions import ParametersReceived
from vpnd.protocol.constants import Control, PacketType
from vpnd.protocol.parameters import encode_push

if TYPE_CHECKING:
    from vpnd.daemon.instance import Instance

Hub = tuple[Network, Host, Host]  # left is the client
ONE, OTHER = ip_network("10.20.0.0/16"), ip_network("10.21.0.0/16")


@pytest.fixture
def hub() -> Hub:
    """One that has told its client of a route."""
    network, left, right = joined(both_know=False)
    right.configure(peer_of(left, push=encode_push([], [ONE], [])))
    connect(network, left, right)
    network.run(1.0)
    return network, left, right


def pushed_of(host: Host, client: Host, folder: Path) -> Pushed:
    instance = SimpleNamespace(
        state=StateDirectory(folder),
        config=SimpleNamespace(peers=[SimpleNamespace(public_key=client.key)]),
        driver=SimpleNamespace(device=host.device, act=host.perform),
    )
    return Pushed(cast("Instance", instance))


def restart(host: Host, client: Host, folder: Path, push: bytes) -> None:
    """The daemon starts again, above the same plane and with this to push."""
    host.kill()
    host.peers = [peer_of(client, push=push)]
    host.boot()
    asyncio.run(pushed_of(host, client, folder).tell())


def told(client: Host) -> object:
    """The routes that the client was told last."""
    found = [each for each in client.actions if isinstance(each, ParametersReceived)]
    return found[-1].parameters.routes


@pytest.mark.parametrize("routes", [[OTHER], []], ids=["another", "none"])
def test_a_push_that_changed_meanwhile_is_told(hub: Hub, tmp_path: Path, routes: list[object]) -> None:
    """[I1] Also that there is none any more."""
    network, left, right = hub
    pushed_of(right, left, tmp_path).store()
    restart(right, left, tmp_path, encode_push([], routes, []))  # type: ignore[arg-type]
    network.run(1.0)
    assert told(left) == tuple(routes)
    pushed_of(right, left, tmp_path).store()
    assert (left.key in StateDirectory(tmp_path).pushed.load()) == bool(routes)


def test_what_was_never_acknowledged_may_be_known_all_the_same(hub: Hub, tmp_path: Path) -> None:
    """[I6] Taken back by a restart, it is taken back from the peer too."""
    network, left, right = hub
    pushed = pushed_of(right, left, tmp_path)
    pushed.store()
    lose_controls(left, Control.PARAMS_ACK, 6)
    right.configure(peer_of(left, push=encode_push([], [OTHER], [])))
    network.run(20.0)
    assert told(left) == (OTHER,)
    pushed.store()
    restart(right, left, tmp_path, encode_push([], [ONE], []))
    network.run(1.0)
    assert told(left) == (ONE,)


def test_nothing_is_said_where_nothing_changed(hub: Hub, tmp_path: Path) -> None:
    """[I1] The same peers at a second start: what was adopted twice is remembered too."""
    network, left, right = hub
    pushed_of(right, left, tmp_path).store()
    since = network.clock.now
    for _ in range(2):
        restart(right, left, tmp_path, encode_push([], [ONE], []))
        pushed_of(right, left, tmp_path).store()
        network.run(1.0)
    assert network.wire.of_kind(PacketType.HS_INIT, since) == []


def test_without_a_note_of_it_all_that_is_pushed_is_told(hub: Hub, tmp_path: Path) -> None:
    """[I3] A lost file costs a handshake."""
    network, left, right = hub
    restart(right, left, tmp_path, encode_push([], [OTHER], []))
    network.run(1.0)
    assert told(left) == (OTHER,)


def test_a_peer_that_leaves_is_forgotten_and_not_called(hub: Hub, tmp_path: Path) -> None:
    network, left, right = hub
    gone = PublicKey(bytes([9]) * 32)
    state = StateDirectory(tmp_path)
    state.pushed.store({gone: "1", left.key: "2"})
    pushed_of(right, left, tmp_path).store()
    assert set(StateDirectory(tmp_path).pushed.load()) == {left.key}
    right.kill()
    right.boot()
    pushed = pushed_of(right, left, tmp_path / "empty")
    telling = pushed.tell()
    right.device.configure([], network.clock.now)
    asyncio.run(telling)


def test_a_spoilt_note_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """[I3]"""
    state = StateDirectory(tmp_path / "site")
    state.pushed.store({})
    assert not (tmp_path / "site").exists()
    state.pushed.store({PublicKey(bytes([9]) * 32): "1"})
    for spoilt in ("", "[]", "{", '{"x": "1"}'):
        (tmp_path / "site" / "pushed.json").write_text(spoilt)
        caplog.clear()
        assert StateDirectory(tmp_path / "site").pushed.load() == {}
        assert "started anew" in caplog.text
