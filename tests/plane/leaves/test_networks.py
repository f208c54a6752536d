"""The networks tries against a search through a list."""

from __future__ import annotations

import ctypes
import ipaddress
import random
from collections.abc import Iterable, Sequence
from typing import ClassVar

import pytest

from tests.plane.leaves.library import NONE, Address, Leaves, Prefix, WireNetwork

PEERS = 500


def network(text: str) -> Prefix:
    return ipaddress.ip_network(text)


def random_prefix(dice: random.Random, version: int) -> Prefix:
    """Draws from few leading bits, so that prefixes lie within each other."""
    width = 32 if version == 4 else 128
    length = dice.choice([dice.randint(0, width), dice.randint(8, 28), width])
    bits = dice.getrandbits(width)
    if dice.random() < 0.7:
        bits = 10 << (width - 8) | bits & (1 << (width - 8)) - 1
    return ipaddress.ip_network((bits >> (width - length) << (width - length), length), strict=True)


def random_address(dice: random.Random, prefixes: Sequence[Prefix]) -> Address:
    """Draws from within a prefix, or next to its borders."""
    prefix = dice.choice(prefixes)
    inside = int(prefix.network_address) + dice.choice(
        [0, -1, prefix.num_addresses, prefix.num_addresses - 1, dice.randrange(prefix.num_addresses)]
    )
    width = prefix.max_prefixlen
    packed = (inside % (1 << width)).to_bytes(width // 8, "big")
    return ipaddress.ip_address(packed)


class Oracle:
    """Every prefix with its owner, sorted by nothing."""

    def __init__(self) -> None:
        self.owners: dict[tuple[int, int, int], int] = {}

    @staticmethod
    def key_of(prefix: Prefix) -> tuple[int, int, int]:
        """Version, length and the bits of the prefix alone."""
        free = prefix.max_prefixlen - prefix.prefixlen
        return prefix.version, prefix.prefixlen, int(prefix.network_address) >> free

    def add(self, prefix: Prefix, peer: int) -> None:
        self.owners[self.key_of(prefix)] = peer

    def remove(self, prefix: Prefix) -> None:
        del self.owners[self.key_of(prefix)]

    def remove_peer(self, peer: int) -> None:
        self.owners = {key: owner for key, owner in self.owners.items() if owner != peer}

    def find(self, address: Address) -> int:
        """Asks for each length in turn, the longest first."""
        width, bits, version = address.max_prefixlen, int(address), address.version
        for length in range(width, -1, -1):
            owner = self.owners.get((version, length, bits >> (width - length)))
            if owner is not None:
                return owner
        return NONE

    def find_linearly(self, address: Address) -> int:
        """Looks at every prefix there is."""
        width, bits, version = address.max_prefixlen, int(address), address.version
        around = (
            (length, owner)
            for (family, length, prefix), owner in self.owners.items()
            if family == version and bits >> (width - length) == prefix
        )
        return max(around, default=(-1, NONE))[1]


def test_a_hundred_thousand_random_prefixes_give_the_answers_of_a_linear_search(leaves: Leaves) -> None:
    """[E5]"""
    dice = random.Random(5)
    prefixes = [random_prefix(dice, dice.choice((4, 6))) for _ in range(100_000)]
    tries, oracle = leaves.networks(), Oracle()
    for prefix in prefixes:
        peer = dice.randrange(PEERS)
        assert tries.add(prefix, peer) == 0
        oracle.add(prefix, peer)
    addresses = [random_address(dice, prefixes) for _ in range(30_000)]
    assert [tries.find(a) for a in addresses] == [oracle.find(a) for a in addresses]
    few = addresses[:80]
    assert [tries.find(a) for a in few] == [oracle.find_linearly(a) for a in few]


@pytest.mark.parametrize("seed", range(12))
def test_adding_moving_and_removing_in_any_order_keeps_the_answers(leaves: Leaves, seed: int) -> None:
    """[E5] Few peers and prefixes, so that they meet often; every node of the tries comes and goes."""
    dice = random.Random(seed)
    prefixes = [random_prefix(dice, dice.choice((4, 6))) for _ in range(60)]
    tries, oracle = leaves.networks(), Oracle()
    for _ in range(600):
        prefix, peer = dice.choice(prefixes), dice.randrange(6)
        match dice.choices(("add", "remove", "remove peer"), (60, 35, 5))[0]:
            case "add":
                assert tries.add(prefix, peer) == 0
                oracle.add(prefix, peer)
            case "remove":
                held = oracle.owners.get(oracle.key_of(prefix)) == peer
                assert (tries.remove(prefix, peer) == 0) == held
                if held:
                    oracle.remove(prefix)
            case _:
                tries.remove_peer(peer)
                oracle.remove_peer(peer)
        address = random_address(dice, prefixes)
        assert tries.find(address) == oracle.find(address)
    for peer in range(6):
        listed = sorted(oracle.key_of(prefix) for prefix in tries.list(peer))
        assert listed == sorted(key for key, owner in oracle.owners.items() if owner == peer)
        assert tries.count(peer) == len(listed)
        tries.remove_peer(peer)
    assert all(tries.find(random_address(dice, prefixes)) == NONE for _ in range(200))


def many_networks() -> Iterable[tuple[WireNetwork, int]]:
    """255 * 256 * 2 prefixes: a /24 and a /64 each, one peer per second byte."""
    for first in range(255):
        for second in range(256):
            yield WireNetwork(4, 24, (0, 0), (10, first, second)), first
            yield WireNetwork(6, 64, (0, 0), (0x20, 1, 0xD, 0xB8, 0, 0, first, second)), first


def test_130560_networks_are_set_and_found_and_listed_back(leaves: Leaves) -> None:
    """[E6]"""
    tries = leaves.networks()
    assert tries.add_all(many_networks()) == 0
    assert sum(tries.count(peer) for peer in range(255)) == 130_560
    back = {prefix: peer for peer in range(255) for prefix in tries.list(peer)}
    assert len(back) == 130_560
    assert back[network("10.254.255.0/24")] == 254
    assert back[network("2001:db8:0:fe00::/64")] == 254
    assert tries.find(ipaddress.ip_address("10.17.200.9")) == 17
    assert tries.find(ipaddress.ip_address("2001:db8:0:11c8::9")) == 17
    assert tries.find(ipaddress.ip_address("10.255.0.1")) == NONE


def test_one_peer_with_all_networks_leaves_at_once(leaves: Leaves) -> None:
    """[E6] Work in step with the square of the number would not end within the test's own limit."""
    tries = leaves.networks()
    assert tries.add_all((prefix, 7) for prefix, _ in many_networks()) == 0
    assert tries.count(7) == 130_560
    tries.remove_peer(7)
    assert tries.count(7) == 0
    assert tries.find(ipaddress.ip_address("10.17.200.9")) == NONE


def test_a_prefix_moves_to_the_peer_that_names_it_last(leaves: Leaves) -> None:
    tries = leaves.networks()
    inside = ipaddress.ip_address("192.168.4.77")
    assert tries.add(network("192.168.4.0/24"), 1) == 0
    assert tries.add(network("192.168.4.0/24"), 2) == 0
    assert tries.find(inside) == 2
    assert (tries.count(1), tries.count(2)) == (0, 1)
    assert tries.remove(network("192.168.4.0/24"), 1) != 0
    assert tries.find(inside) == 2


def test_a_more_specific_prefix_of_another_peer_wins_while_it_is_there(leaves: Leaves) -> None:
    """[E4]"""
    tries = leaves.networks()
    host = ipaddress.ip_address("192.168.4.77")
    assert tries.add(network("192.168.0.0/16"), 1) == 0
    assert tries.add(network("192.168.4.77/32"), 2) == 0
    assert tries.find(host) == 2
    assert tries.find(ipaddress.ip_address("192.168.4.78")) == 1
    tries.remove_peer(2)
    assert tries.find(host) == 1


def test_default_routes_of_both_families_do_not_touch_each_other(leaves: Leaves) -> None:
    tries = leaves.networks()
    assert tries.add(network("0.0.0.0/0"), 4) == 0
    assert tries.find(ipaddress.ip_address("::1")) == NONE
    assert tries.add(network("::/0"), 6) == 0
    assert tries.find(ipaddress.ip_address("::1")) == 6
    assert tries.find(ipaddress.ip_address("255.255.255.255")) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        WireNetwork(0, 0),
        WireNetwork(5, 8, (0, 0), (10,)),
        WireNetwork(4, 33, (0, 0), (10, 0, 0, 1)),
        WireNetwork(6, 129),
        WireNetwork(4, 24, (0, 0), (10, 0, 0, 1)),
        WireNetwork(4, 0, (0, 0), (128,)),
        WireNetwork(4, 32, (0, 0), (10, 0, 0, 1, 1)),
        WireNetwork(6, 127, (0, 0), (0,) * 15 + (1,)),
        WireNetwork(6, 64, (0, 0), (0,) * 8 + (128,)),
        WireNetwork(4, 8, (1, 0), (10,)),
        WireNetwork(4, 8, (0, 1), (10,)),
    ],
    ids=lambda wrong: f"{wrong.family}-{wrong.prefix}-{bytes(wrong.zero).hex()}-{bytes(wrong.address).hex()}",
)
def test_a_network_the_wire_may_not_carry_is_refused(leaves: Leaves, wrong: WireNetwork) -> None:
    tries = leaves.networks()
    assert tries.add_wire(wrong, 1) < 0
    assert tries.count(1) == 0


