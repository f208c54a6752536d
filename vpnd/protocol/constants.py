"""The numbers of the protocol, and every tunable of this implementation, on one page.

Owns what both ends must agree on (types, sizes, bits) and the `Timers`, which are ours.
Refuses to know how any of it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag


class PacketType(IntEnum):
    """First byte of a datagram (section 3)."""

    HS_INIT = 0x08
    HS_RESP = 0x09
    COOKIE = 0x0A
    DATA = 0x0C


class Control(IntEnum):
    """First byte of a control message inside DATA (section 9.3)."""

    GOODBYE = 0x20
    PROBE = 0x21
    PROBE_ACK = 0x22
    PATH_CHALLENGE = 0x23
    PATH_RESPONSE = 0x24
    PARAMS = 0x25
    PARAMS_ACK = 0x26
    PING = 0x27
    PONG = 0x28
    NOTICE = 0x29
    ENROL = 0x2A
    ENROL_ACK = 0x2B


class Suite(IntEnum):
    """Transport AEAD; the greater the preference, the smaller the number."""

    AES_256_GCM = 1
    CHACHA20_POLY1305 = 2


class Feature(IntFlag):
    """Bits of the FEATURES parameter (section 10)."""

    TUN = 1
    TAP = 2
    CSUM = 4
    VNET = 8
    PMTU = 16
    PATH = 32
    PARAMS = 64


class GoodbyeReason(IntEnum):
    """Why a session ends by GOODBYE (section 9.3)."""

    NONE = 0
    SHUTDOWN = 1
    RESTART = 2
    REMOVED = 3
    IDLE = 4


class NoticeReason(IntEnum):
    """What is wrong with packets that a NOTICE tells their sender about (section 9.3)."""

    SOURCE = 1  # inner source not in the networks the receiver has for the sender
    INNER = 2  # no packet or frame of the receiver's link type


class EnrolAnswer(IntEnum):
    """What becomes of a key that an ENROL told (section 9.3)."""

    DONE = 0
    REFUSED = 1  # not invited, or a key that cannot be this peer's
    NOT_NOW = 2  # it could not be written down


class PaddingMode(IntEnum):
    """How far plaintexts are filled (section 9.5); the greater is the stronger."""

    NONE = 0
    X16 = 1
    BUCKET = 2
    FULL = 3


class Slot(IntEnum):
    """Where the plane keeps a session; the plane socket uses the same numbers."""

    UNCONFIRMED = 1
    CURRENT = 2
    PREVIOUS = 3


# --- fixed by the protocol ---

VERSIONS = (1,)  # what this program speaks
PARAMETERS_STEP = 64  # sealed parameters are multiples of this, so lengths tell little
PARAMETERS1_MAX = 512
PARAMETERS2_MAX = 1024
DATAGRAM_MAX = 1232  # UDP payload that fits the IPv6 minimum MTU
RESPONSE_RATIO_MAX = 3  # a response is at most this many times its initiation
TIMESTAMP_GRAIN_NS = 1 << 24  # hides the exact clock, 17 ms
EPOCH_SIZE = 8
DATA_OVERHEAD = 32  # around the plaintext of a data message
FRAME_OVERHEAD = 19  # around the packet in a frame at most: type, Ethernet header and a VLAN tag
PATH_BASE = 1280  # outer IP packet that every path carries (RFC 8200 section 5)
# Sizes at which paths end: tunnels, PPPoE, Ethernet, jumbo frames.
PATH_SIZES = (1380, 1400, 1420, 1452, 1472, 1480, 1492, 1500, 4000, 9000)

# --- limits of this implementation ---

PENDING_MAX = 3  # initiations in flight per peer
UNCONFIRMED_MAX = 2  # responder's sessions that wait for proof, per peer
INDEX_LIVE_MAX = 1 << 20
INDEX_DRAWS_MAX = 16
MAC1_CACHE_MAX = 4096
BUCKETS_MAX = 65_536
SOURCE_RATE_PER_S = 20
SOURCE_BURST = 5
ANSWERS_PER_S = 10  # control answers to one peer
LOAD_QUEUE_DEPTH = 64  # handshake messages that wait
LOAD_CPU_SHARE = 0.25  # of one second
GOODBYE_COPIES = 3
PARAMS_RESENDS = 5
PUSH_MAX = 1024  # bytes of parameters pushed to a peer: one control message on any path
PINGS_OUT_MAX = 64  # unanswered pings remembered per peer
PATH_TRIES = 3  # probes of one size, or of a path in doubt, that may go lost
PATH_PROBE_MAX = 9000  # outer IP packet of the largest probe; a path that carries it is taken to carry all


@dataclass(frozen=True, slots=True)
class Timers:
    """Every time constant of sections 5, 7 and 8. Tests inject others; nothing that ships does."""

    hs_retry_s: tuple[float, ...] = (1.0, 2.0, 4.0, 5.0)  # the last one repeats
    hs_retry_jitter_s: float = 0.33
    hs_giveup_s: float = 90.0
    persistent_restart_s: float = 30.0
    rekey_after_s: float = 120.0
    rekey_jitter_s: float = 10.0
    rekey_responder_s: float = 150.0
    reject_after_s: float = 180.0
    rekey_after_messages: int = 1 << 32
    rekey_after_bytes: int = 1 << 42
    keepalive_s: float = 10.0
    probe_s: tuple[float, ...] = (3.0, 4.0, 5.0)
    probe_handshake_s: float = 6.0
    confirm_s: tuple[float, ...] = (0.1, 0.3, 1.0)  # after the immediate one
    previous_life_s: float = 30.0
    unconfirmed_life_s: float = 15.0
    pending_life_s: float = 15.0
    cookie_secret_s: float = 120.0  # and as long again as the previous one
    cookie_use_s: float = 120.0
    cookie_resend_jitter_s: float = 0.1
    mac1_cache_s: float = 10.0
    peer_rate_s: float = 0.02  # between accepted initiations of one peer
    load_hold_s: float = 1.0
    psk_roll_s: float = 3600.0
    goodbye_interval_s: float = 0.01
    restart_wait_s: float = 1.0  # before a handshake with a peer that said it restarts
    params_resend_s: float = 1.0
    active_s: float = 180.0  # a peer heard or spoken to this lately is looked after on resume
    sleep_gap_s: float = 2.0  # a longer time without a tick may have been sleep
    resume_notice_s: float = 10.0  # word of a resume comes this soon after the first tick
    network_retry_s: float = 1.0  # least time between attempts that a network change may cause
    clock_slack_s: float = 600.0  # skipped after the stored timestamp when the clock is behind it
    path_try_s: float = 0.5  # or two round trips: three lost tries end before TCP's fourth retransmission
    path_raise_s: float = 600.0  # after which a search that ended early is repeated
    path_doubt_s: float = 0.5  # data unanswered for so long casts doubt on the path
    path_insist_s: float = 0.15  # and were sent still so long after: TCP's first retransmission
    path_doubt_gap_s: float = 5.0  # least time between doubts
    path_settle_s: float = 1.0  # after a peer's move, until its endpoint is likely to be proven
    path_check_s: float = 30.0  # and the most, while data is sent
    poll_s: float = 1.0  # stamps of the plane are looked at this often while a session lives


TIMERS = Timers()
