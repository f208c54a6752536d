"""One of the kernel's own counters, as evidence for `vpnctl why`.

Owns the reading of /proc/net/snmp (RFC 1213's ip group), of our network namespace.
"""

from __future__ import annotations

from pathlib import Path

_FILE = Path("/proc/self/net/snmp")


def address_errors() -> int:
    """Tells ipInAddrErrors: packets for others that came in where forwarding is off. 0 where unknown."""
    try:
        lines = [line.split() for line in _FILE.read_text().splitlines() if line.startswith("Ip:")]
    except OSError:
        return 0
    names, values = lines[0], lines[1]
    return int(values[names.index("InAddrErrors")])
