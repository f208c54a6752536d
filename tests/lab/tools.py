"""Traffic and captures: real programs, read as an operator would read them."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from tests.lab.namespaces import Host, Lab, eventually

_PCAP_HEADER, _PCAP_RECORD = 24, 16  # bytes; a record's third word is the size kept
_CAPTURED_S = 0.5  # in which tcpdump writes at least one packet of those that wait
_PCAP_COUNTS = re.compile(r"(\d+) packets? (?:captured|received|dropped)")
_STREAM = (sys.executable, "-m", "tests.lab.stream")


class Capture:
    """tcpdump on one link, from the moment the constructor returns until `stop`."""

    def __init__(self, host: Host, link: str, expression: str = "") -> None:
        self._file = host.folder / f"{link}-{time.monotonic_ns()}.pcap"
        self._host = host
        words = (
            "tcpdump",
            "-Z",
            "root",
            "-n",
            "-U",
            "--immediate-mode",
            "-i",
            link,
            "-w",
            str(self._file),
            *expression.split(),
        )
        self._process = host.start(*words, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        line = b""
        while b"listening on" not in line:
            line = self._process.stderr.readline()
            assert line, f"tcpdump on {host} {link} did not start"

    def stop(self) -> None:
        """Ends it when all that passed the filter so far is in the file."""
        time.sleep(0.2)  # what was just sent passes the link
        missing = self._missing()
        since = time.monotonic()
        # What came before the filter was in force is counted as received and stays missing.
        while missing > 0 and time.monotonic() - since < _CAPTURED_S:
            time.sleep(0.01)
            if (still := self._missing()) != missing:
                missing, since = still, time.monotonic()
        self._process.terminate()
        self._process.wait(5)

    def _missing(self) -> int:
        """How many packets tcpdump has yet to write."""
        assert self._process.stderr is not None
        self._process.send_signal(signal.SIGUSR1)  # it tells how far it is
        line = self._process.stderr.readline().decode()
        captured, received, dropped = map(int, _PCAP_COUNTS.findall(line))
        return received - captured - dropped

    def lines(self, expression: str = "") -> list[str]:
        """One line per packet that matches, as tcpdump prints them."""
        words = ["tcpdump", "-n", "-r", str(self._file), *expression.split()]
        printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        # The bytes of what tcpdump cannot name follow in lines of their own.
        return [line for line in printed.splitlines() if not line.startswith("\t")]

    def packets(self) -> list[bytes]:
        """The packets as captured, each with its link's header."""
        data, packets, offset = self.content, [], _PCAP_HEADER
        while offset < len(data):
            (size,) = struct.unpack_from("=I", data, offset + 8)
            packets.append(data[offset + _PCAP_RECORD : offset + _PCAP_RECORD + size])
            offset += _PCAP_RECORD + size
        return packets

    @property
    def content(self) -> bytes:
        return self._file.read_bytes()


def serve_file(host: Host, *, size: int, address: str) -> str:
    """Starts nginx with one file of `size` random bytes and gives the file's SHA-256."""
    folder = host.folder / "www"
    folder.mkdir(exist_ok=True)
    file = folder / "file"
    with Path("/dev/urandom").open("rb") as random:
        file.write_bytes(random.read(size))
    (host.folder / "nginx.conf").write_text(f"""
        user root; daemon off; pid {host.folder}/nginx.pid; error_log {host.folder}/nginx.err;
        events {{ worker_connections 64; }}
        http {{ access_log off; server {{ listen {_bracketed(address)}:8080; root {folder}; }} }}
    """)
    host.start("nginx", "-c", host.folder / "nginx.conf", "-e", host.folder / "nginx.err")
    eventually(lambda: f"{_bracketed(address)}:8080" in host.output("ss -ltn"), what="nginx listening")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def fetch_file(host: Host, *, address: str, timeout_s: float) -> str:
    """Fetches nginx's file by curl and gives its SHA-256."""
    file = host.folder / "fetched"
    host.run(
        f"curl -sS --fail --max-time {timeout_s} -o {file} http://{_bracketed(address)}:8080/file",
        timeout_s=timeout_s + 5,
    )
    return hashlib.sha256(file.read_bytes()).hexdigest()


