"""What a configuration comes to on a machine: threads, queues, offloads and what is offered to peers."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from vpnd.config import Config, DnsConfig, load
from vpnd.daemon import wanted
from vpnd.host.plan import DnsPlan
from vpnd.keys import PublicKey
from vpnd.plane.wire import Offload
from vpnd.protocol.constants import Feature

KEY = PublicKey(bytes(range(32)))


def config(folder: Path, local: str) -> Config:
    file = folder / "site.toml"
    file.write_text(f"[local]\n{local}\n")
    return load("site", file)


@pytest.mark.parametrize(
    ("cpus", "workers"), [(1, 1), (2, 1), (3, 1), (4, 2), (7, 3), (16, 8), (17, 8), (256, 8)]
)
def test_workers_left_to_vpnd_are_half_of_the_processors(tmp_path: Path, cpus: int, workers: int) -> None:
    found = config(tmp_path, 'workers = "auto"')
    assert wanted.workers(found.local, cpus) == workers
    assert wanted.host_plan(found, KEY, cpus).link.queues == workers


@pytest.mark.parametrize("cpus", [1, 64])
def test_workers_that_were_written_are_taken_at_the_word(tmp_path: Path, cpus: int) -> None:
    found = config(tmp_path, "workers = 3")
    assert wanted.host_plan(found, KEY, cpus).link.queues == 3


@pytest.mark.parametrize(
    ("parts", "plan"),
    [
        ([], None),
        ([((), ())], None),
        ([(("10.8.0.1",), ())], DnsPlan((ip_address("10.8.0.1"),), (), is_default=True)),
        ([(("10.8.0.1",), ("~a.b",))], DnsPlan((ip_address("10.8.0.1"),), ("~a.b",), is_default=False)),
        ([(("10.8.0.1",), ("~.",))], DnsPlan((ip_address("10.8.0.1"),), ("~.",), is_default=True)),
        (
            [(("10.8.0.1",), ("a.b",)), (("10.8.0.1", "10.8.0.2"), ("a.b",)), ((), ("c.d",))],
            DnsPlan((ip_address("10.8.0.1"), ip_address("10.8.0.2")), ("a.b",), is_default=False),
        ),
    ],
)
def test_name_servers_without_domains_are_for_every_name(parts: Any, plan: DnsPlan | None) -> None:
    """What is configured and what is pushed come together."""
    dns = [DnsConfig(tuple(map(ip_address, servers)), domains) for servers, domains in parts]
    assert wanted.dns_plan(*dns) == plan


def test_workers_left_to_vpnd_never_need_more_sockets_than_a_plane_serves(tmp_path: Path) -> None:
    listen = ", ".join(f'"10.0.0.{number}:1"' for number in range(1, 9))
    found = config(tmp_path, f"listen = [{listen}]")
    assert wanted.workers(found.local, 1000) * len(found.local.listen) <= 64


@pytest.mark.parametrize(
    ("written", "offloads"),
    [
        ('"auto"', Offload.ALL),
        ('"off"', Offload(0)),
        ("[]", Offload(0)),
        ('["udp-gro"]', Offload.UDP_GRO),
        ('["udp-gro", "udp-gso", "tun-vnet"]', Offload.ALL),
    ],
)
def test_partial_checksums_are_offered_where_the_link_may_take_them(
    tmp_path: Path, written: str, offloads: Offload
) -> None:
    """[D10]"""
    found = config(tmp_path, f"offload = {written}")
    assert wanted.offloads(found) == offloads
    features = wanted.device_options(found, has_aes=True).features
    assert bool(features & Feature.CSUM) is bool(offloads & Offload.TUN_VNET)
    assert features | Feature.CSUM == Feature.PATH | Feature.PARAMS | Feature.PMTU | Feature.CSUM
