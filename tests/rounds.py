"""Rounds of what a busy machine may disturb: its disturbance comes now and then, a fault of ours mostly."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_Round = TypeVar("_Round")
MOST = 5  # rounds


def mostly(take: Callable[[], _Round], is_good: Callable[[_Round], bool], *, least: int = 1) -> list[_Round]:
    """Takes `least` rounds, and more until the good ones outnumber the others; fails beyond MOST."""
    rounds = [take() for _ in range(least)]
    while 2 * sum(map(is_good, rounds)) <= len(rounds):
        assert len(rounds) < MOST, f"mostly otherwise: {rounds}"
        rounds.append(take())
    return rounds
