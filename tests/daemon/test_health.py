"""Findings: when one is made, what it says to do, and whether it makes the instance unhealthy."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from vpnd.control import HealthFinding
from vpnd.daemon import health
from vpnd.daemon.clock import boottime
from vpnd.daemon.drop_trend import DropTrend
from vpnd.daemon.health import findings
from vpnd.daemon.pushes import Refusal
from vpnd.plane.wire import Offload
from vpnd.protocol.constants import NoticeReason
from vpnd.protocol.peer import ReceivedNotice

DAY_S = 86400.0
WALL_NS = 1_795_293_671 * 10**9


def snapshot(**changes: Any) -> Any:
    """What the Device says of a peer of which there is nothing to say."""
    nothing: dict[str, Any] = {
        "endpoint": "192.0.2.1:5180",
        "last_handshake_at": None,
        "last_refusal": None,
        "last_refusal_at": None,
        "current_index": None,
        "notices": (),
        "mtu": 0,
    }
    return SimpleNamespace(**nothing | changes)


@dataclass
class Machine:
    """An instance with one peer, "berlin", in which nothing is wrong; a test says what is."""

    failures: dict[str, str] = field(default_factory=dict)
    last_timestamp_ns: int = WALL_NS
    unwritable: tuple[str, ...] = ()
    plane_lost_at: tuple[float, ...] = ()
    active: Offload = Offload.ALL
    has_plane: bool = True
    previous: Any = None
    previous_peer_key: str | None = None
    left_s: float = DAY_S
    drop_trend: DropTrend = field(default_factory=DropTrend)
    drops: Mapping[str, int] = field(default_factory=dict)
    unanswered: int = 0
    name_error: str | None = None
    snapshot: Any = None
    peers: int = 1
    enabled: bool = True
    awaits_addresses: bool = False
    refusals: tuple[Refusal, ...] = ()

    def found(self) -> tuple[HealthFinding, ...]:
        peers = [
            SimpleNamespace(
                name="berlin" if number == 0 else f"p{number}",
                public_key=str(number),
                previous_public_key=self.previous_peer_key,
                enabled=self.enabled,
                endpoint="berlin.example.net:5180",
            )
            for number in range(self.peers)
        ]
        keys = {peer.public_key for peer in peers}
        device = SimpleNamespace(
            last_timestamp_ns=self.last_timestamp_ns,
            unanswered=lambda _: dict.fromkeys(keys, self.unanswered) if self.unanswered else {},
            noteworthy=lambda _: keys if self.snapshot else set(),
            snapshot=lambda _: self.snapshot or snapshot(),
        )
        instance: Any = SimpleNamespace(
            failures=self.failures,
            driver=SimpleNamespace(
                device=device, plane=object() if self.has_plane else None, drops=lambda: self.drops
            ),
            wall_clock_ns=lambda: WALL_NS,
            state=SimpleNamespace(unwritable=self.unwritable),
            settings=SimpleNamespace(state_dir="/var/lib/vpnd/site"),
            plane_lost_at=deque(self.plane_lost_at),
            active_offloads=self.active,
            previous_until={"old": boottime() + self.left_s},
            secrets=SimpleNamespace(previous=self.previous),
            drop_trend=self.drop_trend,
            following=SimpleNamespace(
                awaits_addresses=self.awaits_addresses,
                pushes=SimpleNamespace(told=self.refusals, refusals=lambda _, peer: self.refusals),
            ),
            resolver=SimpleNamespace(error_of=lambda _: self.name_error),
            config=SimpleNamespace(
                instance="site", peers=peers, local=SimpleNamespace(offload="auto", key_overlap=4 * DAY_S)
            ),
        )
        return tuple(findings(instance))

    def one(self) -> HealthFinding:
        (finding,) = self.found()
        return finding


OURS = SimpleNamespace(public="old")


def test_a_link_without_the_addresses_that_a_peer_gives_is_told() -> None:
    finding = Machine(awaits_addresses=True).one()
    assert (finding.code, finding.level) == ("no-address", "warning")


def test_a_refused_push_is_told_where_its_kind_is_accepted() -> None:
    """[E10] What the configuration does not take at all is a choice."""
    beyond = Refusal("route 10.0.0.0/8", "beyond peer.berlin.networks", is_fault=True)
    choice = Refusal("name server 10.8.0.1", 'peer.berlin.accept has no "dns"', is_fault=False)
    finding = Machine(refusals=(choice, beyond)).one()
    assert (finding.code, finding.peer) == ("push-refused", "berlin")
    assert "route 10.0.0.0/8: beyond peer.berlin.networks" in finding.text


def test_where_nothing_is_wrong_nothing_is_said() -> None:
    assert Machine().found() == ()
    assert Machine(snapshot=snapshot()).found() == ()


@pytest.mark.parametrize("part", ["plane", "link", "reload"])
def test_a_part_that_failed_is_told_with_its_error(part: str) -> None:
    finding = Machine(failures={part: "the kernel says no"}).one()
    assert (finding.code, finding.text, finding.level) == (f"{part}-failed", "the kernel says no", "warning")
    assert finding.remedy


def test_a_clock_that_is_behind_is_told_beyond_a_slack() -> None:
    assert Machine(last_timestamp_ns=WALL_NS + 59 * 10**9).found() == ()
    finding = Machine(last_timestamp_ns=WALL_NS + 3600 * 10**9).one()
    assert (finding.code, finding.level) == ("clock-behind", "warning")
    assert "3600 s behind" in finding.text


def test_files_that_cannot_be_written_are_named() -> None:
    finding = Machine(unwritable=("/var/lib/vpnd/site/endpoints.json",)).one()
    assert finding.code == "state-unwritable"
    assert "endpoints.json" in finding.text
    assert "/var/lib/vpnd/site" in finding.remedy


def test_a_plane_that_ended_is_a_notice_and_one_that_does_so_often_a_warning() -> None:
    now = boottime()
    assert Machine(plane_lost_at=(now - 3700,)).found() == ()
    once, often = Machine(plane_lost_at=(now - 60,)).one(), Machine(plane_lost_at=(now - 60,) * 3).one()
    assert (once.code, once.level, often.code, often.level) == (
        "plane-restarted",
        "notice",
        "plane-restarted",
        "warning",
    )
    assert "ended 1 time within" in once.text
    assert "vpnd-plane@site" in once.remedy


def test_an_offload_that_is_wanted_and_does_not_run_is_a_notice() -> None:
    finding = Machine(active=Offload.UDP_GRO).one()
    assert (finding.code, finding.level) == ("offload-missing", "notice")
    assert finding.text.startswith("udp-gso, tun-vnet ")
    assert Machine(active=Offload(0), has_plane=False).found() == ()


@pytest.mark.parametrize(
    ("left_s", "code", "level", "words"),
    [
        (DAY_S - 60, "key-ends", "warning", "our previous key is accepted for 24 h more"),
        (1800, "key-ends", "warning", "our previous key is accepted for 30 min more"),
        (-1, "key-over", "notice", "our previous key is accepted no longer"),
    ],
)
def test_the_end_of_our_previous_key_is_told_before_and_after(
    left_s: float, code: str, level: str, words: str
) -> None:
    finding = Machine(previous=OURS, left_s=left_s).one()
    assert (finding.code, finding.level, finding.text, finding.peer) == (code, level, words, None)


def test_a_key_with_time_left_is_nothing_to_tell() -> None:
    assert Machine(previous=OURS, left_s=2 * DAY_S).found() == ()


def test_the_previous_key_of_a_peer_is_told_with_its_name() -> None:
    finding = Machine(previous_peer_key="old", left_s=-1).one()
    assert (finding.code, finding.peer) == ("key-over", "berlin")
    assert finding.remedy == "remove peer.berlin.previous_public_key and reload"


def test_drops_are_told_while_they_rise_and_by_reason() -> None:
    trend = DropTrend()
    trend.note({"data_auth": 1000}, 10.0)
    assert Machine(drop_trend=trend, drops={"data_auth": 1099, "no_peer": 10**6}).found() == ()
    finding = Machine(drop_trend=trend, drops={"data_auth": 1100, "no_peer": 10**6}).one()
    assert finding.code == "drops-data-auth"
    assert finding.text == "100 packets were dropped as data_auth within the last minute"


def test_a_minute_later_what_was_dropped_is_history() -> None:
    trend = DropTrend()
    for second in range(0, 90, 5):
        trend.note({"data_auth": 500 if second >= 15 else 0}, float(second))
    assert trend.rising({"data_auth": 500}, ("data_auth",)) == {}
    assert trend.rising({"data_auth": 600}, ("data_auth",)) == {"data_auth": 100}


def test_before_the_first_sample_and_after_a_new_plane_nothing_rises() -> None:
    trend = DropTrend()
    assert trend.rising({"data_auth": 500}, ("data_auth",)) == {}
    trend.note({"data_auth": 500}, 0.0)
    assert trend.rising({}, ("data_auth",)) == {}


@pytest.mark.parametrize(
    ("machine", "code", "level", "words"),
    [
        (Machine(unanswered=4), "peer-silent", "warning", "no answer from 192.0.2.1:5180 to 4 tries"),
        (Machine(name_error="does not resolve"), "name-unresolved", "warning", "does not resolve"),
        (Machine(snapshot=snapshot(mtu=1200)), "path-small", "notice", "1200 bytes at most"),
    ],
)
def test_what_ails_a_peer_is_told_with_its_name(machine: Machine, code: str, level: str, words: str) -> None:
    finding = machine.one()
    assert (finding.code, finding.level, finding.peer) == (code, level, "berlin")
    assert finding.text.startswith("berlin: ")
    assert words in finding.text
    machine.enabled = False
    assert machine.found() == ()


def test_a_peer_not_heard_of_is_told_with_the_time_since() -> None:
    ago = snapshot(last_handshake_at=boottime() - 3 * 3600)
    assert "the last handshake was 3 h ago" in Machine(unanswered=4, snapshot=ago).found()[0].text


def test_a_refused_handshake_counts_while_it_is_recent_and_the_peer_is_not_up() -> None:
    refused: dict[str, Any] = {"last_refusal": "hs_stale", "last_refusal_at": boottime() - 10}
    finding = Machine(snapshot=snapshot(**refused)).one()
    assert finding.code == "handshake-refused"
    assert "its clock is behind" in finding.text
    assert Machine(snapshot=snapshot(**refused, current_index=7)).found() == ()
    refused["last_refusal_at"] -= health.RECENT_S
    assert Machine(snapshot=snapshot(**refused)).found() == ()


def test_what_a_peer_says_of_our_packets_counts_while_it_is_recent() -> None:
    recent = ReceivedNotice(NoticeReason.SOURCE, 9, boottime() - 10)
    finding = Machine(snapshot=snapshot(notices=(recent,))).one()
    assert (finding.code, finding.peer) == ("peer-drops-ours", "berlin")
    assert "(9 so far)" in finding.text
    old = ReceivedNotice(NoticeReason.SOURCE, 9, boottime() - health.RECENT_S)
    assert Machine(snapshot=snapshot(notices=(old,))).found() == ()


def test_what_ails_many_peers_is_told_of_five_and_counted_of_the_rest() -> None:
    found = Machine(unanswered=4, peers=12).found()
    assert [finding.peer for finding in found] == ["berlin", "p1", "p2", "p3", "p4", None]
    assert (found[-1].code, found[-1].text) == ("peer-silent", "the same of 7 more peers")
