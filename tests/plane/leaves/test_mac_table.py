"""The MAC table: learning, moving, limits and age."""

from __future__ import annotations

import random

import pytest

from tests.plane.leaves.library import LINK, NONE, Leaves, MacTable

KNOWN, NEW, MOVED, REFUSED = MacTable.KNOWN, MacTable.NEW, MacTable.MOVED, MacTable.REFUSED
FORBIDDEN = MacTable.FORBIDDEN
HOST = bytes.fromhex("020000000001")
OTHER = bytes.fromhex("020000000002")


def mac(number: int) -> bytes:
    return (0x02_00_00_00_00_00 + number).to_bytes(6, "big")


def test_an_address_is_found_where_it_was_seen(leaves: Leaves) -> None:
    """[E9]"""
    table = leaves.mac_table()
    assert table.find(HOST, 1) == NONE
    assert table.learn(HOST, 7, 1) == NEW
    assert table.learn(HOST, 7, 2) == KNOWN
    assert table.find(HOST, 2) == 7
    assert table.find(OTHER, 2) == NONE


def test_an_address_seen_behind_another_peer_moves_there(leaves: Leaves) -> None:
    """[E9]"""
    table = leaves.mac_table()
    assert table.learn(HOST, 7, 1) == NEW
    assert table.learn(HOST, 8, 2) == MOVED
    assert table.find(HOST, 2) == 8
    assert [entry.peer for entry in table.list()] == [8]


@pytest.mark.parametrize(
    "nobody", ["000000000000", "ffffffffffff", "01005e000001", "333300000001", "030000000001"]
)
def test_a_group_or_zero_address_is_never_learned(leaves: Leaves, nobody: str) -> None:
    """[E9]"""
    table = leaves.mac_table()
    assert table.learn(bytes.fromhex(nobody), 7, 1) == REFUSED
    assert table.find(bytes.fromhex(nobody), 1) == NONE
    assert table.list() == []


def test_the_same_address_lives_in_each_vlan_by_itself(leaves: Leaves) -> None:
    """[E9]"""
    table = leaves.mac_table()
    assert table.learn(HOST, 1, 1) == NEW
    assert table.learn(HOST, 2, 1, vlan=10) == NEW
    assert table.learn(HOST, 3, 1, vlan=4095) == NEW
    assert [table.find(HOST, 1, vlan=vlan) for vlan in (0, 10, 4095, 11)] == [1, 2, 3, NONE]
    assert sorted((entry.vlan, entry.peer) for entry in table.list()) == [(0, 1), (10, 2), (4095, 3)]


def test_an_address_is_found_until_its_age_and_not_after(leaves: Leaves) -> None:
    table = leaves.mac_table(age_s=300)
    assert table.learn(HOST, 7, 1000) == NEW
    assert table.find(HOST, 1300) == 7
    assert table.find(HOST, 1300.000001) == NONE


def test_being_seen_again_starts_the_age_anew(leaves: Leaves) -> None:
    table = leaves.mac_table(age_s=300)
    assert table.learn(HOST, 7, 1000) == NEW
    assert table.learn(HOST, 7, 1299) == KNOWN
    assert table.find(HOST, 1599) == 7
    assert table.find(HOST, 1600) == NONE


def test_an_outdated_address_is_learned_as_a_new_one(leaves: Leaves) -> None:
    table = leaves.mac_table(age_s=300)
    assert table.learn(HOST, 7, 1000) == NEW
    assert table.learn(HOST, 8, 2000) == NEW
    assert table.find(HOST, 2000) == 8
    assert len(table.list()) == 1


def test_ageing_forgets_the_outdated_and_only_them(leaves: Leaves) -> None:
    table = leaves.mac_table(limit=20_000, age_s=300)
    for number in range(10_000):
        assert table.learn(mac(number), 7, 1000 + number % 2 * 200) == NEW
    table.age(1400)
    assert len(table.list()) == 5000
    assert all(table.find(mac(number), 1400) == (7 if number % 2 else NONE) for number in range(10_000))


def test_a_clock_that_stands_before_the_last_sight_ages_nothing(leaves: Leaves) -> None:
    table = leaves.mac_table(age_s=1)
    assert table.learn(HOST, 7, 1000) == NEW
    table.age(10)
    assert table.find(HOST, 10) == 7


