"""Ten thousand peers in the configuration, a thousand at the door: everything is there, and all come back.

How fast is measured elsewhere; the bounds of time here only end a test that hangs. What memory may be held
is a bound, since no other program on the machine changes it.
"""

from __future__ import annotations

import contextlib
import hashlib
from base64 import b64encode
from typing import Any

import pytest

from tests.lab import crowded
from tests.lab.crowded import HEAD
from tests.lab.namespaces import Lab, eventually
from tests.lab.resources import resources_of
from tests.lab.vpnd import Vpnd

MANY = 10_000
HELD_KIB_MAX = 150 * 1024  # by daemon and plane together, with pages they share counted twice


def key_of(number: int) -> str:
    """Some X25519 public key: here nobody has to hold the private one."""
    return b64encode(hashlib.sha256(f"peer {number}".encode()).digest()).decode()


def peer_text(number: int) -> str:
    network = f"10.200.{number // 250}.{number % 250}/32"
    return f'public_key = "{key_of(number)}"\nroute = false\nnetworks = ["{network}"]\n'


def configure(vpnd: Vpnd, numbers: range, *, in_files: bool) -> None:
    if not in_files:
        vpnd.configure(HEAD + "".join(f"[peer.p{number}]\n{peer_text(number)}" for number in numbers))
        return
    vpnd.configure(HEAD)
    folder = vpnd.config_dir / f"{vpnd.instance}.d"
    folder.mkdir()
    for number in numbers:
        (folder / f"p{number}.toml").write_text(peer_text(number))


def peers_by_name(vpnd: Vpnd) -> dict[str, dict[str, Any]]:
    return {peer["name"]: peer for peer in vpnd.ask("status")["instances"][0]["peers"]}


def wait_ready(vpnd: Vpnd) -> None:
    def answers() -> bool:
        assert vpnd.daemon is not None
        assert vpnd.daemon.poll() is None, vpnd.log()
        with contextlib.suppress(OSError):
            return bool(vpnd.ask("status", peer="p0"))
        return False

    eventually(answers, within_s=60, what="the hub being ready")


@pytest.mark.parametrize("in_files", [False, True], ids=["one file", "a file each"])
def test_ten_thousand_peers_are_all_there(lab: Lab, in_files: bool) -> None:
    """Loaded, told completely as JSON and as text, and within the memory they may take."""
    hub = lab.host("hub")
    vpnd = Vpnd(hub)
    configure(vpnd, range(MANY), in_files=in_files)
    vpnd.start(wait=False)
    wait_ready(vpnd)
    report = vpnd.status()
    assert {peer["name"]: peer["public_key"] for peer in report["peers"]} == {
        f"p{number}": key_of(number) for number in range(MANY)
    }
    assert len(report["peers"]) == MANY
    assert {peer["state"] for peer in report["peers"]} == {"down"}
    assert {peer["reason"] for peer in report["peers"]} == {"waits for its call"}
    text = vpnd.ctl("status", check=False).stdout.splitlines()
    assert f"peers {MANY} down" in text[1]
    assert {line.split()[0] for line in text[3:]} == {f"p{number}" for number in range(MANY)}
    assert vpnd.daemon is not None
    held = sum(resources_of(pid).resident_kib for pid in (vpnd.daemon.pid, vpnd.plane_pid()))
    assert held < HELD_KIB_MAX
    assert vpnd.stop() == 0
    vpnd.assert_no_error()


def test_a_reload_among_ten_thousand_peers_changes_just_what_it_should(lab: Lab) -> None:
    """Five thousand go, a thousand come; those that stay are untouched, and a second reload finds nothing."""
    vpnd = Vpnd(lab.host("hub"))
    configure(vpnd, range(MANY), in_files=False)
    vpnd.start(wait=False)
    wait_ready(vpnd)
    configure(vpnd, range(MANY // 2, MANY + 1000), in_files=False)
    changes = vpnd.ask("reload", dry_run=False)["changes"]
    assert len(changes) == MANY // 2 + 1000
    assert peers_by_name(vpnd).keys() == {f"p{number}" for number in range(MANY // 2, MANY + 1000)}
    assert vpnd.ask("reload", dry_run=False)["changes"] == []
    vpnd.assert_no_error()


def wait_handshakes(vpnd: Vpnd, before: dict[str, int]) -> dict[str, int]:
    """Waits until every peer has more than before, as the hub tells."""
    now: dict[str, int] = {}

    def all_have_more() -> bool:
        now.update({name: peer["handshakes"] for name, peer in peers_by_name(vpnd).items()})
        return all(count > before[name] for name, count in now.items())

    eventually(all_have_more, what="a handshake of every peer")
    return now


@pytest.mark.parametrize("loses", ["nothing", "the daemon", "daemon and plane"])
def test_a_thousand_peers_that_come_back_at_once_are_all_up_again(lab: Lab, loses: str) -> None:
    """[I11] At once: to a hub that stayed, to one whose daemon was killed, to one that lost everything."""
    vpnd, crowd = crowded.build(lab)
    vpnd.own_plane = loses == "the daemon"
    vpnd.start()
    with crowded.callers(vpnd, crowd) as call:
        none = {f"p{number}": 0 for number in range(crowded.CROWD)}
        assert call()["up"] == crowded.CROWD
        before = wait_handshakes(vpnd, none)
        if loses != "nothing":
            vpnd.kill()
            vpnd.start()
            before = none
        again = call()
        assert again["up"] == crowded.CROWD, again
        wait_handshakes(vpnd, before)
        assert {peer["state"] for peer in peers_by_name(vpnd).values()} == {"up"}
    roamed = [line for line in vpnd.log().splitlines() if " now at " in line]
    assert len(roamed) < crowded.CROWD, "the log tells of each of a thousand"
    vpnd.assert_no_error()
