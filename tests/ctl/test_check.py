import json
from pathlib import Path

from tests.ctl.console import Console
from vpnd.keys import Identity, generate_secret, write_key_file

PEER_KEY = str(Identity.from_private(generate_secret()).public)


def configure(console: Console, name: str, extra: str = "") -> Path:
    key = console.folder / f"{name}.key"
    write_key_file(key, generate_secret())
    file = console.config_dir / f"{name}.toml"
    file.write_text(
        f'{extra}[interface]\naddresses = ["10.255.0.1/30"]\n[local]\nprivate_key = "{key}"\n'
        f'[peer.berlin]\npublic_key = "{PEER_KEY}"\nendpoint = "192.0.2.7:5180"\n'
        'networks = ["10.20.0.0/16"]\n'
    )
    return file


def test_a_sound_file_is_one_line(console: Console) -> None:
    file = configure(console, "site")
    result = console.run("check", str(file))
    assert (result.code, result.out, result.err) == (0, f"{file}: no mistakes\n", "")


def test_every_mistake_is_a_line_that_an_editor_can_jump_to(console: Console) -> None:
    file = configure(console, "site", "[interfaces]\n[dms]\n")
    result = console.run("check", str(file))
    assert (result.code, result.out) == (78, "")
    lines = result.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{file}:1: interfaces: ")
    assert lines[1].startswith(f"{file}:2: dms: ")


def test_a_key_file_that_others_may_read_is_a_mistake(console: Console) -> None:
    file = configure(console, "site")
    (console.folder / "site.key").chmod(0o644)
    result = console.run("check", str(file))
    assert result.code == 78
    assert "local.private_key" in result.err
    assert "mode 0644 lets others read it" in result.err


def test_a_credential_stands_in_for_the_key_file(console: Console) -> None:
    file = configure(console, "site")
    credentials = console.folder / "credentials"
    credentials.mkdir()
    (console.folder / "site.key").rename(credentials / "site.key")
    assert console.run("check", str(file)).code == 78
    console.environment = {"CREDENTIALS_DIRECTORY": str(credentials)}
    assert console.run("check", str(file)).code == 0


def test_the_instance_names_its_file(console: Console) -> None:
    file = configure(console, "site")
    configure(console, "hub", "[nonsense]\n")
    result = console.run("-i", "site", "check")
    assert (result.code, result.out) == (0, f"{file}: no mistakes\n")


def test_without_a_file_all_of_the_folder_are_checked(console: Console) -> None:
    good, bad = configure(console, "site"), configure(console, "hub", "[nonsense]\n")
    result = console.run("check")
    assert result.code == 78
    assert result.out == f"{good}: no mistakes\n"
    assert result.err.startswith(f"{bad}:1: nonsense: ")


def test_json_lists_the_mistakes_with_their_places(console: Console) -> None:
    configure(console, "site")
    bad = configure(console, "hub", "[nonsense]\n")
    result = console.run("--json", "check")
    hub, site = json.loads(result.out)
    assert site == {"instance": "site", "file": str(console.config_dir / "site.toml"), "mistakes": []}
    assert hub["mistakes"][0]["text"]
    assert {key: hub["mistakes"][0][key] for key in ("file", "line", "key")} == {
        "file": str(bad),
        "line": 1,
        "key": "nonsense",
    }


def test_a_file_that_is_not_there_is_a_mistake(console: Console) -> None:
    result = console.run("check", str(console.config_dir / "rome.toml"))
    assert result.code == 78
    assert "rome.toml: " in result.err


def test_a_folder_without_files_exits_4(console: Console) -> None:
    result = console.run("check")
    assert (result.code, result.err) == (4, f"vpnctl: {console.config_dir} holds no configuration (*.toml)\n")


def test_names_that_are_none_are_usage_errors(console: Console) -> None:
    assert console.run("-i", "a/b", "check").code == 2
    assert console.run("-i", "a/b", "check", "site.toml").code == 2


def test_no_secret_is_printed(console: Console) -> None:
    file = configure(console, "site", "[nonsense]\n")
    secret = (console.folder / "site.key").read_text().strip()
    result = console.run("--json", "check", str(file))
    assert secret not in result.out + result.err
