"""A folder with the files of an instance named "site", and what reading them gives."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import pytest

from vpnd.config import Config, load
from vpnd.errors import ConfigError

BERLIN = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
LYON = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
OSLO = "ihlIEawvzipDWXGGCRWpe/BpaEPK0pAp9IPOP7Dv0XA="
OSLO = "3ytLMtnQZoA5EuMYDwQdU46ehN/hPUnEqN3FXLxKxWg="

PEER = f"""
[peer.berlin]
public_key = "{BERLIN}"
endpoint = "192.0.2.1:5180"
networks = ["10.255.0.2/32"]
"""


def key_text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@dataclass(frozen=True)
class Site:
    """The current folder is that of the files, so mistakes begin with "site.toml"."""

    folder: Path

    def write(self, text: str | bytes, **peers: str | bytes) -> None:
        self._put("site.toml", text)
        for name, peer in peers.items():
            self._put(f"site.d/{name}.toml", peer)

    def load(self, text: str | bytes, **peers: str | bytes) -> Config:
        self.write(text, **peers)
        return load("site", Path("site.toml"))

    def mistakes(self, text: str | bytes, **peers: str | bytes) -> list[str]:
        """What load says of these files, line by line; nothing where it is content."""
        try:
            self.load(text, **peers)
        except ConfigError as error:
            return str(error).splitlines()
        return []

    def _put(self, name: str, text: str | bytes) -> None:
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)


def make_site(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.chdir(folder)
    return Site(folder)
