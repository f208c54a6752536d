"""bash completion: its function is called in bash as the shell would, beside the real vpnctl."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.control_server import FakeDaemon
from tests.fakes.status_reports import status
from vpnd.control import TOPICS, Status
from vpnd.ctl.main import load_verbs

SCRIPT = Path(__file__).resolve().parent.parent.parent / "completion/vpnctl"
VPNCTL = Path(sys.executable).parent / "vpnctl"
ASK = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_vpnctl
printf '%s\\n' "${COMPREPLY[@]}"
"""


def complete(*words: str) -> list[str]:
    """Gives what is offered for the last word of a command line."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    command = ["bash", "-c", ASK, "bash", str(SCRIPT), str(VPNCTL), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Global options that lead to a daemon with peers."""
    with FakeDaemon(tmp_path, "site", {Status: [status()]}):
        yield "--runtime-dir", str(tmp_path)


def test_every_verb_is_offered() -> None:
    assert [verb.name for verb in load_verbs()] == [word for word in complete("") if not word.startswith("-")]


def test_a_verb_that_is_begun_is_finished() -> None:
    assert complete("rec") == ["reconnect"]


@pytest.mark.parametrize("verb", tuple(load_verbs()), ids=lambda verb: str(verb.name))
def test_the_options_of_a_verb_are_offered(verb: object, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    verb.add_arguments(parser)  # type: ignore[attr-defined]
    options = {option for action in parser._actions for option in action.option_strings}
    offered = complete("--runtime-dir", str(tmp_path), verb.name, "-")  # type: ignore[attr-defined]
    assert options | {"-i", "--json", "--help"} <= set(offered)


def test_every_topic_is_offered_once() -> None:
    assert set(TOPICS) <= set(complete("show", ""))
    assert complete("show", "drops", "") == []


@pytest.mark.parametrize("verb", ["status", "why", "ping", "reconnect"])
def test_peers_are_asked_of_the_daemon(running: tuple[str, str], verb: str) -> None:
    peers = [peer.name for peer in status().instances[0].peers]
    assert complete(*running, verb, "") == peers
    assert complete(*running, verb, peers[0][:2]) == [peers[0]]


def test_a_peer_is_offered_to_wait_for(running: tuple[str, str]) -> None:
    assert complete(*running, "wait", "--peer", "") == [peer.name for peer in status().instances[0].peers]


def test_nobody_is_offered_where_nothing_runs(tmp_path: Path) -> None:
    assert complete("--runtime-dir", str(tmp_path), "why", "") == []


def test_instances_are_those_that_run_and_those_that_are_configured(
    running: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hub.toml").touch()
    assert sorted(complete(*running, "--config-dir", f"{tmp_path}/etc", "-i", "")) == ["hub", "site"]


def test_files_are_offered_to_check(tmp_path: Path) -> None:
    (tmp_path / "site.toml").touch()
    assert complete("check", f"{tmp_path}/si") == [f"{tmp_path}/site.toml"]


def test_what_is_done_to_a_peer_is_offered_then_whom_to_do_it_to(running: tuple[str, str]) -> None:
    peers = [peer.name for peer in status().instances[0].peers]
    assert complete(*running, "peer", "") == [
        *("add", "remove", "rename", "rekey"),
        *("block", "unblock", "invite"),
    ]
    assert complete(*running, "peer", "block", "") == peers
    assert complete(*running, "peer", "block", peers[0], "") == []
    assert complete(*running, "peer", "rekey", "") == peers
    assert complete(*running, "peer", "rekey", "x", "--o") == ["--overlap"]
    assert complete(*running, "peer", "add", "x", "--public-key", "k", "--ne") == ["--network"]
    assert complete(*running, "peer", "invite", "x", "--expires", "7d", "--q") == ["--qr"]
