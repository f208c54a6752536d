"""`vpnctl peer`: the file and the daemon change together, or neither does."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.ctl.console import Console, Result
from tests.fakes.control_server import FakeDaemon
from tests.fakes.status_reports import BERLIN, status
from vpnd.control import Reload, Status
from vpnd.control.reports import ReloadChange, ReloadReport
from vpnd.ctl import invite
from vpnd.errors import ControlError

KEY = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
OTHER = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
THIRD = "3ytLMtnQZoA5EuMYDwQdU46ehN/hPUnEqN3FXLxKxWg="
OWN = f'# Anna\npublic_key = "{KEY}" # since May\n'
MAIN = f'[local]\n[peer.berlin]\npublic_key = "{KEY}"\n'
DONE = ReloadReport(False, (ReloadChange("add", "peer anna"),))
REFUSALS = (ControlError("refused", "the kernel said no"), ControlError("config", "site.toml:1: bad"))


@pytest.fixture
def folder(console: Console) -> Path:
    """Of a running instance: berlin stands in the main file, anna in one of her own."""
    (console.config_dir / "site.toml").write_text(MAIN)
    made = console.config_dir / "site.d"
    made.mkdir()
    (made / "anna.toml").write_text(OWN)
    return made


def peer(console: Console, *words: str, answer: object = DONE, reloads: int = 1) -> Result:
    with FakeDaemon(console.runtime_dir, "site", {Reload: [answer]}) as fake:
        result = console.run("peer", *words)
    assert fake.requests == [Reload()] * reloads
    return result


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_added_peer_has_a_file_and_what_changed_is_printed(console: Console, folder: Path) -> None:
    options = ["--network", "10.8.0.2/32", "--network", "fd08::2/128", "--endpoint", "oslo.example.net:5180"]
    options += ["--keepalive", "25", "--preshared-key", "/etc/vpnd/keys/site/oslo.psk"]
    result = peer(console, "add", "oslo", "--public-key", KEY, *options)
    assert (result.code, result.out) == (0, "+ peer anna\n")
    file = folder / "oslo.toml"
    assert tomllib.loads(file.read_text()) == {
        "public_key": KEY,
        "networks": ["10.8.0.2/32", "fd08::2/128"],
        "endpoint": "oslo.example.net:5180",
        "preshared_key": "/etc/vpnd/keys/site/oslo.psk",
        "keepalive": 25,
    }
    assert file.stat().st_mode & 0o777 == 0o644
    assert names(folder) == ["anna.toml", "oslo.toml"]


def test_an_added_peer_is_in_its_groups(console: Console, folder: Path) -> None:
    assert peer(console, "add", "oslo", "--public-key", KEY, "--group", "staff", "--group", "it").code == 0
    assert tomllib.loads((folder / "oslo.toml").read_text())["groups"] == ["staff", "it"]


def rekey(console: Console, *words: str, known: str = KEY, reloads: int = 1) -> Result:
    """`known` is the key that the daemon has of anna."""
    report = status(peers=(replace(BERLIN, name="anna", public_key=known),))
    answers: dict[type, list[object]] = {Status: [report], Reload: [DONE]}
    with FakeDaemon(console.runtime_dir, "site", answers) as fake:
        result = console.run("peer", "rekey", "anna", "--public-key", *words)
    assert [each for each in fake.requests if isinstance(each, Reload)] == [Reload()] * reloads
    return result


def test_another_key_takes_the_place_of_the_one_before_and_nothing_else_changes(
    console: Console, folder: Path
) -> None:
    file = folder / "anna.toml"
    file.write_text(OWN + f'previous_public_key = "{THIRD}"\ninvited_until = 2033-05-18T03:33:20Z # June\n')
    assert rekey(console, OTHER).code == 0
    assert file.read_text() == OWN.replace(KEY, OTHER)


def test_both_keys_hold_for_a_while_where_that_is_asked(console: Console, folder: Path) -> None:
    """Of who joined by a token the daemon alone knows the key."""
    file = folder / "anna.toml"
    file.write_text(invite.HEAD + OWN + "invited_until = 2033-05-18T03:33:20Z\n")
    assert rekey(console, OTHER, "--overlap", known=THIRD).code == 0
    assert file.read_text() == OWN.replace(KEY, OTHER) + f'previous_public_key = "{THIRD}"\n'


@pytest.mark.parametrize(
    ("key", "more", "text"),
    [
        (KEY, "", "anna has this key already"),
        (OTHER, "invited_until = 2033-05-18T03:33:20Z\n", "anna is yet to join"),
        (OTHER, "route = maybe\n", "Invalid value"),
    ],
)
def test_no_key_holds_on_beside_itself_or_for_who_has_none(
    console: Console, folder: Path, key: str, more: str, text: str
) -> None:
    (folder / "anna.toml").write_text(OWN + more)
    result = rekey(console, key, "--overlap", reloads=0)
    assert result.code in (1, 78)
    assert text in result.err
    assert (folder / "anna.toml").read_text() == OWN + more


def test_a_renamed_peer_has_its_file_under_the_new_name(console: Console, folder: Path) -> None:
    result = peer(console, "rename", "anna", "anne", "--json")
    assert (result.code, json.loads(result.out)["file"]) == (0, str(folder / "anne.toml"))
    assert names(folder) == ["anne.toml"]
    assert (folder / "anne.toml").read_text() == OWN


def test_the_first_peer_with_a_file_makes_the_folder(console: Console) -> None:
    (console.config_dir / "site.toml").write_text(MAIN)
    result = peer(console, "--json", "add", "oslo", "--public-key", KEY)
    file = console.config_dir / "site.d/oslo.toml"
    assert json.loads(result.out) == {
        "peer": "oslo",
        "file": str(file),
        "changes": [{"action": "add", "what": "peer anna", "detail": ""}],
    }
    assert file.parent.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    "words",
    [
        ("add", "oslo", "--public-key", KEY),
        ("remove", "anna"),
        ("rename", "anna", "anne"),
        ("rekey", "anna", "--public-key", OTHER),
        ("block", "anna"),
        ("block", "berlin"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: str(error.code))
def test_a_refused_change_leaves_every_file_as_it_was(
    console: Console, folder: Path, words: Sequence[str], refusal: ControlError
) -> None:
    before = (folder / "anna.toml").stat()
    result = peer(console, *words, answer=refusal)
    assert result.code in (1, 78)
    assert names(folder) == ["anna.toml"]
    assert (folder / "anna.toml").read_text() == OWN
    assert (folder / "anna.toml").stat().st_ino == before.st_ino


def test_a_change_that_may_have_come_through_keeps_its_file(console: Console, folder: Path) -> None:
    """The daemon went away meanwhile: the next one reads the file."""
    result = peer(console, "add", "oslo", "--public-key", KEY, answer=b"")
    assert result.code == 3
    assert names(folder) == ["anna.toml", "oslo.toml"]


def test_a_removed_peer_has_no_file_left(console: Console, folder: Path) -> None:
    assert json.loads(peer(console, "remove", "anna", "--json").out)["file"] is None
    assert names(folder) == []


def test_a_peer_with_a_file_is_blocked_in_it_and_let_in_again(console: Console, folder: Path) -> None:
    assert peer(console, "block", "anna").code == 0
    assert (folder / "anna.toml").read_text() == OWN + "enabled = false\n"
    assert peer(console, "unblock", "anna").code == 0
    assert (folder / "anna.toml").read_text() == OWN + "enabled = true\n"


def test_a_peer_of_the_main_file_is_blocked_beside_it(console: Console, folder: Path) -> None:
    assert peer(console, "block", "berlin").code == 0
    assert names(folder) == ["anna.toml", "berlin.blocked"]
    assert peer(console, "unblock", "berlin").code == 0
    assert names(folder) == ["anna.toml"]
    assert (console.config_dir / "site.toml").read_text() == MAIN


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("remove", "berlin"), 1, "berlin stands in {main}:2; remove it there, then vpnctl reload"),
        (("unblock", "berlin"), 1, "berlin is not blocked by vpnctl; if it is disabled"),
        (("remove", "rome"), 4, "neither {main} nor {folder}/rome.toml has a peer rome"),
        (("block", "rome"), 4, "neither"),
        (("add", "anna", "--public-key", KEY), 1, "anna stands in {folder}/anna.toml; edit that"),
        (("add", "berlin", "--public-key", KEY), 1, "berlin stands in {main}:2; edit that"),
        (("rename", "anna", "berlin"), 1, "berlin stands in {main}:2; edit that"),
        (("rename", "anna", "a/b"), 2, 'NEW: "a/b" cannot name a peer'),
        (("rename", "berlin", "bern"), 1, "berlin stands in {main}:2; rename it there"),
        (("rekey", "berlin", "--public-key", KEY), 1, "berlin stands in {main}:2; change its key there"),
        (("rekey", "rome", "--public-key", KEY), 4, "has a peer rome"),
        (("rekey", "anna", "--public-key", "AAAA"), 2, "--public-key: 3 bytes"),
        (("add", "a/b", "--public-key", KEY), 2, 'NAME: "a/b" cannot name a peer'),
        (("add", "oslo", "--public-key", "AAAA"), 2, "--public-key: 3 bytes after base64"),
        (("add", "oslo", "--public-key", KEY, "--network", "x"), 2, '--network: "x" is not a network'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_refused_before_anything_is_touched(
    console: Console, folder: Path, words: Sequence[str], code: int, text: str
) -> None:
    result = peer(console, *words, reloads=0)
    assert result.code == code
    main = console.config_dir / "site.toml"
    assert text.format(main=main, folder=folder) in result.err
    assert names(folder) == ["anna.toml"]


def test_a_new_peer_is_not_blocked_by_what_an_old_one_left(console: Console, folder: Path) -> None:
    (folder / "oslo.blocked").touch()
    result = peer(console, "add", "oslo", "--public-key", KEY, reloads=0)
    assert (result.code, "remove that file first" in result.err) == (1, True)


def test_who_is_blocked_from_beside_is_not_let_in_by_another_name(console: Console, folder: Path) -> None:
    (folder / "anna.blocked").touch()
    result = peer(console, "rename", "anna", "anne", reloads=0)
    assert (result.code, "vpnctl peer unblock anna" in result.err) == (1, True)
    assert names(folder) == ["anna.blocked", "anna.toml"]


def test_files_that_cannot_be_read_or_edited_are_named(console: Console, folder: Path) -> None:
    (folder / "anna.toml").write_text("enabled = maybe\n")
    assert peer(console, "block", "anna", reloads=0).code == 78
    (folder / "anna.toml").unlink()
    (folder / "anna.toml").mkdir()
    assert "Is a directory" in peer(console, "block", "anna", reloads=0).err
    (console.config_dir / "site.toml").write_bytes(b"\xff")
    assert peer(console, "block", "berlin", reloads=0).code == 78
    (console.config_dir / "site.toml").unlink()
    assert "give the --config-dir of vpnd" in peer(console, "block", "berlin", reloads=0).err


def test_nothing_is_written_where_nothing_runs(console: Console, folder: Path) -> None:
    result = console.run("-i", "site", "peer", "remove", "anna")
    assert result.code == 3
    assert names(folder) == ["anna.toml"]


def test_who_may_not_write_is_told(console: Console, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr(Path, "replace", refuse)
    result = peer(console, "add", "oslo", "--public-key", KEY, reloads=0)
    assert (result.code, "permission denied; be root" in result.err) == (5, True)
    assert names(folder) == ["anna.toml"]
