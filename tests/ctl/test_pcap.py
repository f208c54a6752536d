"""vpnctl pcap: where packets may go, and what may come instead of them. The rest is in the lab."""

from __future__ import annotations

from tests.ctl.console import Console
from tests.fakes.control_server import FakeDaemon
from vpnd.control import CAPTURE_LAYOUT, CaptureReport, Pcap
from vpnd.errors import ControlError

REPORT = CaptureReport(CAPTURE_LAYOUT, 4, 128, "vpn-site", "tun", {}, ())


def test_packets_do_not_go_to_a_terminal(console: Console) -> None:
    console.is_terminal = True
    with FakeDaemon(console.runtime_dir, "site", {Pcap: [REPORT]}) as daemon:
        result = console.run("pcap")
    assert (result.code, result.out) == (2, "")
    assert "-w FILE" in result.err
    assert daemon.requests == []


def test_a_file_that_cannot_be_made_is_told_before_anything_is_captured(console: Console) -> None:
    with FakeDaemon(console.runtime_dir, "site", {Pcap: [REPORT]}) as daemon:
        result = console.run("pcap", "-w", f"{console.folder}/missing/file")
    assert (result.code, daemon.requests) == (1, [])
    assert "No such file or directory" in result.err


def test_what_is_asked_for_is_what_was_said(console: Console) -> None:
    refusal = ControlError("refused", "a capture runs already")
    with FakeDaemon(console.runtime_dir, "site", {Pcap: [refusal]}) as daemon:
        result = console.run("pcap", "berlin", "-w", f"{console.folder}/file")
        console.run("pcap", "--outer", "--drops", "-w", f"{console.folder}/file")
    assert (result.code, result.err) == (1, "vpnctl: a capture runs already\n")
    assert daemon.requests == [Pcap("berlin"), Pcap(None, inner=False, outer=True, drops=True)]


def test_an_answer_without_the_memory_is_refused(console: Console) -> None:
    with FakeDaemon(console.runtime_dir, "site", {Pcap: [REPORT]}):
        result = console.run("pcap", "-w", f"{console.folder}/file")
    assert (result.code, result.err) == (1, "vpnctl: site answers without the descriptor\n")
