"""The secrets a configuration points to."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets as random
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.config.site import BERLIN, LYON, Site
from vpnd.config import Config, load, read_secrets
from vpnd.errors import ConfigError
from vpnd.keys import Identity, Secret

PRIVATE, KNOCK, PSK = (bytes([number] * 32) for number in (1, 2, 3))


def put(path: Path, raw: bytes, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(base64.b64encode(raw) + b"\n")
    path.chmod(mode)
    return path


def config_of(site: Site, *, berlin: str = BERLIN) -> Config:
    return site.load(f"""\
[local]
private_key = "{site.folder}/keys/site.key"
knock = "{site.folder}/keys/site.knock"
listen = ["0.0.0.0:5180"]

[peer.berlin]
public_key = "{berlin}"
preshared_key = "{site.folder}/keys/berlin.psk"
networks = ["10.1.0.0/16"]

[peer.lyon]
public_key = "{LYON}"
networks = ["10.2.0.0/16"]
""")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    put(folder / "site.key", PRIVATE)
    put(folder / "site.knock", KNOCK)
    put(folder / "berlin.psk", PSK)
    return folder


def test_all_secrets_are_read_from_their_files(site: Site, keys: Path) -> None:
    secrets = read_secrets(config_of(site), None)
    assert secrets.identity.private.expose() == PRIVATE
    assert secrets.identity.public == Identity.from_private(Secret.copy_of(PRIVATE)).public
    assert secrets.knock.expose() == KNOCK
    assert {name: key.expose() for name, key in secrets.preshared_keys.items()} == {"berlin": PSK}


def test_an_absent_knock_is_zero(site: Site, keys: Path) -> None:
    secrets = read_secrets(site.load(f'[local]\nprivate_key = "{keys}/site.key"\n'), None)
    assert secrets.knock.is_zero()
    assert not secrets.preshared_keys


def test_a_credential_of_the_same_name_wins(site: Site, keys: Path, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    put(credentials / "site.key", b"\x09" * 32, 0o440)
    secrets = read_secrets(config_of(site), credentials)
    assert secrets.identity.private.expose() == b"\x09" * 32
    assert secrets.knock.expose() == KNOCK


def test_a_credential_hides_no_key_file_that_others_may_read(site: Site, keys: Path, tmp_path: Path) -> None:
    put(tmp_path / "credentials" / "site.key", PRIVATE)
    (keys / "site.key").chmod(0o644)
    with pytest.raises(ConfigError, match=r"keys/site\.key: mode 0644 lets others read it; run chmod 600"):
        read_secrets(config_of(site), tmp_path / "credentials")


@pytest.mark.parametrize("where", ["nowhere", "in a folder that we may not enter"])
def test_a_key_file_out_of_our_reach_is_well_kept(site: Site, keys: Path, tmp_path: Path, where: str) -> None:
    config = config_of(site)
    for name in ("site.key", "site.knock", "berlin.psk"):
        credential = put(tmp_path / "credentials" / name, PRIVATE)
        credential.chmod(0o644)
        credential.parent.chmod(0o755)
        (keys / name).chmod(0o644)
    keys.chmod(0o700)
    if where == "nowhere":
        shutil.rmtree(keys)
    with as_nobody(tmp_path):
        assert read_secrets(config, tmp_path / "credentials").identity.private.expose() == PRIVATE


def test_a_bad_credential_is_not_replaced_by_the_file(site: Site, keys: Path, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    put(credentials / "site.key", b"short")
    with pytest.raises(ConfigError) as raised:
        read_secrets(config_of(site), credentials)
    assert str(raised.value) == (
        f"site.toml:2: local.private_key: {credentials}/site.key: 5 bytes after base64, a key has 32"
    )


def test_all_bad_key_files_are_told_at_once_at_the_keys_that_name_them(site: Site, keys: Path) -> None:
    (keys / "site.key").chmod(0o640)
    (keys / "site.knock").write_text("not base64!")
    (keys / "berlin.psk").unlink()
    with pytest.raises(ConfigError) as raised:
        read_secrets(config_of(site), None)
    assert str(raised.value).splitlines() == [
        f"site.toml:2: local.private_key: {keys}/site.key: mode 0640 lets others read it; "
        f"run chmod 600 {keys}/site.key",
        f"site.toml:3: local.knock: {keys}/site.knock: not base64: Only base64 data is allowed",
        f"site.toml:8: peer.berlin.preshared_key: {keys}/berlin.psk: no such file; "
        "vpnctl key gen makes a private key, vpnctl key psk a shared one",
    ]


def test_a_bad_preshared_key_alone_is_enough_to_refuse(site: Site, keys: Path) -> None:
    put(keys / "berlin.psk", bytes(32))
    with pytest.raises(ConfigError) as raised:
        read_secrets(config_of(site), None)
    assert str(raised.value) == (
        f"site.toml:8: peer.berlin.preshared_key: {keys}/berlin.psk: all bytes are zero, which is no secret"
    )


def test_a_missing_default_key_file_is_told_without_a_line(site: Site) -> None:
    instance = f"t{random.token_hex(4)}"
    Path("site.toml").write_text("")
    with pytest.raises(ConfigError) as raised:
        read_secrets(load(instance, Path("site.toml")), None)
    assert str(raised.value).startswith(
        f"site.toml: local.private_key: /etc/vpnd/keys/{instance}.key: no such file; "
    )


def test_our_own_public_key_as_a_peer_is_refused(site: Site, keys: Path) -> None:
    """[A12] A device never becomes its own peer."""
    own = Identity.from_private(Secret.copy_of(PRIVATE)).public
    with pytest.raises(ConfigError) as raised:
        read_secrets(config_of(site, berlin=str(own)), None)
    assert str(raised.value) == (
        "site.toml:7: peer.berlin.public_key: our own key, that of local.private_key; a peer has another"
    )


def rotating(site: Site, peer: str) -> Config:
    return site.load(f"""\
