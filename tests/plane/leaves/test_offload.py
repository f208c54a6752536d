"""Which offloads run, by what is wanted and what the kernel answered."""

from __future__ import annotations

import ctypes
import itertools
from ctypes import Structure, byref, c_bool, c_int, c_uint, c_void_p
from typing import ClassVar

import pytest

from tests.plane.leaves.library import Leaves
from vpnd.plane.wire import Offload

REFUSALS = (5, 22, 95)  # EIO, EINVAL, EOPNOTSUPP


class OffloadsState(Structure):
    """struct offloads."""

    _fields_: ClassVar = [
        ("wanted", c_uint),
        ("active", c_uint),
        ("link", c_uint),
        ("errors", c_int * len(Offload)),
    ]


@pytest.fixture(scope="module")
def library(leaves: Leaves) -> ctypes.CDLL:
    for name, result, arguments in (
        ("offload_runs", c_bool, [c_void_p, c_int]),
        ("offload_is_wanted", c_bool, [c_void_p, c_int]),
        ("offload_tried", None, [c_void_p, c_int, c_int]),
        ("offload_clear", None, [c_void_p, c_int]),
    ):
        function = getattr(leaves.library, name)
        function.restype, function.argtypes = result, arguments
    return leaves.library


def test_each_offload_has_a_verdict_of_its_own(library: ctypes.CDLL) -> None:
    """[D12] Every mixture of granted, refused and not tried: none of them changes another's."""
    answers = (None, 0, *REFUSALS)
    for mixture in itertools.product(answers, repeat=len(Offload)):
        state = OffloadsState()
        for offload, answer in zip(Offload, mixture, strict=True):
            if answer is not None:
                library.offload_tried(byref(state), offload, answer)
        assert [library.offload_runs(byref(state), each) for each in Offload] == [
            answer == 0 for answer in mixture
        ]
        assert list(state.errors) == [answer or 0 for answer in mixture]


def test_a_refusal_ends_it_and_a_later_grant_begins_it_anew(library: ctypes.CDLL) -> None:
    """[D12]"""
    state = OffloadsState()
    for offload in Offload:
        library.offload_tried(byref(state), offload, 0)
        library.offload_tried(byref(state), offload, 22)
        assert not library.offload_runs(byref(state), offload)
        library.offload_tried(byref(state), offload, 0)
        assert library.offload_runs(byref(state), offload)
    assert list(state.errors) == [0, 0, 0]


def test_what_is_cleared_neither_runs_nor_was_refused(library: ctypes.CDLL) -> None:
    state = OffloadsState()
    for offload in Offload:
        library.offload_tried(byref(state), offload, 22)
        library.offload_clear(byref(state), offload)
        assert not library.offload_runs(byref(state), offload)
    assert list(state.errors) == [0, 0, 0]


def test_wanted_and_running_are_two_things(library: ctypes.CDLL) -> None:
    state = OffloadsState(wanted=Offload.UDP_GSO, active=Offload.UDP_GRO)
    assert [library.offload_is_wanted(byref(state), each) for each in Offload] == [True, False, False]
    assert [library.offload_runs(byref(state), each) for each in Offload] == [False, True, False]
