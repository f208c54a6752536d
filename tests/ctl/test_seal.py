"""`vpnctl key seal`, with the systemd-creds of this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ctl.console import Console
from vpnd.ctl import seal
from vpnd.errors import KeyFileError
from vpnd.keys import Secret, read_key_file

PRIVATE = bytes(range(1, 33))

needs_systemd = pytest.mark.skipif(shutil.which(seal.PROGRAM) is None, reason="no systemd-creds here")


@pytest.fixture(autouse=True)
def own_host_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key to seal with is made beside the test, not for the machine."""
    monkeypatch.setenv("SYSTEMD_CREDENTIAL_SECRET", str(tmp_path / "host" / "secret"))
    (tmp_path / "host").mkdir()


@pytest.fixture
def key_file(console: Console) -> Path:
    file = console.folder / "site.key"
    file.touch(0o600)
    file.write_text("AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=\n")
    return file


def opened(file: Path, name: str) -> subprocess.CompletedProcess[bytes]:
    words = (seal.PROGRAM, "decrypt", f"--name={name}", file, "-")
    return subprocess.run(words, capture_output=True, check=False)


def put(file: Path, content: bytes) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    return file


@needs_systemd
def test_what_is_sealed_is_what_the_daemon_reads_as_a_credential(console: Console, key_file: Path) -> None:
    sealed = console.folder / "site.key.cred"
    result = console.run("key", "seal", str(key_file), str(sealed))
    assert (result.code, result.err) == (0, "")
    assert result.out == f"LoadCredentialEncrypted=site.key:{sealed}\n"
    assert sealed.stat().st_mode & 0o777 == 0o600
    assert key_file.read_text().strip() not in sealed.read_text()
    credential = put(console.folder / "credentials" / "site.key", opened(sealed, "site.key").stdout)
    assert read_key_file(credential, guarded=True).expose() == PRIVATE


@needs_systemd
def test_the_name_is_a_part_of_what_is_sealed(console: Console, key_file: Path) -> None:
    sealed = console.folder / "out.cred"
    result = console.run("--json", "key", "seal", str(key_file), str(sealed), "--name", "other.key")
    assert json.loads(result.out) == {"name": "other.key", "load_credential_encrypted": f"other.key:{sealed}"}
    assert opened(sealed, "other.key").stdout == key_file.read_bytes()
    assert opened(sealed, "site.key").returncode != 0


@needs_systemd
def test_a_key_from_a_pipe_never_touches_the_disk_in_the_clear(console: Console, key_file: Path) -> None:
    sealed = console.folder / "out.cred"
    console.stdin = key_file.read_bytes()
    assert console.run("key", "seal", "-", str(sealed), "--name", "site.key").code == 0
    assert opened(sealed, "site.key").stdout == key_file.read_bytes()


@needs_systemd
def test_what_systemd_creds_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    """The console checks names: one that gets through here shows how a refusal is told."""
    with pytest.raises(KeyFileError, match=r"^systemd-creds: .*nvalid"):
        seal.seal(Secret.copy_of(PRIVATE), "a/b", tmp_path / "out.cred", "host")
    assert not (tmp_path / "out.cred").exists()


def test_without_systemd_creds_the_text_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="not found; sealing needs systemd 250 or newer"):
        seal.seal(Secret.copy_of(PRIVATE), "site.key", tmp_path / "out", "host", str(tmp_path / "nowhere"))
    with pytest.raises(KeyFileError, match="Permission denied"):
        seal.seal(Secret.copy_of(PRIVATE), "site.key", tmp_path / "out", "host", str(tmp_path))
    assert not (tmp_path / "out").exists()


def test_a_program_that_fails_silently_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="false: ended with 1"):
        seal.seal(Secret.copy_of(PRIVATE), "site.key", tmp_path / "out", "host", "/bin/false")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["a file that is there", "a folder that is not", "a key that others read"])
def test_nothing_is_sealed_where_something_is_wrong(console: Console, key_file: Path, what: str) -> None:
    sealed = console.folder / "out.cred"
    match what:
        case "a file that is there":
            sealed.write_text("kept")
        case "a folder that is not":
            sealed = console.folder / "no" / "out.cred"
        case _:
            key_file.chmod(0o644)
    result = console.run("key", "seal", str(key_file), str(sealed))
    assert (result.code, result.out) == (1, "")
    assert not sealed.exists() or sealed.read_text() == "kept"


@pytest.mark.parametrize("name", ["a:b", "a/b", "", "-x", "ä"])
def test_a_name_that_no_unit_can_hold_is_refused(console: Console, key_file: Path, name: str) -> None:
    console.stdin = key_file.read_bytes()
    result = console.run("key", "seal", "-", str(console.folder / "out"), f"--name={name}")
    assert result.code == 2
    assert not (console.folder / "out").exists()
