"""A hub of a thousand peers, and a machine from which every one of them calls with an address of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tests.lab.classical import PORT
from tests.lab.crowd import identity_of
from tests.lab.namespaces import Host, Lab
from tests.lab.tools import hub_and_crowd
from tests.lab.vpnd import Vpnd

CROWD = 1000
HEAD = f"""\
[interface]
name = "vpn"
addresses = ["10.200.255.1/16"]
[local]
listen = ["0.0.0.0:{PORT}"]
"""


def build(lab: Lab) -> tuple[Vpnd, Host]:
    """The configured hub, and the callers' machine; nothing is started."""
    hub, crowd = hub_and_crowd(lab)
    vpnd = Vpnd(hub)
    vpnd.configure(
        HEAD
        + "".join(
            f'[peer.p{number}]\npublic_key = "{identity_of(number).public}"\nroute = false\n'
            f'networks = ["10.200.{number // 250}.{number % 250}/32"]\n'
            for number in range(CROWD)
        )
    )
    return vpnd, crowd


@contextlib.contextmanager
def callers(vpnd: Vpnd, crowd: Host) -> Iterator[Callable[[], dict[str, Any]]]:
    """Gives a function by which all call at once, which tells how many are `up` and how long it `took_s`.

    The plane answers callers before the daemon reads of it: what the hub tells comes a little later.
    """
    process = crowd.start(
        *(sys.executable, "-m", "tests.lab.crowd", vpnd.key.public, "10.9.0.1", str(PORT)),
        *(str(CROWD), "10.64.0.0/16"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    to_callers, from_callers = process.stdin, process.stdout

    def call() -> dict[str, Any]:
        to_callers.write(b"go\n")
        to_callers.flush()
        answer: dict[str, Any] = json.loads(from_callers.readline())
        return answer

    yield call
    process.communicate(b"\n", timeout=10)
