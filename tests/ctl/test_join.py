"""`vpnctl peer invite` and `vpnctl join`, as far as no hub is needed: what a token says, what is refused."""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.ctl.console import Console, Result
from tests.enrol.test_token import TERMS, TOKEN
from tests.fakes.control_server import FakeDaemon
from tests.fakes.status_reports import status
from vpnd.control import Reload, Status
from vpnd.control.reports import ReloadReport
from vpnd.ctl import join
from vpnd.endpoint import Endpoint
from vpnd.enrol import enrol as enrolling
from vpnd.enrol.token import Token, decode_token
from vpnd.errors import ControlError
from vpnd.keys import Identity, PublicKey

KEY = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
MAIN = f"""
[interface]
addresses = ["10.8.0.1/29", "fe80::1/64"]
[local]
listen = ["0.0.0.0:5181", "192.0.2.7:5180"]
[peer.berlin]
public_key = "{KEY}"
networks = ["10.8.0.2/32", "10.8.0.4/31"]
"""


def invite(
    console: Console, *words: str, main: str = MAIN, answer: object = ReloadReport(False, ())
) -> Result:
    (console.config_dir / "site.toml").write_text(main)
    with FakeDaemon(console.runtime_dir, "site", {Status: [status()], Reload: [answer]}):
        return console.run(*words[:-1], "peer", "invite", *words[-1].split())


def token_of(result: Result) -> Token:
    assert result.code == 0, result.err
    return decode_token(result.out)


def test_an_invited_peer_has_the_next_free_address_and_calls_where_we_listen(console: Console) -> None:
    token = token_of(invite(console, "anna"))
    file = tomllib.loads((console.config_dir / "site.d/anna.toml").read_text())
    assert file["public_key"] == str(Identity.from_private(token.once).public)
    assert file["networks"] == ["10.8.0.3/32"]
    assert file["invited_until"].timestamp() == token.terms.expires
    assert token.terms.expires == pytest.approx(time.time() + 86400, abs=60)
    assert token.hub == PublicKey.from_base64(status().instances[0].public_key)
    assert replace(token.terms, expires=0.0) == replace(
        TERMS,
        name="site",
        endpoint="192.0.2.7:5180",
        expires=0.0,
        addresses=("10.8.0.3/32",),
        networks=("10.8.0.0/29",),
    )
    assert token.knock is None


def test_what_the_operator_gives_goes_into_the_token(console: Console) -> None:
    knock = console.folder / "knock"
    console.run("key", "psk", str(knock))
    options = (
        "--network 10.30.0.9/32 --network 10.40.0.0/16 --route 10.20.0.0/16 --endpoint hub.example.net:5180"
    )
    result = invite(
        console,
        *("--json", f"anna {options} --expires 30m"),
        main=MAIN.replace("[local]", f'[local]\nknock = "{knock}"'),
    )
    told = json.loads(result.out)
    token = decode_token(told["token"])
    assert told["file"] == str(console.config_dir / "site.d/anna.toml")
    assert token.knock is not None
    assert token.terms.endpoint == "hub.example.net:5180"
    assert token.terms.addresses == ("10.30.0.9/32",)
    assert token.terms.networks == ("10.8.0.0/29", "10.20.0.0/16")
    assert token.terms.expires == pytest.approx(time.time() + 1800, abs=60)


POOL = '[pool]\nipv4 = "10.8.0.0/29"\n[push]\nroutes = ["10.20.0.0/16"]\n'


@pytest.mark.parametrize(
    ("words", "old", "new", "networks", "route"),
    [
        ("anna", "", "", ("10.8.0.0/29", "10.20.0.0/16"), False),
        ("anna --network 10.8.0.3", "", "", ("10.8.0.0/29", "10.20.0.0/16"), False),
        # what is neither pushed nor of the pool has no route but its own
        ("anna --route 10.30.0.0/16", "", "", ("10.8.0.0/29", "10.20.0.0/16", "10.30.0.0/16"), True),
        ("anna", '10.8.0.0/29"\n', '10.8.0.4/30"\n', ("10.8.0.0/29", "10.8.0.4/30", "10.20.0.0/16"), True),
        ("anna", '"10.20.0.0/16"', '"0.0.0.0/0"', ("10.8.0.0/29", "0.0.0.0/0"), True),
        ("anna", "[interface]", '[interface]\ntype = "tap"', ("10.8.0.0/29", "10.20.0.0/16"), False),
    ],
)
def test_of_a_hub_with_a_pool_who_is_invited_takes_what_it_gives(
    console: Console, words: str, old: str, new: str, networks: tuple[str, ...], route: bool
) -> None:
    main = (MAIN + POOL).replace(', "10.8.0.4/31"', "").replace(old, new)
    terms = token_of(invite(console, words, main=main)).terms
    assert (terms.is_assigned, terms.addresses, terms.networks, terms.route) == (True, (), networks, route)


