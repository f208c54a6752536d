"""Several threads each way: queues and sockets, order within flows, and how their number changes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lab.namespaces import CommandError, Host, Lab, eventually
from tests.lab.pair import CALLED_INNER, CALLER_INNER, PORT, Pair, pair
from tests.lab.star import HUB_TUNNEL, build
from tests.lab.tools import UdpStream
from tests.lab.vpnd import Vpnd
from tests.rounds import mostly

FLOWS, RATE, SIZE = 8, 300, 600
CALLED_OUTER = "192.0.2.2"
_FLOWS = (sys.executable, "-m", "tests.lab.flows")


class Flows:
    """Numbered datagrams of several flows from one host to another."""

    def __init__(self, sender: Host, receiver: Host, address: str, port: int, *, size: int = SIZE) -> None:
        self._receiver = _start(receiver, "receive", address, str(port))
        assert self._receiver.stdout is not None
        assert self._receiver.stdout.readline() == b"ready\n"
        self._sender = _start(sender, "send", address, *map(str, (port, FLOWS, RATE, size)))

    def stop(self) -> tuple[int, list[tuple[int, int]]]:
        """Tells how many were sent, and for each flow how many came and how many came too late."""
        sent = int(self._sender.communicate(b"stop\n", timeout=10)[0])
        came = json.loads(self._receiver.communicate(b"stop\n", timeout=10)[0].split(b"\n")[-2])
        return sent, [(number, late) for number, late in came]


def _start(host: Host, *words: str) -> subprocess.Popen[bytes]:
    return host.start(*_FLOWS, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def set_local(vpnd: Vpnd, line: str) -> None:
    """Puts one line first into [local], in place of the one that was put there before."""
    text = vpnd.config_file.read_text()
    kept = [each for each in text.splitlines() if not each.endswith("# set")]
    place = next(number for number, each in enumerate(kept) if each.strip() == "[local]")
    vpnd.config_file.write_text("\n".join([*kept[: place + 1], f"{line} # set", *kept[place + 1 :]]) + "\n")


def queues(host: Host, link: str) -> int | None:
    """How many queues of a link are open; None where it is made for one only."""
    (shown,) = json.loads(host.output(f"ip -d -j link show dev {link}"))
    data: dict[str, Any] = shown["linkinfo"]["info_data"]
    return int(data["numqueues"]) if data["multi_queue"] else None


def sent_by_queue(host: Host, link: str) -> list[int]:
    """How many packets the kernel gave to each queue of a link."""
    shown = json.loads(host.output(f"tc -s -j qdisc show dev {link}"))
    return [queue["packets"] for queue in shown if "root" not in queue]


def ports(host: Host) -> list[int]:
    """The port of every UDP socket over IPv4."""
    lines = host.output("ss -4 -H -u -l -n").splitlines()
    return [int(line.split()[3].rpartition(":")[2]) for line in lines]


def shape(host: Host, link: str) -> tuple[str, ...]:
    """What stands on a link: addresses and routes."""
    addresses = sorted(line.split()[3] for line in host.output(f"ip -o addr show dev {link}").splitlines())
    routes = [host.output(f"ip {family} route show dev {link} proto 176") for family in ("-4", "-6")]
    return *(each for each in addresses if not each.startswith("fe80:")), *routes


def plane_threads(vpnd: Vpnd) -> int:
    return len(list(Path(f"/proc/{vpnd.plane_pid()}/task").iterdir()))


@pytest.fixture
def tunnel(lab: Lab) -> Pair:
    """Two hosts on one cable, the called one with room for the changes of a test; nothing runs yet."""
    caller, called = lab.host("caller"), lab.host("called")
    lab.cable(caller, "eth0", called, "eth0")
    caller.run("ip addr add 192.0.2.1/24 dev eth0")
    called.run(f"ip addr add {CALLED_OUTER}/24 dev eth0")
    made = pair(caller, called)
    made.configure(f"{CALLED_OUTER}:{PORT}")
    for end in (made.caller, made.called):
        set_local(end, "workers = 1")
    return made


@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_flows_of_several_peers_keep_their_order_over_two_workers(lab: Lab, kind: str) -> None:
    """Each of eight flows a peer and way arrives in order, and both ways at once."""
    star = build(lab, kind=kind)
    for vpnd in (star.hub_vpnd, *(spoke.vpnd for spoke in star.spokes.values())):
        set_local(vpnd, "workers = 2")
    star.start()
    assert queues(star.hub, "vpn") == 2
    assert ports(star.hub) == [PORT, PORT]
    for spoke in star.spokes.values():
        # While the kernel looks for a neighbour, it lets packets overtake those that wait for the answer.
        assert star.hub.pings_singly(spoke.tunnel, count=3)
        assert spoke.host.pings_singly(HUB_TUNNEL, count=3)
    flows = []
    for number, spoke in enumerate(star.spokes.values()):
        flows.append(Flows(spoke.host, star.hub, HUB_TUNNEL, 6000 + number))
        flows.append(Flows(star.hub, spoke.host, spoke.tunnel, 6100 + number))
    time.sleep(4)
    for each in flows:
        sent, came = each.stop()
        assert len(came) == FLOWS
        assert sum(number for number, _ in came) > 0.9 * sent  # a busy machine may lose some
        assert [late for _, late in came] == FLOWS * [0]
    assert min(sent_by_queue(star.hub, "vpn")) > 100, "both queues had their share"
    star.assert_no_error()


def test_workers_come_and_go_by_reloads(tunnel: Pair) -> None:
    """[I6] The link is made anew only where it was made for one queue; all that stands on it comes back."""
    called = tunnel.called
    tunnel.start()
    before, handshakes = shape(called.host, "vpn-called"), called.peer("caller")["handshakes"]
    threads = plane_threads(called)
    assert queues(called.host, "vpn-called") is None
    assert ports(called.host) == [PORT]
    indices = [called.host.index_of("vpn-called")]
    for workers in (2, 3, 1, 2):
        set_local(called, f"workers = {workers}")
        dry = called.ctl("reload --dry-run").stdout
        done = called.ctl("reload").stdout
        assert ("delete vpn-called" in dry, "delete vpn-called" in done) == 2 * (len(indices) == 1,)
        indices.append(called.host.index_of("vpn-called"))
        assert queues(called.host, "vpn-called") == workers
        assert ports(called.host) == workers * [PORT]
        assert shape(called.host, "vpn-called") == before
        assert plane_threads(called) == threads + 2 * (workers - 1)
        assert called.status()["state"] == "up"
        assert tunnel.caller.host.pings_singly(CALLED_INNER, count=10)
    assert len(set(indices[1:])) == 1
    assert called.peer("caller")["handshakes"] == handshakes
    assert "link is gone" not in called.log()
    tunnel.assert_no_error()


def test_a_reload_from_several_workers_to_others_loses_next_to_nothing(tunnel: Pair) -> None:
    """[I6] New queues and sockets stand before the old ones go; what waits in an old one may be lost."""
    set_local(tunnel.called, "workers = 3")
    set_local(tunnel.caller, "workers = 2")
    tunnel.start()
    caller_ports = ports(tunnel.caller.host)

    def lost() -> float:
        streams = [
            UdpStream(tunnel.caller.host, tunnel.called.host, CALLED_INNER, rate=500),
            UdpStream(tunnel.called.host, tunnel.caller.host, CALLER_INNER, rate=500),
        ]
        for workers in (1, 4):
            set_local(tunnel.called, f"workers = {workers}")
            tunnel.called.ctl("reload")
            set_local(tunnel.caller, f"workers = {workers}")
            tunnel.caller.ctl("reload")
        ends = [stream.stop() for stream in streams]
        return max(1 - received / sent for sent, received in ends)

    mostly(lost, lambda share: share <= 0.02)
    assert set(ports(tunnel.caller.host)) == set(caller_ports), "peers know us by this port"
    tunnel.assert_no_error()


@pytest.mark.parametrize("own_plane", [False, True])
def test_a_restart_keeps_the_link_and_its_queues(tunnel: Pair, *, own_plane: bool) -> None:
    """[I1] With any number of workers, and with a plane of its own also beside its open queues."""
    tunnel.called.own_plane = own_plane
    set_local(tunnel.called, "workers = 2")
    tunnel.start()
    called, index = tunnel.called, tunnel.called.host.index_of("vpn-called")
    for workers in (2, 1, 2):
        called.stop()
        set_local(called, f"workers = {workers}")
        called.start()
        called.wait_up()
        assert called.host.index_of("vpn-called") == index
        assert queues(called.host, "vpn-called") == workers
        assert ports(called.host) == workers * [PORT]
        eventually(lambda: tunnel.caller.host.pings(CALLED_INNER), what="the tunnel")
    tunnel.assert_no_error()


@pytest.mark.parametrize("own_plane", [False, True])
def test_a_restart_with_several_workers_replaces_a_link_made_for_one(
    tunnel: Pair, *, own_plane: bool
) -> None:
    """[I1] Also while the plane that outlived the daemon holds the old one."""
    called = tunnel.called
    called.own_plane = own_plane
    tunnel.start()
    before, index = shape(called.host, "vpn-called"), called.host.index_of("vpn-called")
    called.stop()
    set_local(called, "workers = 2")
    called.start()
    called.wait_up()
    assert called.host.index_of("vpn-called") != index
    assert queues(called.host, "vpn-called") == 2
    assert shape(called.host, "vpn-called") == before
    assert "delete vpn-called: it was made for one queue, 2 are wanted" in called.log()
    eventually(lambda: tunnel.caller.host.pings(CALLED_INNER), what="the tunnel")
    assert called.status()["health"] == []
    tunnel.assert_no_error()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_instance_on_a_port_of_several_sockets_is_refused(tunnel: Pair, workers: int) -> None:
    """[I9] Sockets of one user may share a port without a word; two instances must not."""
    set_local(tunnel.called, "workers = 2")
    tunnel.start()
    second = Vpnd(tunnel.called.host, "second")
    second.configure(f"""
        [interface]
        name = "vpn-second"
        [local]
        listen = ["0.0.0.0:{PORT}"]
        workers = {workers}
    """)
    with pytest.raises(CommandError, match="another program has the port"):
        second.start()
    assert tunnel.caller.host.pings_singly(CALLED_INNER, count=5)


def test_offloads_are_switched_by_a_reload(tunnel: Pair) -> None:
    """[I6, D10] Status and `show offload` tell what is active and why not; the tunnel stays up."""
    caller = tunnel.caller
    tunnel.start()
    active = ["udp-gso", "udp-gro", "tun-vnet"]
    assert caller.status()["plane"]["offload"] == active
    assert f"offload {' '.join(active)}" in caller.ctl("status").stdout
    assert " csum tso4 tso6 tso_ecn" in caller.ctl("show offload").stdout
    for written, wanted in (('["udp-gro"]', ["udp-gro"]), ('"off"', []), ("[]", []), ('"auto"', active)):
        set_local(caller, f"offload = {written}")
        caller.ctl("reload")
        assert caller.status()["plane"]["offload"] == wanted
        shown = caller.ctl("show offload").stdout
        assert shown.count("switched off in local.offload") == 3 - len(wanted)
        caller.wait_up()
        assert caller.host.pings_singly(CALLED_INNER, count=10, options="-s 1392")
    tunnel.assert_no_error()


def test_a_path_that_takes_no_runs_of_datagrams_is_named(tunnel: Pair) -> None:
    """[D12] The kernel cuts no run whose pieces it would have to cut again: these go singly and arrive."""
    caller = tunnel.caller
    caller.host.run("ip link set eth0 mtu 1400")
    tunnel.called.host.run("ip link set eth0 mtu 1400")
    caller.host.sysctl("net.ipv4.ip_no_pmtu_disc", 1)  # what is sent may be cut on its way
    tunnel.start()
    flows = Flows(caller.host, tunnel.called.host, CALLED_INNER, 6000, size=1392)
    eventually(
        lambda: "refused on the way to called (" in caller.ctl("show offload").stdout, what="the refusal"
    )
    assert "the path takes no runs of datagrams" in caller.why("called")
    assert "refused on the way" not in tunnel.called.ctl("show offload").stdout
    sent, came = flows.stop()
    assert sum(number for number, _ in came) > 0.9 * sent
    tunnel.assert_no_error()
