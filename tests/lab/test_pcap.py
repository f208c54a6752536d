"""vpnctl pcap, by the real programs: tcpdump reads what it writes, and nobody else may have it."""

from __future__ import annotations

import signal
import subprocess

from tests.lab.namespaces import Lab, eventually
from tests.lab.pair import CALLED_INNER, CALLED_OUTER, CALLER_INNER, narrow_pair
from tests.lab.vpnd import BIN, Vpnd


class Capture:
    """A `vpnctl pcap` into a file, from the moment on at which packets are copied."""

    def __init__(self, daemon: Vpnd, words: str) -> None:
        self.file = daemon.folder / "capture.pcapng"
        self.file.unlink(missing_ok=True)
        self._daemon = daemon
        self.process = daemon.host.start(
            *(BIN / "vpnctl", "-i", daemon.instance, "--runtime-dir", daemon.runtime_root),
            *("pcap", "-w", self.file),
            *words.split(),
            stderr=subprocess.PIPE,
        )
        eventually(lambda: self.file.exists() and self.file.stat().st_size > 0, what="the capture")

    def end(self) -> str:
        """Interrupts it and gives what it said."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=10)
        assert self.process.returncode == 0, said
        return said.decode()

    def lines(self, expression: str = "") -> list[str]:
        shown = self._daemon.host.run(f"tcpdump -n -r {self.file} {expression}")
        return shown.stdout.splitlines()

    def holds(self, lines: int, expression: str) -> bool:
        return len(self.lines(expression)) >= lines


def test_packets_datagrams_and_drops_are_what_tcpdump_reads(lab: Lab) -> None:
    """Also the rules around it: one at a time, for the admins alone, gone with the daemon."""
    made = narrow_pair(lab)
    caller, called = made.caller, made.called
    made.start()

    inner = Capture(caller, "called")
    assert caller.host.pings_singly(CALLED_INNER, count=3)
    eventually(lambda: inner.holds(6, "icmp"), what="six echoes")
    refused = caller.ctl("pcap -w /dev/null", check=False)
    assert (refused.returncode, "a capture runs already" in refused.stderr) == (1, True)
    assert inner.end().endswith(" packets, 0 lost\n")
    lines = inner.lines("icmp")
    assert sum(f"{CALLER_INNER} > {CALLED_INNER}: ICMP echo request" in line for line in lines) == 3
    assert sum(f"{CALLED_INNER} > {CALLER_INNER}: ICMP echo reply" in line for line in lines) == 3
    assert inner.file.stat().st_mode & 0o777 == 0o600

    outer = Capture(caller, "--outer")
    assert caller.host.pings(CALLED_INNER, count=3)
    eventually(lambda: outer.holds(6, f"udp and host {CALLED_OUTER} and port 5180"), what="six datagrams")
    outer.end()

    drops = Capture(called, "--drops")
    caller.host.run("ip addr add 10.99.0.1/32 dev vpn-caller")
    assert not caller.host.pings(CALLED_INNER, wait_s=0.2, options="-I 10.99.0.1")
    eventually(lambda: drops.holds(1, "icmp and src 10.99.0.1"), what="the dropped echo")
    drops.end()
    assert b"dropped: data_source: inner source address is not in the peer's networks; peer caller" in (
        drops.file.read_bytes()
    )

    reading = f"{BIN}/vpnctl --runtime-dir {caller.runtime_root} pcap -c 2 | tcpdump -n -r -"
    piped = caller.host.start("sh", "-c", reading, log="piped")
    eventually(lambda: caller.host.pings(CALLED_INNER) and piped.poll() is not None, what="two packets")
    assert (caller.host.folder / "piped").read_text().count("ICMP echo") == 2

    last = Capture(caller, "")
    caller.kill()
    assert last.process.wait(10) == 3
    made.called.assert_no_error()


def test_it_goes_on_at_full_speed_and_tells_what_was_lost(lab: Lab) -> None:
    """[I8] A reader that stands still: packets flow, and afterwards every one is either there or counted."""
    made = narrow_pair(lab)
    made.start()
    caller = made.caller
    capture = Capture(caller, "--inner")
    capture.process.send_signal(signal.SIGSTOP)
    before = caller.peer_now("called")["tx_packets"]
    caller.host.run(f"ping -q -f -c 6000 {CALLED_INNER}", timeout_s=60)
    sent = caller.peer_now("called")["tx_packets"] - before
    assert sent >= 6000
    capture.process.send_signal(signal.SIGCONT)
    kept, lost = map(int, capture.end().replace(" packets,", "").replace(" lost", "").split())
    assert lost > 0
    assert kept + lost >= 12000
    made.caller.assert_no_error()
