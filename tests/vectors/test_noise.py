"""The token order and the primitives, against a vector of another implementation of Noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from nacl.exceptions import CryptoError

from tests.vectors.noise import FIRST, SECOND, Party

VECTOR: dict[str, Any] = json.loads((Path(__file__).parent / "noise-ikpsk2.json").read_text())


def raw(name: str) -> bytes:
    return bytes.fromhex(VECTOR[name])


def parties() -> tuple[Party, Party]:
    initiator = Party(
        is_initiator=True,
        static=raw("init_static"),
        ephemeral=raw("init_ephemeral"),
        psk=raw("init_psk"),
        prologue=raw("init_prologue"),
        remote_static=raw("init_remote_static"),
    )
    responder = Party(
        is_initiator=False,
        static=raw("resp_static"),
        ephemeral=raw("resp_ephemeral"),
        psk=raw("resp_psk"),
        prologue=raw("resp_prologue"),
    )
    return initiator, responder


def messages() -> list[tuple[bytes, bytes]]:
    return [
        (bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"]))
        for message in VECTOR["messages"]
    ]


def test_every_message_of_the_vector_is_reproduced() -> None:
    """[J2] IKpsk2 with ChaChaPoly and BLAKE2b gives the bytes that cacophony gives."""
    initiator, responder = parties()
    (payload1, expected1), (payload2, expected2), *transport = messages()
    assert initiator.write(FIRST, payload1) == expected1
    assert responder.read(FIRST, expected1) == payload1
    assert responder.write(SECOND, payload2) == expected2
    assert initiator.read(SECOND, expected2) == payload2
    to_responder, to_initiator = initiator.symmetric.split()
    for number, (payload, expected) in enumerate(transport):
        cipher = to_responder if number % 2 == 0 else to_initiator
        assert cipher.encrypt(b"", payload) == expected


def test_another_psk_breaks_the_second_message() -> None:
    """[J2] The preshared key takes part: a responder with another one is not understood."""
    initiator, responder = parties()
    responder.psk = bytes(32)
    responder.read(FIRST, initiator.write(FIRST, b""))
    answer = responder.write(SECOND, b"")
    with pytest.raises(CryptoError):
        initiator.read(SECOND, answer)
