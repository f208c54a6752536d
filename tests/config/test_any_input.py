"""Whatever the files hold, load answers with a Config or a ConfigError."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.config.site import PEER, Site
from vpnd.config import describe, load
from vpnd.config.names import SECTION_KEYS
from vpnd.errors import ConfigError

SCALARS = (
    st.integers()
    | st.floats()
    | st.booleans()
    | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(
        ["auto", "tun", "tap", "10.0.0.1/8", "fe80::1%3/64", "[::1]:1", "a:65536", "off", "main"]
    )
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.sampled_from(["a", "servers"]), SCALARS)
NAMES = sorted({key for keys in SECTION_KEYS.values() for key in keys} | {"mtu2", "", "berlin"})
TABLES = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5)
DOCUMENTS = st.dictionaries(
    st.sampled_from([*SECTION_KEYS, "other"]),
    TABLES | st.dictionaries(st.sampled_from(["berlin", "a b", "x"]), TABLES | SCALARS, max_size=2) | SCALARS,
    max_size=5,
)


def read(main: bytes, peer: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "site.toml")
        file.write_bytes(main)
        (Path(folder) / "site.d").mkdir()
        (Path(folder) / "site.d" / "berlin.toml").write_bytes(peer)
        try:
            describe(load("site", file))
        except ConfigError as error:
            found = error
        else:
            return
        assert found.mistakes
        assert all(mistake.text and mistake.file.startswith(folder) for mistake in found.mistakes)
        assert all(str(mistake).isprintable() for mistake in found.mistakes)


@settings(max_examples=200, deadline=None)
@given(main=st.binary(max_size=60), peer=st.binary(max_size=60))
@example(main=b"\xef\xbb\xbfx = 1", peer=b"\xff")
@example(main=b"x = " + b"[" * 5000, peer=b"x = " + b"{a=" * 5000)
@example(main=b"x = " + b"9" * 5000, peer=b"keepalive = 0x" + b"f" * 5000)
@example(main=b"x" + b".x" * 3000 + b" = 1", peer=b"x = 1e9999")
def test_no_bytes_raise_anything_but_a_config_error(main: bytes, peer: bytes) -> None:
    read(main, peer)


@settings(max_examples=300, deadline=None)
@given(main=DOCUMENTS, peer=TABLES)
def test_no_document_raises_anything_but_a_config_error(main: dict[str, Any], peer: dict[str, Any]) -> None:
    read(document(main), document(peer))


def document(tree: dict[str, Any]) -> bytes:
    return "".join(f"{written(key)} = {written(value)}\n" for key, value in tree.items()).encode()


def written(value: Any) -> str:
    match value:
        case bool() | float():
            return str(value).lower()
        case str():
            return '"' + "".join(f"\\U{ord(character):08X}" for character in value) + '"'
        case list():
            return f"[{', '.join(map(written, value))}]"
        case dict():
            return f"{{{', '.join(f'{written(key)} = {written(item)}' for key, item in value.items())}}}"
        case _:
            return str(value)


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        ("[local]\nfwmark = ", "site.toml:2: not TOML: Invalid value at the end of the file"),
        ("a = 1\nb = yes\n", "site.toml:2: not TOML: Invalid value at column 5; text stands in quotes"),
        ("a = 1\na = 2\n", "site.toml:2: not TOML: Cannot overwrite a value at column 6"),
        (b"a = 1\n\nb = '\xff'\n", "site.toml:3: not UTF-8 text"),
        (b"\xef\xbb\xbfa = 1\n", "site.toml:1: starts with a byte order mark; save the file without one"),
        ("a = " + "[" * 5000, "site.toml: nested too deeply"),
    ],
)
def test_a_file_that_is_no_toml_is_one_mistake_with_its_line(
    site: Site, content: str | bytes, mistake: str
) -> None:
    assert site.mistakes(content) == [mistake]


def test_a_number_beyond_all_measure_is_a_mistake(site: Site) -> None:
    [mistake] = site.mistakes("[local]\nfwmark = " + "9" * 5000)
    assert mistake.startswith("site.toml: not TOML: Exceeds the limit")


def test_after_a_file_that_is_no_toml_the_others_are_still_checked(site: Site) -> None:
    assert site.mistakes("[interface", anna=f'public_key = 5\nnetworks = ["10.0.0.1/8"]\n{PEER[-1]}') == [
        "site.toml:1: not TOML: Expected ']' at the end of a table declaration at the end of the file",
        "site.d/anna.toml:1: public_key: needs a string, not the integer 5",
        'site.d/anna.toml:2: networks: "10.0.0.1/8" has bits set beyond its prefix; '
        'the network is "10.0.0.0/8"',
    ]


def test_a_missing_file_is_a_mistake(site: Site) -> None:
    with pytest.raises(ConfigError, match=r"^none\.toml: No such file or directory$"):
        load("none", Path("none.toml"))


def test_a_file_name_with_a_zero_byte_is_a_mistake(site: Site) -> None:
    with pytest.raises(ConfigError, match="embedded null byte"):
        load("none", Path("no\0ne.toml"))


def test_a_folder_in_a_peer_files_place_is_a_mistake(site: Site) -> None:
    site.write("")
    (site.folder / "site.d" / "anna.toml").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"^site\.d/anna\.toml: Is a directory$"):
        load("site", Path("site.toml"))


def test_a_file_in_the_peer_folders_place_is_a_mistake(site: Site) -> None:
    site.write("")
    (site.folder / "site.d").write_text("")
    with pytest.raises(ConfigError, match=r"^site\.d: Not a directory$"):
        load("site", Path("site.toml"))


def test_only_visible_toml_files_of_the_peer_folder_are_read(site: Site) -> None:
    site.write("", anna=PEER.replace("[peer.berlin]", ""))
    for name in (".hidden.toml", "anna.toml~", "README"):
        (site.folder / "site.d" / name).write_text("no toml")
    config = load("site", Path("site.toml"))
    assert config.files == (Path("site.toml"), Path("site.d/anna.toml"))
    assert [peer.name for peer in config.peers] == ["anna"]


def test_a_peer_files_name_that_is_no_utf8_is_shown_with_escapes(site: Site) -> None:
    site.write("")
    (site.folder / "site.d").mkdir()
    Path("site.d/a\udcff.toml").write_text("")
    with pytest.raises(ConfigError) as raised:
        load("site", Path("site.toml"))
    assert str(raised.value).startswith('site.d/a\\xff.toml: "a\\uDCFF" cannot name a peer')