def test_a_peer_at_its_limit_learns_no_more_and_others_do(leaves: Leaves) -> None:
    table = leaves.mac_table(limit=3)
    assert [table.learn(mac(number), 1, 1) for number in range(5)] == [NEW, NEW, NEW, REFUSED, REFUSED]
    assert table.learn(mac(0), 1, 1) == KNOWN
    assert table.learn(mac(3), 2, 1) == NEW
    assert table.find(mac(4), 1) == NONE


def test_a_peer_at_its_limit_cannot_take_an_address_from_another(leaves: Leaves) -> None:
    table = leaves.mac_table(limit=1)
    assert table.learn(HOST, 1, 1) == NEW
    assert table.learn(OTHER, 2, 1) == NEW
    assert table.learn(HOST, 2, 1) == REFUSED
    assert table.find(HOST, 1) == 1


def test_room_comes_back_by_age_by_moving_and_by_a_higher_limit(leaves: Leaves) -> None:
    table = leaves.mac_table(limit=1, age_s=300)
    assert table.learn(mac(0), 1, 1000) == NEW
    assert table.learn(mac(1), 1, 1400) == REFUSED
    table.age(1400)
    assert table.learn(mac(1), 1, 1400) == NEW
    assert table.learn(mac(1), 2, 1400) == MOVED
    assert table.learn(mac(2), 1, 1400) == NEW
    assert table.learn(mac(3), 1, 1400) == REFUSED
    table.set_limits(2, 300)
    assert table.learn(mac(3), 1, 1400) == NEW


def test_a_lower_limit_keeps_what_was_learned_and_stops_there(leaves: Leaves) -> None:
    table = leaves.mac_table(limit=3)
    for number in range(3):
        assert table.learn(mac(number), 1, 1) == NEW
    table.set_limits(1, 300)
    assert [table.find(mac(number), 1) for number in range(3)] == [1, 1, 1]
    assert table.learn(mac(3), 1, 1) == REFUSED


def test_a_removed_peer_leaves_nothing_behind(leaves: Leaves) -> None:
    table = leaves.mac_table()
    for number in range(500):
        assert table.learn(mac(number), number % 2, 1) == NEW
    table.remove_peer(1)
    assert sorted(entry.mac for entry in table.list()) == [mac(number) for number in range(0, 500, 2)]
    assert table.learn(mac(1), 0, 1) == NEW


def test_a_peer_number_outside_the_counters_is_refused(leaves: Leaves) -> None:
    table = leaves.mac_table()
    assert table.learn(HOST, LINK + 1, 1) == REFUSED
    assert table.learn(HOST, NONE, 1) == REFUSED
    table.remove_peer(NONE)
    assert table.list() == []


@pytest.mark.parametrize("page", [1, 7, 64, 1000])
def test_pages_of_any_size_list_each_entry_once(leaves: Leaves, page: int) -> None:
    table = leaves.mac_table()
    for number in range(200):
        assert table.learn(mac(number), number % 5, 1, vlan=number % 3) == NEW
    for number in range(0, 200, 4):
        assert table.learn(mac(number), 9, 2, vlan=number % 3) == MOVED
    table.remove_peer(3)
    listed = [(entry.mac, entry.vlan) for entry in table.list(page)]
    expected = [(mac(n), n % 3) for n in range(200) if n % 5 != 3 or n % 4 == 0]
    assert sorted(listed) == sorted(expected)
    assert len(set(listed)) == len(listed)


class DictTable:
    """The same rules on a dictionary."""

    def __init__(self, limit: int, age_s: float) -> None:
        self.limit, self.age_s = limit, age_s
        self.seen: dict[tuple[bytes, int], tuple[int, float]] = {}

    def _is_outdated(self, place: tuple[bytes, int], now_s: float) -> bool:
        return now_s - self.seen[place][1] > self.age_s

    def find(self, address: bytes, now_s: float, vlan: int) -> int:
        place = address, vlan
        return NONE if place not in self.seen or self._is_outdated(place, now_s) else self.seen[place][0]

    def learn(self, address: bytes, peer: int, now_s: float, vlan: int) -> int:
        place = address, vlan
        if place in self.seen and self._is_outdated(place, now_s):
            del self.seen[place]
        former = self.seen[place][0] if place in self.seen else NONE
        held = sum(owner == peer for owner, _ in self.seen.values())
        if former != peer and held >= self.limit:
            return REFUSED
        self.seen[place] = peer, now_s
        return KNOWN if former == peer else NEW if former == NONE else MOVED

    def age(self, now_s: float) -> None:
        self.seen = {p: kept for p, kept in self.seen.items() if not self._is_outdated(p, now_s)}

    def remove_peer(self, peer: int) -> None:
        self.seen = {place: kept for place, kept in self.seen.items() if kept[0] != peer}


