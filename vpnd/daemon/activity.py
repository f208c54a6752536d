"""The plane's stamps of a peer in the protocol's words: seconds instead of nanoseconds."""

from __future__ import annotations

from vpnd.plane.counters import PeerCounters
from vpnd.protocol.peer import Activity


def activity_of(counters: PeerCounters) -> Activity:
    """Translates one peer's counters."""
    return Activity(
        last_sent=counters.last_sent_ns / 1e9,
        last_received=counters.last_received_ns / 1e9,
        last_data_sent=counters.last_data_sent_ns / 1e9,
        last_data_received=counters.last_data_received_ns / 1e9,
        unanswered_sent_since=counters.unanswered_sent_since_ns / 1e9,
        unanswered_received_since=counters.unanswered_received_since_ns / 1e9,
        session_messages=counters.session_messages,
        session_bytes=counters.session_bytes,
    )
