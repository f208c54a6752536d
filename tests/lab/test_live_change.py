"""Peers come, go, are renamed and blocked while others talk through the hub, and nobody else notices.

crowd, 200 callers 10.64.0.0/16 ─── 10.9.0.66 ─── 10.9.0.1 hub, 10.200.255.1/16 in the tunnel
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.lab.chorus import LATE_S
from tests.lab.crowd import identity_of
from tests.lab.crowded import HEAD
from tests.lab.namespaces import Host, Lab
from tests.lab.pair import PORT
from tests.lab.test_scale import peer_text
from tests.lab.tools import hub_and_crowd
from tests.lab.vpnd import Vpnd

PEERS = 200
NEW = range(1000, 2000)
INNER = "10.200.255.1/16"


def text_of(number: int) -> str:
    network = f"10.200.{(number + 1) // 256}.{(number + 1) % 256}/32"
    key = identity_of(number).public
    return f'# caller {number}\npublic_key = "{key}"\nroute = false\nnetworks = ["{network}"]\n'


def build(lab: Lab) -> tuple[Vpnd, Host]:
    """The last caller stands in the main file, each other one in a file of its own."""
    hub, crowd = hub_and_crowd(lab)
    vpnd = Vpnd(hub)
    vpnd.configure(HEAD + f"[peer.p{PEERS - 1}]\n{text_of(PEERS - 1)}")
    folder = vpnd.config_dir / "site.d"
    folder.mkdir()
    for number in range(PEERS - 1):
        (folder / f"p{number}.toml").write_text(text_of(number))
    vpnd.start()
    return vpnd, crowd


class Chorus:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def lost(self) -> list[int]:
        """Tells what each caller lost since it was asked before; what is on its way has time to come."""
        time.sleep(LATE_S + 0.5)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()
        lost: list[int] = json.loads(self._process.stdout.readline())
        return lost


@contextlib.contextmanager
def singing(vpnd: Vpnd, crowd: Host) -> Iterator[Chorus]:
    process = crowd.start(
        *(sys.executable, "-m", "tests.lab.chorus", vpnd.key.public, "10.9.0.1", str(PORT)),
        *(str(PEERS), "10.64.0.0/16", INNER),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield Chorus(process)
    process.communicate(b"\n", timeout=30)


def test_changing_one_of_many_peers_costs_the_others_nothing(lab: Lab) -> None:
    """[I6] By vpnctl and by files: every change is told exactly, and only whom it is about loses packets."""
    vpnd, crowd = build(lab)
    folder = vpnd.config_dir / "site.d"
    with singing(vpnd, crowd) as chorus:
        assert chorus.lost() == [0] * PEERS
        # blocked, in its own file and beside the main one: dead at once, in both directions
        for number in (7, PEERS - 1):
            vpnd.ctl(f"peer block p{number}")
            assert vpnd.peer_now(f"p{number}")["state"] == "disabled"
        lost = chorus.lost()
        assert (lost[7] > 0, lost[PEERS - 1] > 0) == (True, True)
        assert [n for n, count in enumerate(lost) if count] == [7, PEERS - 1]
        assert "# caller 7\n" in (folder / "p7.toml").read_text()
        for number in (7, PEERS - 1):
            vpnd.ctl(f"peer unblock p{number}")
            vpnd.ctl(f"wait --peer p{number}")
        # renamed, changed, removed and added by files and one reload
        (folder / "p8.toml").rename(folder / "eight.toml")
        (folder / "p9.toml").write_text(text_of(9) + "keepalive = 25\n")
        (folder / "p10.toml").unlink()
        told = vpnd.ctl("reload --dry-run").stdout.splitlines()
        expected = ["- peer p10", "~ peer p8: name: p8 → eight", "~ peer p9: keepalive: 0 → 25"]
        assert told == [*expected, "dry run: nothing was changed"]
        assert vpnd.peer_now("p10")["state"] == "up"
        assert vpnd.ctl("reload").stdout.splitlines() == expected
        assert vpnd.peer_now("eight")["state"] == "up"
        # a change that is refused leaves file and daemon as they were
        refused = vpnd.ctl(f"peer add p10 --public-key {identity_of(11).public}", check=False)
        assert (refused.returncode, "has this key too" in refused.stderr) == (78, True)
        assert not (folder / "p10.toml").exists()
        added = vpnd.ctl(f"peer add p10 --public-key {identity_of(10).public} --network 10.200.0.11/32")
        assert added.stdout.startswith("+ peer p10\n")
        vpnd.ctl("peer remove p10")
        lost = chorus.lost()
        assert [n for n, count in enumerate(lost) if count and n not in (7, 10, PEERS - 1)] == []
        # a thousand more, each with a route
        for number in NEW:
            (folder / f"p{number}.toml").write_text(peer_text(number).replace("route = false\n", ""))
        began = time.monotonic()
        changes = vpnd.ask("reload", dry_run=False)["changes"]
        print(f"{len(NEW)} peers added by files in {time.monotonic() - began:.2f} s")
        assert [change["what"] for change in changes[: len(NEW)]] == [f"peer p{number}" for number in NEW]
        assert len(changes) > len(NEW)
        lost = chorus.lost()
        assert [n for n, count in enumerate(lost) if count and n not in (7, 10, PEERS - 1)] == []
    vpnd.assert_no_error()
