"""The report of offloads: what runs, and why another does not."""

from __future__ import annotations

import asyncio
import errno
from types import SimpleNamespace
from typing import Any

from tests.daemon.test_planes import HOLDS_LINK, NOTHING
from vpnd.control.reports import OffloadReport, OffloadsReport
from vpnd.daemon import topics
from vpnd.plane.inventory import Offloads
from vpnd.plane.wire import Offload

TCP, UDP = 0x01 | 0x02 | 0x04 | 0x08, 0x20 | 0x40  # TUN_F_* of linux/if_tun.h


def report(
    offloads: Offloads | None, *, queues: int = 1, refusals: dict[str, int] | None = None
) -> OffloadsReport:
    """The topic of an instance whose plane says this; None: there is no plane.

    `refusals` are the errno by which the path to each peer refuses runs of datagrams.
    """
    plane: Any = None
    if offloads is not None:
        held = SimpleNamespace(offloads=offloads, queues=queues)
        plane = SimpleNamespace(hello=SimpleNamespace(aead="ipsec-mb"), inventory=lambda: held)
    peers = [SimpleNamespace(name=name, public_key=name) for name in refusals or {}]
    counted = SimpleNamespace(counters=lambda key: SimpleNamespace(gso_error=(refusals or {})[key]))
    driver = SimpleNamespace(plane=plane, peers=counted)
    instance: Any = SimpleNamespace(driver=driver, config=SimpleNamespace(peers=peers))
    found = asyncio.run(topics.report(instance, "offload"))
    assert isinstance(found, OffloadsReport)
    return found


def texts(offloads: Offloads) -> dict[str, tuple[bool, str]]:
    return {each.name: (each.is_active, each.text) for each in report(offloads).offloads}


def test_active_offloads_are_told_with_what_the_kernel_grants_the_link() -> None:
    assert texts(Offloads(Offload.ALL, Offload.ALL, TCP | UDP, {})) == {
        "udp-gso": (True, ""),
        "udp-gro": (True, ""),
        "tun-vnet": (True, "csum tso4 tso6 tso_ecn uso4 uso6"),
    }
    older = texts(Offloads(Offload.ALL, Offload.ALL, TCP, {}))
    assert older["tun-vnet"] == (True, "csum tso4 tso6 tso_ecn; not granted: uso4 uso6")


def test_what_was_switched_off_is_not_laid_on_the_kernel() -> None:
    found = texts(Offloads(Offload.UDP_GRO, Offload.UDP_GRO, 0, {}))
    off = (False, "switched off in local.offload")
    assert found == {"udp-gso": off, "udp-gro": (True, ""), "tun-vnet": off}


def test_a_refusal_of_the_kernel_is_told_in_its_words() -> None:
    """[D12]"""
    refusals = {Offload.UDP_GSO: errno.ENOPROTOOPT, Offload.TUN_VNET: errno.EINVAL}
    found = texts(Offloads(Offload.ALL, Offload.UDP_GRO, 0, refusals))
    assert found["udp-gso"] == (False, "refused by the kernel: Protocol not available")
    assert found["tun-vnet"] == (False, "refused by the kernel: Invalid argument")
    assert found["udp-gro"] == (True, "")


def test_before_there_is_a_link_or_a_socket_that_is_the_reason() -> None:
    assert texts(NOTHING.offloads) == {
        "udp-gso": (False, "no socket yet"),
        "udp-gro": (False, "no socket yet"),
        "tun-vnet": (False, "no link yet"),
    }
    assert report(NOTHING.offloads, queues=NOTHING.queues).workers is None


def test_workers_are_as_many_as_the_link_has_queues() -> None:
    found = report(HOLDS_LINK.offloads, queues=4)
    assert (found.aead, found.workers) == ("ipsec-mb", 4)


def test_while_the_plane_is_gone_nothing_runs() -> None:
    """[I1]"""
    found = report(None)
    assert (found.aead, found.workers) == (None, None)
    text = "the plane is gone and is being brought back"
    assert found.offloads == tuple(
        OffloadReport(name, is_active=False, text=text) for name in ("udp-gso", "udp-gro", "tun-vnet")
    )


def test_peers_whose_path_refuses_runs_are_named() -> None:
    """[D12]"""
    running = Offloads(Offload.ALL, Offload.ALL, TCP, {})
    found = report(running, refusals={"berlin": errno.EIO, "lyon": 0, "oslo": errno.EIO}).offloads[0]
    assert found.is_active
    assert found.text == "refused on the way to berlin, oslo (Input/output error); tried again after 30 s"
    many = report(running, refusals={f"p{number}": errno.EINVAL for number in range(7)}).offloads[0]
    assert many.text.startswith("refused on the way to p0, p1, p2, p3, p4 and 2 more (Invalid argument)")
