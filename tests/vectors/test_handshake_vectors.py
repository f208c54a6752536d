"""Our handshake against a second implementation in C, byte for byte, and against stored vectors."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt

from tests.vectors import generate
from tests.vectors.second_program import Vector, ask, compile_second, compiler_is_here, inputs_of, outputs_of
from vpnd.endpoint import Endpoint
from vpnd.keys import Identity, PublicKey, Secret
from vpnd.protocol import boxes, handshake
from vpnd.protocol.constants import TIMERS, Suite
from vpnd.protocol.cookies import CookieMaker, cookie_key, open_cookie, with_cookie
from vpnd.protocol.messages import (
    parse_cookie_untrusted,
    parse_initiation_untrusted,
    parse_response_untrusted,
)

HERE = Path(__file__).parent
FILES = sorted(path.name for path in HERE.glob("handshake-*.json"))


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not compiler_is_here():
        pytest.skip("gcc, pkg-config or the headers of libcrypto (libssl-dev) are not installed")
    return compile_second(tmp_path_factory.mktemp("second"))


def stored(name: str) -> Vector:
    vector: Vector = json.loads((HERE / name).read_text())
    return {"data": generate.IPV4_HEADER} | vector


@dataclass(frozen=True, slots=True)
class Values:
    """A vector's inputs as our code takes them."""

    vector: Vector

    def raw(self, name: str) -> bytes:
        return bytes.fromhex(str(self.vector[name]))

    def secret(self, name: str) -> Secret:
        return Secret.copy_of(self.raw(name))

    def number(self, name: str) -> int:
        return int(self.vector[name])

    @property
    def knock(self) -> Secret:
        return self.secret("knock") if "knock" in self.vector else Secret.zero()


def ours(vector: Vector) -> dict[str, str]:
    """Runs both ends of our handshake on a vector's inputs and names the outputs as the vector does."""
    values = Values(vector)
    left, right = Identity.from_private(values.secret("s_i")), Identity.from_private(values.secret("s_r"))
    start = handshake.start_chain(1, right.public)
    initiation = handshake.create_initiation(
        left,
        right.public,
        version=1,
        local_index=values.number("idx_i"),
        ephemeral=values.secret("e_i"),
        preshared_key=values.secret("psk"),
        parameters=values.raw("P1"),
        responder_mac1_key=handshake.mac1_key(right.public, values.knock),
        start=start,
        shared=boxes.share(left.private, right.public.raw),
    )
    outputs = {"msg1": initiation.message.hex()}
    message1 = parse_initiation_untrusted(initiation.message)
    chain, named = handshake.open_identity(right, start, message1)
    assert named == boxes.identify(left.public)
    shared = boxes.share(right.private, left.public.raw)
    opened = handshake.open_initiation(left.public, shared, (values.secret("psk"),), chain, message1)
    assert opened.parameters == values.raw("P1")
    response, responder_keys = respond(values, opened, Suite.AES_256_GCM)
    outputs["msg2"] = response.hex()
    for suite in Suite:
        answer = handshake.open_response(left, initiation, parse_response_untrusted(response))
        assert answer.parameters == values.raw("P2")
        outputs["C_final"] = answer.chain._state.expose().hex()
        outputs["session_id"] = answer.chain.derive(boxes.label("k.sid"), size=8).expose().hex()
        keys = answer.derive_keys(suite)
        outputs[f"suite{suite}_i2r"], outputs[f"suite{suite}_r2i"] = (
            keys.send.expose().hex(),
            keys.receive.expose().hex(),
        )
        if suite is Suite.AES_256_GCM:
            assert responder_keys.receive.equals(keys.send)
            assert responder_keys.send.equals(keys.receive)
    outputs |= data_messages(values, outputs["suite2_i2r"])
    return outputs | cookies(values, right.public, initiation) | ephemerals(values)


def respond(
    values: Values, opened: handshake.OpenedInitiation, suite: Suite
) -> tuple[bytes, handshake.TransportKeys]:
    return handshake.create_response(
        opened,
        local_index=values.number("idx_r"),
        ephemeral=values.secret("e_r"),
        parameters=values.raw("P2"),
        suite=suite,
    )


def data_messages(values: Values, key: str) -> dict[str, str]:
    """The data messages of suite 2; the plane's own tests hold suite 1 and the same values."""
    raw, outputs = bytes.fromhex(key), {}
    for counter, plain in enumerate([b"", values.raw("data")]):
        head = b"\x0c\0\0\0" + values.number("idx_r").to_bytes(4, "little") + counter.to_bytes(8, "little")
        sealed = crypto_aead_chacha20poly1305_ietf_encrypt(plain, head, raw[32:] + head[8:], raw[:32])
        outputs[f"data_suite2_ctr{counter}"] = (head + sealed).hex()
    return outputs


