"""A process that makes sessions and forgets them, for another that searches its memory.

Run as `python -m tests.protocol.wiped_secrets keep` it says "ready" when all secrets of its
handshakes should be gone, and waits for the end of its input. With `tell` it makes the very
same handshakes, and prints every secret that the other process had: one hexadecimal line each.
"""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Iterable, Iterator

from nacl._sodium import lib

from tests.fakes.host import OPTIONS, endpoint, peer_of_key
from vpnd.keys import Identity, PublicKey, Secret
from vpnd.protocol import boxes, local
from vpnd.protocol.actions import Action, InstallSession, SendDatagram
from vpnd.protocol.constants import GoodbyeReason, Slot
from vpnd.protocol.device import Device

LEFT_AT, RIGHT_AT = endpoint("192.0.2.1"), endpoint("192.0.2.2")


def static_key(seed: str) -> Secret:
    return Secret.copy_of(random.Random(seed).randbytes(32))


def device(seed: str, peer: PublicKey) -> Device:
    made = Device(
        Identity.from_private(static_key(seed)),
        knock=Secret.zero(),
        options=OPTIONS,
        wall_clock_ns=lambda: 1_800_000_000_000_000_000,
        random_bytes=random.Random(f"bytes of {seed}").randbytes,
    )
    at = RIGHT_AT if seed == "left" else LEFT_AT
    made.configure([peer_of_key(peer, at=at, psk=static_key("psk"))], 1000.0)
    return made


def datagrams(actions: Iterable[Action]) -> Iterator[bytes]:
    """What leaves for the network; keys are wiped as the driver wipes them after the plane has them."""
    for action in actions:
        if isinstance(action, SendDatagram):
            yield action.datagram
        elif isinstance(action, InstallSession):
            action.send_key.wipe()
            action.receive_key.wipe()


def shake_hands(left: Device, right: Device, right_key: PublicKey, left_key: PublicKey, now: float) -> None:
    for initiation in list(datagrams(left.reconnect(right_key, now))):
        for response in list(datagrams(right.receive(initiation, LEFT_AT, now))):
            list(datagrams(left.receive(response, RIGHT_AT, now)))


def run() -> tuple[Device, Device]:
    """Three handshakes, one that nobody answers, and the time it takes to forget it."""
    left_key = Identity.from_private(static_key("left")).public
    right_key = Identity.from_private(static_key("right")).public
    left, right = device("left", right_key), device("right", left_key)
    for number in range(3):
        shake_hands(left, right, right_key, left_key, 1000.0 + number)
        for one, key in ((left, right_key), (right, left_key)):
            index = one.snapshot(key).current_index
            if index is not None:
                one.session_placed(key, index, Slot.CURRENT, 1000.0 + number)
    list(datagrams(left.reconnect(right_key, 1010.0)))
    left.goodbye(GoodbyeReason.SHUTDOWN, 1011.0)
    for moment in (1011.1, 1012.0, 1030.0):
        left.tick(moment, {})
        right.tick(moment, {})
    gc.collect()
    return left, right


def tell() -> None:
    """Prints the ephemerals, shared secrets, states, field keys and transport keys while they live."""
    make_ephemeral, derive = boxes.make_ephemeral, boxes.Chain.derive
    derive_inside, absorb_shared = boxes.Chain._derive_inside, boxes.Chain.absorb_shared

    def telling_ephemeral(identity: Secret, random: bytes, monotonic_ns: int) -> Secret:
        ephemeral = make_ephemeral(identity, random, monotonic_ns)
        sys.stdout.write(f"ephemeral {ephemeral.expose().hex()}\n")
        return ephemeral

    def telling_derive(self: boxes.Chain, person: bytes, data: bytes = b"", size: int = 32) -> Secret:
        key = derive(self, person, data, size)
        sys.stdout.write(f"state {self._state.expose().hex()}\n")
        sys.stdout.write(f"derived {key.expose()[:32].hex()}\n")
        return key

    def telling_field_key(self: boxes.Chain, person: bytes) -> object:
        key = derive_inside(self, person)
        sys.stdout.write(f"state {self._state.expose().hex()}\n")
        sys.stdout.write(f"derived {self._key.expose().hex()}\n")
        return key

    def telling_shared(self: boxes.Chain, person: bytes, private: Secret, public: bytes) -> bool:
        shared = Secret(32)
        lib.crypto_box_beforenm(shared.pointer, public, private.pointer)
        sys.stdout.write(f"shared {shared.expose().hex()}\n")
        return absorb_shared(self, person, private, public)

    vars(local)["make_ephemeral"] = telling_ephemeral
    boxes.Chain.derive = telling_derive  # type: ignore[method-assign]
    boxes.Chain._derive_inside = telling_field_key  # type: ignore[method-assign]
    boxes.Chain.absorb_shared = telling_shared  # type: ignore[method-assign]
    run()


def keep() -> None:
    devices = run()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    assert devices


if __name__ == "__main__":
    if sys.argv[1] == "tell":
        tell()
    else:
        keep()
