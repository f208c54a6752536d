"""The names of all sections and keys, and which of them an unknown name was meant to be.

Owns the vocabulary of the configuration files. Knows nothing of values.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

SECTION_KEYS: dict[str, tuple[str, ...]] = {
    "interface": ("name", "type", "addresses", "mtu", "txqueuelen", "mac", "bridge"),
    "local": (
        "private_key",
        "previous_private_key",
        "key_overlap",
        "listen",
        "fwmark",
        "workers",
        "knock",
        "padding",
        "offload",
    ),
    "peer": (
        "public_key",
        "previous_public_key",
        "preshared_key",
        "endpoint",
        "networks",
        "route",
        "keepalive",
        "accept",
        "enabled",
        "groups",
        "invited_until",
        "macs",
        "vlans",
        "storm_limit",
        "isolated",
    ),
    "routing": (
        "table",
        "metric",
        "full_tunnel",
        "allow_lan",
        "kill_switch",
        "forward",
        "masquerade",
        "client_to_client",
    ),
    "dns": ("servers", "domains"),
    "pool": ("ipv4", "ipv6"),
    "push": ("routes", "dns", "mtu"),
    "groups": ("allow", "peers"),
}

# What users of other VPN programs write by habit, in lower case without "_" and "-".
_HABITS = {
    "allowedips": "networks",
    "subnet": "networks",
    "persistentkeepalive": "keepalive",
    "listenport": "listen",
    "port": "listen",
    "bind": "listen",
    "remote": "endpoint",
    "address": "addresses",
    "psk": "preshared_key",
    "peers": "peer",
    "nat": "masquerade",
    "members": "peers",
    "group": "groups",
}


def explain_unknown(name: str, known: Collection[str]) -> str:
    """Says what an unknown name may have meant: a similar one, one of another section or of the list."""
    near = _nearest(name, known)
    if near is not None:
        return f'unknown; did you mean "{near}"?'
    homes = [section for section, keys in SECTION_KEYS.items() if name in keys and section != "push"]
    if homes:
        return f"unknown here; it is a key of {' or '.join(map(_header, homes))}"
    return f"unknown; known here: {', '.join(known)}"


def _nearest(name: str, known: Collection[str]) -> str | None:
    plain = name.lower().replace("-", "").replace("_", "")
    if _HABITS.get(plain) in known:
        return _HABITS[plain]
    by_plain_name = {key.replace("_", ""): key for key in known}
    found = difflib.get_close_matches(plain, by_plain_name, n=1, cutoff=0.7)
    return by_plain_name[found[0]] if found else None


def _header(section: str) -> str:
    return f"[{section}.NAME]" if section in ("peer", "groups") else f"[{section}]"
