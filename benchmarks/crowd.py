"""Peers that a hub's file names: keys that are the same in every run, one address each.

The keys are those of tests/lab/crowd.py, so that its callers are these peers.
"""

from __future__ import annotations

import functools

from tests.lab.crowd import identity_of

_FIRST = 10 << 24 | 64 << 16  # 10.64.0.0


def inner_address(number: int) -> str:
    """The address in the tunnel of one peer of the crowd."""
    value = _FIRST + number
    return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))


@functools.cache
def peers_text(count: int) -> str:
    """The sections of `count` peers, as a configuration has them."""
    return "".join(
        f'[peer.p{number}]\npublic_key = "{identity_of(number).public}"\n'
        f'networks = ["{inner_address(number)}/32"]\n'
        for number in range(count)
    )
