"""Strangers who know where the hub listens, and what they know of it: from nothing to its public key.

Each test has a live tunnel, and asks afterwards whether anything of it has changed.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.forge import with_mac1
from tests.lab import siege
from tests.lab.namespaces import Lab, eventually
from tests.lab.resources import processor_s, resources_of
from tests.lab.siege import ATTACKER, MANY_SOURCES, ONE_SOURCE, Siege
from tests.lab.star import HUB_OUTER, HUB_TUNNEL, PORT
from tests.lab.tools import Capture, UdpStream
from tests.lab.vpnd import Vpnd
from vpnd.keys import PublicKey

INIT, RESPONSE, COOKIE, DATA = 0x08, 0x09, 0x0A, 0x0C
UDP_AT = 14 + 20 + 8  # where a UDP payload begins in an Ethernet frame
SEED = 7
PORTION = 4000  # hostile datagrams at a time


@pytest.fixture
def besieged(lab: Lab) -> Iterator[Siege]:
    """The tunnels of both spokes are up; no daemon may have broken by the end."""
    made = siege.build(lab)
    made.star.start()
    yield made
    made.star.assert_no_error()


def state_of(vpnd: Vpnd) -> dict[str, object]:
    """What a stranger must not change of any peer."""
    kept = ("name", "state", "endpoint", "handshakes", "session_index", "suite")
    return {name: {key: peer[key] for key in kept} for name in ("a", "b") for peer in (vpnd.peer_now(name),)}


def handshake_s(caller: Vpnd, peer: str, *, limit_s: float = 15.0) -> float:
    """Begins a handshake and tells how long it took; `limit_s` where it did not come through."""
    before = caller.peer_now(peer)["handshakes"]
    began = time.monotonic()
    caller.ask("reconnect", peer=peer)
    while caller.peer_now(peer)["handshakes"] == before:
        if time.monotonic() - began > limit_s:
            return limit_s
        time.sleep(0.02)
    return time.monotonic() - began


class Shooter:
    """A process on the attacker's machine that sends the datagrams of a file, in order, at a rate."""

    def __init__(
        self, besieged: Siege, target: tuple[str, int], datagrams: list[bytes], *, rate: int, repeat: bool
    ) -> None:
        file = besieged.attacker.folder / f"shots-{time.monotonic_ns()}"
        file.write_bytes(b"".join(len(each).to_bytes(4, "little") + each for each in datagrams))
        script = Path(__file__).with_name("shoot.py")
        self._process = besieged.attacker.start(
            *(sys.executable, script, str(file), target[0], str(target[1]), str(rate), str(int(repeat))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def wait(self, timeout_s: float = 60.0) -> int:
        """Waits until all are sent and gives their number."""
        output, _ = self._process.communicate(timeout=timeout_s)
        return int(output)

    def stop(self) -> int:
        output, _ = self._process.communicate(b"stop\n", timeout=20)
        return int(output)


# -- floods --


@pytest.mark.parametrize("sources", [ONE_SOURCE, MANY_SOURCES])
def test_a_flood_costs_honest_peers_little(besieged: Siege, sources: str) -> None:
    """[H4] 100,000 initiations a second with a right mac1, from one address and from 65,536.

    At least 90 % of a spoke's stream arrives, the median handshake of the other takes at most 2 s,
    and neither daemon nor plane grows by more than 8 MiB.
    """
    star = besieged.star
    hub, caller = star.hub_vpnd, star["b"].vpnd
    assert hub.daemon is not None
    pids = (hub.daemon.pid, hub.plane_pid())
    before = [resources_of(pid) for pid in pids]
    stream = UdpStream(star["a"].host, star.hub, HUB_TUNNEL, rate=1000)
    with besieged.flood(100_000, sources):
        time.sleep(1)
        took = [handshake_s(caller, "hub") for _ in range(5)]
        time.sleep(2)
        sent, received = stream.stop()
        after = [resources_of(pid) for pid in pids]
    assert received >= 0.9 * sent, f"{received} of {sent} arrived"
    assert statistics.median(took) <= 2.0, took
    for one, other in zip(before, after, strict=True):
        assert other.resident_kib - one.resident_kib < 8 * 1024
        assert other.descriptors <= one.descriptors + 1  # the control socket's caller
    drops = hub.drops_now()
    assert drops["hs_cookie_sent"] >= 1
    assert drops["hs_cookie_sent"] + drops["hs_ratelimited"] > 10_000
    assert hub.peer_now("a")["state"] == "up"


def test_a_flood_without_the_public_key_is_met_by_silence(lab: Lab) -> None:
    """[H4, H10] Ten thousand a second by somebody who has the key and not the knock."""
    besieged = siege.build(lab, knock=True)
    besieged.star.start()
    capture = Capture(besieged.attacker, "eth0", f"udp and src host {HUB_OUTER}")
    with besieged.flood(10_000, ONE_SOURCE):
        time.sleep(3)
        assert handshake_s(besieged.star["b"].vpnd, "hub") <= 5.0
    capture.stop()
    assert capture.lines() == []
    assert besieged.star.hub_vpnd.drops_now()["rx_mac1"] > 1000
    besieged.star.assert_no_error()


def test_good_cookies_from_few_sources_are_worth_twenty_handshakes_a_second(besieged: Siege) -> None:
    """[H5] Eight addresses fetch cookies under load and send on with them as fast as they can."""
    star = besieged.star
    hub = star.hub_vpnd
    stream = UdpStream(star["a"].host, star.hub, HUB_TUNNEL, rate=500)
    script = Path(__file__).with_name("cookies.py")
    began = time.monotonic()
    with besieged.flood(30_000, "10.64.128.0/17"):
        proven = besieged.attacker.start(
            *(sys.executable, script, hub.key.public, HUB_OUTER, str(PORT), "10.64.2.0/29"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        time.sleep(5)
        took = [handshake_s(star["b"].vpnd, "hub") for _ in range(3)]
        output, _ = proven.communicate(b"stop\n", timeout=20)
    seconds = time.monotonic() - began
    cookies, shots = map(int, output.split())
    assert cookies == 8
    assert shots > 1000 * 5
    drops = hub.drops_now()
    # Each time the load was not felt for a second, some hundreds pass until it is felt again.
    assert drops["hs_box_id"] < 8 * (20 * seconds + 5) + 600 * seconds
    assert drops["hs_ratelimited"] > shots // 4
    assert statistics.median(took) <= 2.0, took
    sent, received = stream.stop()
    assert received >= 0.9 * sent


# -- what was seen on the wire --


def captured(besieged: Siege, expression: str, act: Callable[[], object]) -> list[bytes]:
    """UDP payloads that pass the hub's cable while `act` runs."""
    capture = Capture(besieged.star.hub, "eth0", expression)
    act()
    capture.stop()
    return [packet[UDP_AT:] for packet in capture.packets()]


def test_replayed_initiations_cost_one_look_each(besieged: Siege) -> None:
    """[H8, B6] Real first messages of a spoke, 10,000 a second for 4 s from another machine."""
    star = besieged.star
    hub = star.hub_vpnd
    assert hub.daemon is not None
    spoke = star["a"]
    payloads = captured(
        besieged,
        f"udp and src host {spoke.outer}",
        lambda: [handshake_s(spoke.vpnd, "hub") for _ in range(3)],
    )
    recorded = [payload for payload in payloads if payload[0] == INIT]
    assert len(recorded) >= 3
    time.sleep(0.5)  # the last handshake's confirmation is through
    before, state, used = hub.drops_now(), state_of(hub), processor_s(hub.daemon.pid)
    shooter = Shooter(besieged, (HUB_OUTER, PORT), recorded, rate=10_000, repeat=True)
    began = time.monotonic()
    time.sleep(4)
    sent = shooter.stop()
    share = (processor_s(hub.daemon.pid) - used) / (time.monotonic() - began)
    assert sent > 20_000
    assert share < 0.1, f"vpnd took {share:.0%} of a processor"
    eventually(lambda: grown(before, hub.drops_now()) >= sent, what=f"{sent} counted")
    reasons = {
        name: count - before.get(name, 0)
        for name, count in hub.drops_now().items()
        if count > before.get(name, 0)
    }
    assert set(reasons) <= {"hs_dup", "hs_stale", "hs_cookie_sent", "hs_ratelimited", "hs_queue_full"}
    assert reasons.get("hs_stale", 0) <= len(recorded)
    assert state_of(hub) == state


def test_forged_responses_do_not_keep_the_real_one_out(besieged: Siege) -> None:
    """[H9] An attacker who saw the index answers 20,000 times a second, before and while the hub does."""
    star = besieged.star
    hub, spoke = star.hub_vpnd, star["b"]
    payloads: list[bytes] = []
    ports: list[int] = []
    hub.stop()
    spoke.vpnd.stop()
    # The attacker has so long for what was overheard: the next initiation asks for another index.
    spoke.vpnd.timers = {"hs_retry_s": [6.0]}
    capture = Capture(star.hub, "eth0", f"udp and src host {spoke.outer}")
    spoke.vpnd.start()
    time.sleep(0.3)
    capture.stop()
    for packet in capture.packets():
        if packet[UDP_AT] == INIT:
            payloads.append(packet[UDP_AT:])
            ports.append(int.from_bytes(packet[34:36], "big"))
    chance = random.Random(SEED)
    forged = [bytes((RESPONSE, 1, 0, 0)) + payloads[-1][4:8] + chance.randbytes(132) for _ in range(1000)]
    shooter = Shooter(besieged, (spoke.outer, ports[-1]), forged, rate=20_000, repeat=True)
    eventually(lambda: spoke.vpnd.drops_now().get("hs_resp_mac", 0) > 0, what="a forged response")
    hub.start()
    eventually(lambda: spoke.vpnd.peer_now("hub")["handshakes"] > 0, within_s=15, what="the real handshake")
    assert shooter.stop() > 10_000
    assert spoke.vpnd.peer_now("hub")["endpoint"] == f"{HUB_OUTER}:{PORT}"
    assert spoke.host.pings(HUB_TUNNEL)


# -- silence --


def test_a_stranger_hears_nothing(besieged: Siege) -> None:
    """[H10] Every type and many lengths, without the hub's public key: not one byte comes back."""
    chance = random.Random(SEED)
    stranger = PublicKey(chance.randbytes(32))
    shots = [
        (bytes((kind, 1, 0, 0)) + chance.randbytes(size))[:size]
        for size in (1, 4, 8, 16, 31, 32, 64, 100, 140, 200, 264, 600, 1200, 1400)
        for kind in (0x00, INIT, RESPONSE, COOKIE, DATA, 0x20, 0xFF)
    ]
    shots += [with_mac1(bytes((INIT, 1, 0, 0)) + chance.randbytes(196), stranger) for _ in range(50)]
    capture = Capture(besieged.attacker, "eth0", f"src host {HUB_OUTER} and not arp")
    assert Shooter(besieged, (HUB_OUTER, PORT), shots, rate=500, repeat=False).wait() == len(shots)
    time.sleep(0.5)
    capture.stop()
    assert capture.lines() == []


# -- a hundred thousand --


def hostile(chance: random.Random, recorded: list[bytes]) -> bytes:
    """A datagram that no peer would send now: replayed, cut, damaged, too long, or of chance."""
    genuine = chance.choice(recorded)
    match chance.randrange(6):
        case 0:
            return genuine
        case 1:
            return genuine[: chance.randrange(1, len(genuine))]
        case 2:
            changed = bytearray(genuine)
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            return bytes(changed)
        case 3:
            return genuine + chance.randbytes(chance.choice((1, 16, 700, 9000)))
        case 4:
            return chance.randbytes(chance.randrange(1, 1400))
        case _:
            kind = chance.choice((INIT, RESPONSE, COOKIE, DATA))
            return bytes((kind, chance.choice((0, 1)), 0, 0)) + chance.randbytes(chance.randrange(0, 1400))


def grown(before: dict[str, int], after: dict[str, int]) -> int:
    return sum(after.values()) - sum(before.values())


def lost_in_buffers(besieged: Siege) -> int:
    """What the hub's kernel dropped before the plane could see it."""
    lines = besieged.star.hub.output("cat /proc/net/udp").splitlines()[1:]
    return sum(int(line.split()[-1]) for line in lines)


def test_a_hundred_thousand_hostile_datagrams_are_counted_and_change_nothing(besieged: Siege) -> None:
    """[H1, H2, B5, B6] Each under a reason; no answer, no change of any peer, memory flat."""
    star = besieged.star
    hub = star.hub_vpnd
    assert hub.daemon is not None
    pids = (hub.daemon.pid, hub.plane_pid())
    spoke = star["a"]

    expression = f"udp and dst port {PORT} and src host {spoke.outer}"
    recorded = captured(
        besieged, expression, lambda: spoke.host.pings_singly(HUB_TUNNEL, count=20, options="-s 600")
    )
    assert len(recorded) >= 20
    assert {payload[0] for payload in recorded} == {DATA}
    time.sleep(0.5)
    chance = random.Random(SEED)
    shots = [hostile(chance, recorded) for _ in range(20_000)]
    # Buffers that are touched for the first time are no leak: the longest datagrams, then some of all.
    Shooter(besieged, (HUB_OUTER, PORT), [chance.randbytes(9200)] * 4000, rate=10_000, repeat=False).wait()
    Shooter(besieged, (HUB_OUTER, PORT), shots, rate=25_000, repeat=False).wait()
    time.sleep(1)  # all of it has been looked at
    warm = [resources_of(pid) for pid in pids]
    before, state, lost = hub.drops_now(), state_of(hub), lost_in_buffers(besieged)
    capture = Capture(besieged.attacker, "eth0", f"src host {HUB_OUTER} and not arp")
    sent = 0
    # A socket's buffer holds some thousands, whatever keeps the plane from reading.
    for begin in [*range(0, len(shots), PORTION)] * 5:
        portion = shots[begin : begin + PORTION]
        sent += Shooter(besieged, (HUB_OUTER, PORT), portion, rate=25_000, repeat=False).wait()
        eventually(
            lambda: grown(before, hub.drops_now()) >= sent,  # noqa: B023
            every_s=0.01,
            what=f"{sent} counted",
        )
    assert sent == 100_000
    capture.stop()
    assert lost_in_buffers(besieged) == lost
    assert grown(before, hub.drops_now()) == sent
    assert len({name for name, count in hub.drops_now().items() if count > before.get(name, 0)}) >= 6
    assert capture.lines() == []
    assert state_of(hub) == state
    for one, pid in zip(warm, pids, strict=True):
        now = resources_of(pid)
        assert now.resident_kib - one.resident_kib < 1024
        assert now.threads == one.threads
        assert abs(now.descriptors - one.descriptors) <= 1  # a caller of the control socket comes and goes
    assert spoke.host.pings(HUB_TUNNEL, count=5)
    assert ATTACKER not in str(state)
