"""Random flows of TCP and UDP: four senders whose packets continue each other, or differ in one thing.

Owns what a packet may differ in. Knows neither plane nor link.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.plane.leaves import flows
from tests.plane.leaves.flows import (
    CWR,
    ECE,
    FIN,
    ICMP,
    MORE_FRAGMENTS,
    PSH,
    SYN,
    TCP,
    UDP,
    URG,
    Headers,
    ethernet,
)
from tests.plane.leaves.offloads import Arriving

UNIT = 40
BODY = bytes(range(256)) * 400


CHANGES = (
    *["next"] * 12,
    *(
        "short",
        "tiny",
        "long",
        "push",
        "finish",
        "gap",
        "again",
        "acknowledge",
        "window",
        "timestamps",
        "sack",
    ),
    *("urgent", "congested", "reduced", "reserved", "ttl", "tos", "label", "fragmentable", "identity"),
    *("options", "extension", "bare", "syn", "damage", "damage header", "damage payload", "no checksum"),
    *("fragment", "icmp", "trailer", "owner", "vlan", "bad offset", "minus zero", "minus zero header"),
)


@dataclass
class Flow:
    """One sender: what it sends next, and how it was changed."""

    headers: Headers
    sent: int = 0
    owner: int = 1

    def send(self, change: str, *, partial: bool) -> Arriving:
        headers = self.headers
        size = {"short": 30, "tiny": 1, "long": UNIT + 3, "bare": 0}.get(change, UNIT)
        once: dict[str, object] = {
            "push": {"flags": headers.flags | PSH},
            "finish": {"flags": headers.flags | FIN},
            "gap": {"sequence": headers.sequence + 5},
            "urgent": {"flags": headers.flags | URG, "urgent": 3},
            "reduced": {"flags": headers.flags | CWR},
            "syn": {"flags": SYN},
            "options": {"ip_options": flows.RECORD_ROUTE},
            "extension": {"extensions": bytes(8)},
            "no checksum": {"has_checksum": False},
            "fragment": {"fragment": MORE_FRAGMENTS},
            "icmp": {"protocol": UDP},
            "bad offset": {"data_offset": 3},
        }.get(change, {})  # type: ignore[assignment]
        lasting: dict[str, object] = {
            "acknowledge": {"acknowledged": headers.acknowledged + 9},
            "window": {"window": headers.window + 1},
            "timestamps": {"tcp_options": flows.TIMESTAMPS[:-1] + bytes((self.sent % 256,))},
            "sack": {"tcp_options": flows.SACK},
            "congested": {"flags": headers.flags ^ ECE},
            "reserved": {"reserved": headers.reserved ^ 1},
            "ttl": {"ttl": headers.ttl - 1},
            "tos": {"tos": headers.tos ^ 1},
            "label": {"flow_label": headers.flow_label ^ 1},
            "fragmentable": {"fragment": headers.fragment ^ flows.DONT_FRAGMENT},
            "identity": {"identity": headers.identity + 3},
            "vlan": {"ether": ethernet(9, family=headers.family) if headers.ether else b""},
        }.get(change, {})  # type: ignore[assignment]
        if change == "again":
            self.headers = headers = headers.but(sequence=(headers.sequence - UNIT) & 0xFFFFFFFF)
        if change == "owner":
            self.owner ^= 3
        self.headers = headers = headers.but(**lasting)
        content, is_partial = self._content(
            headers.but(**once), change, BODY[self.sent : self.sent + size], partial
        )
        self.sent += size
        self.headers = headers.but(
            sequence=(headers.sequence + size) & 0xFFFFFFFF, identity=(headers.identity + 1) & 0xFFFF
        )
        return Arriving(content, len(headers.ether), is_partial, self.owner)

    def _content(self, headers: Headers, change: str, payload: bytes, partial: bool) -> tuple[bytes, bool]:
        partial = partial and change not in ("no checksum", "fragment", "icmp", "bad offset", "extension")
        at = len(headers.ether)
        field_at = at + headers.transport_at + flows.CHECKSUM_AT[headers.protocol]
        content = headers.frame(payload, partial=partial)
        places = {"damage": field_at, "damage header": at + 10, "damage payload": len(content) - 1}
        if change in places and not (partial and change == "damage"):
            place = places[change]
            return content[:place] + bytes((content[place] ^ 0x10,)) + content[place + 1 :], partial
        if change == "icmp":
            kind = at + 9 if headers.family == 4 else at + 6
            content = content[:kind] + bytes((ICMP,)) + content[kind + 1 :]
            return headers.ether + flows.with_header_checksum(
                content[at:]
            ) if headers.family == 4 else content, False
        if change == "trailer" and headers.ether:
            return content + bytes(6), partial
        if change == "minus zero" and headers.protocol == TCP and payload and not partial:
            return _minus_zero(headers, payload), False
        if change == "minus zero header" and headers.family == 4:
            return flows.with_field(content, at + 10, 0xFFFF), partial
        return content, partial


def _minus_zero(headers: Headers, payload: bytes) -> bytes:
    """A packet whose TCP checksum is right, but the other zero than the one that would be written."""
    blank = headers.packet(b"\0\0" + payload[2:])
    balance = flows.real_checksum(blank, TCP, headers.transport_at)
    field_at = headers.transport_at + flows.CHECKSUM_AT[TCP]
    zero = headers.packet(balance.to_bytes(2, "big") + payload[2:])
    assert zero[field_at : field_at + 2] == b"\0\0"
    return headers.ether + flows.with_field(zero, field_at, 0xFFFF)


def senders(ether4: bytes = b"", ether6: bytes = b"") -> list[Flow]:
    """TCP and UDP of both families, behind these Ethernet headers; numbers of the first are about to wrap."""
    return [
        Flow(Headers(ether=ether4, identity=65530, sequence=2**32 - 100)),
        Flow(Headers(ether=ether6, family=6, tcp_options=flows.TIMESTAMPS)),
        Flow(Headers(ether=ether4, protocol=UDP, ports=(1, 2))),
        Flow(Headers(ether=ether6, protocol=UDP, family=6)),
    ]
