"""The catalogue: what vpnd must survive, row by row, and which tests show it.

A test names its rows in brackets in its docstring, as in "[A4]" or "[B1, B2]". `note_rows`
keeps what pytest collected; `print_table` joins rows, tests and last results. A row without a test
says why.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import pytest

from tests.results import RESULTS, alone, read_results

_NOTED = RESULTS.with_name("catalogue.json")
_MARK = re.compile(r"\[([A-K]\d+(?:, ?[A-K]\d+)*)\]")

SPEED = "measured by ./run bench"
NOT_SHOWN = "not shown yet"


@dataclass(frozen=True)
class Row:
    """One thing to survive; `untested` tells why no test shows it."""

    number: str
    text: str
    untested: str = ""


_GROUPS = {
    "A": "handshake",
    "B": "counters and replay",
    "C": "roaming, NAT, paths",
    "D": "MTU, offloads, checksums",
    "E": "routing, nesting, filters",
    "F": "time",
    "G": "key rotation",
    "H": "hostile input",
    "I": "restart, shutdown, resources",
    "J": "cryptographic vectors",
    "K": "performance",
}

ROWS = (
    Row("A1", "cold start: the first ping is answered"),
    Row("A2", "both ends derive equal chain states, keys and salts"),
    Row("A3", "initiation lost once, three times"),
    Row("A4", "response lost once"),
    Row("A5", "confirmation lost once"),
    Row("A6", "every message duplicated up to ten times"),
    Row("A7", "late responses, round trips of 3 s and 7 s"),
    Row("A8", "both sides initiate at once, with loss"),
    Row("A9", "rekey of both sides and new data race"),
    Row("A10", "response to nothing that is pending"),
    Row("A11", "another machine answers at the peer's address"),
    Row("A12", "ourselves as peer; our own initiation reflected"),
    Row("A13", "initiation of an unknown, disabled or foreign peer"),
    Row("A14", "points of low order as keys"),
    Row("A15", "other encodings of the same public key"),
    Row("A16", "preshared keys equal, missing, different, rolled over"),
    Row("A17", "static key changed while running"),
    Row("A18", "choice of the suite"),
    Row("A19", "every parameter truncated, repeated, unknown, overrun"),
    Row("A20", "other protocol versions, downgrade noticed"),
    Row("A21", "answers never exceed three times the question"),
    Row("A22", "a thousand packets before there is a session"),
    Row("A23", "no answer for 90 s"),
    Row("B1", "the replay tables of the kernel's self-test"),
    Row("B2", "jump ahead and fill in reverse"),
    Row("B3", "a million random counters beside a set"),
    Row("B4", "the highest counters"),
    Row("B5", "every data message replayed"),
    Row("B6", "every initiation replayed"),
    Row("B7", "runs of counters beside single ones"),
    Row("B8", "depth of reordering"),
    Row("C1", "address and port of the initiator change"),
    Row("C2", "roaming between IPv4 and IPv6"),
    Row("C3", "a late packet from the old address"),
    Row("C4", "a relayed first copy from a forged source"),
    Row("C5", "NAT that forgets after 2 s"),
    Row("C6", "NAT binding changes in a download"),
    Row("C7", "both behind NAT, one forward"),
    Row("C8", "local address removed and replaced"),
    Row("C9", "answer from the address that was asked, of four"),
    Row("C10", "route metric moves the path"),
    Row("C11", "answers come from another address"),
    Row("C12", "endpoint unreachable in every way"),
    Row("C13", "endpoint's name changes its address"),
    Row("C14", "interface vanishes and returns"),
    Row("C15", "link-local endpoint with scope"),
    Row("C16", "mark and policy routing, default route through the tunnel"),
    Row("D1", "small, full and fragmented pings"),
    Row("D2", "large inner MTU and superpackets"),
    Row("D3", "route MTU below the link's"),
    Row("D4", "path that swallows large datagrams"),
    Row("D5", "forged ICMP too-big"),
    Row("D6", "inner packet too large for the path"),
    Row("D7", "superpackets cut"),
    Row("D8", "segments joined"),
    Row("D9", "partial checksums end to end"),
    Row("D10", "partial checksums on one side only"),
    Row("D11", "batches of datagrams cut and joined"),
    Row("D12", "segmentation offload refused by the kernel"),
    Row("D13", "forged slice inside a received batch"),
    Row("D14", "padding modes"),
    Row("D15", "DSCP and ECN"),
    Row("E1", "tunnel inside a tunnel"),
    Row("E2", "endpoint inside its own tunnel"),
    Row("E3", "tunnels that loop through each other"),
    Row("E4", "inner source outside the networks; network moved to another peer"),
    Row("E5", "networks beside a linear search"),
    Row("E6", "130,560 networks in one configuration"),
    Row("E7", "peer removed: senders are told"),
    Row("E8", "pings bound to the link, mark changed"),
    Row("E9", "TAP: ARP, neighbour discovery, VLAN, broadcast, moves, sizes"),
    Row("E10", "settings pushed by a peer that may not"),
    Row("E11", "the machine before and after is the same"),
    Row("F1", "initiator's clock goes back"),
    Row("F2", "state lost and clock back"),
    Row("F3", "clock ten years ahead, then back"),
    Row("F4", "two initiations within one tick"),
    Row("F5", "suspend and resume"),
    Row("F6", "clock stepped during bulk"),
    Row("F7", "every timer, exact"),
    Row("G1", "rekey under load"),
    Row("G2", "rekey with loss, reordering, duplication"),
    Row("G3", "rekey started by the responder"),
    Row("G4", "either end killed between any two steps"),
    Row("G5", "rekey suppressed by an attacker"),
    Row("G6", "previous session: late packets, then wiped keys"),
    Row("G7", "no nonce twice, several senders"),
    Row("H1", "every length and type with random content"),
    Row("H2", "every single bit flipped"),
    Row("H3", "fuzzed parsers"),
    Row("H4", "flood of initiations that pass the first check"),
    Row("H5", "flood with good cookies"),
    Row("H6", "rate limiter, IPv6 by /64"),
    Row("H7", "cookies: wrong address, port, age, message"),
    Row("H8", "replayed initiations cost one look each"),
    Row("H9", "forged responses"),
    Row("H10", "silence towards strangers"),
    Row("H11", "one peer with a thousand initiations a second"),
    Row("H12", "no free session index"),
    Row("H13", "a malicious peer inside the tunnel"),
    Row("H14", "identities cannot be told apart"),
    Row("H15", "comparisons in constant time"),
    Row("I1", "responder killed and restarted"),
    Row("I2", "initiator killed and restarted"),
    Row("I3", "both killed, state files damaged"),
    Row("I4", "goodbye seen, lost, replayed, late"),
    Row("I5", "up and down in quick turns"),
    Row("I6", "changes during traffic"),
    Row("I7", "nothing leaks over many handshakes"),
    Row("I8", "nothing hangs on a closed end"),
    Row("I9", "link, namespace, port or memory taken away"),
    Row("I10", "a hundred rounds of start, ping, stop"),
    Row("I11", "a thousand peers at once"),
    Row("I12", "disk full, state read-only"),
    Row("I13", "least privilege, and still rekeys and roams"),
    Row("J1", "handshake vectors of a second implementation"),
    Row("J2", "the published Noise IKpsk2 vector"),
    Row("J3", "published vectors of every primitive"),
    Row("J4", "AEAD misuse refused"),
    Row("J6", "all keys distinct"),
    Row("K1", "TCP streams", SPEED),
    Row("K2", "UDP rates", SPEED),
    Row("K3", "round trips idle and loaded", SPEED),
    Row("K4", "handshakes a second", SPEED),
    Row("K5", "a thousand idle peers", SPEED),
    Row("K6", "no pauses", NOT_SHOWN),
    Row("K7", "byte counters exact"),
)


def rows_of(item: pytest.Item) -> list[str]:
    """Gives the rows that a test's docstring names."""
    text = getattr(getattr(item, "function", None), "__doc__", None) or ""
    return [row for mark in _MARK.findall(text) for row in re.split(", ?", mark)]


