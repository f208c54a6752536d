"""What an instance remembers between its lives, and what damaged or unwritable files cost."""

from __future__ import annotations

import json
import resource
import signal
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from vpnd.daemon.state import StateDirectory
from vpnd.endpoint import Endpoint
from vpnd.keys import PublicKey

ONE, TWO = PublicKey(bytes([1]) * 32), PublicKey(bytes([2]) * 32)
HERE, THERE = Endpoint(IPv4Address("192.0.2.1"), 5180), Endpoint(IPv6Address("2001:db8::1"), 443)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lib" / "site"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_what_was_stored_is_there_in_the_next_life(folder: Path) -> None:
    """[F1, I1]"""
    state = StateDirectory(folder)
    state.store(123, {ONE: HERE, TWO: THERE}, 0.0)
    again = StateDirectory(folder)
    assert again.load_timestamp_ns() == 123
    assert again.load_endpoints() == {ONE: HERE, TWO: THERE}


def test_an_empty_folder_is_no_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first life of all."""
    state = StateDirectory(folder)
    assert (state.load_timestamp_ns(), state.load_endpoints()) == (0, {})
    assert warnings(caplog) == []


def test_files_are_written_no_more_often_than_every_10_and_30_seconds(folder: Path) -> None:
    """A flash card lives long; the slack after the stored timestamp covers the gap."""
    state = StateDirectory(folder)
    written: list[tuple[int, str]] = []

    def look() -> tuple[str, str]:
        return (folder / "last-timestamp").read_text(), (folder / "endpoints.json").read_text()

    state.store(0 + 1, {ONE: HERE}, 100.0)
    before = look()
    for second in range(1, 10):
        state.store(second + 1, {ONE: THERE}, 100.0 + second)
        assert look() == before
    state.store(11, {ONE: THERE}, 110.0)
    assert look() == ("11\n", before[1])
    state.store(11, {ONE: THERE}, 129.9)
    assert look()[1] == before[1]
    state.store(11, {ONE: THERE}, 130.0)
    assert json.loads(look()[1]) == {str(ONE): str(THERE)}
    assert written == []


def test_where_a_peer_is_is_due_as_soon_as_it_is_news_and_then_30_seconds_later(folder: Path) -> None:
    """[I1] Nothing to write for a while does not put off what comes then."""
    state = StateDirectory(folder)
    assert state.store(1, {}, 100.0)
    assert not state.has_endpoint(ONE, HERE)
    assert [state.is_due(101.0, has_moved=moved) for moved in (False, True)] == [False, True]
    assert state.store(1, {ONE: HERE}, 101.0)
    assert state.has_endpoint(ONE, HERE)
    assert not state.is_due(109.9, has_moved=True)
    assert not state.store(1, {ONE: THERE}, 130.9)
    assert state.is_due(131.0, has_moved=True)
    assert state.store(1, {ONE: THERE}, 131.0)


def test_at_the_end_everything_is_written_at_once(folder: Path) -> None:
    """Whatever the intervals say."""
    state = StateDirectory(folder)
    state.store(1, {ONE: HERE}, 100.0)
    state.store(2, {}, 100.1, at_once=True)
    again = StateDirectory(folder)
    assert (again.load_timestamp_ns(), again.load_endpoints()) == (2, {})


def test_nothing_is_written_where_nothing_changed(folder: Path) -> None:
    """Not even a new file with the old content."""
    state = StateDirectory(folder)
    state.store(1, {ONE: HERE}, 0.0)
    before = {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.iterdir()}
    state.store(1, {ONE: HERE}, 1000.0, at_once=True)
    assert {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.iterdir()} == before


def test_files_are_replaced_whole_and_leave_no_draft(folder: Path) -> None:
    """[I3] A reader sees the old or the new one."""
    state = StateDirectory(folder)
    state.store(1, {ONE: HERE}, 0.0)
    with (folder / "last-timestamp").open() as old:
        state.store(2, {}, 100.0, at_once=True)
        assert old.read() == "1\n"
    assert {file.name for file in folder.iterdir()} == {"last-timestamp", "endpoints.json"}


def test_the_folder_is_its_owners_alone(folder: Path) -> None:
    """Where peers are is nobody else's business."""
    StateDirectory(folder).store(1, {}, 0.0)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"12x", b"-5", b"1.5", b"9" * 30, "١٢".encode(), b"\xff\xfe", b"\0" * 100, b"1 2", b"0x10"],
)
def test_a_damaged_timestamp_is_one_warning_and_none_known(
    folder: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """[I3]"""
    folder.mkdir(parents=True)
    (folder / "last-timestamp").write_bytes(content)
    assert StateDirectory(folder).load_timestamp_ns() == 0
    assert len(warnings(caplog)) == 1
    assert "last-timestamp" in warnings(caplog)[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"[1]",
        b"null",
        b"7",
        b'"text"',
        b'{"AAAA": "192.0.2.1:1"}',
        f'{{"{ONE}": 7}}'.encode(),
        f'{{"{ONE}": "192.0.2.1"}}'.encode(),
        f'{{"{ONE}": "192.0.2.1:99999"}}'.encode(),
        b"[" * 100_000,
        b"\xff" * 50,
    ],
)
def test_a_damaged_cache_of_endpoints_is_one_warning_and_empty(
    folder: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """[I3]"""
    folder.mkdir(parents=True)
    (folder / "endpoints.json").write_bytes(content)
    assert StateDirectory(folder).load_endpoints() == {}
    assert len(warnings(caplog)) == 1
    assert "endpoints.json" in warnings(caplog)[0]


def test_every_cut_of_the_files_is_survived(folder: Path) -> None:
    """[I3] A power cut after any byte."""
    state = StateDirectory(folder)
    state.store(1_700_000_000_000_000_000, {ONE: HERE, TWO: THERE}, 0.0)
    for name in ("last-timestamp", "endpoints.json"):
        whole = (folder / name).read_bytes()
        for size in range(len(whole)):
            (folder / name).write_bytes(whole[:size])
            again = StateDirectory(folder)
            assert 0 <= again.load_timestamp_ns() <= 1_700_000_000_000_000_000
            assert set(again.load_endpoints().items()) <= {(ONE, HERE), (TWO, THERE)}


def test_a_name_in_the_cache_is_left_out(folder: Path) -> None:
    """Only addresses are kept there; a name would be asked for without anybody's wish."""
    folder.mkdir(parents=True)
    (folder / "endpoints.json").write_text(json.dumps({str(ONE): "berlin.example:5180", str(TWO): str(HERE)}))
    assert StateDirectory(folder).load_endpoints() == {TWO: HERE}


def test_a_file_that_is_a_folder_is_one_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """[I12] Whatever the kernel says of it."""
    (folder / "last-timestamp").mkdir(parents=True)
    assert StateDirectory(folder).load_timestamp_ns() == 0
    assert len(warnings(caplog)) == 1
    assert "cannot be read" in warnings(caplog)[0]


def test_a_disk_that_refuses_is_told_once_until_it_takes_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """[I12] A file stands where the folder should: nothing can be written, and all goes on."""
    blocked = tmp_path / "lib"
    blocked.write_text("a file")
    state = StateDirectory(blocked)
    for second in range(0, 100, 10):
        state.store(second + 1, {ONE: HERE}, float(second))
    assert len(warnings(caplog)) == 1
    assert "going on without it" in warnings(caplog)[0]
    blocked.unlink()
    state.store(1000, {ONE: HERE}, 1000.0)
    assert StateDirectory(blocked).load_timestamp_ns() == 1000
    assert StateDirectory(blocked).load_endpoints() == {ONE: HERE}
    for file in blocked.iterdir():
        file.unlink()
    blocked.rmdir()
    blocked.write_text("again")
    state.store(2000, {}, 2000.0)
    assert len(warnings(caplog)) == 2


def test_a_disk_that_takes_again_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """[I12]"""
    caplog.set_level("INFO")
    blocked = tmp_path / "lib"
    blocked.write_text("a file")
    state = StateDirectory(blocked)
    state.store(1, {}, 0.0)
    state.store(1, {ONE: HERE}, 30.0)
    blocked.unlink()
    (blocked / "endpoints.json.new").mkdir(parents=True)
    state.store(2, {ONE: HERE}, 60.0)
    assert (blocked / "last-timestamp").read_text() == "2\n"
    state.store(3, {ONE: THERE}, 90.0)
    assert len(warnings(caplog)) == 1
    (blocked / "endpoints.json.new").rmdir()
    state.store(4, {ONE: THERE}, 120.0)
    state.store(5, {ONE: HERE}, 150.0)
    told = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert told == [f"{blocked} can be written again"]


def test_a_full_disk_keeps_the_file_before_and_no_half_of_the_new_one(folder: Path) -> None:
    """[I12] A limit on the size of files stands for the disk: the kernel cuts the write the same way."""
    state = StateDirectory(folder)
    state.store(123, {ONE: HERE}, 0.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, hard))
    try:
        state.store(124, {TWO: THERE}, 100.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert StateDirectory(folder).load_endpoints() == {ONE: HERE}
    assert not list(folder.glob("*.new"))
