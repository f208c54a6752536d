"""Ranges that overlap, cut into ranges that do not: nftables takes no others into one set.

Pure functions on whole numbers; addresses are numbers here.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")
Bounds = tuple[int, int]  # the first and the last number of a range


def merge(ranges: Iterable[Bounds]) -> list[Bounds]:
    """Gives the same numbers in the fewest ranges, in order."""
    merged: list[Bounds] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def cut_boxes(boxes: Iterable[tuple[Bounds, Bounds]]) -> list[tuple[Bounds, Bounds]]:
    """Gives boxes of a width and a height that cover the same, and no point twice.

    The widths come in order; neighbours of equal heights are one.
    """
    begins: dict[int, list[Bounds]] = {}
    ends: dict[int, list[Bounds]] = {}
    for (first, last), height in boxes:
        begins.setdefault(first, []).append(height)
        ends.setdefault(last + 1, []).append(height)
    active: list[Bounds] = []
    columns: list[tuple[Bounds, list[Bounds]]] = []
    edges = sorted(begins.keys() | ends.keys())
    for edge, following in pairwise(edges):
        for height in ends.get(edge, ()):
            active.remove(height)
        active += begins.get(edge, ())
        heights = merge(active)
        if columns and columns[-1][0][1] + 1 == edge and columns[-1][1] == heights:
            columns[-1] = ((columns[-1][0][0], following - 1), heights)
        elif heights:
            columns.append(((edge, following - 1), heights))
    return [(width, height) for width, heights in columns for height in heights]


def flatten(nested: Iterable[tuple[Bounds, T]]) -> list[tuple[Bounds, T]]:
    """Gives each number to the shortest range around it. Ranges nest or lie apart; none is there twice.

    They come in order; neighbours with the same value are one.
    """
    flat: list[tuple[Bounds, T]] = []
    around: list[tuple[int, T]] = []  # last number and value of the ranges that are open, outermost first
    position = 0

    def give(last: int, value: T) -> None:
        nonlocal position
        if position <= last:
            if flat and flat[-1][1] == value and flat[-1][0][1] + 1 == position:
                flat[-1] = ((flat[-1][0][0], last), value)
            else:
                flat.append(((position, last), value))
        position = last + 1

    for (first, last), value in sorted(nested, key=lambda each: (each[0][0], -each[0][1])):
        while around and around[-1][0] < first:
            give(*around.pop())
        if around:
            give(first - 1, around[-1][1])
        position = first
        around.append((last, value))
    while around:
        give(*around.pop())
    return flat
