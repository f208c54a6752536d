"""Files of single peers: found, made, changed with their comments kept, and blocked from outside."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.config.site import BERLIN as BERLIN_KEY
from vpnd.config import load
from vpnd.config.peerfiles import (
    block_file,
    line_of_peer,
    peer_file,
    set_keys,
    write_keys,
)

MAIN = Path("/etc/vpnd/site.toml")


def test_files_lie_in_the_folder_named_like_the_main_file() -> None:
    assert peer_file(MAIN, "anna") == Path("/etc/vpnd/site.d/anna.toml")
    assert block_file(MAIN, "anna.toml") == Path("/etc/vpnd/site.d/anna.toml.blocked")


def test_a_peer_of_the_main_file_is_found_however_it_is_written() -> None:
    text = '[interface]\n[peer."lyon.office"]\n[peer.berlin]\n[peer]\noslo.keepalive = 1\n'
    assert line_of_peer(text, "lyon.office") == 2
    assert line_of_peer(text, "berlin") == 3
    assert line_of_peer(text, "oslo") == 5
    assert line_of_peer(text, "lyon") is None


def test_written_keys_are_read_back() -> None:
    keys: dict[str, str | int | bool | list[str]] = {
        "public_key": "a=",
        "networks": ["10.0.0.0/8", "fd00::/8"],
        "route": False,
        "keepalive": 25,
    }
    assert tomllib.loads(write_keys(keys)) == keys


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# Anna\nkeepalive = 5 # s\n", "# Anna\nkeepalive = 5 # s\nenabled = false\n"),
        ("keepalive = 5", "keepalive = 5\nenabled = false\n"),
        ("", "enabled = false\n"),
        ("enabled = true # for now\n", "enabled = false # for now\n"),
        ("  'enabled'=true\n", "  'enabled'=false\n"),
        ("enabled = false\n", "enabled = false\n"),
        ("enabled = true\r\nkeepalive = 5\r\n", "enabled = false\r\nkeepalive = 5\r\n"),
    ],
)
def test_blocking_changes_one_word_and_keeps_the_rest(before: str, after: str) -> None:
    assert set_keys(before, {"enabled": False}) == after


def test_a_blocked_peer_is_enabled_again() -> None:
    assert set_keys("# x\nenabled = false\n", {"enabled": True}) == "# x\nenabled = true\n"


def test_several_keys_change_at_once_and_some_go() -> None:
    before = "public_key = 'a' # since May\r\ninvited_until = 2033-05-18T03:33:20Z\nnetworks = [\n 'x']\n"
    changed = set_keys(before, {"public_key": "b#", "invited_until": None, "previous_public_key": "a"})
    assert changed == ('public_key = "b#" # since May\r\nnetworks = [\n \'x\']\nprevious_public_key = "a"\n')
    assert set_keys("route = true\n", {"keepalive": None}) == "route = true\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('enabled = """no\n"""\n', False),
        ("enabled = [\n]\n", False),
        ("enabled = [\n]\n", None),
        ("enabled.x = 1\n", False),
        ("keepalive = \n", False),
        ("[extra]\nroute = true\n", False),
    ],
)
def test_what_is_not_understood_is_left_to_the_operator(text: str, value: bool | None) -> None:
    with pytest.raises(ValueError, match=r"."):
        set_keys(text, {"enabled": value})


def test_a_file_beside_it_blocks_a_peer_wherever_it_stands(tmp_path: Path) -> None:
    """And one that is left over from a peer that is gone does no harm."""
    main = tmp_path / "site.toml"
    main.write_text(
        f'[local]\nlisten = ["0.0.0.0:5180"]\n[peer.berlin]\npublic_key = "{BERLIN_KEY}"\n'
        'networks = ["10.255.0.2/32"]\n'
    )
    assert [peer.enabled for peer in load("site", main).peers] == [True]
    (tmp_path / "site.d").mkdir()
    for name in ("berlin", "oslo"):
        block_file(main, name).touch()
    assert [(peer.name, peer.enabled) for peer in load("site", main).peers] == [("berlin", False)]
