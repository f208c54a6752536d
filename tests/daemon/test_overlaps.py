"""How long keys that are being replaced hold, over restarts and changes of the configuration."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.host import identity
from vpnd.config import Config, Secrets, load
from vpnd.daemon.overlaps import Overlaps
from vpnd.daemon.state import StateDirectory
from vpnd.keys import PublicKey, Secret

OWN, OWN_BEFORE, PEER, PEER_BEFORE = (identity(number) for number in range(1, 5))
SECRETS = Secrets(OWN, Secret.zero(), {}, OWN_BEFORE)
DAY = 86_400.0
NOW, WALL = 5000.0, 1_800_000_000.0


def config_of(
    folder: Path, *, overlap: int = 86_400, previous: PublicKey | None = PEER_BEFORE.public
) -> Config:
    file = folder / "site.toml"
    line = "" if previous is None else f'previous_public_key = "{previous}"'
    file.write_text(f"""\
[local]
key_overlap = {overlap}
listen = ["0.0.0.0:5180"]
[peer.berlin]
public_key = "{PEER.public}"
{line}
networks = ["10.255.0.2/32"]
""")
    return load("site", file)


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path / "lib")


def test_each_previous_key_has_its_time_from_when_it_was_first_read(
    tmp_path: Path, state: StateDirectory
) -> None:
    """[A17] Ours and that of a peer, each from its own moment; a look at them changes nothing."""
    overlaps, config = Overlaps(state), config_of(tmp_path)
    only_peer = replace(SECRETS, previous=None)
    assert overlaps.until(config, only_peer, NOW, WALL) == {PEER_BEFORE.public: NOW + DAY}
    both = {PEER_BEFORE.public: NOW + DAY, OWN_BEFORE.public: NOW + 60.0 + DAY}
    for later in (60.0, 120.0):
        assert overlaps.until(config, SECRETS, NOW + later, WALL + later) == both


def test_a_restart_gives_an_old_key_no_more_time(tmp_path: Path, state: StateDirectory) -> None:
    """[A17, I13] The machine's own clock began anew meanwhile."""
    config = config_of(tmp_path)
    Overlaps(state).until(config, SECRETS, NOW, WALL)
    again = Overlaps(StateDirectory(tmp_path / "lib"))
    until = again.until(config, SECRETS, 10.0, WALL + DAY - 100.0)
    assert until == {PEER_BEFORE.public: 110.0, OWN_BEFORE.public: 110.0}


def test_a_clock_set_back_gives_the_whole_time_and_not_more(tmp_path: Path, state: StateDirectory) -> None:
    """[A17, F1] From the restart on."""
    config = config_of(tmp_path)
    Overlaps(state).until(config, SECRETS, NOW, WALL)
    again = Overlaps(StateDirectory(tmp_path / "lib"))
    assert again.until(config, SECRETS, 10.0, WALL - 1e6)[OWN_BEFORE.public] == 10.0 + DAY


def test_another_clock_while_the_daemon_runs_changes_no_time(tmp_path: Path, state: StateDirectory) -> None:
    """[A17, F6]"""
    overlaps, config = Overlaps(state), config_of(tmp_path)
    before = overlaps.until(config, SECRETS, NOW, WALL)
    assert overlaps.until(config, SECRETS, NOW + 1.0, WALL + 1e6) == before


def test_another_overlap_counts_from_the_same_moment(tmp_path: Path, state: StateDirectory) -> None:
    """[A17]"""
    overlaps = Overlaps(state)
    overlaps.until(config_of(tmp_path), SECRETS, NOW, WALL)
    until = overlaps.until(config_of(tmp_path, overlap=100), SECRETS, NOW + 60.0, WALL + 60.0)
    assert until[OWN_BEFORE.public] == NOW + 100.0


def test_a_key_that_is_no_previous_one_any_more_is_forgotten(tmp_path: Path, state: StateDirectory) -> None:
    """[A17] If it comes back, it is another rotation."""
    overlaps = Overlaps(state)
    overlaps.until(config_of(tmp_path), SECRETS, NOW, WALL)
    assert (
        overlaps.until(config_of(tmp_path, previous=None), replace(SECRETS, previous=None), NOW, WALL) == {}
    )
    assert StateDirectory(tmp_path / "lib").previous_keys.load() == {}
    later = overlaps.until(config_of(tmp_path), SECRETS, NOW + 60.0, WALL + 60.0)
    assert later[PEER_BEFORE.public] == NOW + 60.0 + DAY


@pytest.mark.parametrize(
    "content", ["{", "[1]", '{"AAAA": 1}', f'{{"{PEER.public}": "soon"}}', "[" * 100_000]
)
def test_a_garbled_file_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    """[I5] The time begins anew, the daemon starts."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "previous-keys.json").write_text(content)
    with caplog.at_level(logging.WARNING):
        overlaps = Overlaps(StateDirectory(tmp_path / "lib"))
    assert "previous-keys.json tells of no keys" in caplog.text
    assert overlaps.until(config_of(tmp_path), SECRETS, NOW, WALL)[OWN_BEFORE.public] == NOW + DAY