@pytest.mark.parametrize("seed", range(10))
def test_random_use_agrees_with_a_dictionary(leaves: Leaves, seed: int) -> None:
    dice = random.Random(seed)
    table, twin = leaves.mac_table(limit=12, age_s=60), DictTable(12, 60)
    now = 1000.0
    for _ in range(2000):
        now += dice.choice((0, 1, 2, 5))
        address, vlan, peer = mac(dice.randrange(40)), dice.randrange(2), dice.randrange(4)
        match dice.choices(("learn", "find", "age", "remove"), (70, 25, 4, 1))[0]:
            case "learn":
                assert table.learn(address, peer, now, vlan=vlan) == twin.learn(address, peer, now, vlan)
            case "find":
                assert table.find(address, now, vlan=vlan) == twin.find(address, now, vlan)
            case "age":
                table.age(now)
                twin.age(now)
            case _:
                table.remove_peer(peer)
                twin.remove_peer(peer)


def test_what_is_on_our_side_is_known_and_not_listed(leaves: Leaves) -> None:
    table = leaves.mac_table(1)
    assert [table.learn(mac(number), LINK, 1) for number in (1, 2, 3)] == [NEW, NEW, NEW]
    assert table.find(mac(3), 1) == LINK
    assert table.list() == []
    assert table.learn(mac(3), 7, 2) == MOVED
    assert table.find(mac(3), 2) == 7


def test_a_static_address_is_its_peers_in_every_vlan_and_nobody_elses(leaves: Leaves) -> None:
    table = leaves.mac_table(1)
    assert table.set_static([HOST], 7) == 0
    assert [table.find(HOST, 10_000, vlan=vlan) for vlan in (0, 10)] == [7, 7]
    assert [table.learn(HOST, peer, 1, vlan=10) for peer in (8, LINK, 7)] == [FORBIDDEN, FORBIDDEN, NEW]
    assert table.learn(OTHER, 7, 1) == FORBIDDEN
    assert table.learn(OTHER, 8, 1) == NEW
    table.age(10_000)
    assert [(entry.mac, entry.peer, entry.is_static) for entry in table.list()] == [(HOST, 7, True)]


def test_static_addresses_drive_out_what_was_learned_against_them(leaves: Leaves) -> None:
    table = leaves.mac_table()
    table.learn(HOST, 8, 1)
    table.learn(OTHER, 7, 1)
    table.learn(mac(99), 8, 1)
    assert table.set_static([HOST], 7) == 0
    assert [table.find(each, 1) for each in (HOST, OTHER, mac(99))] == [7, NONE, 8]
    assert table.set_static([HOST], 8) == 0
    assert [table.find(each, 1) for each in (HOST, mac(99))] == [8, NONE]
    assert table.learn(OTHER, 7, 2) == NEW
    table.remove_peer(8)
    assert table.find(HOST, 2) == NONE
    assert table.learn(HOST, 7, 2) == NEW


def test_static_addresses_that_are_set_again_keep_their_places(leaves: Leaves) -> None:
    table = leaves.mac_table()
    for peer in (7, 8):
        assert table.set_static([mac(10 * peer), mac(10 * peer + 1)], peer) == 0
    before = table.list()
    assert table.set_static([mac(71), mac(70)], 7) == 0
    assert table.list() == before
    assert table.set_static([mac(70), mac(80)], 7) == 0
    assert {(entry.mac, entry.peer) for entry in table.list()} == {(mac(70), 7), (mac(80), 7), (mac(81), 8)}
    assert table.set_static([mac(80), mac(81)], 8) == 0
    assert {(entry.mac, entry.peer) for entry in table.list()} == {(mac(70), 7), (mac(80), 8), (mac(81), 8)}


def test_without_static_addresses_any_may_be_shown_again(leaves: Leaves) -> None:
    table = leaves.mac_table()
    assert table.set_static([mac(number) for number in range(1, 257)], 7) == 0
    assert len(table.list()) == 256
    assert table.set_static([mac(number) for number in range(1, 258)], 7) < 0
    assert len(table.list()) == 256
    assert table.set_static([], 7) == 0
    assert table.list() == []
    assert table.learn(mac(500), 7, 1) == NEW