def test_a_peer_with_an_address_outside_the_pool_is_given_none(console: Console) -> None:
    main = (MAIN + POOL).replace(', "10.8.0.4/31"', "")
    terms = token_of(invite(console, "anna --network 10.30.0.9", main=main)).terms
    assert (terms.is_assigned, terms.addresses, terms.route) == (False, ("10.30.0.9/32",), True)
    assert terms.networks == ("10.8.0.0/29",)


def test_an_invited_peer_is_in_its_groups(console: Console) -> None:
    token_of(invite(console, "anna --group staff --group branches"))
    file = tomllib.loads((console.config_dir / "site.d/anna.toml").read_text())
    assert file["groups"] == ["staff", "branches"]


def test_a_bridged_peer_needs_no_address(console: Console) -> None:
    main = MAIN.replace("[interface]", '[interface]\ntype = "tap"')
    terms = token_of(invite(console, "anna", main=main)).terms
    assert (terms.link_type, terms.addresses, terms.networks) == ("tap", (), ())


def test_another_token_takes_the_place_of_the_one_before(console: Console) -> None:
    first = token_of(invite(console, "anna"))
    second = token_of(invite(console, "anna"))
    assert first.once != second.once
    assert first.terms.addresses == second.terms.addresses


def test_a_refused_invitation_leaves_no_file_and_prints_no_token(console: Console) -> None:
    result = invite(console, "anna", answer=ControlError("refused", "no"))
    assert (result.code, result.out) == (1, "")
    assert list((console.config_dir / "site.d").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "old", "new", "text"),
    [
        ("berlin", "", "", "berlin is a peer already, at"),
        ("an/na", "", "", 'NAME: "an/na" cannot name a peer'),
        ("anna --expires soon", "", "", '--expires: "soon" is no time'),
        ("anna --expires 0s", "", "", "is no time"),
        ("anna --expires 400d", "", "", "is no time"),
        ("anna --network x", "", "", '--network: "x" is not a network'),
        ("anna --route x", "", "", '--route: "x" is not a network'),
        ("anna --endpoint x", "", "", "--endpoint: "),
        ("anna", ', "192.0.2.7:5180"', "", "give the one to call by --endpoint"),
        ("anna", "10.8.0.1/29", "10.8.0.1/32", "give --network PREFIX"),
        ("anna", '"10.8.0.4/31"', '"10.8.0.3/32", "10.8.0.4/30"', "every address of 10.8.0.0/29 is a peer's"),
    ],
)
def test_what_cannot_be_invited_is_told_and_nothing_written(
    console: Console, words: str, old: str, new: str, text: str
) -> None:
    result = invite(console, words, main=MAIN.replace(old, new) if old else MAIN)
    assert result.code in (1, 2)
    assert text in result.err
    assert not (console.config_dir / "site.d").exists()


# -- join --


@pytest.fixture
def enrolled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Token, bool]]:
    """A hub that takes everybody: with whose token, and whether it may know us already."""
    taken: list[tuple[Token, bool]] = []

    def enrol(token: Token, _: Identity, __: Endpoint, *, may_be_known: bool) -> None:
        taken.append((token, may_be_known))

    monkeypatch.setattr(enrolling, "enrol", enrol)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("192.0.2.1", 5180))])
    return taken


def start(console: Console, token: Token, *words: str) -> Result:
    console.stdin = token.encode().encode() + b"\n"
    return console.run(*words[:-1], "join", "-", *words[-1].split())


def test_a_machine_that_joined_has_key_and_configuration(
    console: Console, enrolled: list[tuple[Token, bool]]
) -> None:
    token = replace(TOKEN, knock=TOKEN.once)
    result = start(console, token, "--json", "--no-start")
    told = json.loads(result.out)
    file, keys = console.config_dir / "hub.toml", console.config_dir / "keys"
    assert (told["instance"], told["file"]) == ("hub", str(file))
    assert tomllib.loads(file.read_text()) == {
        "interface": {"type": "tun", "mtu": 1420, "addresses": ["10.8.0.2/32", "fd08::2/128"]},
        "local": {"private_key": f"{keys}/hub.key", "knock": f"{keys}/hub/knock"},
        "peer": {
            "hub": {
                "public_key": str(TOKEN.hub),
                "endpoint": "vpn.example.net:5180",
                "networks": ["10.8.0.0/24"],
                "keepalive": 25,
            }
        },
    }
    secrets = [keys / "hub.key", keys / "hub/knock"]
    assert [path.stat().st_mode & 0o777 for path in (*secrets, file)] == [0o600, 0o600, 0o644]
    assert console.run("check", str(file)).code == 0
    assert enrolled == [(token, False)]


