"""The leases in force, with the file that remembers them.

Owns the moment at which what the rules give becomes so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from vpnd.config import Config, IPInterface
from vpnd.daemon.journal import Event, about
from vpnd.daemon.leases import Lease, Settled, settle
from vpnd.daemon.state import StateDirectory
from vpnd.keys import PublicKey

_log = logging.getLogger(__name__)


class LeaseBook:
    """The leases in force, and the file that remembers them."""

    def __init__(self, state: StateDirectory, wall_clock_ns: Callable[[], int]) -> None:
        self._state = state
        self._wall_clock_ns = wall_clock_ns
        self.settled: Settled | None = None
        self._leases: Mapping[PublicKey, Lease] = state.load_leases()

    @property
    def leases(self) -> Mapping[PublicKey, Lease]:
        return self._leases

    @property
    def given(self) -> Mapping[PublicKey, tuple[IPInterface, ...]]:
        """What each peer of the pool has, for it to be told."""
        return {} if self.settled is None else self.settled.given

    @property
    def asked(self) -> Config:
        """The configuration in force as it came, before addresses were given."""
        assert self.settled is not None
        return self.settled.asked

    def settle(self, config: Config) -> Settled:
        """Tells what a configuration as it was read comes to. Changes nothing."""
        return settle(config, self._leases, datetime.fromtimestamp(self._wall_clock_ns() / 1e9, UTC))

    def take(self, settled: Settled) -> Config:
        """Makes it so, on the disk before anybody is told; a disk that refuses is no reason to stop."""
        self._state.store_leases(settled.leases)
        for name, address in settled.reclaimed:
            what = "the pool is used up: %s, which %s had, goes to another peer"
            _log.info(what, address, name, extra=about(Event.LEASE_RECLAIMED))
        self.settled, self._leases = settled, settled.leases
        return settled.config
