"""Lets invited peers join a running instance, and ends invitations when their time is over.

Owns the order: written down first, then answered, then in force, addresses of the pool included. What is
decided, enrolments decides.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from vpnd.daemon import wanted
from vpnd.daemon.chatter import Chatter
from vpnd.daemon.clock import boottime
from vpnd.daemon.enrolments import next_end
from vpnd.daemon.journal import Event, about
from vpnd.errors import HostError, PlaneError
from vpnd.keys import PublicKey
from vpnd.protocol.constants import EnrolAnswer

if TYPE_CHECKING:
    from vpnd.config import Config
    from vpnd.daemon.instance import Instance
    from vpnd.daemon.leases import Settled

_log = logging.getLogger(__name__)


class Joining:
    """Watches over the invitations of one instance."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._chatter = Chatter("peers that may not join")
        self._seen: Config | None = None
        self._ends_at = 0.0

    def wanted(self, once: PublicKey, own: PublicKey) -> None:
        """A peer that came with the key `once` says that its own is another."""
        # Beside this turn of the loop: nothing else may be changing what is in force.
        self._instance.spawn(self._enrol(once, own))

    def is_due(self) -> bool:
        """Tells whether an invitation is over that is still in force."""
        instance = self._instance
        if self._seen is not instance.config:
            self._seen, self._ends_at = instance.config, next_end(instance.config)
        return instance.wall_s() >= self._ends_at

    async def end_invitations(self) -> None:
        instance = self._instance
        async with instance.changing:
            before = {peer.name for peer in instance.config.peers if peer.enabled}
            await self._follow(await self._settle())
            for peer in instance.config.peers:
                if peer.name in before and not peer.enabled:
                    what = "the invitation has expired; nobody came with its token"
                    _log.info(what, extra=about(Event.INVITATION_OVER, peer.name))

    async def _enrol(self, once: PublicKey, own: PublicKey) -> None:
        instance = self._instance
        async with instance.changing:
            peer = next((each for each in instance.config.peers if each.public_key == once), None)
            if peer is None:
                return  # gone meanwhile, or joined by a copy of this message
            secrets = instance.secrets
            others = {
                key for each in instance.config.peers for key in (each.public_key, each.previous_public_key)
            }
            others |= {identity.public for identity in (secrets.identity, secrets.previous) if identity}
            answer = instance.enrolments.enrol(peer, own, others)
            settled = await self._settle() if answer is EnrolAnswer.DONE else None
            # Under the session that the key's end takes with it.
            instance.driver.act(instance.driver.device.answer_enrolment(once, answer))
            if settled is not None:
                await self._follow(settled)
                _log.info("joined; its own key is %s", own, extra=about(Event.INVITED_CAME, peer.name))
            elif self._chatter.may_say(boottime()):
                what = "may not join with the key %s: %s"
                why = answer.name.lower().replace("_", " ")
                _log.warning(what, own, why, extra=about(Event.JOIN_REFUSED, peer.name))

    async def _settle(self) -> Settled:
        """Has addresses that were given to a token's key follow the peer to its own; changes nothing yet."""
        instance = self._instance
        config = instance.in_force(instance.leases.asked)
        # Away from the loop: thousands of peers take a while, and packets and callers go on.
        return await asyncio.to_thread(instance.leases.settle, config)

    async def _follow(self, settled: Settled) -> None:
        instance = self._instance
        before = instance.plan(instance.config, instance.secrets)
        instance.config = instance.leases.take(settled)
        instance.configure_device()
        self._wire()
        if instance.plan(instance.config, instance.secrets) != before:
            try:
                await instance.shape_as_configured()
            except HostError as error:
                _log.warning("%s", error, extra=about(Event.MACHINE_ODD))

    def _wire(self) -> None:
        driver = self._instance.driver
        if driver.plane is None:
            return  # the next one is told of all peers
        try:
            driver.peers.wire(wanted.wirings(self._instance.config))
        except PlaneError as error:
            if error.code != "gone":  # which is an event of its own
                _log.warning("the plane took no peer: %s", error, extra=about(Event.PLANE_ODD))
        driver.start()
