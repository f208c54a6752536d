"""vpnd: as installed, and its variants that answer one question each.

Left calls right. With `peers` the right side is a hub whose file names that many, and left is one of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import pair
from benchmarks.build import plane_variant
from benchmarks.crowd import peers_text
from benchmarks.pair import MTU, RIGHT, TUNNEL_LEFT, TUNNEL_RIGHT, Pair
from benchmarks.systems.system import System
from tests.lab.namespaces import Host, Lab, eventually
from tests.lab.vpnd import BIN, Vpnd
from vpnd import __version__

PORT = 5180
INSTALLED = BIN / "vpnd-plane"
_VARIANTS_TAKE = frozenset({"tcp1", "tcp1-back"})


class MeasuredVpnd(Vpnd):
    """A vpnd of the lab whose plane, started before it, may be another build or have options."""

    def __init__(self, host: Host, program: Path = INSTALLED, *options: str) -> None:
        super().__init__(host, own_plane=True)
        self._plane_command: tuple[str | Path, ...] = (program, *options)

    def start_plane(self) -> None:
        path = self.runtime_dir / "plane.sock"
        environment = os.environ | self.environment
        self.plane = self.host.start(*self._plane_command, "--listen", path, log="plane.log", env=environment)
        eventually(path.exists, what="plane.sock")

    def resident_mb(self) -> float:
        """Memory of daemon and plane in megabytes; what processes share is divided among them (PSS)."""
        assert self.daemon is not None
        return sum(map(_resident_kib, (self.daemon.pid, self.plane_pid()))) * 1024 / 1e6

    def pin(self, daemon: int, plane: int) -> None:
        """Keeps every thread of the daemon on one processor, and those of its plane on one."""
        assert self.daemon is not None
        for pid, processor in ((self.daemon.pid, daemon), (self.plane_pid(), plane)):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {processor})


class VpndSystem(System):
    """`program` is asked for when the system is built, since some are compiled then."""

    def __init__(
        self,
        name: str = "vpnd",
        about: str = "AES-256-GCM, as installed",
        *,
        program: Callable[[], Path] = lambda: INSTALLED,
        options: tuple[str, ...] = (),
        kind: str = "tun",
        peers: int = 1,
        workers: int = 1,
    ) -> None:
        self.name, self.about = name, about
        self.measures = None if name == "vpnd" else _VARIANTS_TAKE
        self._program, self._options, self._kind = program, options, kind
        self._peers, self._workers = peers, workers

    def build(self, lab: Lab) -> Pair:
        made = pair.cable(lab)
        program = self._program()
        left, right = (MeasuredVpnd(host, program, *self._options) for host in (made.left, made.right))
        join(left, right, kind=self._kind, peers=self._peers, workers=self._workers)
        right.start()
        left.start()
        return pair.tunnelled(made)

    def version(self) -> str:
        return __version__


def join(
    left: MeasuredVpnd, right: MeasuredVpnd, *, kind: str = "tun", peers: int = 1, workers: int = 1
) -> None:
    """Writes both configurations; nothing is started."""
    behind_left = [] if kind == "tap" else [f"{TUNNEL_LEFT}/32"]
    behind_right = [] if kind == "tap" else [f"{TUNNEL_RIGHT}/32"]
    left.configure(f"""\
[interface]
type = "{kind}"
mtu = {MTU}
addresses = ["{TUNNEL_LEFT}/24"]
[local]
workers = {workers}
[peer.right]
public_key = "{right.key.public}"
endpoint = "{RIGHT}:{PORT}"
networks = {behind_right}
""")
    right.configure(f"""\
[interface]
type = "{kind}"
mtu = {MTU}
addresses = ["{TUNNEL_RIGHT}/24"]
[local]
workers = {workers}
listen = ["0.0.0.0:{PORT}"]
[peer.left]
public_key = "{left.key.public}"
networks = {behind_left}
{peers_text(peers - 1)}
""")


def _resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} has no memory")


def systems() -> tuple[VpndSystem, ...]:
    """The one as installed, then its variants."""
    copy, chacha20 = partial(plane_variant, "copy"), partial(plane_variant, "chacha20")
    return (
        VpndSystem(),
        VpndSystem("vpnd-tap", "an Ethernet link", kind="tap"),
        VpndSystem("vpnd-10000", "10,000 configured peers", peers=10_000),
        VpndSystem("vpnd-copy", "sealing left out: the copy limit", program=copy),
        VpndSystem("vpnd-1000", "1,000 configured peers", peers=1000),
        VpndSystem("vpnd-workers", "two workers per direction", workers=2),
        VpndSystem("vpnd-openssl", "AES-256-GCM by OpenSSL", options=("--aead", "openssl")),
        VpndSystem("vpnd-chacha20", "ChaCha20-Poly1305", program=chacha20),
    )
