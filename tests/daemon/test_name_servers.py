"""The name servers of a running instance's link: who tells systemd-resolved, and when."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.daemon.test_reload import Site
from vpnd.config import load, read_secrets
from vpnd.daemon.instance import Instance
from vpnd.daemon.service import Service
from vpnd.daemon.settings import Settings
from vpnd.errors import HostError
from vpnd.host.host import Host
from vpnd.host.plan import Change, DnsPlan
from vpnd.protocol.constants import TIMERS

DNS = '[dns]\nservers = ["10.255.0.2"]\n'
WANTED = DnsPlan((ip_address("10.255.0.2"),), (), is_default=True)


class FakeResolved:
    """In place of LinkDns: refuses so many times, and remembers what it was told."""

    def __init__(self, refusals: int) -> None:
        self.told: list[DnsPlan | None] = []
        self._refusals = refusals

    def apply(self, link: str, plan: DnsPlan | None) -> tuple[Change, ...]:
        del link
        self.told.append(plan)
        if len(self.told) <= self._refusals:
            raise HostError("name servers", "not now")
        return ()


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    """One that was never started: nothing but its part with the machine is used."""
    site = Site(tmp_path)
    site.write(peers=DNS)
    settings = Settings("site", tmp_path / "site.toml", tmp_path / "run", tmp_path / "lib", "info")
    config = load("site", settings.config_file)
    secrets = read_secrets(config, None)
    service = cast("Service", SimpleNamespace())
    made = Instance(settings, config, secrets, service, timers=TIMERS, wall_clock_ns=lambda: 10**18)
    monkeypatch.setattr(Host, "apply", lambda self, plan: ())
    return made


def test_a_new_try_waits_for_whoever_brings_the_machine_to_a_plan(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[E11] Beside each other, one could undo what the other has just told."""
    resolved = FakeResolved(refusals=1)
    monkeypatch.setattr(instance, "_dns", resolved)

    async def scene() -> None:
        async with instance.shaping:
            await instance.shape_host(instance.plan_in_force())
            assert instance.failures == {"dns": "name servers: not now"}
            await asyncio.sleep(0.3)  # the first new try is due at once
            assert resolved.told == [WANTED]
        while instance.failures:  # noqa: ASYNC110 - nobody tells when it is mended
            await asyncio.sleep(0.01)
        assert resolved.told == [WANTED, WANTED]

    asyncio.run(asyncio.wait_for(scene(), 20))
