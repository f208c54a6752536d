"""What the benchmarks know of a system: its name, its Debian package, and how it joins two hosts."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from typing import ClassVar

from benchmarks.pair import Pair
from tests.lab.namespaces import Lab


class System(ABC):
    """One way to join two hosts, set up as its own manual says, with its modern or fastest cipher.

    `measures` names what is taken of it; None means everything.
    """

    name: str
    about: str
    package: ClassVar[str] = ""
    measures: frozenset[str] | None = None

    @abstractmethod
    def build(self, lab: Lab) -> Pair:
        """Makes the hosts, starts the system and returns once packets pass. Processes end with the lab."""

    def version(self) -> str:
        """Gives the installed version of the Debian package."""
        query = ["dpkg-query", "-W", "-f", "${Version}", self.package]
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
