"""The booted machines themselves, before vpnd is on them."""

from __future__ import annotations

from tests.system.pair import Pair

_OF_OTHERS = "0"  # how the kernel lists a process that whoever asks cannot see


def test_the_units_of_a_machine_are_its_own(bare_pair: Pair) -> None:
    """In groups shared with another machine, units stop and start by what the other's do."""
    for site in (bare_pair.a, bare_pair.b):
        listed = site.machine.output(
            "cat $(find /sys/fs/cgroup -path '*/system.slice/*' -name cgroup.procs)"
        ).split()
        assert listed
        assert _OF_OTHERS not in listed
