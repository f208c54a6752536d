"""Refusals and notices in an operator's words: what it means and what to do.

Owns the sentences, nothing else. The names are those of the counters.
"""

from __future__ import annotations

from vpnd.config import PeerConfig
from vpnd.protocol.constants import NoticeReason

_REFUSALS = {
    "rx_mac1": (
        "it calls with another public key for us, or with another knock",
        "there, set public_key to the one `vpnctl --json status` shows here, and the same knock",
    ),
    "hs_box_id": (
        "its first message does not open: it was damaged or forged",
        "check the public_key configured for us on the other machine",
    ),
    "hs_unknown_peer": (
        "its public key is not configured here, or its peer is disabled",
        "set peer.{name}.public_key to the key that machine really has",
    ),
    "hs_box_params": (
        "the preshared keys differ, or one side has none",
        "give both sides the same preshared_key file",
    ),
    "hs_stale": (
        "its clock is behind one it showed before",
        "set the clock of the other machine, and keep its state directory",
    ),
    "hs_peer_rate": ("it calls too often", "look for two machines that use the same private key"),
    "hs_param": (
        "what it offers does not fit: link type, suites or protocol version",
        "use the same interface.type on both sides and versions of vpnd that know each other",
    ),
    "hs_resp_mac": (
        "an answer came that the peer did not make",
        "look for another machine that answers at the peer's address",
    ),
    "hs_resp_box": ("an answer came that does not open", "check the peer's public key and preshared key"),
    "downgrade_seen": (
        "the handshake fell back to an older protocol version than both know",
        "look for something on the way that drops newer handshakes",
    ),
}

_NOTICES = {
    NoticeReason.SOURCE: (
        "{name} drops our packets: inner source not in the networks it has for us ({count} so far)",
        "use an inner address that {name} has in its networks for us, or add ours there",
    ),
    NoticeReason.INNER: (
        "{name} drops our packets: it takes them for no packet of its link type ({count} so far)",
        "use the same interface.type on both sides",
    ),
}


def explain_refusal(reason: str, peer: PeerConfig) -> tuple[str, str]:
    """Gives the meaning of a refused handshake message, and the remedy."""
    text, remedy = _REFUSALS.get(reason, (f"its handshake was refused ({reason})", "see `vpnctl show drops`"))
    return f"{text} ({reason})" if reason in _REFUSALS else text, remedy.format(name=peer.name)


def explain_notice(reason: int, count: int, peer: PeerConfig) -> tuple[str, str]:
    """Gives the meaning of what the peer told about our packets, and the remedy."""
    text, remedy = _NOTICES[NoticeReason(reason)]
    return text.format(name=peer.name, count=count), remedy.format(name=peer.name)