[local]
private_key = "{site.folder}/keys/site.key"
previous_private_key = "{site.folder}/keys/before.key"
listen = ["0.0.0.0:5180"]

[peer.berlin]
{peer}
networks = ["10.1.0.0/16"]
""")


def test_the_previous_private_key_is_read_by_the_same_rules(site: Site, keys: Path, tmp_path: Path) -> None:
    """[A17] The file's mode is checked, and a credential of its name wins."""
    put(keys / "before.key", PSK)
    config = rotating(site, f'public_key = "{BERLIN}"')
    secrets = read_secrets(config, None)
    assert secrets.previous is not None
    assert (secrets.identity.private.expose(), secrets.previous.private.expose()) == (PRIVATE, PSK)
    put(tmp_path / "credentials" / "before.key", KNOCK, 0o440)
    again = read_secrets(config, tmp_path / "credentials")
    assert again.previous is not None
    assert again.previous.private.expose() == KNOCK
    (keys / "before.key").chmod(0o644)
    with pytest.raises(ConfigError) as raised:
        read_secrets(config, None)
    assert str(raised.value) == (
        f"site.toml:3: local.previous_private_key: {keys}/before.key: mode 0644 lets others read it; "
        f"run chmod 600 {keys}/before.key"
    )


def test_the_previous_private_key_is_another_than_the_newest(site: Site, keys: Path) -> None:
    """[A17] Somebody copied the old file where the new one belongs."""
    put(keys / "before.key", PRIVATE)
    with pytest.raises(ConfigError) as raised:
        read_secrets(rotating(site, f'public_key = "{BERLIN}"'), None)
    assert str(raised.value) == (
        "site.toml:3: local.previous_private_key: "
        "the same key as that of local.private_key; it is the one before"
    )


def test_neither_of_our_keys_is_a_peers(site: Site, keys: Path) -> None:
    """[A12, A17] Nor was it."""
    put(keys / "before.key", PSK)
    new, old = (Identity.from_private(Secret.copy_of(raw)).public for raw in (PRIVATE, PSK))
    with pytest.raises(ConfigError) as raised:
        read_secrets(rotating(site, f'public_key = "{old}"\nprevious_public_key = "{new}"'), None)
    assert str(raised.value).splitlines() == [
        "site.toml:7: peer.berlin.public_key: our own key, that of local.previous_private_key; "
        "a peer has another",
        "site.toml:8: peer.berlin.previous_public_key: our own key, that of local.private_key; "
        "a peer has another",
    ]


def test_no_mistake_repeats_a_secret(site: Site, keys: Path) -> None:
    for number, name in enumerate(("site.key", "site.knock", "berlin.psk")):
        put(keys / name, bytes([number + 1] * 31))
    with pytest.raises(ConfigError) as raised:
        read_secrets(config_of(site), None)
    for number in (1, 2, 3):
        assert base64.b64encode(bytes([number] * 30)).decode() not in str(raised.value)


def test_a_file_of_a_folder_that_was_handed_over_is_read(site: Site, keys: Path, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    put(credentials / "keys_berlin.psk", b"\x09" * 32, 0o440)
    secrets = read_secrets(config_of(site), credentials)
    assert secrets.preshared_keys["berlin"].expose() == b"\x09" * 32


def test_the_words_for_a_missing_key_are_no_credential(site: Site, keys: Path, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "site.key").write_bytes(b"missing")
    secrets = read_secrets(config_of(site), credentials)
    assert secrets.identity.private.expose() == PRIVATE


def test_a_missing_key_is_told_as_such_by_a_service_too(site: Site, keys: Path, tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    (keys / "site.key").unlink()
    with pytest.raises(ConfigError, match=r"site\.key: no such file"):
        read_secrets(config_of(site), tmp_path / "credentials")


@pytest.mark.parametrize("name", ["folder", "broken link"])
def test_a_credential_that_is_no_file_is_a_mistake(site: Site, keys: Path, tmp_path: Path, name: str) -> None:
    credential = tmp_path / "credentials" / "site.key"
    credential.parent.mkdir()
    if name == "folder":
        credential.mkdir()
    else:
        credential.symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"credentials/site\.key: "):
        read_secrets(config_of(site), credential.parent)


def test_a_key_that_a_service_may_not_read_is_told_with_where_it_belongs(
    site: Site, keys: Path, tmp_path: Path
) -> None:
    config = config_of(site)
    (tmp_path / "credentials").mkdir()
    keys.chmod(0o700)
    with as_nobody(tmp_path), pytest.raises(ConfigError) as raised:
        read_secrets(config, tmp_path / "credentials")
    assert f"{keys}/site.key: not handed over to this service" in str(raised.value)
    assert "/etc/vpnd/keys/site.key and the files in /etc/vpnd/keys/site/" in str(raised.value)


@contextlib.contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Reads as a user without rights, to whom the folders above `folder` are open."""
    if os.geteuid() != 0:
        pytest.skip("root reads everything, and only root can become somebody else")
    closed = [each for each in folder.parents if not each.stat().st_mode & 0o001]
    modes = {each: stat.S_IMODE(each.stat().st_mode) for each in (*closed, folder)}
    for each, mode in modes.items():
        each.chmod(mode | 0o011)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for each, mode in modes.items():
            each.chmod(mode)
