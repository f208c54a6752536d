"""Several workers per direction: no counter twice, every flow in order, any number at any time."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import defaultdict
from ipaddress import ip_network

import pytest

from tests.plane import far
from tests.plane.far import receive_waiting
from tests.plane.harness import FEATURE_CSUM, FEATURE_PATH, FEATURE_TUN, Far, Rig, is_sanitized, wait_until
from tests.plane.packets import UDP, checksum, ipv4
from tests.plane.slices import SHORT_NS, kernel_knows_slices, slices_of

HERE, THERE = "10.1.0.1", "10.2.0.7"
WORKERS = 8

_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_UDP_GRO = 104
_NEEDS_CSUM, _GSO_UDP_L4 = 1, 5
_HEADERS = 28  # of IPv4 and UDP


def udp_packet(port: int, payload: bytes, identification: int = 0) -> bytes:
    header = struct.pack(">HHHH", port, 9, 8 + len(payload), 0)
    return ipv4(HERE, THERE, header + payload, protocol=UDP, identification=identification)


def large_frame(port: int, segment: int, count: int) -> bytes:
    """A virtio_net_hdr and a run of UDP datagrams that the kernel leaves to the link to cut."""
    packet = bytearray(udp_packet(port, bytes(segment * count)))
    pseudo = packet[12:20] + struct.pack(">BBH", 0, UDP, 8 + segment * count)
    packet[26:28] = (~checksum(bytes(pseudo)) & 0xFFFF).to_bytes(2, "big")
    header = struct.pack("<BBHHHH", _NEEDS_CSUM, _GSO_UDP_L4, _HEADERS, segment, 20, 6)
    return header + bytes(packet)


def wide_rig(rig: Rig, workers: int = WORKERS) -> Far:
    """A plane with that many queues of its link and sockets that share a port."""
    rig.add_link(queues=workers)
    set_sockets(rig, workers)
    return rig.add_peer(1)


def set_sockets(rig: Rig, workers: int) -> None:
    with rig.namespace.entered():
        shared = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(workers)]
    port = 0
    for each in shared:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        each.bind(("127.0.0.1", port))
        port = each.getsockname()[1]
    rig.client.set_sockets([each.fileno() for each in shared], workers=workers)
    # The plane's own copies receive; ours would only take their share.
    for each in shared[1:]:
        each.close()
    rig.sockets = shared[:1]
    rig.on_close(shared[0].close)


def test_no_counter_is_used_twice_by_eight_workers(rig: Rig) -> None:
    """[G7] Eight queues seal ten million datagrams under one key at once: every counter is its own."""
    peer = wide_rig(rig)
    total = 100_000 if is_sanitized() else 10_000_000
    peer.install(suite=far.AES_256_GCM, features=FEATURE_TUN | FEATURE_PATH | FEATURE_CSUM)
    peer.socket.setsockopt(socket.SOL_UDP, _UDP_GRO, 1)
    peer.socket.setsockopt(socket.SOL_SOCKET, 33, 256 << 20)  # SO_RCVBUFFORCE
    with rig.namespace.entered():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sender.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    sender.bind((rig.link.name, 0x0800))
    segment, per_frame = 8, 128  # the kernel takes no longer run
    frames = [large_frame(1000 + flow, segment, per_frame) for flow in range(64)]
    size = 32 + _HEADERS + segment
    counter_of = struct.Struct(f"<8xQ{size - 16}x")
    seen = bytearray(total * 2)
    count = 0

    def take(wanted: int) -> None:
        nonlocal count
        while count < wanted:
            received = peer.socket.recv(65536)
            assert len(received) % size == 0
            for (counter,) in counter_of.iter_unpack(received):
                assert not seen[counter], f"counter {counter} came twice"
                seen[counter] = 1
            count += len(received) // size

    peer.socket.settimeout(5)
    sent = 0
    with sender:
        while sent < total:
            for frame in frames:
                sender.send(frame)
            sent += per_frame * len(frames)
            take(sent)
    assert rig.drops() == {}
    assert sum(seen) == sent
    assert seen.rindex(1) == sent - 1
    turns = rig.client.counters.heartbeats()
    assert len(turns) == 2 * WORKERS


def test_flows_stay_in_order_on_their_way_out_and_in(rig: Rig) -> None:
    """Sixteen flows through four workers each way: every packet of a flow arrives after the one before."""
    peer = wide_rig(rig, 4)
    session = peer.install(suite=far.AES_256_GCM)

    def wait_moved(wanted: int) -> None:
        wait_until(lambda: peer.counters().tx_packets >= wanted, f"{wanted} sent", 20)
        wait_until(lambda: peer.counters().rx_packets >= wanted, f"{wanted} received", 20)

    flows, packets = 16, 100 if is_sanitized() else 300
    for number in range(packets):
        for flow in range(flows):
            payload = struct.pack(">II", flow, number)
            rig.link.send(udp_packet(2000 + flow, payload))
            peer.send(session.seal(ipv4(THERE, HERE, payload.ljust(60, b"\0"))))
        if number % 10 == 9:  # no more at once than the sockets' buffers hold
            wait_moved((number + 1) * flows)
    outbound = [session.open(each).plaintext[_HEADERS:] for each in receive_waiting(peer.socket)]
    inbound = [each[20:28] for each in rig.link.receive_all()]
    for arrived in (outbound, inbound):
        by_flow: dict[int, list[int]] = defaultdict(list)
        for payload in arrived:
            flow, number = struct.unpack(">II", payload[:8])
            by_flow[flow].append(number)
        assert by_flow == {flow: list(range(packets)) for flow in range(flows)}
    assert rig.drops() == {}


def test_workers_come_and_go_under_traffic(rig: Rig) -> None:
    """Queues and sockets of any number replace each other while packets flow; then it ends at once."""
    peer = wide_rig(rig, 4)
    session = peer.install(suite=far.AES_256_GCM)
    stop = threading.Event()
    failures: list[BaseException] = []

    def pump() -> None:
        number = 0
        try:
            while not stop.is_set():
                rig.link.send(udp_packet(2000 + number % 32, struct.pack(">I", number)))
                peer.send(session.seal(ipv4(THERE, HERE, struct.pack(">I", number))))
                number += 1
        except BaseException as error:  # told by the test's own thread
            failures.append(error)

    thread = threading.Thread(target=pump)
    thread.start()
    generator = random.Random(7)
    try:
        for _ in range(40):
            queues = generator.sample(rig.link.queues, generator.randrange(1, 5))
            rig.client.set_link("tun", rig.link.name, 1420, queues)
            rig.client.set_sockets([rig.sockets[0].fileno()], workers=generator.randrange(1, 9))
            time.sleep(0.01)
            receive_waiting(peer.socket)
    finally:
        stop.set()
        thread.join()
    assert not failures
    before = peer.counters()
    rig.client.set_link("tun", rig.link.name, 1420, rig.link.queues)
    rig.client.set_peer(1, peer.public_key, [ip_network("10.2.0.0/16")], None)
    rig.link.send(udp_packet(2000, b"still here"))
    peer.send(session.seal(ipv4(THERE, HERE, b"so am I")))
    wait_until(lambda: peer.counters().tx_packets > before.tx_packets, "outbound goes on")
    wait_until(lambda: peer.counters().rx_packets > before.rx_packets, "inbound goes on")


@pytest.mark.parametrize("turn", range(10))
def test_the_end_comes_while_both_directions_run(rig: Rig, turn: int) -> None:
    peer = wide_rig(rig, 1 + turn % 4)
    session = peer.install()
    for number in range(200):
        peer.send(session.seal(ipv4(THERE, HERE, bytes(turn * 10 + 1))))
        rig.link.send(udp_packet(2000 + number % 16, bytes(turn)))
    rig.client.stop()
    assert rig.child.wait(20) == 0


def test_a_quiet_link_is_served_soon_and_a_busy_one_as_any_other(tun: Rig) -> None:
    """Short slices cost throughput, so the one thread that serves a quiet link has them, and nobody else."""
    tun.add_peer(1).install()

    def hurried_after(packets: int) -> int:
        for _ in range(packets):
            tun.link.send(udp_packet(1000, b""))
        return slices_of(tun.pid).count(SHORT_NS)

    wanted = int(kernel_knows_slices())
    wait_until(lambda: hurried_after(1) == wanted, "a quiet link")
    wait_until(lambda: hurried_after(2_000) == 0, "a busy link")
    wait_until(lambda: hurried_after(1) == wanted, "quiet again")
