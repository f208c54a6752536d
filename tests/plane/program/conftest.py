"""What every test of the program gets: a private namespace, and a plane with a link and a peer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plane.harness import Rig, plane_program, running_rig, short_lived_program
from tests.plane.namespace import Namespace
from tests.plane.service_manager import ServiceManager
from tests.plane.tunnel import Tunnel


@pytest.fixture(scope="session")
def namespace() -> Iterator[Namespace]:
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a network namespace and TUN links")
    namespace = Namespace()
    yield namespace
    namespace.close()


@pytest.fixture
def rig(namespace: Namespace) -> Iterator[Rig]:
    """A plane that was told nothing yet."""
    with running_rig(namespace, plane_program()) as rig:
        yield rig


@pytest.fixture
def tun(rig: Rig) -> Rig:
    """A plane with a TUN link and one IPv4 socket."""
    rig.add_link("tun")
    rig.add_sockets("127.0.0.1")
    return rig


@pytest.fixture
def tap(rig: Rig) -> Rig:
    """A plane with a TAP link and one IPv4 socket."""
    rig.add_link("tap")
    rig.add_sockets("127.0.0.1")
    return rig


@pytest.fixture
def short(namespace: Namespace) -> Iterator[Rig]:
    """A plane whose limits were lowered, with a TUN link and one IPv4 socket."""
    with running_rig(namespace, short_lived_program()) as rig:
        rig.add_link("tun")
        rig.add_sockets("127.0.0.1")
        yield rig


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceManager]:
    """A plane as systemd runs it, that was told nothing yet."""
    service = ServiceManager(tmp_path)
    service.start()
    yield service
    service.close()


@pytest.fixture
def tunnel(namespace: Namespace, service: ServiceManager) -> Iterator[Tunnel]:
    with contextlib.ExitStack() as stack:
        yield Tunnel(namespace, service, stack)
