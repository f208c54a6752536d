"""Brings what peers push into force, and takes it away again when it is pushed no more.

Owns the road from a telling of the protocol to link, addresses and routes. What is acceptable is judged
in `pushes`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vpnd.config import PeerConfig
from vpnd.daemon import wanted
from vpnd.daemon.clock import boottime
from vpnd.daemon.journal import Event, about
from vpnd.daemon.pushes import NOTHING, Pushes
from vpnd.endpoint import Endpoint
from vpnd.errors import HostError, PlaneError
from vpnd.host.plan import Interface
from vpnd.keys import PublicKey
from vpnd.protocol.parameters import Parameters

if TYPE_CHECKING:
    from vpnd.daemon.instance import Instance

_log = logging.getLogger(__name__)


class Following:
    """What one instance has by the grace of its peers."""

    def __init__(self, instance: Instance) -> None:
        self.pushes = Pushes(instance.state.told.load(), self._endpoints)
        self.link_addresses: tuple[Interface, ...] = ()  # of the link, as it was brought last
        self.link_mtu = instance.config.interface.mtu
        self._brought = NOTHING  # of what peers push
        self._instance = instance

    @property
    def awaits_addresses(self) -> bool:
        """Tells whether the link's addresses are a peer's to give, and none has come yet."""
        return self._instance.config.interface.is_assigned and not self.link_addresses

    def ask(self) -> None:
        """Has peers tell what they push where sessions of an earlier life go on and no note of it is left."""
        driver = self._instance.driver
        for peer in self._instance.config.peers:
            is_unknown = peer.enabled and peer.accept and self.pushes.of(peer) is None
            if is_unknown and driver.device.snapshot(peer.public_key).current_index is not None:
                driver.act(driver.device.reconnect(peer.public_key, boottime()))

    def told(self, key: PublicKey, parameters: Parameters) -> None:
        """Takes what a peer tells. What is refused of it is counted each time, and logged when it is news."""
        instance = self._instance
        peer = next((each for each in instance.config.peers if each.public_key == key), None)
        if peer is None:
            return
        is_news = self.pushes.take(peer, parameters)
        refusals = self.pushes.refusals(instance.config, peer)
        if refusals:
            instance.driver.device.note_refused_pushes(key, len(refusals))
        if not is_news:
            return
        self.pushes.keep(instance.config)
        instance.state.told.store(self.pushes.told)
        for refusal in refusals:
            _log.warning("refused: %s", refusal, extra=about(Event.PUSH_REFUSED, peer.name))
        instance.spawn(self._take(peer))

    def _endpoints(self) -> Mapping[PublicKey, Endpoint]:
        return self._instance.driver.device.endpoints()

    def follow_endpoints(self) -> None:
        """Looks at what is pushed again: nothing may lead to an endpoint, and peers move."""
        config = self._instance.config
        accepted = self.pushes.accepted(config)
        if accepted == self._brought:
            return
        gone = {f"route {each}" for each in set(self._brought.routes) - set(accepted.routes)}
        for peer in config.peers:
            for refusal in self.pushes.refusals(config, peer):
                if refusal.is_fault and refusal.what in gone:
                    _log.warning("refused: %s", refusal, extra=about(Event.PUSH_REFUSED, peer.name))
        self._instance.spawn(self._bring_or_heal())

    async def _bring_or_heal(self) -> None:
        try:
            await self.bring()
        except (HostError, PlaneError) as error:
            self.fail(error)

    async def _take(self, peer: PeerConfig) -> None:
        before = (self.link_addresses, self.link_mtu)
        await self._bring_or_heal()
        if (self.link_addresses, self.link_mtu) != before:
            addresses = ", ".join(map(str, self.link_addresses)) or "none"
            what = "it decides about the link: addresses %s, mtu %d"
            _log.info(what, addresses, self.link_mtu, extra=about(Event.PUSH_TAKEN, peer.name))

    def fail(self, error: Exception) -> None:
        """Has it tried again until the machine takes it."""
        self._instance.healing.heal("push", f"what peers push is not in force ({error})", self.bring)

    async def bring(self) -> None:
        """Brings link and machine to what peers push now. Raises HostError, PlaneError."""
        instance = self._instance
        self._brought = self.pushes.accepted(instance.config)
        if instance.driver.plane is None:
            return  # its revival brings all of it
        await instance.shape_as_configured()
        plane = instance.driver.plane
        if plane is not None:
            await instance.give_link(
                plane, plane.inventory(), instance.plan(instance.config, instance.secrets)
            )
            await instance.fit_padding()
        instance.wake()

    async def shape_without(self) -> None:
        """Brings the machine to what the configuration alone wants of it. Raises HostError."""
        instance = self._instance
        plan = wanted.host_plan(instance.config, instance.secrets.identity.public, instance.usable_cpus)
        async with instance.shaping:
            await instance.shape_host(plan)
