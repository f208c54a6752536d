"""The errors' texts and fields, as other rooms and the operator read them."""

from __future__ import annotations

import pytest

from vpnd import errors
from vpnd.errors import (
    ConfigError,
    ControlError,
    HostError,
    Mistake,
    PlaneError,
    RejectedMessage,
    VpndError,
)


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        (
            Mistake("site.toml", 14, "peer.berlin.public_key", "31 bytes after base64, a key has 32"),
            "site.toml:14: peer.berlin.public_key: 31 bytes after base64, a key has 32",
        ),
        (Mistake("site.toml", None, "interface.name", "too long"), "site.toml: interface.name: too long"),
        (Mistake("site.toml", 3, "", "not TOML"), "site.toml:3: not TOML"),
        (Mistake("site.toml", None, "", "no such file"), "site.toml: no such file"),
    ],
)
def test_a_mistake_reads_as_place_then_key_then_text(mistake: Mistake, text: str) -> None:
    assert str(mistake) == text


def test_a_config_error_holds_and_prints_all_its_mistakes() -> None:
    mistakes = (Mistake("a.toml", 1, "x", "one"), Mistake("b.toml", 2, "y", "two"))
    error = ConfigError(mistakes)
    assert error.mistakes == mistakes
    assert str(error) == "a.toml:1: x: one\nb.toml:2: y: two"


def test_a_rejected_message_is_counted_under_its_reason() -> None:
    assert RejectedMessage("hs_param").reason == "hs_param"


def test_a_host_error_names_the_change_tried_and_the_answer() -> None:
    error = HostError("adding 10.0.0.1/8 to vpn-site", "no such device")
    assert (error.step, error.cause) == ("adding 10.0.0.1/8 to vpn-site", "no such device")
    assert str(error) == "adding 10.0.0.1/8 to vpn-site: no such device"


def test_a_plane_error_prints_its_text_before_its_code() -> None:
    error = PlaneError("gone", "the plane closed its socket")
    assert (error.code, error.text) == ("gone", "the plane closed its socket")
    assert str(error) == "the plane closed its socket (gone)"


def test_a_control_error_prints_its_text_alone() -> None:
    error = ControlError("no-such-peer", 'no peer is named "berlin"')
    assert (error.code, error.text) == ("no-such-peer", 'no peer is named "berlin"')
    assert str(error) == 'no peer is named "berlin"'


def test_every_error_of_the_hall_has_one_root() -> None:
    found = {item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)}
    assert found >= {ConfigError, HostError, PlaneError, ControlError, RejectedMessage}
    assert all(issubclass(item, VpndError) for item in found)
