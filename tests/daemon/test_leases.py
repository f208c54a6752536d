"""Which address of the pool goes to whom, for how long, and what a file of leases survives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpnd.config import Config, load
from vpnd.daemon.leasebook import LeaseBook
from vpnd.daemon.leases import Lease, Settled, read_leases, settle, write_leases
from vpnd.daemon.state import StateDirectory
from vpnd.keys import PublicKey

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
KEYS = {name: PublicKey(bytes([number]) * 32) for number, name in enumerate("abcdefgh", start=10)}


def config(folder: Path, peers: str, *, pool: str = 'ipv4 = "10.8.0.0/29"', lines: str = "") -> Config:
    """A hub 10.8.0.1 with these peers, one letter each; `lines` is added to the last of them."""
    file = folder / "site.toml"
    text = f"""\
[interface]
addresses = ["10.8.0.1/29"]
[local]
listen = ["0.0.0.0:5180"]
[pool]
{pool}
"""
    for name in peers:
        text += f'[peer.{name}]\npublic_key = "{KEYS[name]}"\n'
    file.write_text(text + lines)
    return load("site", file)


def addresses(settled: Settled) -> dict[str, str]:
    given = {peer.name: settled.given.get(peer.public_key, ()) for peer in settled.config.peers}
    return {name: " ".join(str(each.ip) for each in each_given) for name, each_given in given.items()}


def test_each_peer_gets_the_lowest_that_is_free(tmp_path: Path) -> None:
    """The network's own and the hub's addresses are kept out; the peer's networks hold what it got."""
    settled = settle(config(tmp_path, "ab", pool='ipv4 = "10.8.0.0/29"\nipv6 = "fd00:8::/64"'), {}, NOW)
    assert addresses(settled) == {"a": "10.8.0.2 fd00:8::1", "b": "10.8.0.3 fd00:8::2"}
    assert settled.config.peers[0].networks == (ip_network("10.8.0.2/32"), ip_network("fd00:8::1/128"))
    assert settled.given[KEYS["a"]] == (ip_interface("10.8.0.2/29"), ip_interface("fd00:8::1/64"))


def test_without_a_pool_nothing_is_given_and_nothing_forgotten(tmp_path: Path) -> None:
    found = config(tmp_path, "", pool='ipv4 = "10.8.0.0/29"')
    file = tmp_path / "site.toml"
    file.write_text(file.read_text().partition("[pool]")[0])
    leases = {KEYS["a"]: Lease("a", (ip_address("10.8.0.5"),))}
    settled = settle(load("site", file), leases, NOW)
    assert (settled.config.peers, settled.leases, settled.given) == (found.peers, leases, {})


def test_a_peer_keeps_its_address_whatever_the_others_do(tmp_path: Path) -> None:
    first = settle(config(tmp_path, "abc"), {}, NOW)
    second = settle(config(tmp_path, "cb"), first.leases, NOW)
    assert addresses(second) == {"c": "10.8.0.4", "b": "10.8.0.3"}
    third = settle(config(tmp_path, "dcba"), second.leases, NOW)
    assert addresses(third) == {"d": "10.8.0.5", "c": "10.8.0.4", "b": "10.8.0.3", "a": "10.8.0.2"}
    assert all(lease.released_at is None for lease in third.leases.values())


def test_a_used_up_pool_takes_from_whoever_is_gone_longest(tmp_path: Path) -> None:
    """10.8.0.0/29 has five addresses beside the hub's own."""
    leases = settle(config(tmp_path, "abcde"), {}, NOW).leases
    leases = settle(config(tmp_path, "acde"), leases, NOW + timedelta(days=1)).leases
    leases = settle(config(tmp_path, "cde"), leases, NOW + timedelta(days=2)).leases
    third = settle(config(tmp_path, "cdef"), leases, NOW + timedelta(days=3))
    assert addresses(third)["f"] == "10.8.0.3"
    assert third.reclaimed == (("b", ip_address("10.8.0.3")),)
    fourth = settle(config(tmp_path, "cdefg"), third.leases, NOW)
    assert addresses(fourth)["g"] == "10.8.0.2"
    assert set(fourth.leases) == {KEYS[name] for name in "cdefg"}


def test_an_address_in_the_configuration_goes_to_nobody_else(tmp_path: Path) -> None:
    """Whoever has it by lease gets another."""
    leases = settle(config(tmp_path, "ab"), {}, NOW).leases
    fixed = settle(config(tmp_path, "abc", lines='networks = ["10.8.0.2"]\n'), leases, NOW)
    assert addresses(fixed) == {"a": "10.8.0.4", "b": "10.8.0.3", "c": "10.8.0.2"}
    assert KEYS["c"] not in fixed.leases
    gone = settle(config(tmp_path, "bc", lines='networks = ["10.8.0.4"]\n'), fixed.leases, NOW)
    assert KEYS["a"] not in gone.leases


def test_a_peer_with_an_address_outside_takes_no_part(tmp_path: Path) -> None:
    settled = settle(config(tmp_path, "ab", lines='networks = ["192.0.2.7"]\n'), {}, NOW)
    assert addresses(settled) == {"a": "10.8.0.2", "b": ""}
    assert KEYS["b"] not in settled.given


