"""Every name under which a handshake or control message is refused, with its meaning.

Owns the words; counting is done where a message is refused. The names are stable: status,
metrics and documents use them.
"""

from __future__ import annotations

from collections.abc import Mapping

REFUSAL_TEXTS: Mapping[str, str] = {
    "rx_malformed": "handshake message of wrong length, type or version",
    "rx_mac1": "initiation by a caller that has another public key for us, or another knock",
    "hs_dup": "copy of an initiation that was answered already",
    "hs_cookie_sent": "initiation answered by a cookie, since we are under load",
    "hs_ratelimited": "more initiations from one source than allowed under load",
    "hs_box_id": "initiation whose first box does not open",
    "hs_unknown_peer": "initiation by a key that no enabled peer has",
    "hs_box_params": "initiation made with another preshared key, or forged",
    "hs_stale": "initiation with a timestamp that is not newer than the last",
    "hs_peer_rate": "initiation too soon after the peer's last one",
    "hs_param": "initiation or response whose parameters are wrong or do not fit ours",
    "hs_resp_noidx": "response to no initiation of ours that still waits",
    "hs_resp_mac": "response that the peer did not make",
    "hs_resp_box": "response whose box does not open",
    "cookie_bad": "cookie to no initiation of ours, or one that does not open",
    "idx_exhausted": "no free session number",
    "downgrade_seen": "handshake at a lower version than both ends know",
    "push_refused": "pushed setting that is not accepted from the peer, or reaches beyond its networks",
    "data_inner": "control message that breaks the format",
}
