"""Conversations with nft(8): a script in, or a listing out.

Owns finding and running the program. Knows no table of ours.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from vpnd.errors import HostError

# Where Debian keeps nft, which a service's or a user's PATH may lack.
_PLACES = "/usr/sbin:/sbin:/usr/local/sbin"
_TIMEOUT_S = 10


def has_nft() -> bool:
    """Tells whether the program is there."""
    return _program() is not None


def run_script(step: str, script: str) -> None:
    """Carries out a script as one transaction: all of it or nothing. HostError names `step`."""
    _nft(step, "-f", "-", script=script)


def listing(step: str, *what: str) -> list[dict[str, Any]]:
    """Gives the entries of `nft list WHAT`. HostError names `step`."""
    text = _nft(step, "-j", "list", *what)
    entries: list[dict[str, Any]] = json.loads(text)["nftables"] if text.strip() else []
    return entries


def _program() -> str | None:
    return shutil.which("nft") or shutil.which("nft", path=_PLACES)


def _nft(step: str, *arguments: str, script: str = "") -> str:
    program = _program()
    if program is None:
        what = "masquerade, groups, client_to_client and kill_switch need the package nftables"
        raise HostError(step, f"nft is not installed; {what}")
    try:
        done = subprocess.run(
            [program, *arguments],
            input=script,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            env={"LC_ALL": "C", "PATH": _PLACES},
        )
    except subprocess.TimeoutExpired:
        raise HostError(step, f"nft gave no answer in {_TIMEOUT_S} s") from None
    if done.returncode != 0:
        said = done.stderr.strip() or str(done.returncode)
        if "Operation not permitted" in said:
            said = "Operation not permitted; vpnd needs CAP_NET_ADMIN in this network namespace"
        raise HostError(step, f"nft says: {said}")
    return done.stdout