def test_a_peer_number_outside_the_counters_is_refused(leaves: Leaves) -> None:
    tries = leaves.networks()
    assert tries.add(network("10.0.0.0/8"), 65_536) < 0
    assert tries.add(network("10.0.0.0/8"), NONE) < 0
    assert tries.remove(network("10.0.0.0/8"), NONE) < 0
    tries.remove_peer(NONE)
    assert tries.count(NONE) == 0
    assert tries.find(ipaddress.ip_address("10.0.0.1")) == NONE


def test_more_room_than_there_can_be_is_refused_and_less_is_not(leaves: Leaves) -> None:
    tries = leaves.networks()
    assert tries.reserve(2**40) < 0
    assert tries.reserve(1000) == 0
    assert tries.add(network("10.0.0.0/8"), 1) == 0


class HeapUse(ctypes.Structure):
    """struct mallinfo2."""

    FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_: ClassVar = [(name, ctypes.c_size_t) for name in FIELDS.split()]


def heap_bytes() -> int:
    """Bytes that malloc has given out."""
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = HeapUse
    use = ask()
    return int(use.uordblks + use.hblkhd)


def test_prefixes_that_come_and_go_leave_no_memory_behind(leaves: Leaves) -> None:
    dice = random.Random(11)
    tries = leaves.networks()
    warm = 0
    for number in range(20):
        # Each round in another part of the tries, so that no old node is of use to it.
        four = [WireNetwork(4, 32, (0, 0), (number, *dice.randbytes(3))) for _ in range(3000)]
        six = [WireNetwork(6, 128, (0, 0), (number, *dice.randbytes(15))) for _ in range(3000)]
        assert tries.add_all((prefix, 1) for prefix in four + six) == 0
        tries.remove_peer(1)
        warm = warm or heap_bytes()
    # Nodes that only joined two of them would be 7 MB by now.
    assert heap_bytes() - warm < 2_000_000