def cookies(values: Values, responder: PublicKey, initiation: handshake.Initiation) -> dict[str, str]:
    """The cookie's way: reply by the responder, opened and used by the initiator."""
    if "cookie_secret" not in values.vector:
        return {}
    pieces = iter([values.raw("cookie_secret"), values.raw("cookie_nonce")])
    box_key = cookie_key(responder, values.knock)
    maker = CookieMaker(lambda _: next(pieces), TIMERS)
    source = Endpoint(ip_address(values.raw("source")[:16]), int.from_bytes(values.raw("source")[16:], "big"))
    reply = maker.reply(parse_initiation_untrusted(initiation.message), source, 0.0, box_key)
    cookie = open_cookie(parse_cookie_untrusted(reply), initiation.mac1, box_key, 0.0)
    assert cookie is not None
    again = with_cookie(initiation.message, cookie)
    assert maker.is_valid(parse_initiation_untrusted(again), source, 0.0)
    return {
        "cookie": cookie.key.expose().hex(),
        "cookie_reply": reply.hex(),
        "msg1_with_mac2": again.hex(),
    }


def ephemerals(values: Values) -> dict[str, str]:
    if "urandom" not in values.vector:
        return {}
    moment = int.from_bytes(values.raw("monotonic_ns"), "little")
    ephemeral = boxes.make_ephemeral(values.secret("s_i"), values.raw("urandom"), moment)
    return {"ephemeral": ephemeral.expose().hex()}


@pytest.mark.parametrize("name", FILES)
def test_both_implementations_give_the_stored_bytes(second: Path, name: str) -> None:
    """[J1] Messages, keys, cookie and data messages of each vector, by the C program and by ours."""
    vector = stored(name)
    expected = outputs_of(vector)
    theirs = ask(second, inputs_of(vector))
    assert {key: theirs[key] for key in expected} == expected
    mine = ours(vector)
    assert {key: value for key, value in mine.items() if key in expected} == {
        key: value for key, value in expected.items() if not key.startswith("data_suite1")
    }


@pytest.mark.parametrize("seed", range(20))
def test_both_implementations_agree_on_random_inputs(second: Path, seed: int) -> None:
    """[J1, A2] Twenty random handshakes: the C program and ours differ nowhere, nor do the two ends."""
    chance = random.Random(seed)
    vector: Vector = {
        name: chance.randbytes(32).hex() for name in ("s_i", "s_r", "e_i", "e_r", "psk", "knock")
    }
    vector |= {
        "P1": chance.randbytes(64 * chance.randint(1, 8)).hex(),
        "P2": chance.randbytes(64 * chance.randint(1, 16)).hex(),
        "idx_i": chance.randrange(1, 2**32),
        "idx_r": chance.randrange(1, 2**32),
        "data": chance.randbytes(chance.randint(1, 1000)).hex(),
        "cookie_secret": chance.randbytes(32).hex(),
        "cookie_nonce": chance.randbytes(24).hex(),
        "source": (bytes(10) + b"\xff\xff" + chance.randbytes(6)).hex(),
        "urandom": chance.randbytes(32).hex(),
        "monotonic_ns": chance.randbytes(8).hex(),
    }
    theirs = ask(second, vector)
    mine = ours(vector)
    assert {key: theirs[key] for key in mine} == mine


def test_the_stored_vectors_are_what_the_generator_writes() -> None:
    """[J1] Nobody edited an input of the stored vectors by hand."""
    for name, inputs in generate.vectors().items():
        vector = json.loads((HERE / name).read_text())
        assert {key: vector[key] for key in inputs} == inputs


def all_keys(vector: Vector) -> Iterator[tuple[str, bytes]]:
    for name, value in outputs_of(vector).items():
        if name.startswith("suite") or name == "C_final":
            yield name, bytes.fromhex(str(value))
    for name in ("s_i", "s_r", "e_i", "e_r", "psk", "knock"):
        secret = bytes.fromhex(str(vector.get(name, "")))
        if any(secret):
            yield name, secret


def test_no_two_keys_share_sixteen_bytes() -> None:
    """[J6] Directions, suites and handshakes have unrelated keys: no 16 bytes in a row are equal."""
    seen: dict[bytes, str] = {}
    for file in FILES:
        for name, value in all_keys(stored(file)):
            for start in range(len(value) - 15):
                place = f"{file} {name} {start}"
                assert seen.setdefault(value[start : start + 16], place) == place
    assert len(seen) > 1000


def test_version_and_suite_enter_the_transport_keys() -> None:
    """[J6] One final state gives unrelated keys for each version and suite."""
    chain = boxes.Chain.begin(b"any")
    derived = {
        chain.derive(boxes.label(f"k.{direction}"), bytes((version, suite)), 36).expose()
        for direction in ("i2r", "r2i")
        for version in (1, 2)
        for suite in (1, 2)
    }
    assert len({key[start : start + 16] for key in derived for start in range(21)}) == 8 * 21
