"""Versions, suites and limits as two devices live them: falling back, noticing, refusing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.forge import with_mac1
from tests.fakes.host import OPTIONS, Host, Network, connect, is_up, joined, peer_of, share_session
from vpnd.keys import Secret
from vpnd.protocol import initiator, responder
from vpnd.protocol.constants import Feature, Suite
from vpnd.protocol.parameters import Parameters, encode_parameters

INIT, RESP = 0x08, 0x09
Pair = tuple[Network, Host, Host]


def pair(left_options: object, right_options: object) -> Pair:
    """Two machines with options of their own; the right one only answers."""
    network = Network()
    left = network.add("left", 1, options=left_options)
    right = network.add("right", 2, options=right_options)
    left.configure(peer_of(right, at=right.address))
    right.configure(peer_of(left))
    return network, left, right


TWO = replace(OPTIONS, versions=(1, 2))


def versions_on_the_wire(network: Network, host: Host) -> list[int]:
    return [one.data[1] for one in network.wire.of_kind(INIT) if one.source == host.address]


def test_two_unanswered_tries_at_the_highest_version_and_then_the_next() -> None:
    """[A20] The other side knows version 1 only: silence twice, then a session, and no alarm."""
    network, left, right = pair(TWO, OPTIONS)
    left.send(right, b"Epatient")
    network.run(5.0)
    assert versions_on_the_wire(network, left) == [2, 2, 1]
    assert right.received() == [b"Epatient"]
    assert right.device.refusals == {"rx_malformed": 2}
    assert "downgrade_seen" not in left.device.refusals


def test_without_the_policy_there_is_no_falling_back() -> None:
    """[A20] minimum_version 2: every try stays at 2."""
    network, left, right = pair(replace(TWO, minimum_version=2), OPTIONS)
    left.start()
    network.run(15.0)
    assert set(versions_on_the_wire(network, left)) == {2}
    assert not is_up(left, right)


def test_a_version_below_the_policy_is_not_answered() -> None:
    """[A20] The responder may insist on the higher one."""
    network, left, right = pair(OPTIONS, replace(TWO, minimum_version=2))
    left.start()
    network.run(0.5)
    assert right.device.refusals == {"rx_malformed": 1}
    assert network.wire.of_kind(RESP) == []


def test_both_at_the_highest_version_talk_at_once() -> None:
    """[A20] Nothing falls back where nothing is in the way."""
    network, left, right = pair(TWO, TWO)
    connect(network, left, right)
    assert versions_on_the_wire(network, left) == [2]
    assert left.device.refusals == right.device.refusals == {}


def test_a_forced_fall_is_seen_by_both_and_tried_higher_at_once() -> None:
    """[A20] Somebody drops version 2: a session at 1, `downgrade_seen`, and 2 again immediately."""
    network, left, right = pair(TWO, TWO)
    network.wire.drop_rules.append(lambda one: one.kind in (INIT, RESP) and one.data[1] == 2)
    left.send(right, b"Elow")
    network.run(4.5)
    assert right.received() == [b"Elow"]
    assert left.device.refusals["downgrade_seen"] == 1
    assert right.device.refusals["downgrade_seen"] == 1
    assert versions_on_the_wire(network, left)[:4] == [2, 2, 1, 2]
    network.run(20.0)
    assert set(versions_on_the_wire(network, left)[3:]) == {2}, "never low again in this effort"
    network.wire.heal()
    network.run(10.0)
    assert share_session(left, right)
    assert left.device.snapshot(right.key).stage == "up"
    assert left.device.refusals["downgrade_seen"] == 1


def test_a_second_session_at_the_lower_version_does_not_end_the_effort_for_the_higher() -> None:
    """[A20] It is taken and counted; the tries at version 2 go on in their rhythm."""
    network, left, right = pair(TWO, TWO)
    network.wire.drop_rules.append(lambda one: one.kind in (INIT, RESP) and one.data[1] == 2)
    left.send(right, b"Elow")
    network.run(4.5)
    started = right.device.snapshot(left.key).attempts
    left.perform(left.device.reconnect(right.key, network.clock.now))
    network.run(5.0)
    assert right.device.refusals["downgrade_seen"] == 2
    assert right.device.snapshot(left.key).handshakes == 2
    assert right.device.snapshot(left.key).attempts > started
    assert set(versions_on_the_wire(network, right)) == {2}


@pytest.mark.parametrize(
    ("left_aes", "right_aes", "forced", "suite"),
    [
        (True, True, None, Suite.AES_256_GCM),
        (True, False, None, Suite.CHACHA20_POLY1305),
        (False, True, None, Suite.CHACHA20_POLY1305),
        (False, False, None, Suite.CHACHA20_POLY1305),
        (True, True, (Suite.CHACHA20_POLY1305,), Suite.CHACHA20_POLY1305),
        (False, True, (Suite.AES_256_GCM,), Suite.AES_256_GCM),
    ],
)
def test_both_machines_use_the_suite_of_the_rule(
    left_aes: bool, right_aes: bool, forced: tuple[Suite, ...] | None, suite: Suite
) -> None:
    """[A18] AES with AES, AES with none, none with none, forced on one side."""
    network, left, right = pair(
        replace(OPTIONS, has_aes=left_aes, suites_forced=forced), replace(OPTIONS, has_aes=right_aes)
    )
    connect(network, left, right)
    for host, other in ((left, right), (right, left)):
        assert host.device.snapshot(other.key).suite is suite


def test_an_offer_that_fits_nothing_is_counted_with_the_peer_and_not_answered() -> None:
    """[A18] AES forced on one side, none on the other."""
    network, left, right = pair(
        replace(OPTIONS, suites_forced=(Suite.AES_256_GCM,)), replace(OPTIONS, has_aes=False)
    )
    left.start()
    network.run(0.5)
    assert right.device.snapshot(left.key).refusals == {"hs_param": 1}
    assert network.wire.of_kind(RESP) == []


def test_a_tun_and_a_tap_do_not_meet() -> None:
    """[A18] Link types must agree."""
    network, left, right = pair(OPTIONS, replace(OPTIONS, link_type=Feature.TAP))
    left.start()
    network.run(0.5)
    assert right.device.refusals == {"hs_param": 1}


@pytest.mark.parametrize(
    "tlvs",
    [
        encode_parameters(Parameters(suites=(2,), features=1)) + b"\xff\x00",
        encode_parameters(Parameters(suites=(9,), features=1)),
        encode_parameters(Parameters(features=1)),
    ],
    ids=["unknown critical", "not offered", "no suite"],
)
def test_a_response_we_cannot_accept_leaves_the_initiation_pending(
    tlvs: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[A18, A19] An authentic responder chose what it must not: `hs_param`, and the tries go on."""
    network, left, right = joined()
    monkeypatch.setattr(responder, "_choice", lambda *_: tlvs)
    left.start()
    network.run(0.5)
    assert left.device.refusals == {"hs_param": 1}
    assert left.current(right) is None
    monkeypatch.undo()
    network.run(1.5)
    assert is_up(left, right)


