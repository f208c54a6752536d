import base64
import io
import json
import os
import stat
from pathlib import Path

import pytest

from tests.ctl.console import Console, Result
from vpnd.keys import Identity, read_key_file

# RFC 7748, section 6.1: Alice's key pair.
PRIVATE = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
PUBLIC = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="


@pytest.fixture
def key_file(console: Console) -> Path:
    file = console.folder / "alice.key"
    file.write_text(PRIVATE + "\n")
    file.chmod(0o600)
    return file


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_key_goes_into_its_file_and_only_the_public_half_is_printed(console: Console) -> None:
    file = console.folder / "new.key"
    result = console.run("key", "gen", str(file))
    assert (result.code, result.err) == (0, "")
    assert result.out == f"{Identity.from_private(read_key_file(file)).public}\n"
    assert mode_of(file) == 0o600
    assert file.read_text().strip() not in result.out


def test_a_key_file_is_never_overwritten(console: Console, key_file: Path) -> None:
    for verb in ("gen", "psk"):
        result = console.run("key", verb, str(key_file))
        assert (result.code, result.out) == (1, "")
        assert result.err == f"vpnctl: {key_file}: exists already; a key is never overwritten\n"
    assert key_file.read_text() == PRIVATE + "\n"


def test_a_folder_that_is_missing_is_named(console: Console) -> None:
    result = console.run("--json", "key", "gen", str(console.folder / "no" / "a.key"))
    assert result.code == 1
    assert json.loads(result.out)["error"]["code"] == "refused"
    assert result.err.endswith("/no/a.key: No such file or directory\n")


def test_the_public_half_of_a_known_key_is_the_known_one(console: Console, key_file: Path) -> None:
    assert console.run("key", "pub", str(key_file)).out == f"{PUBLIC}\n"
    assert json.loads(console.run("--json", "key", "pub", str(key_file)).out) == {"public_key": PUBLIC}


@pytest.mark.parametrize("argv", [(), ("-",)])
@pytest.mark.parametrize("content", [PRIVATE, PRIVATE + "\n"])
def test_a_private_key_is_read_from_a_pipe(console: Console, argv: tuple[str, ...], content: str) -> None:
    console.stdin = content.encode()
    assert console.run("key", "pub", *argv).out == f"{PUBLIC}\n"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "0 bytes after base64, a key has 32"),
        (b"AAAA\n", "3 bytes after base64"),
        (b"not a key!", "not base64"),
        (b"A" * 5000, "3072 bytes after base64"),
    ],
)
def test_what_is_no_key_is_refused_and_not_echoed(console: Console, content: bytes, text: str) -> None:
    console.stdin = content
    result = console.run("key", "pub")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"vpnctl: standard input: {text}")


def test_a_key_that_others_may_read_is_refused(console: Console, key_file: Path) -> None:
    key_file.chmod(0o640)
    result = console.run("key", "pub", str(key_file))
    assert (result.code, result.out) == (1, "")
    assert "mode 0640 lets others read it; run chmod 600" in result.err


@pytest.mark.parametrize("verb", ["gen", "psk"])
def test_without_a_file_a_pipe_gets_the_secret_and_nothing_else(console: Console, verb: str) -> None:
    first, second = console.run("key", verb), console.run("key", verb)
    assert (first.code, first.err) == (0, "")
    assert len(base64.b64decode(first.out.removesuffix("\n"), validate=True)) == 32
    assert first.out != second.out


def test_what_gen_writes_to_a_pipe_pub_reads(console: Console) -> None:
    console.stdin = console.run("key", "gen").out.encode()
    assert len(base64.b64decode(console.run("key", "pub").out)) == 32


@pytest.mark.parametrize("verb", ["gen", "psk"])
def test_a_terminal_never_shows_a_secret(console: Console, verb: str) -> None:
    console.is_terminal = True
    result = console.run("key", verb)
    assert (result.code, result.out) == (2, "")
    assert result.err == "vpnctl: a secret is not shown on a terminal; give a FILE, or pipe it\n"


def redirected(console: Console, mode: int) -> tuple[Result, str]:
    file = console.folder / "redirected"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, mode)
    os.fchmod(descriptor, mode)
    with io.TextIOWrapper(os.fdopen(descriptor, "wb"), encoding="utf-8") as out:
        console.out = out
        result = console.run("key", "psk")
    return result, file.read_text()


def test_a_redirection_that_others_may_read_is_warned_of(console: Console) -> None:
    result, content = redirected(console, 0o644)
    assert result.code == 0
    assert result.err == "vpnctl: others may read the file this goes to; umask 077 before, or give a FILE\n"
    assert len(base64.b64decode(content)) == 32


def test_a_redirection_for_the_owner_alone_is_not_warned_of(console: Console) -> None:
    result, content = redirected(console, 0o600)
    assert (result.code, result.err) == (0, "")
    assert len(base64.b64decode(content)) == 32


def test_a_preshared_key_goes_into_its_file_and_nothing_is_printed(console: Console) -> None:
    file = console.folder / "berlin.psk"
    result = console.run("key", "psk", str(file))
    assert (result.code, result.out, result.err) == (0, "", "")
    assert mode_of(file) == 0o600
    assert not read_key_file(file).is_zero()


def test_a_rotation_makes_the_new_key_and_says_what_to_write_where(console: Console, key_file: Path) -> None:
    """[A17] Only the public key on standard output; the old file is left alone."""
    new = console.folder / "new.key"
    result = console.run("key", "rotate", str(key_file), str(new))
    public = Identity.from_private(read_key_file(new)).public
    assert (result.code, result.out) == (0, f"{public}\n")
    assert mode_of(new) == 0o600
    assert key_file.read_text() == PRIVATE + "\n"
    assert result.err.splitlines() == [
        "on the other machines, in the entry of this one, then vpnctl reload:",
        f'    public_key = "{public}"',
        f'    previous_public_key = "{PUBLIC}"',
        "here, in [local], then vpnctl reload:",
        f'    private_key = "{new}"',
        f'    previous_private_key = "{key_file}"',
        "once key_overlap is over, see vpnctl status, remove the previous ones.",
    ]
    assert new.read_text().strip() not in result.out + result.err


def test_a_rotation_is_told_in_json_too(console: Console, key_file: Path) -> None:
    """[A17]"""
    new = console.folder / "new.key"
    result = console.run("--json", "key", "rotate", str(key_file), str(new))
    assert json.loads(result.out) == {
        "public_key": str(Identity.from_private(read_key_file(new)).public),
        "previous_public_key": PUBLIC,
        "private_key": str(new),
        "previous_private_key": str(key_file),
    }
    assert result.err == ""


def test_a_rotation_needs_the_old_key_and_never_overwrites(console: Console, key_file: Path) -> None:
    """[A17] Nothing is made where something is wrong."""
    new = console.folder / "new.key"
    assert console.run("key", "rotate", str(console.folder / "none.key"), str(new)).code == 1
    key_file.chmod(0o640)
    assert console.run("key", "rotate", str(key_file), str(new)).code == 1
    assert not new.exists()
    key_file.chmod(0o600)
    assert console.run("key", "rotate", str(key_file), str(key_file)).code == 1
    assert key_file.read_text() == PRIVATE + "\n"