def test_a_rotated_or_replaced_key_keeps_the_address(tmp_path: Path) -> None:
    """By the previous key where one is named, else by the name, if nobody has the old key."""
    leases = settle(config(tmp_path, "ab"), {}, NOW).leases
    rotated = config(tmp_path, "ac", lines=f'previous_public_key = "{KEYS["b"]}"\n')
    after = settle(rotated, leases, NOW)
    assert addresses(after)["c"] == "10.8.0.3"
    assert KEYS["b"] not in after.leases
    text = (tmp_path / "site.toml").read_text().replace(str(KEYS["a"]), str(KEYS["d"]))
    (tmp_path / "site.toml").write_text(text)
    replaced = settle(load("site", tmp_path / "site.toml"), after.leases, NOW)
    assert replaced.given[KEYS["d"]] == (ip_interface("10.8.0.2/29"),)


def test_another_pool_gives_anew_and_a_wider_one_changes_nothing(tmp_path: Path) -> None:
    leases = settle(config(tmp_path, "ab"), {}, NOW).leases
    wider = settle(config(tmp_path, "ab", pool='ipv4 = "10.8.0.0/20"'), leases, NOW)
    assert addresses(wider) == {"a": "10.8.0.2", "b": "10.8.0.3"}
    other = settle(config(tmp_path, "b", pool='ipv4 = "10.77.0.0/29"'), wider.leases, NOW)
    assert addresses(other) == {"b": "10.77.0.1"}
    assert set(other.leases) == {KEYS["a"], KEYS["b"]}


def test_an_address_that_stands_twice_in_the_file_is_one_peers_only(tmp_path: Path) -> None:
    same = (ip_address("10.8.0.4"),)
    settled = settle(config(tmp_path, "ab"), {KEYS["a"]: Lease("a", same), KEYS["b"]: Lease("b", same)}, NOW)
    assert addresses(settled) == {"a": "10.8.0.4", "b": "10.8.0.2"}


@settings(max_examples=60, deadline=None)
@given(rounds=st.lists(st.sets(st.sampled_from("abcdefgh"), max_size=5), max_size=6))
def test_nobody_ever_shares_an_address_or_loses_one_while_configured(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[set[str]]
) -> None:
    folder = tmp_path_factory.mktemp("rounds")
    settled = settle(config(folder, ""), {}, NOW)
    for number, names in enumerate(rounds):
        before = addresses(settled)
        settled = settle(config(folder, "".join(names)), settled.leases, NOW + timedelta(days=number))
        now = addresses(settled)
        assert len(set(now.values())) == len(now)
        assert all(now[name] == address for name, address in before.items() if name in now)
        held = {key for key, lease in settled.leases.items() if lease.released_at is None}
        assert held == set(settled.given)


# --- the file ---

LEASES = {
    KEYS["a"]: Lease("a", (ip_address("10.8.0.2"), ip_address("fd00:8::2"))),
    KEYS["b"]: Lease("b", (ip_address("10.8.0.3"),), NOW),
}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    assert read_leases(write_leases(LEASES)) == (LEASES, [])
    state = StateDirectory(tmp_path / "site")
    state.store_leases(LEASES)
    assert StateDirectory(tmp_path / "site").load_leases() == LEASES


@pytest.mark.parametrize("text", ["", "[lease", 'lease = "x"', "\xff", "[lease." + "[" * 5000])
def test_a_spoilt_file_costs_a_warning_at_most(text: str) -> None:
    assert read_leases(text)[0] == {}


@pytest.mark.parametrize(
    "entry",
    [
        '[lease."short"]\nname = "x"',
        f'[lease."{KEYS["c"]}"]\nipv4 = "10.8.0.9"',
        f'[lease."{KEYS["c"]}"]\nname = 5',
        f'[lease."{KEYS["c"]}"]\nname = "x"\nipv4 = "ten"',
        f'[lease."{KEYS["c"]}"]\nname = "x"\nreleased = "long ago"',
        "[lease]\nx = 5",
    ],
)
def test_a_spoilt_entry_costs_nobody_else_a_lease(entry: str) -> None:
    leases, spoilt = read_leases(entry + "\n" + write_leases(LEASES))
    assert leases == LEASES
    assert len(spoilt) == 1


def test_the_book_writes_before_it_tells_and_only_what_changed(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "lib")
    book = LeaseBook(state, lambda: int(NOW.timestamp() * 1e9))
    settled = book.settle(config(tmp_path, "a"))
    assert book.given == {}
    assert not (tmp_path / "lib").exists()
    assert book.take(settled).peers[0].networks == (ip_network("10.8.0.2/32"),)
    file = tmp_path / "lib" / "leases.toml"
    first = file.stat().st_ino
    book.take(book.settle(config(tmp_path, "a")))
    assert file.stat().st_ino == first
    assert list(book.given) == list(book.leases) == [KEYS["a"]]
    assert LeaseBook(StateDirectory(tmp_path / "lib"), lambda: 0).leases == book.leases


def test_a_state_folder_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """[I12]"""
    (tmp_path / "lib").write_text("in the way")
    book = LeaseBook(StateDirectory(tmp_path / "lib"), lambda: 0)
    book.take(book.settle(config(tmp_path, "a")))
    assert list(book.given) == [KEYS["a"]]
    assert "cannot be written" in caplog.text
