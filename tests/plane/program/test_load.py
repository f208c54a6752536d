"""Many packets, many of them hostile: nothing lost that should arrive, everything else explained."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.fakes.forge import cookie_in, mac2, with_mac1
from tests.plane import far
from tests.plane.far import Session, receive, receive_waiting
from tests.plane.harness import Far, Rig, is_sanitized, wait_until
from tests.plane.packets import number_of, numbered
from vpnd.keys import PublicKey, Secret
from vpnd.plane.events import DatagramEvent
from vpnd.protocol.cookies import cookie_key
from vpnd.protocol.handshake import mac1_key

HERE, THERE = "10.1.0.1", "10.2.0.7"
HOSTILE = 100_000
CHUNK = 250


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def grow_buffer(sock: socket.socket) -> None:
    """Room for what the test reads only at its end."""
    sock.setsockopt(socket.SOL_SOCKET, 33, 128 << 20)  # SO_RCVBUFFORCE


def hostile_datagram(
    generator: random.Random, session: Session, old: list[bytes], unsent: list[bytes]
) -> bytes:
    """One of: random, random DATA, replayed, truncated, bit-flipped, oversized. None may be accepted."""
    kind = generator.randrange(7)
    genuine = generator.choice(unsent)
    if kind == 0:
        first = generator.choice([each for each in range(256) if each not in (0x08, 0x09, 0x0A)])
        return bytes([first]) + generator.randbytes(generator.randrange(0, 1500))
    if kind == 1:
        return b"\x0c\0\0\0" + generator.randbytes(generator.randrange(0, 1500))
    if kind == 2:
        return generator.choice(old)
    if kind == 3:
        return genuine[: generator.randrange(1, len(genuine))]
    if kind == 4:
        changed = bytearray(genuine)
        changed[generator.randrange(4, len(changed))] ^= 1 << generator.randrange(8)
        return bytes(changed)
    if kind == 5:
        header = b"\x0c\0\0\0" + session.local_index.to_bytes(4, "little")
        return header + generator.randbytes(generator.randrange(24, 200))
    return genuine + generator.randbytes(generator.randrange(1, 12000))


def test_a_hundred_thousand_hostile_datagrams_are_each_counted_and_change_nothing(tun: Rig) -> None:
    """[H1, H2, B5, I7] No answer, no state change, memory flat, the sum of drops is what came in."""
    peer = tun.add_peer(1)
    session = peer.install()
    generator = random.Random(20)
    old = [session.seal(numbered(THERE, HERE, number, generator.randrange(24, 1400))) for number in range(64)]
    unsent = [
        session.seal(numbered(THERE, HERE, number, generator.randrange(24, 1400))) for number in range(64)
    ]
    for each in old:
        peer.send(each)
    wait_until(lambda: tun.client.counters.totals().link_tx_packets == len(old), "the genuine ones in")
    tun.link.receive_all()
    tun.events()
    attacker = tun.udp_socket("127.0.0.66")
    target = tun.sockets[0].getsockname()
    inventory, began = tun.inventory(), tun.received()
    warm = 0
    sent = 0
    total = HOSTILE // 10 if is_sanitized() else HOSTILE
    while sent < total:
        for _ in range(CHUNK):
            attacker.sendto(hostile_datagram(generator, session, old, unsent), target)
        sent += CHUNK
        wait_until(lambda: tun.received() - began == sent, "read")  # noqa: B023
        if sent == total // 5:
            warm = resident_kib(tun.pid)
    wait_until(lambda: tun.dropped() == sent, f"each counted, but {tun.dropped()} of {sent}: {tun.drops()}")
    drops = tun.drops()
    assert set(drops) <= {
        "rx_malformed", "data_noidx", "data_expired", "data_replay", "data_auth", "receive_truncated"
    }  # fmt: skip
    assert min(drops.values()) > total // 1000
    assert receive_waiting(attacker) == []
    assert receive_waiting(peer.socket) == []
    assert tun.link.receive_all() == []
    assert tun.inventory() == inventory
    assert peer.counters().rx_packets == len(old)
    assert tun.events() == []
    if not is_sanitized():
        assert resident_kib(tun.pid) - warm < 1024
    peer.send(session.seal(numbered(THERE, HERE, 99)))
    assert number_of(tun.link.receive()) == 99


def test_a_flood_of_handshake_messages_fills_a_bounded_queue_and_data_goes_on(tun: Rig) -> None:
    """[H4] What vpnd does not read in time is dropped by name; the data path does not wait for it."""
    peer = tun.add_peer(1)
    session = peer.install()
    attackers = [tun.udp_socket(f"127.0.1.{number}") for number in range(1, 51)]
    target = tun.sockets[0].getsockname()
    flood = 20_000
    began = tun.received()
    for start in range(0, flood, CHUNK):
        for number in range(CHUNK):
            attackers[number % len(attackers)].sendto(
                b"\x08\0\0\0" + (start + number).to_bytes(4, "big") * 45 + bytes(16), target
            )
        wait_until(lambda: tun.received() - began == start + CHUNK, "read")  # noqa: B023
    packet = numbered(THERE, HERE, 1)
    peer.send(session.seal(packet))
    assert tun.link.receive() == packet
    tun.link.send(numbered(HERE, THERE, 2))
    assert number_of(session.open(peer.receive()).plaintext) == 2
    queued = 0

    def all_explained() -> bool:
        nonlocal queued
        queued += sum(isinstance(each, DatagramEvent) for each in tun.events())
        return queued + tun.drops().get("hs_queue_full", 0) == flood

    wait_until(all_explained, f"queued or counted, but {queued} and {tun.drops()}")
    assert 1024 <= queued < flood


def test_one_source_takes_its_share_of_the_queue_and_no_more(tun: Rig) -> None:
    """[H4, H9] Whatever it sends: others find room behind it."""
    attacker, other = tun.udp_socket("127.0.0.66"), tun.udp_socket("127.0.0.67")
    target = tun.sockets[0].getsockname()
    datagrams: list[DatagramEvent] = []

    def wait_for(count: int) -> None:
        def came() -> bool:
            datagrams.extend(each for each in tun.events() if isinstance(each, DatagramEvent))
            return len(datagrams) + tun.drops().get("hs_queue_full", 0) == count

        wait_until(came, f"{count} queued or counted, but {len(datagrams)} and {tun.drops()}")

    began = tun.received()
    flood = 2000
    for start in range(0, flood, CHUNK):
        for _ in range(CHUNK):
            attacker.sendto(b"\x09" + bytes(139), target)
        wait_until(lambda: tun.received() - began == start + CHUNK, "read")  # noqa: B023
    other.sendto(b"\x09" + bytes(140), target)
    wait_for(flood + 1)
    assert len(datagrams[-1].data) == 141
    assert tun.drops()["hs_queue_full"] > flood // 2
    attacker.sendto(b"\x09" + bytes(141), target)
    wait_for(flood + 2)
    assert len(datagrams[-1].data) == 142


def test_a_flood_of_strangers_is_answered_by_cookies_and_who_has_one_passes(tun: Rig) -> None:
    """[H4, H5, H10] vpnd hears a few of ten thousand; no answer exceeds what asked for it."""
    key, secret = PublicKey(bytes([7]) * 32), Secret.copy_of(bytes(range(32)))
    nothing = Secret.zero()
    tun.client.set_gate(mac1_key(key, nothing), cookie_key(key, nothing), [secret], (1,))
    attackers = [tun.udp_socket(f"127.0.1.{number}") for number in range(1, 51)]
    target = tun.sockets[0].getsockname()
    generator = random.Random(5)
    came: list[DatagramEvent] = []
    flood, began, started = 10_000, tun.received(), time.monotonic()
    for start in range(0, flood, CHUNK):
        for number in range(CHUNK):
            message = b"\x08\x01\0\0" + generator.randbytes(196)
            message = with_mac1(message, key) if number % 5 else message
            attackers[number % len(attackers)].sendto(message, target)
        wait_until(lambda: tun.received() - began == start + CHUNK, "read")  # noqa: B023
        if start >= flood // 5:  # what nobody takes at first closes the gate
            came += [each for each in tun.events() if isinstance(each, DatagramEvent)]

    def is_explained() -> bool:
        came.extend(each for each in tun.events() if isinstance(each, DatagramEvent))
        return len(came) + tun.dropped() == flood

    wait_until(is_explained, f"each explained, but {len(came)} and {tun.drops()}")
    drops = tun.drops()
    assert set(drops) <= {"rx_mac1", "hs_cookie_sent", "hs_ratelimited", "hs_queue_full"}
    assert drops["hs_cookie_sent"] >= len(attackers) // 2  # once each while the gate is closed
    took_s = time.monotonic() - started
    # Now and then two places share an entry of the gate's memory: each then makes it forget the other.
    sharing = 2 * flood // len(attackers)
    assert drops["hs_cookie_sent"] <= len(attackers) * (3 + took_s) + 100 + 4000 * took_s + sharing
    answers = [0] * len(attackers)

    def all_answered() -> bool:
        for place, attacker in enumerate(attackers):
            answers[place] += len(receive_waiting(attacker))
        return sum(answers) >= drops["hs_cookie_sent"]

    wait_until(all_answered, "an answer for each that was counted")
    assert sum(answers) == drops["hs_cookie_sent"]

    honest = tun.udp_socket("127.0.0.2")
    tun.client.close_gate(20)  # whatever became of the flood's load meanwhile
    message = with_mac1(b"\x08\x01\0\0" + generator.randbytes(196), key)
    honest.sendto(message, target)
    reply = receive(honest)
    assert len(reply) == 64
    cookie = cookie_in(reply, message, key)
    proven = []
    for number in range(50):
        message = with_mac1(message[:100] + bytes([number]) + message[101:], key)
        proven.append(message[:-16] + mac2(message, cookie))
        honest.sendto(proven[-1], target)
    before, asked = drops.get("hs_ratelimited", 0), time.monotonic()
    passed: list[bytes] = []

    def all_judged() -> bool:
        passed.extend(each.data for each in tun.events() if isinstance(each, DatagramEvent))
        return len(passed) + tun.drops().get("hs_ratelimited", 0) - before == len(proven)

    wait_until(all_judged, "each passed or counted")
    assert 5 <= len(passed) <= 5 + 20 * (time.monotonic() - asked) + 1
    assert set(passed) < set(proven)
    for _ in range(20):
        honest.sendto(passed[-1], target)  # of those before one may have been forgotten for another
    wait_until(lambda: tun.drops().get("hs_dup", 0) == 20, "replays counted")
    assert receive_waiting(honest) == []


def test_a_gate_that_vpnd_closes_asks_for_a_cookie_though_nobody_waits(tun: Rig) -> None:
    """[H4] vpnd measures what handshakes cost; the plane spares it those without proof of address."""
    key, nothing = PublicKey(bytes([7]) * 32), Secret.zero()
    tun.client.set_gate(mac1_key(key, nothing), cookie_key(key, nothing), [Secret.copy_of(bytes(32))], (1,))
    caller = tun.udp_socket("127.0.0.2")
    generator = random.Random(8)

    def call() -> None:
        message = with_mac1(b"\x08\x01\0\0" + generator.randbytes(196), key)
        caller.sendto(message, tun.sockets[0].getsockname())

    call()
    tun.wait_event(DatagramEvent)
    tun.client.close_gate(0.5)
    call()
    assert len(receive(caller)) == 64
    tun.no_event(DatagramEvent)
    time.sleep(0.6)
    call()
    tun.wait_event(DatagramEvent)
    assert tun.drops() == {"hs_cookie_sent": 1}


def keep_pace(rig: Rig, sent: int) -> None:
    """Waits until the plane has read most of what was sent into the link."""
    wait_until(lambda: rig.client.counters.totals().link_rx_packets > sent - 2000, "the plane keeps up", 20)


class Pump(threading.Thread):
    """Sends numbered packets both ways at a steady pace until told to stop."""

    def __init__(self, rig: Rig, peer: Far) -> None:
        super().__init__()
        self.rig, self.peer = rig, peer
        self.sessions: list[Session] = []
        self.sent = 0
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            for _ in range(10):
                self.rig.link.send(numbered(HERE, THERE, self.sent, 1000))
                self.peer.send(self.sessions[-1].seal(numbered(THERE, HERE, self.sent, 1000)))
                self.sent += 1
            keep_pace(self.rig, self.sent)
            time.sleep(0.001)


def test_rekeys_under_load_lose_nothing_in_either_direction(rig: Rig) -> None:
    """[G1] Twenty rekeys under traffic, as either role: every packet arrives, in order."""
    rig.add_link()
    rig.add_sockets("127.0.0.1")
    peer = rig.add_peer(1)
    grow_buffer(rig.sockets[0])
    grow_buffer(peer.socket)
    pump = Pump(rig, peer)
    pump.sessions.append(peer.install())
    pump.start()
    opened: list[bytes] = []
    try:
        for turn in range(20):
            sent = pump.sent
            time.sleep(0.05)
            # What was sent under the session before the last has been opened, it may go.
            wait_until(lambda: peer.counters().rx_packets >= sent, "the packets of the last turn")  # noqa: B023
            is_initiator = turn % 2 == 0
            session = far.new_session(far.AES_256_GCM if turn % 3 else far.CHACHA20_POLY1305)
            peer.install(session, is_initiator=is_initiator, preferred=True)
            if not is_initiator:
                peer.send(session.seal(b""))
            pump.sessions.append(session)
            opened += receive_waiting(peer.socket)
    finally:
        pump.stop.set()
        pump.join()
    by_index = {each.remote_index: each for each in pump.sessions}
    wait_until(lambda: peer.counters().tx_packets == pump.sent, "all sent")
    wait_until(lambda: peer.counters().rx_packets == pump.sent, "all received")
    opened += receive_waiting(peer.socket)
    messages = [by_index[int.from_bytes(each[4:8], "little")].open(each).plaintext for each in opened]
    assert [number_of(each) for each in messages if each] == list(range(pump.sent))
    assert [number_of(each) for each in rig.link.receive_all()] == list(range(pump.sent))
    assert rig.drops() == {}


@pytest.mark.parametrize("senders", [4])
def test_no_counter_is_used_twice_by_any_sender(rig: Rig, senders: int) -> None:
    """[G7] Link, daemon and path answers send at once on one session: every counter is unique."""
    rig.add_link()
    rig.add_sockets("127.0.0.1")
    peer = rig.add_peer(1)
    grow_buffer(peer.socket)
    session = peer.install(suite=far.AES_256_GCM)
    packets = 5_000 if is_sanitized() else 50_000

    sent = [0] * senders

    def link_sender(part: int) -> None:
        for number in range(packets // senders):
            rig.link.send(numbered(HERE, THERE, part << 24 | number, 60))
            sent[part] += 1
            if number % 64 == 63:
                keep_pace(rig, sum(sent))

    threads = [threading.Thread(target=link_sender, args=(part,)) for part in range(senders)]
    for each in threads:
        each.start()
    datagrams: list[bytes] = []
    others = 0
    while any(each.is_alive() for each in threads):
        rig.client.send_keepalive(1)
        rig.client.send_control(1, b"\x25" + bytes(4))
        peer.send(session.seal(b"\x27" + os.urandom(8)))
        others += 2
        datagrams += receive_waiting(peer.socket)
    for each in threads:
        each.join()
    total = packets // senders * senders

    def all_out() -> bool:
        nonlocal datagrams
        datagrams += receive_waiting(peer.socket)
        return peer.counters().tx_packets == total

    wait_until(all_out, "all sent", 20)
    time.sleep(0.05)
    datagrams += receive_waiting(peer.socket)
    counters = [int.from_bytes(each[8:16], "little") for each in datagrams]
    assert len(set(counters)) == len(counters)
    assert sorted(counters) == list(range(len(counters)))
    assert len(counters) >= total + others
    sample = random.Random(1).sample(datagrams, 500)
    assert all(session.opens(each) for each in sample)


def test_everything_reconfigured_at_once_under_traffic_harms_nothing(rig: Rig) -> None:
    """[I6] Peers, sessions, sockets, link and options change while packets flow both ways."""
    rig.add_link()
    rig.add_sockets("127.0.0.1")
    peer = rig.add_peer(1)
    grow_buffer(peer.socket)
    pump = Pump(rig, peer)
    pump.sessions.append(peer.install())
    other = rig.add_peer(2, ["10.3.0.0/16"], address="127.0.0.3")
    pump.start()
    generator = random.Random(6)
    try:
        for turn in range(100):
            others = [other.install(is_initiator=bool(generator.randrange(2))) for _ in range(3)]
            for each in others:
                other.send(each.seal(numbered("10.3.0.1", HERE, turn)))
            rig.link.send(numbered(HERE, "10.3.0.1", turn))
            if turn % 3 == 0:
                rig.client.set_link("tun", rig.link.name, 1420, rig.link.queues)
            if turn % 4 == 0:
                rig.client.set_sockets([each.fileno() for each in rig.sockets])
            if turn % 5 == 0:
                rig.client.set_peer(1, peer.public_key, [ip_network("10.2.0.0/16")], peer.endpoint)
                rig.client.set_options(generator.randrange(1, 100), 10)
            rig.client.remove_peer(2)
            rig.client.set_peer(2, other.public_key, [ip_network("10.3.0.0/16")], other.endpoint)
            rig.events()
    finally:
        pump.stop.set()
        pump.join()
    session = pump.sessions[0]
    wait_until(lambda: peer.counters().tx_packets == pump.sent, "all of the steady peer sent")
    wait_until(lambda: peer.counters().rx_packets == pump.sent, "all of the steady peer received")
    opened = [session.open(each).plaintext for each in receive_waiting(peer.socket)]
    assert [number_of(each) for each in opened if each] == list(range(pump.sent))
    assert peer.counters().drops == {}
