"""A real Prometheus of Debian, unpacked beside the machine: nothing is installed or started by it.

Owns the cache of its programs, and one server with one target.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import tempfile
import urllib.parse
from pathlib import Path
from typing import Any

from tests.lab.namespaces import Host, eventually

CACHE = Path("/var/cache/vpnd-test/prometheus")
_PORT = 9590


def programs() -> Path:
    """Gives the folder of `prometheus` and `promtool`, fetched by apt where it is missing."""
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with CACHE.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not CACHE.exists():
            with tempfile.TemporaryDirectory(dir=CACHE.parent) as folder:
                for words in (["update"], ["download", "prometheus"]):
                    apt = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", *words]
                    subprocess.run(apt, cwd=folder, check=True, stdin=subprocess.DEVNULL, timeout=120)
                (package,) = Path(folder).glob("*.deb")
                subprocess.run(["dpkg-deb", "-x", package, f"{folder}/root"], check=True, timeout=60)
                shutil.move(f"{folder}/root/usr/bin", CACHE)
    return CACHE


class Prometheus:
    """A server on `host` that asks `target` each second, as operating.md has its configuration."""

    def __init__(self, host: Host, configuration: str) -> None:
        self._host = host
        file = host.folder / "prometheus.yml"
        file.write_text(configuration)
        host.run(f"{programs()}/promtool check config {file}")
        host.start(
            programs() / "prometheus",
            *(f"--config.file={file}", f"--storage.tsdb.path={host.folder}/tsdb"),
            *(f"--web.listen-address=127.0.0.1:{_PORT}", "--log.level=error"),
            log="prometheus.log",
        )
        eventually(lambda: self._get("/-/ready") is not None, within_s=30, what="Prometheus being ready")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Gives the samples of now; an expression that is refused fails."""
        answer = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        assert answer is not None, expression
        document = json.loads(answer)
        assert document["status"] == "success", document
        samples: list[dict[str, Any]] = document["data"]["result"]
        return samples

    def value(self, expression: str) -> float | None:
        """Gives the only sample's value; None where there is none."""
        samples = self.query(expression)
        return float(samples[0]["value"][1]) if samples else None

    def _get(self, path: str) -> str | None:
        done = self._host.run(f"curl -sSf -m 5 'http://127.0.0.1:{_PORT}{path}'", check=False)
        return done.stdout if done.returncode == 0 else None