def note_rows(rows: dict[str, list[str]]) -> None:
    """Keeps which test names which rows."""
    with alone():
        known = json.loads(_NOTED.read_text()) if _NOTED.exists() else {}
        _NOTED.write_text(json.dumps(known | rows))


def print_table() -> int:
    """Prints every row with its tests and their last results; 1 if a row has no test that passed."""
    noted: dict[str, list[str]] = json.loads(_NOTED.read_text()) if _NOTED.exists() else {}
    results = read_results()
    missing = 0
    group = ""
    for row in ROWS:
        if row.number[0] != group:
            group = row.number[0]
            print(f"\n{group}. {_GROUPS[group]}")
        tests = sorted(test for test, rows in noted.items() if row.number in rows)
        verdict = _verdict(row, tests, results)
        missing += verdict in ("NO TEST", "FAILED", "NOT RUN")
        print(f"  {row.number:4} {verdict:8} {row.text}")
        for test in tests:
            parts = [f"{part} {outcomes[test]}" for part, outcomes in results.items() if test in outcomes]
            print(f"                {test}: {', '.join(parts) or 'not run'}")
    print(f"\n{len(ROWS)} rows, {missing} without a passing test")
    return int(missing > 0)


def _verdict(row: Row, tests: list[str], results: dict[str, dict[str, str]]) -> str:
    outcomes = {outcomes[test] for outcomes in results.values() for test in tests if test in outcomes}
    if "failed" in outcomes:
        return "FAILED"
    if outcomes == {"passed"}:
        return "ok"
    if row.untested and not tests:
        return f"{row.untested}:"
    return "NOT RUN" if tests else "NO TEST"
