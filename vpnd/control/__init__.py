"""The control socket's language: requests, replies, reports.

Owns every word vpnctl and the daemon exchange on /run/vpnd/<instance>/control.sock, one JSON
object per line each way, and the meaning of exit statuses. Opens no socket and asks nobody.

    decode_request(line) -> Request            encode_reply(report), encode_error(error) -> line
    encode_request(request) -> line            decode_reply(line) -> JSON, then from_json(Report, JSON)

What single requests are answered with is imported from where it stands, reports.py, events.py, capture.py
and metrics.py: `vpnctl status` has to start quickly.
"""

from vpnd.control.codes import (
    EXIT_CODES,
    EXIT_CONFIG,
    EXIT_DONE,
    EXIT_NOT_FOUND,
    EXIT_NOT_PERMITTED,
    EXIT_NOT_RUNNING,
    EXIT_REFUSED,
    EXIT_TIMED_OUT,
    EXIT_USAGE,
    exit_code_of,
)
from vpnd.control.replies import REPLY_LIMIT, decode_reply, encode_error, encode_reply
from vpnd.control.requests import (
    PING_COUNT_LIMIT,
    PING_SIZE_LIMIT,
    REQUEST_LIMIT,
    TOPICS,
    WAIT_LIMIT_S,
    Metrics,
    Monitor,
    Pcap,
    Ping,
    Reconnect,
    Reload,
    Request,
    Show,
    Status,
    Topic,
    Wait,
    Why,
    decode_request,
    encode_request,
)
from vpnd.control.status import (
    STATUS_SCHEMA,
    HealthFinding,
    InstanceHealth,
    InstanceReport,
    InstanceState,
    LinkReport,
    PeerReport,
    PeerState,
    PlaneReport,
    PreviousKeyReport,
    StatusHealth,
    StatusReport,
    is_healthy,
    no_such_peer,
)
from vpnd.control.text import to_text
from vpnd.control.values import from_json, parse_json, to_json

__all__ = [
    "EXIT_CODES",
    "EXIT_CONFIG",
    "EXIT_DONE",
    "EXIT_NOT_FOUND",
    "EXIT_NOT_PERMITTED",
    "EXIT_NOT_RUNNING",
    "EXIT_REFUSED",
    "EXIT_TIMED_OUT",
    "EXIT_USAGE",
    "PING_COUNT_LIMIT",
    "PING_SIZE_LIMIT",
    "REPLY_LIMIT",
    "REQUEST_LIMIT",
    "STATUS_SCHEMA",
    "TOPICS",
    "WAIT_LIMIT_S",
    "HealthFinding",
    "InstanceHealth",
    "InstanceReport",
    "InstanceState",
    "LinkReport",
    "Metrics",
    "Monitor",
    "Pcap",
    "PeerReport",
    "PeerState",
    "Ping",
    "PlaneReport",
    "PreviousKeyReport",
    "Reconnect",
    "Reload",
    "Request",
    "Show",
    "Status",
    "StatusHealth",
    "StatusReport",
    "Topic",
    "Wait",
    "Why",
    "decode_reply",
    "decode_request",
    "encode_error",
    "encode_reply",
    "encode_request",
    "exit_code_of",
    "from_json",
    "is_healthy",
    "no_such_peer",
    "parse_json",
    "to_json",
    "to_text",
]