def iperf3(
    client: Host, server: Host, address: str, *, seconds: int = 3, options: str = ""
) -> dict[str, object]:
    """Runs one iperf3 test and gives the "end" part of its JSON."""
    process = server.start("iperf3", "-s", "-1", "-B", address)
    eventually(lambda: ":5201" in server.output("ss -ltn"), what="iperf3 listening")
    words = f"iperf3 -J -c {address} -t {seconds} {options}"
    report = json.loads(client.run(words, timeout_s=seconds + 30).stdout)
    process.wait(10)
    end: dict[str, object] = report["end"]
    return end


def tcp_mbit(end: dict[str, object]) -> float:
    """The received rate of a TCP test in Mbit/s."""
    received = end["sum_received"]
    assert isinstance(received, dict)
    return float(received["bits_per_second"]) / 1e6


class UdpStream:
    """A steady stream of numbered datagrams, and the count of what arrived."""

    def __init__(self, sender: Host, receiver: Host, address: str, *, rate: int, size: int = 200) -> None:
        self._receiver = receiver.start(
            *_STREAM, "receive", address, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._receiver.stdout is not None
        assert self._receiver.stdout.readline() == b"ready\n"
        self._sender = sender.start(
            *(*_STREAM, "send", address, str(rate), str(size)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def stop(self) -> tuple[int, int]:
        """Ends the stream and tells how many datagrams were sent, and how many different ones arrived."""
        sent = self._end(self._sender)
        return sent, self._end(self._receiver)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> int:
        output, _ = process.communicate(b"stop\n", timeout=10)
        return int(output.split()[-1])


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def hub_and_crowd(lab: Lab) -> tuple[Host, Host]:
    """A hub at 10.9.0.1, and a machine from which every caller of crowd.py has an address of its own."""
    hub, crowd = lab.host("hub"), lab.host("crowd")
    lab.cable(hub, "eth0", crowd, "eth0")
    hub.run("ip addr add 10.9.0.1/24 dev eth0")
    crowd.run("ip addr add 10.9.0.66/24 dev eth0")
    crowd.run("ip route add local 10.64.0.0/16 dev lo")
    hub.run("ip route add 10.64.0.0/16 via 10.9.0.66")
    return hub, crowd


def machine(host: Host) -> dict[str, str]:
    """Everything of a machine that vpnd may shape and has to leave as it was, by name."""
    return {
        "links": "\n".join(sorted(_shape(link) for link in json.loads(host.output("ip -j link")))),
        "addresses": "\n".join(
            sorted(" ".join(line.split()[1:4]) for line in host.output("ip -o addr").splitlines())
        ),
        "routes": "\n".join(
            sorted(
                line.split(" expires ")[0]
                for family in ("-4", "-6")
                for line in host.output(f"ip {family} route show table all").splitlines()
            )
        ),
        "rules": host.output("ip -4 rule") + host.output("ip -6 rule"),
        "nftables": host.output("nft list ruleset"),
        "sysctls": host.output(
            r"sysctl -a --pattern ^net\.ipv[46]\.(ip_forward|conf\..*\.(forwarding|force_forwarding"
            r"|rp_filter|accept_ra|accept_local|addr_gen_mode|disable_ipv6))$"
        ),
    }


def _shape(link: dict[str, object]) -> str:
    """A link without what comes and goes with a cable or a reader at its other end."""
    flags = link["flags"]
    assert isinstance(flags, list)
    kept = sorted(set(flags) - {"LOWER_UP", "NO-CARRIER"})
    return f"{link['ifname']} {link.get('address')} mtu {link['mtu']} qlen {link.get('txqlen')} {kept}"
