"""A login session over a real ssh server, held open while the tunnel is treated badly.

Owns sshd, its throw-away keys and the session. Keepalives of ssh itself are off: only the
tunnel may keep the session alive.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.namespaces import Host, eventually

_PORT = 2222
_OPTIONS = """
StrictHostKeyChecking=no UserKnownHostsFile=/dev/null TCPKeepAlive=no LogLevel=ERROR BatchMode=yes
"""


class Login:
    """A shell on `server`, typed at from `client`."""

    def __init__(self, client: Host, server: Host, address: str) -> None:
        self._start_server(server, address)
        key = client.folder / "id"
        client.run(f"ssh-keygen -q -t ed25519 -N '' -f {key}")
        (server.folder / "authorized").write_text((client.folder / "id.pub").read_text())
        words = [word for option in _OPTIONS.split() for word in ("-o", option)]
        self._process = client.start(
            *("ssh", *words, "-i", str(key), "-p", str(_PORT), f"root@{address}", "exec sh"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._heard = ""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(5)
        self._listener.join(5)

    def type(self, line: str) -> None:
        """Types a line and does not wait for anything."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def hears(self, text: str, *, within_s: float = 10.0) -> bool:
        """Waits until a line equal to `text` came back."""
        eventually(
            lambda: text in self._heard.splitlines(), within_s=within_s, what=f"{text!r} from the shell"
        )
        return True

    def says(self, command: str, *, within_s: float = 10.0) -> str:
        """Types a command and gives its output."""
        mark = f"end-of-{time.monotonic_ns()}"
        start = len(self._heard)
        self.type(f"{command}; echo {mark}")
        self.hears(mark, within_s=within_s)
        return self._heard[start:].split(mark)[0].strip()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        while chunk := os.read(self._process.stdout.fileno(), 4096):
            self._heard += chunk.decode(errors="replace")

    @staticmethod
    def _start_server(server: Host, address: str) -> None:
        key = server.folder / "host_key"
        server.run(f"ssh-keygen -q -t ed25519 -N '' -f {key}")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = server.folder / "sshd_config"
        config.write_text(
            f"ListenAddress {address}\nPort {_PORT}\nHostKey {key}\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {server.folder}/authorized\nStrictModes no\nPermitRootLogin yes\n"
            "TCPKeepAlive no\nUseDNS no\n"
        )
        server.start("/usr/sbin/sshd", "-D", "-e", "-f", config, log="sshd.log")
        eventually(lambda: f":{_PORT}" in server.output("ss -ltn"), what="sshd listening")
