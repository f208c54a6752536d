import json
from pathlib import Path

import pytest

from tests.host.namespace import in_another_namespace, in_namespace, make_read_only, sh
from tests.host.plans import a_link, a_plan, a_site
from vpnd.host import Host
from vpnd.host.state import Record, SavedSysctl, load, siblings, store

RECORD = Record(("vpn-site",), True, {"net/ipv4/conf/v0/forwarding": SavedSysctl("0", "1")})


def test_what_is_stored_is_what_is_loaded(tmp_path: Path) -> None:
    store(tmp_path / "host.json", RECORD)
    assert load(tmp_path / "host.json") == (RECORD, None)
    assert [file.name for file in tmp_path.iterdir()] == ["host.json"]


def test_no_file_is_an_empty_record(tmp_path: Path) -> None:
    assert load(tmp_path / "host.json") == (Record(), None)


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 300, b"[]", b"7", b"{}", b'{"boot": 1}', b"\xff\xfe"])
def test_a_spoilt_file_is_an_empty_record_and_a_warning(tmp_path: Path, content: bytes) -> None:
    """[I3] A state file that a power cut truncated, emptied or filled with garbage is one warning."""
    (tmp_path / "host.json").write_bytes(content)
    record, warning = load(tmp_path / "host.json")
    assert record == Record()
    assert warning is not None
    assert "host.json" in warning


@pytest.mark.parametrize(("key", "value"), [("boot", "of another time"), ("namespace", 1), ("version", 99)])
def test_a_record_of_another_boot_or_namespace_or_version_is_not_ours(
    tmp_path: Path, key: str, value: object
) -> None:
    file = tmp_path / "host.json"
    store(file, RECORD)
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    assert load(file) == (Record(), None)


@in_namespace
def test_a_sibling_in_another_namespace_is_no_sibling(tmp_path: Path) -> None:
    for name in ("site", "here", "there"):
        (tmp_path / name).mkdir()
    store(tmp_path / "site" / "host.json", RECORD)
    store(tmp_path / "here" / "host.json", RECORD)
    in_another_namespace(lambda: store(tmp_path / "there" / "host.json", RECORD))
    assert siblings(tmp_path / "site" / "host.json") == dict(RECORD.sysctls)
    (tmp_path / "here" / "host.json").unlink()
    assert siblings(tmp_path / "site" / "host.json") == {}


@in_namespace
def test_an_apply_goes_on_after_a_spoilt_record_with_a_warning(tmp_path: Path) -> None:
    """[I3]"""
    host = Host(tmp_path)
    plan = a_site()
    host.apply(plan)
    (tmp_path / "host.json").write_bytes(b"\0")
    assert host.apply(plan) == ()
    assert [warning.partition(": ")[0] for warning in host.warnings] == [str(tmp_path / "host.json")]
    host.difference(plan)
    assert not host.warnings


@in_namespace
def test_an_unwritable_state_folder_is_a_warning_where_nothing_needs_it(tmp_path: Path) -> None:
    """[I12] With a read-only state folder the link, its routes and the table stand all the same."""
    host = Host(tmp_path / "site")
    (tmp_path / "site").mkdir()
    make_read_only(str(tmp_path / "site"))
    plan = a_plan(a_link("10.0.0.1/24"), masquerade=("10.0.0.0/24",))
    host.apply(plan)
    assert any("the record of the machine cannot be written" in warning for warning in host.warnings)
    host.apply(plan)
    assert host.warnings == (), "said again"
    assert host.difference(plan) == ()
    host.remove("site")
    assert "vpn-site" not in sh("ip -br link")
    assert sh("nft list ruleset") == ""
