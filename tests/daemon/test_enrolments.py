"""Who was invited: may come until then, is known by its own key afterwards, and by no token twice."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from vpnd.config import Config, PeerConfig, load
from vpnd.daemon import wanted
from vpnd.daemon.enrolments import Enrolments, next_end
from vpnd.daemon.state import StateDirectory
from vpnd.keys import PublicKey
from vpnd.protocol.constants import EnrolAnswer

UNTIL = 2_000_000_000.0  # 2033-05-18T03:33:20Z
BEFORE, AFTER = UNTIL - 1, UNTIL


def key(name: str) -> PublicKey:
    return PublicKey(hashlib.sha256(name.encode()).digest())


def configuration(folder: Path, **peers: str) -> Config:
    """Each peer by its key's name; one in capitals is invited under it."""
    text = '[local]\nlisten = ["0.0.0.0:5180"]\n'
    for number, (name, of) in enumerate(peers.items()):
        text += f'[peer.{name}]\npublic_key = "{key(of)}"\nnetworks = ["10.8.0.{number}/32"]\n'
        text += "invited_until = 2033-05-18T05:33:20+02:00\n" if of.isupper() else ""
    (folder / "site.toml").write_text(text)
    return load("site", folder / "site.toml")


def peers(config: Config) -> Sequence[tuple[PublicKey, bool, float | None]]:
    return [(peer.public_key, peer.enabled, peer.invited_until) for peer in config.peers]


@pytest.fixture
def enrolments(tmp_path: Path) -> Enrolments:
    return Enrolments(StateDirectory(tmp_path / "state"))


def peer_of(config: Config, name: str = "anna") -> PeerConfig:
    return next(peer for peer in config.peers if peer.name == name)


def test_an_invitation_holds_until_its_time(tmp_path: Path, enrolments: Enrolments) -> None:
    config = configuration(tmp_path, anna="ONCE", berlin="berlin")
    others = (key("berlin"), True, None)
    assert peers(enrolments.apply(config, BEFORE)) == [(key("ONCE"), True, UNTIL), others]
    over = enrolments.apply(config, AFTER)
    assert peers(over) == [(key("ONCE"), False, UNTIL), others]
    assert enrolments.apply(over, AFTER) == over
    assert (next_end(config), next_end(over)) == (UNTIL, math.inf)


def test_who_is_invited_reaches_nothing_yet(tmp_path: Path) -> None:
    config = configuration(tmp_path, anna="ONCE", berlin="berlin")
    assert [len(wiring.networks) for wiring in wanted.wirings(config)] == [0, 1]


def test_who_joined_is_known_by_its_own_key_also_in_the_next_life(
    tmp_path: Path, enrolments: Enrolments
) -> None:
    config = configuration(tmp_path, anna="ONCE")
    assert enrolments.enrol(peer_of(config), key("own"), ()) is EnrolAnswer.DONE
    assert (tmp_path / "state/enrolled.json").stat().st_size > 0
    for known in (enrolments, Enrolments(StateDirectory(tmp_path / "state"))):
        joined = known.apply(config, AFTER)
        assert peers(joined) == [(key("own"), True, None)]
        assert known.apply(joined, AFTER) == joined


@pytest.mark.parametrize("own", [PublicKey(bytes(32)), key("berlin")], ids=["low order", "another peer's"])
def test_a_key_that_cannot_be_the_peers_is_refused(
    tmp_path: Path, enrolments: Enrolments, own: PublicKey
) -> None:
    config = configuration(tmp_path, anna="ONCE", berlin="berlin")
    assert enrolments.enrol(peer_of(config), own, [key("berlin")]) is EnrolAnswer.REFUSED
    assert not (tmp_path / "state").exists()


def test_who_is_not_invited_or_too_late_is_refused(tmp_path: Path, enrolments: Enrolments) -> None:
    config = configuration(tmp_path, anna="ONCE", berlin="berlin")
    assert enrolments.enrol(peer_of(config, "berlin"), key("own"), ()) is EnrolAnswer.REFUSED
    late = peer_of(enrolments.apply(config, AFTER))
    assert enrolments.enrol(late, key("own"), ()) is EnrolAnswer.REFUSED


def test_a_token_is_not_used_up_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    enrolments = Enrolments(StateDirectory(tmp_path / "state"))
    config = configuration(tmp_path, anna="ONCE")
    assert enrolments.enrol(peer_of(config), key("own"), ()) is EnrolAnswer.NOT_NOW
    assert peers(enrolments.apply(config, BEFORE)) == [(key("ONCE"), True, UNTIL)]


def test_no_two_peers_have_one_key_whatever_the_files_say(tmp_path: Path, enrolments: Enrolments) -> None:
    """A machine that joined twice, and one that the operator has added by hand since."""
    first, second = configuration(tmp_path, anna="ONCE"), configuration(tmp_path, anna="TWICE")
    for config in (first, second):
        assert enrolments.enrol(peer_of(config), key("own"), ()) is EnrolAnswer.DONE
    both = enrolments.apply(configuration(tmp_path, anna="ONCE", boris="TWICE"), BEFORE)
    assert peers(both) == [(key("own"), True, None), (key("TWICE"), False, UNTIL)]
    by_hand = enrolments.apply(configuration(tmp_path, anna="ONCE", boris="own"), BEFORE)
    assert peers(by_hand) == [(key("ONCE"), False, UNTIL), (key("own"), True, None)]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}', '{"x": "y"}'])
def test_a_spoilt_file_of_who_joined_is_no_end_of_the_start(tmp_path: Path, content: str) -> None:
    (tmp_path / "enrolled.json").write_text(content)
    assert StateDirectory(tmp_path).enrolled.load() == {}