@pytest.mark.parametrize("tlvs", [b"\xff\x00", b"\x81", bytes(50) + b"\x01"])
def test_an_offer_that_breaks_the_format_is_counted(tlvs: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """[A19] Unknown critical, cut short, padding not zero."""
    network, left, right = joined(both_know=False)
    monkeypatch.setattr(initiator, "encode_parameters", lambda _: tlvs)
    left.start()
    network.run(0.5)
    assert right.device.refusals == {"hs_param": 1}


def test_a_response_of_more_than_three_times_its_question_is_dropped() -> None:
    """[A21] 1100 bytes for 200: whoever sent it does not keep the rule."""
    network, left, right = joined()
    left.start()
    init = network.wire.of_kind(INIT)[0].data
    oversized = (b"\x09\x01\0\0" + init[4:8]).ljust(76 + 1024, b"\x01")
    assert left.device.receive(oversized, right.address, network.clock.now) == []
    assert left.device.refusals == {"rx_malformed": 1}


def test_a_response_of_another_version_finds_no_initiation() -> None:
    """[A20] The version must be the one sent."""
    network, left, right = joined()
    left.start()
    init = network.wire.of_kind(INIT)[0].data
    response = (b"\x09\x02\0\0" + init[4:8]).ljust(140, b"\x01")
    assert left.device.receive(response, right.address, network.clock.now) == []
    assert left.device.refusals == {"hs_resp_noidx": 1}


def test_when_no_index_is_free_neither_role_goes_on() -> None:
    """[H12] Sixteen draws of an index in use: counted; what lives is unharmed, and a later try works."""
    network, left, right = joined()
    connect(network, left, right)
    taken = left.device.snapshot(right.key).current_index
    assert taken is not None
    local = left.device._local
    random_bytes = local.random_bytes
    local.indices._random_bytes = lambda size: taken.to_bytes(size, "little")
    left.perform(left.device.reconnect(right.key, network.clock.now))
    right.perform(right.device.reconnect(left.key, network.clock.now))
    network.run(0.5)
    assert left.device.snapshot(right.key).refusals == {"idx_exhausted": 2}
    left.send(right, b"Eunharmed")
    network.run(0.1)
    assert right.received()[-1] == b"Eunharmed"
    local.indices._random_bytes = random_bytes
    network.run(3.0)
    assert left.device.snapshot(right.key).handshakes >= 2


def test_the_same_first_message_with_another_mac2_is_a_copy() -> None:
    """[H8] One Diffie-Hellman per mac1, whatever follows it."""
    network, left, right = joined(both_know=False)
    left.start()
    network.run(0.1)
    init = network.wire.of_kind(INIT)[0].data
    again = with_mac1(init, right.key)[:-16] + b"\x01" * 16
    assert right.device.receive(again, left.address, network.clock.now) == []
    assert right.device.refusals == {"hs_dup": 1}


def test_a_peer_that_calls_too_often_is_slowed() -> None:
    """[H11] Less than 20 ms after the last accepted one: `hs_peer_rate`, at most 50 a second."""
    network, left, right = joined(both_know=False)
    for _ in range(100):
        left.perform(left.device.reconnect(right.key, network.clock.now))
        network.run(0.001)
    network.run(0.1)
    accepted = len(network.wire.of_kind(RESP))
    assert 1 <= accepted <= 6
    assert right.device.refusals["hs_peer_rate"] == 100 - accepted


def test_a_stale_cookie_costs_one_try() -> None:
    """[H7] The responder started anew and refuses its old cookie; the next try goes without."""
    network, left, right = joined(both_know=False)
    right.queue_depth = 100
    left.start()
    network.run(1.0)
    assert is_up(left, right) or left.current(right) is not None
    right.queue_depth = 0
    right.kill()
    right.boot()
    network.run(5.0)
    before = network.clock.now
    left.perform(left.device.reconnect(right.key, before))
    network.run(0.9)
    assert right.device.refusals == {"cookie_bad": 1}
    network.run(1.0)
    inits = network.wire.of_kind(INIT, since=before)
    assert [one.data[-16:] == bytes(16) for one in inits] == [False, True]
    assert left.device.snapshot(right.key).handshakes == 2


def test_cpu_time_of_handshakes_makes_load() -> None:
    """[H4] The driver's measure counts as the queue does."""
    network, left, right = joined(both_know=False)
    right.device.note_handshake_cpu(0.3, network.clock.now)
    left.start()
    network.run(0.05)
    assert right.device.refusals == {"hs_cookie_sent": 1}


def test_a_knock_that_differs_is_silence() -> None:
    """[H10] Right key, wrong knock: mac1 fails, nothing is answered."""
    network = Network()
    left = network.add("left", 1, knock=Secret.copy_of(b"1" * 32))
    right = network.add("right", 2, knock=Secret.copy_of(b"2" * 32))
    left.configure(peer_of(right, at=right.address))
    right.configure(peer_of(left))
    left.start()
    network.run(0.5)
    assert right.device.refusals == {"rx_mac1": 1}
    assert network.wire.of_kind(RESP) == []
