"""The token's text: read as written, and refused without a word of what was in it."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpnd.enrol.token import PREFIX, Terms, Token, decode_token
from vpnd.errors import ControlError
from vpnd.keys import PublicKey, Secret

TERMS = Terms(
    name="hub",
    endpoint="vpn.example.net:5180",
    expires=2e9,
    link_type="tun",
    mtu=1420,
    addresses=("10.8.0.2/32", "fd08::2/128"),
    networks=("10.8.0.0/24",),
)
TOKEN = Token(PublicKey(b"h" * 32), Secret.copy_of(b"o" * 32), None, TERMS)


def text_of(content: bytes) -> str:
    digest = hashlib.blake2b(content, digest_size=8, person=b"vpnd token").digest()
    return PREFIX + base64.urlsafe_b64encode(content + digest).decode().rstrip("=")


@pytest.mark.parametrize("knock", [None, Secret.copy_of(b"k" * 32)], ids=["no knock", "knock"])
def test_a_token_is_read_as_written(knock: Secret | None) -> None:
    token = replace(TOKEN, knock=knock)
    text = token.encode()
    assert decode_token(text) == token
    assert decode_token(f"  {text[:40]}\n{text[40:]}\n") == token
    assert text.isascii()
    assert len(text) < 500


@given(st.integers(min_value=len(PREFIX), max_value=len(TOKEN.encode()) - 1), st.sampled_from("AZaz09-_ é"))
def test_one_wrong_character_is_noticed(place: int, character: str) -> None:
    text = TOKEN.encode()
    changed = text[:place] + character + text[place + 1 :]
    if changed == text:
        return
    with pytest.raises(ControlError, match="damaged"):
        decode_token(changed)


def test_a_token_of_a_hub_with_a_pool_says_so() -> None:
    token = replace(TOKEN, terms=replace(TERMS, addresses=(), is_assigned=True, route=False))
    assert decode_token(token.encode()) == token


def test_a_token_that_knows_no_pool_is_one_of_a_hub_without() -> None:
    terms = decode_token(text_of(HEAD + json.dumps(GOOD).encode())).terms
    assert (terms.is_assigned, terms.route) == (False, True)


HEAD = bytes((1,)) + bytes(64) + b"\0"
GOOD = {
    "name": "hub",
    "endpoint": "x:1",
    "expires": 1,
    "link_type": "tun",
    "mtu": 1420,
    "addresses": [],
    "networks": [],
}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "begins with vpnd1-"),
        ("key", "begins with vpnd1-"),
        (PREFIX + "A" * 9000, "begins with vpnd1-"),
        (PREFIX, "damaged"),
        (PREFIX + "A", "damaged"),
        (text_of(b"\2" + HEAD[1:] + json.dumps(GOOD).encode()), "another version"),
        (text_of(HEAD + b"{"), "damaged"),
        (text_of(HEAD + b"[]"), "damaged"),
        (text_of(HEAD + b"{}"), "damaged"),
        (text_of(HEAD + json.dumps(GOOD | {"networks": 1}).encode()), "damaged"),
        (text_of(HEAD + json.dumps(GOOD | {"mtu": "large"}).encode()), "damaged"),
    ],
)
def test_what_is_no_token_is_told_in_words_that_hold_none_of_it(text: str, what: str) -> None:
    with pytest.raises(ControlError, match=what) as caught:
        decode_token(text)
    assert caught.value.code == "usage"
    assert "AAAA" not in str(caught.value)
