"""Slices of processor time: asked for, given back, and never for a thread that the operator scheduled."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.plane.leaves.library import Leaves
from tests.plane.slices import SHORT_NS, kernel_knows_slices, slice_ns

ASK = """
import ctypes, os, sys
library = ctypes.CDLL(sys.argv[1])
library.slice_ask.argtypes = [ctypes.c_uint64]
{before}
library.slice_ask({ns})
print("done", flush=True)
sys.stdin.read()
"""


def ask(leaves: Leaves, ns: int, before: str = "") -> tuple[int, int, int]:
    """A thread's slice in ns, policy and niceness after it asked."""
    command = [sys.executable, "-S", "-c", ASK.format(ns=ns, before=before), str(leaves.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"done\n"
        found = slice_ns(child.pid), os.sched_getscheduler(child.pid), os.getpriority(0, child.pid)
        child.stdin.close()
    return found


def test_a_thread_gets_the_slices_it_asks_for(leaves: Leaves) -> None:
    wanted = SHORT_NS if kernel_knows_slices() else 0
    assert ask(leaves, SHORT_NS) == (wanted, os.SCHED_OTHER, 0)


def test_the_kernels_own_slices_come_back(leaves: Leaves) -> None:
    own = slice_ns(os.getpid())
    assert own != SHORT_NS
    assert ask(leaves, 0, f"library.slice_ask({SHORT_NS})") == (own, os.SCHED_OTHER, 0)


def test_niceness_and_policy_are_the_operators(leaves: Leaves) -> None:
    assert ask(leaves, SHORT_NS, "os.nice(7)")[1:] == (os.SCHED_OTHER, 7)
    batch = "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))"
    assert ask(leaves, SHORT_NS, batch)[1] == os.SCHED_BATCH


@pytest.mark.parametrize(("policy", "priority"), [("SCHED_FIFO", 1), ("SCHED_RR", 3), ("SCHED_IDLE", 0)])
def test_a_thread_of_another_policy_keeps_it(leaves: Leaves, policy: str, priority: int) -> None:
    before = f"os.sched_setscheduler(0, os.{policy}, os.sched_param({priority}))"
    assert ask(leaves, SHORT_NS, before)[1] == getattr(os, policy)
