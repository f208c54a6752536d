"""`vpnctl pcap`: memory that the plane fills with copies of packets and vpnctl reads.

Owns the memory's making and the end of a capture. No packet comes through this process, and whoever
reads cannot write: once the plane has its mapping, no other one for writing can be made.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from vpnd.config import PeerConfig
from vpnd.control import Pcap
from vpnd.control.capture import CAPTURE_LAYOUT, CaptureReport
from vpnd.daemon.instance import Instance
from vpnd.errors import ControlError, PlaneError
from vpnd.plane import wire
from vpnd.plane.client import PlaneClient
from vpnd.plane.wire import CaptureKind

_F_SEAL_FUTURE_WRITE = 0x10  # linux/fcntl.h, Linux 5.1; not in Python's fcntl before 3.13
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class PassesDescriptor:
    """A reply that a descriptor goes with, which stays its maker's to close."""

    report: object
    descriptor: int


class Captures:
    """Runs one capture at a time."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._runs = False

    async def run(self, request: Pcap, peer: PeerConfig | None) -> AsyncGenerator[object, None]:
        """Gives the memory with its CaptureReport, then nothing for as long as the plane lasts.

        Raises ControlError, also when the plane goes away.
        """
        plane = self._instance.driver.plane
        if plane is None:
            raise ControlError("refused", "the plane is gone and is being brought back")
        if self._runs:
            raise ControlError("refused", "a capture runs already; end that one first")
        self._runs = True
        try:
            with _memory() as ring:
                self._start(plane, ring, request, peer)
                try:
                    yield PassesDescriptor(self._report(), ring)
                    await self._end_of(plane)
                finally:
                    self._stop(plane)
        finally:
            self._runs = False
        raise ControlError("refused", "the plane ended, and the capture with it")

    def _start(self, plane: PlaneClient, ring: int, request: Pcap, peer: PeerConfig | None) -> None:
        kinds = CaptureKind(0)
        for kind, is_wanted in (
            (CaptureKind.INNER, request.inner),
            (CaptureKind.OUTER, request.outer),
            (CaptureKind.DROPS, request.drops),
        ):
            kinds |= kind if is_wanted else CaptureKind(0)
        number = None if peer is None else self._instance.driver.peers.number_of(peer.public_key)
        if peer is not None and number is None:
            raise ControlError("refused", f"the plane does not have {peer.name} yet")
        try:
            plane.start_capture(ring, kinds, number)
        except PlaneError as error:
            raise ControlError("refused", f"the plane cannot capture: {error}") from error
        fcntl.fcntl(ring, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL)

    async def _end_of(self, plane: PlaneClient) -> None:
        while self._instance.driver.plane is plane:  # noqa: ASYNC110 - nobody tells when it is gone
            await asyncio.sleep(_LOOK_S)

    def _stop(self, plane: PlaneClient) -> None:
        if self._instance.driver.plane is plane:
            with contextlib.suppress(PlaneError):
                plane.stop_capture()

    def _report(self) -> CaptureReport:
        interface = self._instance.config.interface
        names = self._instance.driver.peers.numbered_names()
        return CaptureReport(
            layout=CAPTURE_LAYOUT,
            slots=wire.CAPTURE_SLOTS,
            slot_size=wire.CAPTURE_SLOT.size,
            link=interface.name,
            link_type=interface.type,
            peers={str(number): name for number, name in names.items()},
            reasons=tuple(f"{name}: {text}" for name, text in wire.DROP_REASONS),
        )


@contextlib.contextmanager
def _memory() -> Iterator[int]:
    ring = os.memfd_create("vpnd-capture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(ring, wire.CAPTURE_SIZE)
        fcntl.fcntl(ring, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        yield ring
    finally:
        os.close(ring)