@pytest.mark.parametrize(("route", "networks"), [(False, ("10.8.0.0/24",)), (True, ("0.0.0.0/0",))])
def test_who_joins_a_pool_takes_what_it_is_told_within_the_networks(
    console: Console, enrolled: list[tuple[Token, bool]], route: bool, networks: tuple[str, ...]
) -> None:
    terms = replace(TOKEN.terms, is_assigned=True, addresses=(), route=route, networks=networks)
    assert start(console, replace(TOKEN, terms=terms), "--no-start").code == 0
    file = console.config_dir / "hub.toml"
    written = tomllib.loads(file.read_text())
    assert written["interface"]["addresses"] == "assigned"
    hub = written["peer"]["hub"]
    assert (hub["networks"], hub["route"]) == (list(networks), route)
    assert hub["accept"] == ["address", "routes", "dns", "mtu"]
    # everything through the tunnel, and not the tunnel through itself
    assert ("routing" in written) == (networks == ("0.0.0.0/0",))
    assert console.run("check", str(file)).code == 0
    assert len(enrolled) == 1


def test_a_join_that_was_cut_short_goes_on_with_its_key(
    console: Console, enrolled: list[tuple[Token, bool]]
) -> None:
    first = start(console, TOKEN, "--json", "--no-start")
    (console.config_dir / "hub.toml").unlink()
    second = start(console, TOKEN, "--json", "--no-start")
    assert json.loads(first.out)["public_key"] == json.loads(second.out)["public_key"]
    assert [known for _, known in enrolled] == [False, True]


def test_a_hub_that_refuses_leaves_no_configuration(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ControlError("timed-out", "no answer")

    monkeypatch.setattr(join, "_resolve", refuse)
    assert start(console, TOKEN, "--no-start").code == 6
    assert [path.name for path in console.config_dir.iterdir()] == ["keys"]


@pytest.mark.parametrize(
    ("terms", "words", "code", "text"),
    [
        (replace(TERMS, expires=1e9), "", 1, "the token expired at 2001-09-09T01:46:40Z"),
        (TERMS, "taken", 1, "taken.toml exists already; give another NAME"),
        (TERMS, "../x", 2, '"../x" is no name of an instance'),
        (replace(TERMS, name="../x"), "", 2, '"../x" is no name of an instance'),
        (replace(TERMS, endpoint="nowhere"), "", 1, "the token says what cannot be"),
        (replace(TERMS, addresses=("10.0.0.1/99",)), "", 1, "the token says what cannot be"),
        (replace(TERMS, mtu=3), "", 1, "this machine cannot have what the token says"),
        (replace(TERMS, name="a@b"), "", 1, "this machine cannot have what the token says"),
        (replace(TERMS, link_type='tun"'), "", 1, "this machine cannot have what the token says"),
    ],
)
def test_a_token_that_cannot_be_followed_changes_nothing(
    console: Console,
    enrolled: list[tuple[Token, bool]],
    terms: object,
    words: str,
    code: int,
    text: str,
) -> None:
    (console.config_dir / "taken.toml").touch()
    result = start(console, replace(TOKEN, terms=terms), f"{words} --no-start")  # type: ignore[arg-type]
    assert (result.code, text in result.err) == (code, True), result.err
    assert [path.name for path in console.config_dir.iterdir()] == ["taken.toml"]
    assert enrolled == []


@pytest.mark.parametrize(
    ("script", "code", "text"),
    [
        ('echo "$@" > "$0.asked"', 0, ""),
        (
            "echo no such unit >&2; exit 5",
            1,
            "joined, but systemctl enable --now vpnd@hub.service: no such unit",
        ),
        ("exit 5", 1, "exit status 5"),
        (None, 1, "start vpnd yourself"),
    ],
)
def test_the_unit_is_enabled_and_started(
    console: Console,
    enrolled: list[tuple[Token, bool]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str | None,
    code: int,
    text: str,
) -> None:
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin/systemctl"
    if script is not None:
        systemctl.write_text(f"#!/bin/sh\n{script}\n")
        systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    result = start(console, TOKEN, "")
    assert (result.code, text in result.err) == (code, True), result.err
    if code == 0:
        assert (tmp_path / "bin/systemctl.asked").read_text() == "enable --now vpnd@hub.service\n"


def test_a_name_that_does_not_resolve_is_told(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object, **__: object) -> Callable[[], None]:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", nothing)
    result = start(console, TOKEN, "--no-start")
    assert (result.code, "vpn.example.net does not resolve: Name or service" in result.err) == (1, True)
