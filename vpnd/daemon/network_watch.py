"""Follows what the kernel tells of links, addresses, routes and our table, while the instance runs.

Owns what of it is news, and what is looked at again then. A link or table that is gone is the instance's to
bring back.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

from vpnd.daemon.clock import boottime
from vpnd.daemon.journal import Event, about
from vpnd.daemon.sources import Sources, ask_again
from vpnd.daemon.table_watch import TableWatch
from vpnd.errors import HostError
from vpnd.host.monitor import AddressesChanged, LinkGone, Monitor

if TYPE_CHECKING:
    from vpnd.daemon.instance import Instance

_log = logging.getLogger(__name__)

SETTLES_S = 0.2  # changes of addresses and routes come in bursts


def _has_link(name: str) -> bool:
    try:
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False


class NetworkWatch:
    """`sources` are our own addresses towards peers, by which it is seen that one has to change."""

    def __init__(self, instance: Instance) -> None:
        self.sources = Sources()
        self._instance = instance
        self._monitor: Monitor | None = None
        self._table = TableWatch(instance.settings.instance, instance.spawn, self._look_at_table)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._monitor = Monitor()
        asyncio.get_running_loop().add_reader(self._monitor.fileno(), self._read)
        self._table.start()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor.close()
        self._table.close()

    def _read(self) -> None:
        assert self._monitor is not None
        link = self._instance.config.interface.name
        for event in self._monitor.read():
            match event:
                case LinkGone(name):
                    # Where the name stands again already, it was brought back on the plane's word.
                    if name == link and not _has_link(name):
                        self._instance.link_deleted()
                    continue
                case AddressesChanged(links):
                    if links == {link}:
                        continue  # our own doing
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(SETTLES_S, self._settled)

    def _settled(self) -> None:
        self._timer = None
        self._instance.spawn(self._follow())

    async def _follow(self) -> None:
        instance = self._instance
        self.sources.keep({peer.public_key for peer in instance.config.peers})
        seen = await asyncio.to_thread(ask_again, self.sources.known)
        for key in self.sources.compare(seen):
            instance.driver.choose_source(key)
        instance.driver.act(instance.driver.device.network_changed(boottime()))
        instance.resolver.network_changed()
        await instance.fit_padding()
        routing, bridge = instance.config.routing, instance.config.interface.bridge
        if (routing.forward or routing.full_tunnel or bridge is not None) and not instance.failures:
            try:
                await instance.shape_as_configured()
            except HostError as error:
                _log.warning("%s", error, extra=about(Event.MACHINE_ODD))

    async def _look_at_table(self) -> None:
        """Has the table put back where somebody else has changed it; a change of our own ends here."""
        instance = self._instance
        async with instance.shaping:
            self._table.looking()
            try:
                changes = await asyncio.to_thread(instance.host.difference, instance.plan_in_force())
            except HostError as error:
                _log.warning("%s", error, extra=about(Event.MACHINE_ODD))
                return
        if any(change.step == "nftables" for change in changes):
            what = f"somebody changed the nftables table vpnd-{instance.settings.instance}"
            instance.healing.heal("table", what, instance.shape_as_configured)
