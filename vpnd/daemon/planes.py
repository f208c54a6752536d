"""How an instance gets its plane: the one that listens for it, else a child of its own.

Owns the choice and what is handed over at the start of every connection: options, link and sockets.
Knows nothing of peers and sessions; the driver takes the connected plane from here.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from vpnd.config import Config
from vpnd.daemon import transports, wanted
from vpnd.daemon.journal import Event, about
from vpnd.daemon.settings import Settings
from vpnd.endpoint import Endpoint
from vpnd.errors import HostError, PlaneError
from vpnd.host.plan import LinkPlan
from vpnd.host.tun import open_link
from vpnd.plane.client import PlaneClient
from vpnd.plane.inventory import Inventory
from vpnd.plane.program import find_program

_log = logging.getLogger(__name__)

MAC_LIMIT = 1024  # addresses learned behind one peer of a TAP link
MAC_AGE_S = 300


def connect(settings: Settings) -> PlaneClient:
    """Connects to the plane at the instance's socket; where none listens, starts one as a child.

    One that went away while it was greeted has somebody who starts it again: a second one beside it
    would take its ports. Raises PlaneError.
    """
    if settings.plane_socket.exists():
        try:
            return PlaneClient.connect(settings.plane_socket)
        except PlaneError as error:
            if error.code != "no_plane":
                raise
            _log.warning("%s; starting a plane of our own", error.text, extra=about(Event.PLANE_ABSENT))
    return PlaneClient.spawn(find_program())


def forget(settings: Settings) -> bool:
    """Has the plane that listens for the instance wipe its sessions and end; tells whether there was one.

    Raises PlaneError.
    """
    try:
        plane = PlaneClient.connect(settings.plane_socket)
    except PlaneError as error:
        if error.code != "no_plane":
            raise
        return False
    try:
        plane.stop()
    finally:
        plane.close()
    return True


def give_options(plane: PlaneClient, inventory: Inventory, config: Config) -> None:
    """Says which offloads may run, unless the plane knows. Raises PlaneError."""
    offloads = wanted.offloads(config)
    if inventory.offloads.wanted != offloads:
        plane.set_options(MAC_LIMIT, MAC_AGE_S, offloads)


def holds_link(inventory: Inventory, link: LinkPlan) -> bool:
    """Tells whether the plane has this link and it works."""
    return (inventory.link_type, inventory.link_name) == (link.type, link.name) and inventory.link_works


def give_link(
    plane: PlaneClient, inventory: Inventory, link: LinkPlan, *, padding_mtu: int | None = None
) -> None:
    """Hands the link over unless the plane has it already and it works. Raises HostError, PlaneError.

    Padding makes no packet larger than `padding_mtu` where that is smaller than the link's MTU.
    """
    padding_mtu = min(link.mtu, padding_mtu or link.mtu)
    held = inventory.queues if holds_link(inventory, link) else 0
    has_it = held == link.queues
    if has_it and (inventory.mtu, inventory.padding_mtu) == (link.mtu, padding_mtu):
        return
    queues = () if has_it else open_link(link, held=held)
    try:
        plane.set_link(link.type, link.name, link.mtu, queues, padding_mtu=padding_mtu)
    finally:
        for queue in queues:
            os.close(queue)


def give_sockets(
    plane: PlaneClient, inventory: Inventory, config: Config, settings: Settings, workers: int
) -> None:
    """Hands UDP sockets over, `workers` for each endpoint, unless the plane has what is asked for.

    Raises HostError or PlaneError.
    The mark of sockets cannot be read back from the plane, so a note of it lies beside the socket.
    """
    note = settings.runtime_dir / "fwmark"
    marked = _read_note(note)
    listen, fwmark = config.local.listen, config.local.fwmark
    if transports.serves(inventory.sockets, listen, workers) and marked == fwmark:
        return
    sockets = _open_beside(plane, inventory.sockets, listen, fwmark, workers)
    try:
        plane.set_sockets([each.fileno() for each in sockets], workers=workers)
    finally:
        transports.close_sockets(sockets)
    try:
        note.write_text(f"{fwmark}\n", encoding="ascii")
    except OSError as error:
        what = "%s cannot be written (%s); the next start opens the UDP sockets anew"
        _log.warning(what, note, error.strerror, extra=about(Event.STATE_UNWRITABLE))


def _open_beside(
    plane: PlaneClient, bound: Sequence[Endpoint], listen: Sequence[Endpoint], fwmark: int, workers: int
) -> list[socket.socket]:
    """Opens new sockets beside those that the plane has, so that what comes meanwhile is not missed."""
    if not listen and transports.is_anywhere(bound):
        listen = tuple(dict.fromkeys(bound))  # peers know us by these ports
    try:
        return transports.open_sockets(listen, fwmark, workers, held=bound)
    except HostError:
        if not bound:
            raise
    plane.set_sockets(())  # frees ports that the plane's sockets do not share
    return transports.open_sockets(listen, fwmark, workers)


def _read_note(note: Path) -> int | None:
    try:
        return int(note.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
