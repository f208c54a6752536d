"""Ethernet frames made by hand: what no program of the lab would send by itself.

Owns their bytes and the sending of them on a link, TAP or veth.
"""

from __future__ import annotations

import struct
import sys

from tests.lab.namespaces import Host

EXPERIMENT = 0x88B5  # for local experiments: no host answers it
_SEND = """
import socket, sys
opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
opened.bind((sys.argv[1], 0))
for line in sys.stdin.read().split():
    opened.send(bytes.fromhex(line))
"""


def mac(number: int) -> str:
    """A locally administered address that no machine of the lab has."""
    return f"02:00:00:00:{number >> 8:02x}:{number & 0xFF:02x}"


def frame(
    destination: str,
    source: str,
    payload: bytes = b"",
    *,
    size: int = 64,
    kind: int = EXPERIMENT,
    vlan: int | None = None,
) -> bytes:
    """Builds a frame of `size` bytes without checksum; a VLAN's tag is among them."""
    head = bytes.fromhex((destination + source).replace(":", ""))
    if vlan is not None:
        head += struct.pack("!HH", 0x8100, vlan)
    return (head + struct.pack("!H", kind) + payload).ljust(size, b"\xa5")


def send_frames(host: Host, link: str, *frames: bytes) -> None:
    """Sends whole frames into a link, as a machine behind a bridge would."""
    host.run(f"{sys.executable} -c '{_SEND}' {link}", text="\n".join(each.hex() for each in frames))


def mac_of(host: Host, link: str) -> str:
    """Reads the address of a link."""
    return host.output(f"cat /sys/class/net/{link}/address").strip()
