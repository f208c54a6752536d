"""The cable alone: what the machine itself could do."""

from __future__ import annotations

import os

from benchmarks import pair
from benchmarks.pair import Pair
from benchmarks.systems.system import System
from tests.lab.namespaces import Lab


class NoTunnel(System):
    name = "no-tunnel"
    about = "the veth pair with its default offloads: the limit"

    def build(self, lab: Lab) -> Pair:
        return pair.cable(lab)

    def version(self) -> str:
        return f"Linux {os.uname().release}"
